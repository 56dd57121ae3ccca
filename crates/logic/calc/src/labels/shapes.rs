//! Labels without their keys: most endpoints carry the same few lists of keys, which are kept once.

use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::ids::Ids;
use super::set::{Pairs, put_length, size_of_length, take_length};
use crate::short_hash::ShortHash;
use crate::slab::Slab;

/// Number of a list of keys.
pub(super) type ShapeId = u32;

/// The values of labels, and the parents of what carries them.
///
/// Layout: the number of parents, their numbers, then each value's length and text in the order of the shape's keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) shape: ShapeId,
    /// Of all that is here.
    pub(super) hash: ShortHash,
    bytes: Box<[u8]>,
}

impl Packed {
    pub(super) fn parents(&self) -> impl Iterator<Item = u32> + '_ {
        let (count, mut rest) = take_length(&self.bytes).unwrap_or_default();
        (0..count).map_while(move |_| {
            let (parent, after) = take_length(rest)?;
            rest = after;
            u32::try_from(parent).ok()
        })
    }

    /// The values, in the order of the shape's keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.texts().map(text)
    }

    /// The value of the key at this place of the shape.
    pub(super) fn value(&self, at: usize) -> Option<&str> {
        self.bytes_at(at).map(text)
    }

    /// The same as bytes.
    pub(super) fn bytes_at(&self, at: usize) -> Option<&[u8]> {
        let mut rest = self.after_parents();
        for _ in 0..at {
            let (length, after) = take_length(rest)?;
            rest = after.get(length..)?;
        }
        let (length, after) = take_length(rest)?;
        after.get(..length)
    }

    fn after_parents(&self) -> &[u8] {
        let (count, mut rest) = take_length(&self.bytes).unwrap_or_default();
        for _ in 0..count {
            rest = take_length(rest).map_or(&[], |(_, after)| after);
        }
        rest
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.after_parents();
        std::iter::from_fn(move || {
            let (length, after) = take_length(rest)?;
            let (value, after) = after.split_at(length);
            rest = after;
            Some(value)
        })
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("texts were packed")
}

#[derive(Debug)]
struct Shape {
    /// Sorted.
    keys: Arc<[Arc<str>]>,
    users: usize,
}

/// All lists of keys that something carries.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    shapes: Slab<Shape>,
    by_keys: HashMap<Arc<[Arc<str>]>, ShapeId>,
    having: HashMap<Arc<str>, Ids>,
    /// The next one is likely of the same shape.
    last: ShapeId,
    hasher: DefaultHashBuilder,
}

impl Shapes {
    /// Packs labels as one more user of their shape. Balance with [`Shapes::release`].
    pub(super) fn pack(&mut self, labels: &Pairs<'_>, parents: &[u32]) -> Packed {
        let shape = self.acquire(labels);
        let texts: usize = labels.iter().map(|(_, value)| size_of_length(value.len()) + value.len()).sum();
        let numbers: usize = parents.iter().map(|parent| size_of_length(*parent as usize)).sum();
        // Just so many, so that nothing is moved afterwards.
        let mut bytes = Vec::with_capacity(size_of_length(parents.len()) + numbers + texts);
        put_length(&mut bytes, parents.len());
        for parent in parents {
            put_length(&mut bytes, *parent as usize);
        }
        for (_, value) in labels.iter() {
            put_length(&mut bytes, value.len());
            bytes.extend_from_slice(value.as_bytes());
        }
        Packed { shape, hash: ShortHash::of(&self.hasher, (shape, &bytes)), bytes: bytes.into_boxed_slice() }
    }

    /// One user of a shape less; the last one takes it along.
    pub(super) fn release(&mut self, id: ShapeId) {
        let shape = self.shapes.get_mut(id).expect("shapes live as long as they have users");
        shape.users -= 1;
        if shape.users > 0 {
            return;
        }
        let Shape { keys, users: _ } = self.shapes.remove(id).expect("it was just there");
        self.by_keys.remove(&keys);
        for key in keys.iter() {
            let shapes = self.having.get_mut(key).expect("every key of a shape is noted");
            shapes.remove(id);
            if shapes.is_empty() {
                self.having.remove(key);
            }
        }
    }

    /// The shapes that have a key, in order.
    pub(super) fn having(&self, key: &str) -> Option<&Ids> {
        self.having.get(key)
    }

    /// How many carry a key.
    pub(super) fn count(&self, key: &str) -> usize {
        let shapes = self.having.get(key).into_iter().flat_map(Ids::iter);
        shapes.filter_map(|id| self.shapes.get(id)).map(|shape| shape.users).sum()
    }

    /// The value under a key.
    pub(super) fn value<'a>(&self, labels: &'a Packed, key: &str) -> Option<&'a str> {
        labels.value(self.place(labels.shape, key)?)
    }

    /// Where a key stands in a shape.
    pub(super) fn place(&self, shape: ShapeId, key: &str) -> Option<usize> {
        self.keys(shape).binary_search_by(|known| (**known).cmp(key)).ok()
    }

    /// Keys and values, sorted by key.
    pub(super) fn labels<'a>(&'a self, labels: &'a Packed) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.keys(labels.shape).iter().map(|key| &**key).zip(labels.values())
    }

    fn keys(&self, id: ShapeId) -> &[Arc<str>] {
        self.shapes.get(id).map_or(&[], |shape| &shape.keys)
    }

    fn acquire(&mut self, labels: &Pairs<'_>) -> ShapeId {
        let keys = || labels.iter().map(|(key, _)| *key);
        if let Some(last) = self.shapes.get_mut(self.last)
            && keys().eq(last.keys.iter().map(|key| &**key))
        {
            last.users += 1;
            return self.last;
        }
        let shared = |key: &str| match self.having.get_key_value(key) {
            Some((known, _)) => known.clone(),
            None => Arc::from(key),
        };
        let keys: Arc<[Arc<str>]> = keys().map(shared).collect();
        self.last = match self.by_keys.get(&keys) {
            Some(id) => *id,
            None => {
                let id = self.shapes.insert(Shape { keys: keys.clone(), users: 0 });
                for key in keys.iter() {
                    self.having.entry(key.clone()).or_default().insert(id);
                }
                self.by_keys.insert(keys, id);
                id
            }
        };
        self.shapes.get_mut(self.last).expect("just found or made").users += 1;
        self.last
    }
}
