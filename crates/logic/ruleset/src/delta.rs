//! What changes between two rulesets, to be committed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Chain, Element, Name, Ruleset, Set, SetType};

/// What happens to one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetEdit {
    /// The set is new.
    Create(Arc<Set>),
    /// Elements change. Removals go first: an added prefix may cover removed ones.
    Change {
        /// Type of the set.
        set_type: SetType,
        /// Elements that come; none of them is there.
        added: BTreeSet<Element>,
        /// Elements that go; all of them are there.
        removed: BTreeSet<Element>,
    },
    /// The set goes; no rule refers to it any more.
    Remove,
}

/// What happens to one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEdit {
    /// The chain is new.
    Create(Arc<Chain>),
    /// All rules of the chain are replaced.
    Replace(Arc<Chain>),
    /// The chain goes; no rule or map refers to it any more.
    Remove,
}

/// What happens to one dispatch map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapEdit {
    /// Whether the map itself is new.
    pub create: bool,
    /// Whether the map itself goes.
    pub remove: bool,
    /// Interfaces that come, or that get another chain.
    pub added: BTreeMap<Arc<str>, Name>,
    /// Interfaces that go, or whose chain changes: they are in `added` too.
    pub removed: BTreeMap<Arc<str>, Name>,
}

/// The edits from one ruleset to another. Everything that an edit refers to is in the new ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Sets.
    pub sets: BTreeMap<Name, SetEdit>,
    /// Chains.
    pub chains: BTreeMap<Name, ChainEdit>,
    /// Dispatch maps.
    pub maps: BTreeMap<Name, MapEdit>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }

    /// The edits that lead from `have` to `want`.
    pub fn between(have: &Ruleset, want: &Ruleset) -> Delta {
        let mut delta = Delta::default();
        for name in keys(&have.sets, &want.sets) {
            delta.set(name, have.sets.get(name), want.sets.get(name));
        }
        for name in keys(&have.chains, &want.chains) {
            delta.chain(name, have.chains.get(name), want.chains.get(name));
        }
        for name in keys(&have.maps, &want.maps) {
            let (had, wanted) = (have.maps.get(name), want.maps.get(name));
            let edit = delta.maps.entry(name.clone()).or_default();
            edit.create = had.is_none();
            edit.remove = wanted.is_none();
            let empty = BTreeMap::new();
            let (before, after) = (had.map_or(&empty, |m| m), wanted.map_or(&empty, |m| m));
            let differs = |(k, v): &(&Arc<str>, &Name), other: &BTreeMap<Arc<str>, Name>| other.get(*k) != Some(v);
            edit.removed = before.iter().filter(|e| differs(e, after)).map(|(k, v)| (k.clone(), v.clone())).collect();
            edit.added = after.iter().filter(|e| differs(e, before)).map(|(k, v)| (k.clone(), v.clone())).collect();
            if *edit == MapEdit::default() {
                delta.maps.remove(name);
            }
        }
        delta
    }

    pub(crate) fn set(&mut self, name: &Name, had: Option<&Arc<Set>>, wanted: Option<&Arc<Set>>) {
        let edit = match (had, wanted) {
            (None, None) => return,
            (None, Some(set)) => SetEdit::Create(set.clone()),
            (Some(_), None) => SetEdit::Remove,
            (Some(had), Some(set)) => {
                let added: BTreeSet<_> = set.elements.difference(&had.elements).cloned().collect();
                let removed: BTreeSet<_> = had.elements.difference(&set.elements).cloned().collect();
                if added.is_empty() && removed.is_empty() {
                    return;
                }
                SetEdit::Change { set_type: set.set_type, added, removed }
            }
        };
        self.sets.insert(name.clone(), edit);
    }

    pub(crate) fn chain(&mut self, name: &Name, had: Option<&Arc<Chain>>, wanted: Option<&Arc<Chain>>) {
        let edit = match (had, wanted) {
            (None, None) => return,
            (None, Some(chain)) => ChainEdit::Create(chain.clone()),
            (Some(_), None) => ChainEdit::Remove,
            (Some(had), Some(chain)) if had == chain => return,
            (Some(_), Some(chain)) => ChainEdit::Replace(chain.clone()),
        };
        self.chains.insert(name.clone(), edit);
    }
}

fn keys<'a, V>(a: &'a BTreeMap<Name, V>, b: &'a BTreeMap<Name, V>) -> BTreeSet<&'a Name> {
    a.keys().chain(b.keys()).collect()
}
