//! Who carries and who lends each value of a label, for the keys alone by whose values selectors were looked for: of
//! the labels that pods carry, most are never asked for.

use hashbrown::HashMap;

use super::filing::{Postings, short_hash};
use super::{ClassId, parents::ParentId};

/// Keys that no selector asks for any more stay this long beside those that are: selectors come and go.
const SPARE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Drawer {
    /// How many selectors are filed under values of the key.
    users: usize,
    /// Classes by the value that is their own.
    carried: Postings,
    /// Profiles by the value that they lend.
    lent: Postings,
}

impl Drawer {
    pub(super) fn new(carried: Postings, lent: Postings) -> Drawer {
        Drawer { users: 0, carried, lent }
    }

    /// Who may carry the value themselves.
    pub(super) fn carriers(&self, value: &str) -> impl Iterator<Item = ClassId> + '_ {
        self.carried.under(short_hash(&[value]))
    }

    /// Who may lend the value.
    pub(super) fn lenders(&self, value: &str) -> impl Iterator<Item = ParentId> + '_ {
        self.lent.under(short_hash(&[value]))
    }

    /// How many there are, as far as that matters; a lender counts as one.
    pub(super) fn crowd(&self, value: &str) -> usize {
        let hash = short_hash(&[value]);
        self.carried.crowd(hash) + self.lent.crowd(hash)
    }
}

/// One drawer a key.
#[derive(Debug, Default)]
pub(super) struct Drawers {
    by_key: HashMap<Box<str>, Drawer>,
    unused: usize,
}

impl Drawers {
    pub(super) fn get(&self, key: &str) -> Option<&Drawer> {
        self.by_key.get(key)
    }

    /// One more selector is filed under values of a key; `fill` tells who has it now.
    pub(super) fn want(&mut self, key: &str, fill: impl FnOnce() -> Drawer) {
        match self.by_key.get_mut(key) {
            Some(drawer) => {
                self.unused -= usize::from(drawer.users == 0);
                drawer.users += 1;
            }
            None => {
                self.by_key.insert(key.into(), Drawer { users: 1, ..fill() });
            }
        }
    }

    /// One selector less.
    pub(super) fn unwant(&mut self, key: &str) {
        let Some(drawer) = self.by_key.get_mut(key) else { return };
        drawer.users -= 1;
        self.unused += usize::from(drawer.users == 0);
        if self.unused > self.by_key.len() / 2 + SPARE {
            self.by_key.retain(|_, drawer| drawer.users > 0);
            self.unused = 0;
        }
    }

    pub(super) fn carry<'a>(&mut self, class: ClassId, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.each(labels, |drawer, hash| drawer.carried.insert(hash, class));
    }

    pub(super) fn drop_carrier<'a>(&mut self, class: ClassId, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.each(labels, |drawer, hash| drawer.carried.remove(hash, class));
    }

    pub(super) fn lend<'a>(&mut self, parent: ParentId, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.each(labels, |drawer, hash| drawer.lent.insert(hash, parent));
    }

    pub(super) fn drop_lender<'a>(&mut self, parent: ParentId, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.each(labels, |drawer, hash| drawer.lent.remove(hash, parent));
    }

    fn each<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>, mut act: impl FnMut(&mut Drawer, u32)) {
        if self.by_key.is_empty() {
            return;
        }
        for (key, value) in labels {
            if let Some(drawer) = self.by_key.get_mut(key) {
                act(drawer, short_hash(&[value]));
            }
        }
    }
}
