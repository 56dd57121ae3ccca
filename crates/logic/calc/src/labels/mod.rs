//! Which endpoints and network sets match a selector, with labels inherited from profiles?
//!
//! Everything with the same own labels and the same profiles forms one class. Selectors are matched against classes,
//! so thousands of replicas cost as much as one.

mod filing;
mod index;

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_selector::Labels;

use crate::strings::Strings;

pub(crate) use index::{ClassId, Index, ItemId, SelectorId, symmetric_difference};

/// Labels, sorted by key.
pub(crate) type LabelSet = Arc<[(Arc<str>, Arc<str>)]>;

/// Interns labels. Of two with one key the later wins.
pub(crate) fn label_set<'a>(strings: &mut Strings, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSet {
    let merged: BTreeMap<&str, &str> = labels.into_iter().collect();
    merged.into_iter().map(|(key, value)| (strings.get(key), strings.get(value))).collect()
}

/// What decides which selectors an endpoint matches: its own labels, and the profiles whose labels it inherits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) own: LabelSet,
    pub(crate) parents: Arc<[Arc<str>]>,
}

/// A class's labels as selectors see them: own labels first, then those of the first profile that has the key.
pub(crate) struct Effective<'a> {
    own: &'a LabelSet,
    parents: Vec<&'a LabelSet>,
}

impl<'a> Effective<'a> {
    /// Every label that a selector can see, once.
    fn visible(&self) -> BTreeMap<&'a Arc<str>, &'a Arc<str>> {
        let mut out = BTreeMap::new();
        for (key, value) in std::iter::once(self.own).chain(self.parents.iter().copied()).flat_map(|set| set.iter()) {
            out.entry(key).or_insert(value);
        }
        out
    }
}

impl Labels for Effective<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let find = |set: &LabelSet| set.binary_search_by(|(k, _)| (**k).cmp(key)).ok();
        if let Some(at) = find(self.own) {
            return Some(&self.own[at].1);
        }
        self.parents.iter().find_map(|set| find(set).map(|at| &*set[at].1))
    }
}
