//! Sets of small numbers, most of which hold one.

use std::collections::{BTreeSet, btree_set};

/// Numbers, in order. None and one take no heap.
#[allow(clippy::box_collection, reason = "there are hundreds of thousands, most of them without a tree")]
#[derive(Clone, Debug, Default)]
pub(crate) enum Ids {
    #[default]
    None,
    One(u32),
    Many(Box<BTreeSet<u32>>),
}

impl Ids {
    /// No numbers at all.
    pub(crate) const EMPTY: &Ids = &Ids::None;

    pub(crate) fn insert(&mut self, id: u32) {
        match self {
            Ids::None => *self = Ids::One(id),
            Ids::One(only) if *only == id => {}
            Ids::One(only) => *self = Ids::Many(Box::new(BTreeSet::from([*only, id]))),
            Ids::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Ids::None => {}
            Ids::One(only) if *only == id => *self = Ids::None,
            Ids::One(_) => {}
            Ids::Many(ids) => {
                ids.remove(&id);
                match (ids.len(), ids.first()) {
                    (0 | 1, Some(only)) => *self = Ids::One(*only),
                    (0, None) => *self = Ids::None,
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        match self {
            Ids::None => false,
            Ids::One(only) => *only == id,
            Ids::Many(ids) => ids.contains(&id),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Ids::None)
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        match self {
            Ids::None => Iter::One(None),
            Ids::One(id) => Iter::One(Some(*id)),
            Ids::Many(ids) => Iter::Many(ids.iter()),
        }
    }
}

/// Numbers, in order.
pub(crate) enum Iter<'a> {
    One(Option<u32>),
    Many(btree_set::Iter<'a, u32>),
}

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Iter::One(only) => only.take(),
            Iter::Many(ids) => ids.next().copied(),
        }
    }
}

impl FromIterator<u32> for Ids {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Ids {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        match (ids.len(), ids.first()) {
            (1, Some(only)) => Ids::One(*only),
            (0, _) | (_, None) => Ids::None,
            _ => Ids::Many(Box::new(ids)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_set_whatever_they_take() {
        let mut ids = Ids::default();
        let mut model = BTreeSet::new();
        for step in 0..2000_u32 {
            let id = step.wrapping_mul(2_654_435_761) >> 29;
            if step / 8 % 3 == 0 {
                ids.remove(id);
                model.remove(&id);
            } else {
                ids.insert(id);
                model.insert(id);
            }
            assert!(ids.iter().eq(model.iter().copied()), "step {step}");
            assert_eq!(ids.is_empty(), model.is_empty());
            assert_eq!(ids.contains(id), model.contains(&id));
            assert!(model.iter().copied().collect::<Ids>().iter().eq(model.iter().copied()));
        }
    }
}
