//! The ruleset is a function of the tables, never of their history.

mod arbitrary;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use tortie_desired::Tables;
use tortie_ruleset::{ChainEdit, ChoiceEdit, Delta, Element, Match, Renderer, Ruleset, SetEdit, SetType, Verdict};

/// Does to a ruleset what a backend does to the kernel, and minds what a kernel would refuse.
fn apply(ruleset: &mut Ruleset, delta: &Delta) {
    for (name, edit) in &delta.sets {
        match edit {
            SetEdit::Create(set) => assert!(ruleset.sets.insert(name.clone(), set.clone()).is_none(), "{name}"),
            SetEdit::Change { set_type, added, removed } => {
                let set = Arc::make_mut(ruleset.sets.get_mut(name).expect("a set that changes is there"));
                assert_eq!(set.set_type, *set_type);
                assert!(removed.iter().all(|e| set.elements.remove(e)), "{name}: removing what is not there");
                assert!(added.iter().all(|e| set.elements.insert(e.clone())), "{name}: adding what is there");
            }
            SetEdit::Remove => assert!(ruleset.sets.remove(name).is_some(), "{name}"),
        }
    }
    for (name, edit) in &delta.chains {
        match edit {
            ChainEdit::Create(chain) => assert!(ruleset.chains.insert(name.clone(), chain.clone()).is_none()),
            ChainEdit::Replace { had, now } => {
                let before = ruleset.chains.insert(name.clone(), now.clone()).expect("a chain that changes is there");
                assert_eq!((before.base, &before.rules), (had.base, &had.rules));
            }
            ChainEdit::Remove => assert!(ruleset.chains.remove(name).is_some()),
        }
    }
    for (name, edit) in &delta.choices {
        match edit {
            ChoiceEdit::Create(map) => assert!(ruleset.choices.insert(name.clone(), map.clone()).is_none(), "{name}"),
            ChoiceEdit::Change { key, added, removed } => {
                let map = Arc::make_mut(ruleset.choices.get_mut(name).expect("a map that changes is there"));
                assert_eq!(map.key, *key);
                removed.iter().for_each(|(range, chain)| assert_eq!(map.chains.remove(range).as_ref(), Some(chain)));
                added.iter().for_each(|(range, to)| assert_eq!(map.chains.insert(*range, to.clone()), None));
            }
            ChoiceEdit::Remove => assert!(ruleset.choices.remove(name).is_some(), "{name}"),
        }
    }
    for (name, edit) in &delta.maps {
        if edit.remove {
            ruleset.maps.remove(name);
            continue;
        }
        let map = Arc::make_mut(ruleset.maps.entry(name.clone()).or_default());
        for (interface, chain) in &edit.removed {
            assert_eq!(map.remove(interface), Some(chain.clone()));
        }
        for (interface, chain) in &edit.added {
            assert_eq!(map.insert(interface.clone(), chain.clone()), None);
        }
    }
}

/// What a kernel holds of a ruleset: it does not know which sets are lists of single rules.
fn held(ruleset: &Ruleset) -> Ruleset {
    let mut held = ruleset.clone();
    held.chains.values_mut().for_each(|chain| Arc::make_mut(chain).literals.clear());
    held
}

/// Everything that rules and maps refer to is there and of the right type, and literal sets are there for a reason.
fn assert_closed(ruleset: &Ruleset) {
    let (mut used, mut chosen) = (BTreeSet::new(), BTreeSet::new());
    for chain in ruleset.chains.values() {
        used.extend(chain.literals.keys().cloned());
        for rule in &chain.rules {
            for wanted in &rule.matches {
                let (set, types) = match wanted {
                    Match::AddressIn { set, family, .. } => {
                        (set, vec![SetType::Addresses(*family), SetType::Nets(*family)])
                    }
                    Match::AddressPortIn { set, family, .. } => (set, vec![SetType::AddressPorts(*family)]),
                    Match::InterfaceAddressIn { set, family, .. } => (set, vec![SetType::InterfaceAddresses(*family)]),
                    Match::PortIn { set, .. } => (set, vec![SetType::Ports]),
                    Match::InterfaceIn { set, .. } => (set, vec![SetType::Interfaces]),
                    _ => continue,
                };
                assert!(types.contains(&ruleset.sets[set].set_type), "{set}");
            }
            match &rule.verdict {
                Some(Verdict::Jump(name) | Verdict::Goto(name)) => assert!(ruleset.chains.contains_key(name)),
                Some(Verdict::Dispatch { map, .. }) => assert!(ruleset.maps.contains_key(map)),
                Some(Verdict::Choose { key, map }) => {
                    assert_eq!(ruleset.choices[map].key, *key);
                    assert!(chosen.insert(map.clone()), "{map} is one chain's only");
                }
                _ => {}
            }
        }
    }
    for chain in ruleset.maps.values().flat_map(|map| map.values()) {
        assert!(ruleset.chains.contains_key(chain));
    }
    for (name, map) in &ruleset.choices {
        assert!(chosen.contains(name), "{name} is there for nothing");
        assert!(map.chains.values().all(|chain| ruleset.chains.contains_key(chain)));
        let ranges: Vec<_> = map.chains.keys().collect();
        assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first), "{name}: {ranges:?}");
    }
    for (name, set) in &ruleset.sets {
        assert!(name.as_bytes()[5] != b'l' || used.contains(name), "{name} is there for nothing");
        let nets: Vec<_> = set.elements.iter().collect();
        for pair in nets.windows(2) {
            if let (Element::Net(a), Element::Net(b)) = (pair[0], pair[1]) {
                assert!(!a.contains(b), "{a} covers {b} in {name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batch_after_batch_equals_all_at_once(
        mut batches in proptest::collection::vec(arbitrary::batch(), 1..8),
        run in proptest::sample::select(vec![Some(1), Some(2), None]),
        narrow in any::<bool>(),
    ) {
        if narrow {
            batches.iter_mut().for_each(arbitrary::narrow);
        }
        let mut tables = Tables::default();
        let mut renderer = Renderer::with_runs(&tables, 200, run);
        let mut kernel = renderer.ruleset().clone();
        for batch in &batches {
            tables.apply(batch);
            let delta = renderer.update(&tables, batch);
            apply(&mut kernel, &delta);
            prop_assert_eq!(held(&kernel), held(renderer.ruleset()));
            let afresh = Renderer::with_runs(&tables, 200, run);
            prop_assert_eq!(afresh.ruleset(), renderer.ruleset());
            assert_closed(renderer.ruleset());
        }
        prop_assert!(renderer.update(&tables, &tortie_desired::Batch::default()).is_empty());
    }
}
