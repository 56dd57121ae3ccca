//! The labels of one class after the other, as one selector sees them.

use std::cell::RefCell;

use tortie_selector::Labels;

use super::shapes::{Packed, ShapeId, Shapes};

/// Where a key of the selector was in the labels that were looked at last.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The very text in the selector, which is asked for again with each class.
    key: *const str,
    source: usize,
    shape: ShapeId,
    at: Option<usize>,
}

/// Reads labels for one selector. Most classes in a row are of one shape, in which a key is looked for once.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    shapes: &'a Shapes,
    /// Own labels, then those of profiles; the first that has a key counts.
    sources: Vec<&'a Packed>,
    places: RefCell<Vec<Place>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(shapes: &'a Shapes) -> Reader<'a> {
        Reader { shapes, sources: Vec::new(), places: RefCell::default() }
    }

    /// From now on these labels are read.
    pub(super) fn turn_to(&mut self, sources: impl Iterator<Item = &'a Packed>) {
        self.sources.clear();
        self.sources.extend(sources);
    }

    fn place(&self, key: &str, source: usize, shape: ShapeId) -> Option<usize> {
        let mut places = self.places.borrow_mut();
        let known = places.iter_mut().find(|place| std::ptr::eq(place.key, key) && place.source == source);
        match known {
            Some(place) if place.shape == shape => place.at,
            Some(place) => {
                (place.shape, place.at) = (shape, self.shapes.place(shape, key));
                place.at
            }
            None => {
                let at = self.shapes.place(shape, key);
                places.push(Place { key, source, shape, at });
                at
            }
        }
    }
}

impl Labels for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut sources = self.sources.iter().enumerate();
        sources.find_map(|(at, labels)| labels.value(self.place(key, at, labels.shape)?))
    }

    fn has(&self, key: &str) -> bool {
        self.sources.iter().enumerate().any(|(at, labels)| self.place(key, at, labels.shape).is_some())
    }
}
