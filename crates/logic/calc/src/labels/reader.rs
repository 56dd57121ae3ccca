//! The labels of one class after the other, as one selector sees them.

use std::cell::RefCell;

use tortie_selector::Labels;

use super::shapes::{Packed, ShapeId, Shapes};

/// Where a key of the selector is in labels of such shapes.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The very text in the selector, which is asked for again with each class.
    key: *const str,
    /// Whose labels have it, and where they do.
    at: Option<(usize, usize)>,
}

/// Reads labels for one selector. Most classes in a row are of the same shapes, in which a key is looked for once.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    shapes: &'a Shapes,
    /// Own labels, then those of profiles; the first that has a key counts.
    sources: Vec<&'a Packed>,
    /// The shapes of the sources, which `places` is about.
    shape_ids: Vec<ShapeId>,
    places: RefCell<Vec<Place>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(shapes: &'a Shapes) -> Reader<'a> {
        Reader { shapes, sources: Vec::new(), shape_ids: Vec::new(), places: RefCell::default() }
    }

    /// From now on these labels are read.
    pub(super) fn turn_to(&mut self, own: &'a Packed, lent: impl Iterator<Item = &'a Packed>) {
        self.sources.clear();
        self.sources.push(own);
        for labels in lent {
            self.sources.push(labels);
        }
        if !self.sources.iter().map(|labels| labels.shape).eq(self.shape_ids.iter().copied()) {
            self.shape_ids.clear();
            self.shape_ids.extend(self.sources.iter().map(|labels| labels.shape));
            self.places.get_mut().clear();
        }
    }

    fn find(&self, key: &str) -> Option<(usize, usize)> {
        if let Some(known) = self.places.borrow().iter().find(|place| std::ptr::eq(place.key, key)) {
            return known.at;
        }
        let mut shapes = self.shape_ids.iter().enumerate();
        let at = shapes.find_map(|(source, shape)| Some((source, self.shapes.place(*shape, key)?)));
        self.places.borrow_mut().push(Place { key, at });
        at
    }
}

impl Labels for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let (source, at) = self.find(key)?;
        self.sources.get(source)?.value(at)
    }

    fn is(&self, key: &str, value: &str) -> bool {
        let Some((source, at)) = self.find(key) else { return false };
        self.sources.get(source).is_some_and(|labels| labels.bytes_at(at) == Some(value.as_bytes()))
    }

    fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }
}
