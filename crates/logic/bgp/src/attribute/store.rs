//! The store that makes equal attribute sets one allocation.
//!
//! Invariant: unused sets stay at most until the store has doubled, so its size is bounded by what is in use.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Attributes;

/// Sets smaller than this are never swept.
const SWEEP_FLOOR: usize = 1024;

/// Interned attributes.
#[derive(Debug, Default)]
pub(crate) struct AttributeStore {
    sets: BTreeSet<Arc<Attributes>>,
    sweep_at: usize,
}

impl AttributeStore {
    /// The shared form of a set.
    pub(crate) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(shared) = self.sets.get(&attributes) {
            return Arc::clone(shared);
        }
        if self.sets.len() >= self.sweep_at.max(SWEEP_FLOOR) {
            self.sets.retain(|shared| Arc::strong_count(shared) > 1);
            self.sweep_at = self.sets.len() * 2;
        }
        let shared = Arc::new(attributes);
        self.sets.insert(Arc::clone(&shared));
        shared
    }

    /// How many sets are held, unused ones included.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_and_unused_ones_go() {
        let mut store = AttributeStore::default();
        let with = |med| Attributes { med: Some(med), ..Attributes::default() };
        let kept = store.intern(with(1));
        assert!(Arc::ptr_eq(&kept, &store.intern(with(1))));
        for med in 0..100_000 {
            store.intern(with(med));
        }
        assert!(store.len() <= SWEEP_FLOOR + 1, "{}", store.len());
        assert!(Arc::ptr_eq(&kept, &store.intern(with(1))));
    }
}
