//! Which endpoints and network sets match a selector, with labels inherited from profiles?
//!
//! Everything with the same own labels and the same profiles forms one class. Selectors are matched against classes,
//! so thousands of replicas cost as much as one.

mod drawers;
mod filing;
mod ids;
mod index;
mod set;

use std::sync::Arc;

use tortie_selector::Labels;

pub(crate) use index::{ClassId, Index, ItemId, SelectorId, symmetric_difference};
pub(crate) use set::LabelSet;

/// What decides which selectors an endpoint matches: its own labels, and the profiles whose labels it inherits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) own: LabelSet,
    pub(crate) parents: Arc<[Arc<str>]>,
}

/// A class's labels as selectors see them: own labels first, then those of the first profile that has the key.
pub(crate) struct Effective<'a> {
    own: &'a LabelSet,
    parents: Vec<&'a LabelSet>,
}

impl Effective<'_> {
    /// Every label that is there, those that another hides too.
    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::once(self.own).chain(self.parents.iter().copied()).flat_map(LabelSet::iter)
    }
}

impl Labels for Effective<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.own.get(key).or_else(|| self.parents.iter().find_map(|labels| labels.get(key)))
    }
}
