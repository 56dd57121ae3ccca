//! What changes between two rulesets, to be committed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Chain, ChoiceKey, ChoiceMap, Element, KeyRange, Name, Ruleset, Set, SetType};

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
    /// The chain gets other rules. A backend may leave those that stay as they are, with what they have counted.
    Replace {
        /// The chain as it was.
        had: Arc<Chain>,
        /// The chain as it is to be.
        now: Arc<Chain>,
    },
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

/// What happens to one map that rules choose by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoiceEdit {
    /// The map is new.
    Create(Arc<ChoiceMap>),
    /// Entries change. Removals go first: an added range may overlap removed ones.
    Change {
        /// What the keys are.
        key: ChoiceKey,
        /// Entries that come.
        added: BTreeMap<KeyRange, Name>,
        /// Entries that go; all of them are there.
        removed: BTreeMap<KeyRange, Name>,
    },
    /// The map goes; no rule refers to it any more.
    Remove,
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
    /// Maps that rules choose by.
    pub choices: BTreeMap<Name, ChoiceEdit>,
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
        for name in keys(&have.choices, &want.choices) {
            delta.choice(name, have.choices.get(name), want.choices.get(name));
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

    /// A map's name tells its key, so one that is there keeps it.
    pub(crate) fn choice(&mut self, name: &Name, had: Option<&Arc<ChoiceMap>>, wanted: Option<&Arc<ChoiceMap>>) {
        let edit = match (had, wanted) {
            (None, None) => return,
            (None, Some(map)) => ChoiceEdit::Create(map.clone()),
            (Some(_), None) => ChoiceEdit::Remove,
            (Some(had), Some(map)) => {
                let missing = |from: &ChoiceMap, to: &ChoiceMap| -> BTreeMap<KeyRange, Name> {
                    let differs = |(range, chain): &(&KeyRange, &Name)| to.chains.get(*range) != Some(*chain);
                    from.chains.iter().filter(differs).map(|(range, chain)| (*range, chain.clone())).collect()
                };
                let (added, removed) = (missing(map, had), missing(had, map));
                if added.is_empty() && removed.is_empty() {
                    return;
                }
                ChoiceEdit::Change { key: map.key, added, removed }
            }
        };
        self.choices.insert(name.clone(), edit);
    }

    pub(crate) fn chain(&mut self, name: &Name, had: Option<&Arc<Chain>>, wanted: Option<&Arc<Chain>>) {
        let edit = match (had, wanted) {
            (None, None) => return,
            (None, Some(chain)) => ChainEdit::Create(chain.clone()),
            (Some(_), None) => ChainEdit::Remove,
            (Some(had), Some(chain)) if had.holds_rules_of(chain) => return,
            (Some(had), Some(chain)) => ChainEdit::Replace { had: had.clone(), now: chain.clone() },
        };
        self.chains.insert(name.clone(), edit);
    }
}

fn keys<'a, V>(a: &'a BTreeMap<Name, V>, b: &'a BTreeMap<Name, V>) -> BTreeSet<&'a Name> {
    a.keys().chain(b.keys()).collect()
}
