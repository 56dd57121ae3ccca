//! Profiles as the lenders of labels.

use hashbrown::HashTable;
use hashbrown::hash_map::{Entry, HashMap};

use super::ids::Ids;
use super::shapes::{Packed, ShapeId};
use crate::key_hash::{KeyHash, KeyHasher};
use crate::slab::Slab;

/// Number of a profile.
pub(crate) type ParentId = u32;

#[derive(Debug)]
pub(super) struct Parent {
    /// Of its name.
    hash: KeyHash,
    /// `None` if the profile is not there, only named.
    pub(super) labels: Option<Packed>,
    /// Who inherits from it.
    pub(super) classes: Ids,
}

/// Every profile that is there or named.
#[derive(Debug, Default)]
pub(super) struct Parents {
    known: Slab<Parent>,
    /// The shapes of labels that are lent, and by how many.
    lent: HashMap<ShapeId, usize>,
    by_name: HashTable<ParentId>,
    hasher: KeyHasher,
}

impl Parents {
    pub(super) fn find(&self, name: &str) -> Option<ParentId> {
        if self.by_name.is_empty() {
            return None;
        }
        self.find_hash(self.hasher.hash(name))
    }

    pub(super) fn find_or_make(&mut self, name: &str) -> ParentId {
        let hash = self.hasher.hash(name);
        if let Some(id) = self.find_hash(hash) {
            return id;
        }
        let id = self.known.insert(Parent { hash, labels: None, classes: Ids::None });
        let Parents { known, lent: _, by_name, hasher: _ } = self;
        by_name.insert_unique(hash.short(), id, |id| known.get(*id).map_or(0, |parent| parent.hash.short()));
        id
    }

    fn find_hash(&self, hash: KeyHash) -> Option<ParentId> {
        let is = |id: &ParentId| self.known.get(*id).is_some_and(|parent| parent.hash == hash);
        self.by_name.find(hash.short(), is).copied()
    }

    pub(super) fn get(&self, id: ParentId) -> Option<&Parent> {
        self.known.get(id)
    }

    pub(super) fn get_mut(&mut self, id: ParentId) -> &mut Parent {
        self.known.get_mut(id).expect("profiles live as long as something inherits from them")
    }

    /// Replaces the labels that a profile lends; those that it lent.
    pub(super) fn lend(&mut self, id: ParentId, labels: Option<Packed>) -> Option<Packed> {
        if let Some(new) = &labels {
            *self.lent.entry(new.shape).or_default() += 1;
        }
        let old = std::mem::replace(&mut self.get_mut(id).labels, labels);
        if let Some(old) = &old
            && let Entry::Occupied(mut lenders) = self.lent.entry(old.shape)
        {
            *lenders.get_mut() -= 1;
            if *lenders.get() == 0 {
                lenders.remove();
            }
        }
        old
    }

    /// The shapes of all labels that are lent.
    pub(super) fn lent_shapes(&self) -> impl ExactSizeIterator<Item = ShapeId> {
        self.lent.keys().copied()
    }

    /// Forgets a profile that is neither there nor named any more.
    pub(super) fn sweep(&mut self, id: ParentId) {
        let Some(Parent { hash, labels: None, classes: Ids::None }) = self.known.get(id) else { return };
        if let Ok(entry) = self.by_name.find_entry(hash.short(), |found| *found == id) {
            entry.remove();
        }
        self.known.remove(id);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ParentId, &Parent)> {
        self.known.iter()
    }
}
