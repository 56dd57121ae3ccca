//! The ruleset as rendered so far, and what was touched since the last delta was taken.
//!
//! Invariant: a literal set is there exactly as long as a chain refers to it, and so is a chain that records drops, or a
//! map that rules choose by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::delta::{Delta, MapEdit, SetEdit};
use crate::model::{Chain, ChoiceMap, DispatchMap, Element, Name, Ruleset, Set, SetType};
use crate::names::Names;
use crate::record;

#[derive(Clone, Debug, Default)]
struct TouchedSet {
    existed: bool,
    /// Elements that were touched, and whether they were there before.
    before: BTreeMap<Element, bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Current {
    names: Names,
    pub(crate) ruleset: Ruleset,
    literal_users: BTreeMap<Name, usize>,
    /// How many chains end packets in a chain that records them.
    record_users: BTreeMap<Name, usize>,
    sets: BTreeMap<Name, TouchedSet>,
    chains: BTreeMap<Name, Option<Arc<Chain>>>,
    maps: BTreeMap<(Name, Arc<str>), Option<Name>>,
    choices: BTreeMap<Name, Option<Arc<ChoiceMap>>>,
    /// Maps that came or went, and whether they were there before.
    touched_maps: BTreeMap<Name, bool>,
}

impl Current {
    pub(crate) fn new(max_name_len: usize) -> Current {
        Current {
            names: Names { max_len: max_name_len },
            ruleset: Ruleset::default(),
            literal_users: BTreeMap::new(),
            record_users: BTreeMap::new(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
            maps: BTreeMap::new(),
            choices: BTreeMap::new(),
            touched_maps: BTreeMap::new(),
        }
    }

    pub(crate) fn put_chain(&mut self, name: Name, mut chain: Chain) {
        for (end, recording) in record::outline(&mut chain, self.names) {
            let users = self.record_users.entry(end.clone()).or_default();
            *users += 1;
            if *users == 1 {
                let had = self.ruleset.chains.insert(end.clone(), Arc::new(recording));
                self.chains.entry(end).or_insert(had);
            }
        }
        for (literal, set) in &chain.literals {
            let users = self.literal_users.entry(literal.clone()).or_default();
            *users += 1;
            self.put_literal(literal, set);
        }
        let had = self.ruleset.chains.insert(name.clone(), Arc::new(chain));
        self.replaced_chain(name, had);
    }

    /// Puts a map that the rules of the chain that is put next choose by. It goes with that chain.
    pub(crate) fn put_choices(&mut self, name: Name, map: Arc<ChoiceMap>) {
        let had = self.ruleset.choices.insert(name.clone(), map);
        self.choices.entry(name).or_insert(had);
    }

    pub(crate) fn remove_chain(&mut self, name: &Name) {
        if let Some(had) = self.ruleset.chains.remove(name) {
            self.replaced_chain(name.clone(), Some(had));
        }
    }

    fn replaced_chain(&mut self, name: Name, had: Option<Arc<Chain>>) {
        for literal in had.iter().flat_map(|chain| chain.literals.keys()) {
            let users = self.literal_users.get_mut(literal).expect("counted when the chain was put");
            *users -= 1;
            if *users == 0 {
                self.literal_users.remove(literal);
                self.remove_set(literal);
            }
        }
        let now = self.ruleset.chains.get(&name);
        for choice in had.iter().flat_map(|chain| chain.choices()) {
            if !now.is_some_and(|chain| chain.choices().any(|kept| kept == choice)) {
                let had = self.ruleset.choices.remove(choice);
                self.choices.entry(choice.clone()).or_insert(had);
            }
        }
        for end in had.iter().flat_map(|chain| record::ends(chain)) {
            let users = self.record_users.get_mut(&end).expect("counted when the chain was put");
            *users -= 1;
            if *users == 0 {
                self.record_users.remove(&end);
                let had = self.ruleset.chains.remove(&end);
                self.chains.entry(end).or_insert(had);
            }
        }
        self.chains.entry(name).or_insert(had);
    }

    /// Makes a set hold just these elements; it keeps its type if it is there.
    pub(crate) fn put_set(&mut self, name: &Name, set_type: SetType, elements: BTreeSet<Element>) {
        match self.ruleset.sets.get(name) {
            None => self.put_literal(name, &Arc::new(Set { set_type, elements })),
            Some(set) => {
                let removed: Vec<_> = set.elements.difference(&elements).cloned().collect();
                let added: Vec<_> = elements.difference(&set.elements).cloned().collect();
                removed.into_iter().for_each(|e| self.remove_element(name, e));
                added.into_iter().for_each(|e| self.add_element(name, e));
            }
        }
    }

    /// Makes a set hold just what this one does, and shares it.
    fn put_literal(&mut self, name: &Name, set: &Arc<Set>) {
        let had = self.ruleset.sets.insert(name.clone(), set.clone());
        if had.as_ref() == Some(set) {
            return;
        }
        let existed = had.is_some();
        let touched = self.sets.entry(name.clone()).or_insert(TouchedSet { existed, ..TouchedSet::default() });
        // It may also have been removed, and come again, before the delta was taken.
        if touched.existed {
            let had = had.map(|had| had.elements.clone()).unwrap_or_default();
            for element in had.symmetric_difference(&set.elements) {
                touched.before.entry(element.clone()).or_insert(had.contains(element));
            }
        }
    }

    pub(crate) fn remove_set(&mut self, name: &Name) {
        if let Some(set) = self.ruleset.sets.remove(name) {
            let touched = self.sets.entry(name.clone()).or_insert(TouchedSet { existed: true, ..Default::default() });
            if touched.existed {
                for element in &set.elements {
                    touched.before.entry(element.clone()).or_insert(true);
                }
            }
        }
    }

    /// The elements of a set that is there.
    pub(crate) fn elements(&self, name: &Name) -> Option<&BTreeSet<Element>> {
        self.ruleset.sets.get(name).map(|set| &set.elements)
    }

    pub(crate) fn add_element(&mut self, name: &Name, element: Element) {
        self.change_element(name, element, true);
    }

    pub(crate) fn remove_element(&mut self, name: &Name, element: Element) {
        self.change_element(name, element, false);
    }

    fn change_element(&mut self, name: &Name, element: Element, present: bool) {
        let Some(set) = self.ruleset.sets.get_mut(name) else { return };
        if set.elements.contains(&element) == present {
            return;
        }
        let touched = self.sets.entry(name.clone()).or_insert(TouchedSet { existed: true, ..Default::default() });
        if touched.existed {
            touched.before.entry(element.clone()).or_insert(!present);
        }
        let elements = &mut Arc::make_mut(set).elements;
        if present {
            elements.insert(element);
        } else {
            elements.remove(&element);
        }
    }

    /// Makes sure that a dispatch map is there.
    pub(crate) fn put_map(&mut self, name: Name) {
        if !self.ruleset.maps.contains_key(&name) {
            self.ruleset.maps.insert(name.clone(), Arc::new(DispatchMap::new()));
            self.touched_maps.entry(name).or_insert(false);
        }
    }

    /// Makes a map hold just these entries; `None`: it goes.
    pub(crate) fn replace_map(&mut self, name: &Name, wanted: Option<&DispatchMap>) {
        let Some(wanted) = wanted else {
            let had: Vec<Arc<str>> = self.ruleset.maps.get(name).into_iter().flat_map(|m| m.keys().cloned()).collect();
            had.iter().for_each(|interface| self.dispatch(name, interface, None));
            if self.ruleset.maps.remove(name).is_some() {
                self.touched_maps.entry(name.clone()).or_insert(true);
            }
            return;
        };
        self.put_map(name.clone());
        let had = self.ruleset.maps[name].clone();
        for interface in had.keys().filter(|interface| !wanted.contains_key(*interface)) {
            self.dispatch(name, interface, None);
        }
        for (interface, chain) in wanted {
            self.dispatch(name, interface, Some(chain.clone()));
        }
    }

    /// Sets or removes the chain of an interface in a map that is there.
    pub(crate) fn dispatch(&mut self, name: &Name, interface: &Arc<str>, chain: Option<Name>) {
        let map = self.ruleset.maps.get_mut(name).expect("maps are put first");
        if map.get(interface) == chain.as_ref() {
            return;
        }
        let map = Arc::make_mut(map);
        let had = match chain {
            Some(chain) => map.insert(interface.clone(), chain),
            None => map.remove(interface),
        };
        self.maps.entry((name.clone(), interface.clone())).or_insert(had);
    }

    /// What changed since the last call.
    pub(crate) fn take_delta(&mut self) -> Delta {
        let mut delta = Delta::default();
        for (name, touched) in std::mem::take(&mut self.sets) {
            if let Some(edit) = set_edit(touched, self.ruleset.sets.get(&name)) {
                delta.sets.insert(name, edit);
            }
        }
        for (name, had) in std::mem::take(&mut self.chains) {
            delta.chain(&name, had.as_ref(), self.ruleset.chains.get(&name));
        }
        for (name, had) in std::mem::take(&mut self.choices) {
            delta.choice(&name, had.as_ref(), self.ruleset.choices.get(&name));
        }
        for (name, was) in std::mem::take(&mut self.touched_maps) {
            let (create, remove) = match (was, self.ruleset.maps.contains_key(&name)) {
                (false, true) => (true, false),
                (true, false) => (false, true),
                (true, true) | (false, false) => continue,
            };
            delta.maps.insert(name, MapEdit { create, remove, ..MapEdit::default() });
        }
        for ((name, interface), had) in std::mem::take(&mut self.maps) {
            let now = self.ruleset.maps.get(&name).and_then(|map| map.get(&interface)).cloned();
            if had != now {
                let edit = delta.maps.entry(name).or_default();
                edit.removed.extend(had.map(|chain| (interface.clone(), chain)));
                edit.added.extend(now.map(|chain| (interface, chain)));
            }
        }
        delta
    }
}

fn set_edit(touched: TouchedSet, now: Option<&Arc<Set>>) -> Option<SetEdit> {
    let TouchedSet { existed, before } = touched;
    let Some(set) = now else {
        return existed.then_some(SetEdit::Remove);
    };
    if !existed {
        return Some(SetEdit::Create(set.clone()));
    }
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for (element, was) in before {
        match (was, set.elements.contains(&element)) {
            (false, true) => drop(added.insert(element)),
            (true, false) => drop(removed.insert(element)),
            (true, true) | (false, false) => {}
        }
    }
    (!added.is_empty() || !removed.is_empty()).then_some(SetEdit::Change { set_type: set.set_type, added, removed })
}
