//! Deltas and whole rulesets as messages, in an order that the kernel accepts.
//!
//! First what comes (empty chains, sets with elements), then what changes, then what goes: every message finds what it
//! refers to, and nothing goes while something refers to it.

use std::collections::{BTreeMap, BTreeSet};

use tortie_ruleset::{Chain, ChainEdit, ChoiceEdit, Delta, KeyRange, Name, Ruleset, SetEdit};

use crate::compare;
use crate::element::{self, Entry, MAP};
use crate::transaction::Transaction;

/// Handles of the rules of chains that keep some of them.
pub(crate) type Handles = BTreeMap<Name, Vec<u64>>;

/// Writes the edits of a delta.
///
/// The kernel finds a set by going through all of them in the order in which they came. So those whose elements change
/// day by day come first, and lists of single rules last.
pub(crate) fn delta(transaction: &mut Transaction<'_>, delta: &Delta, handles: &Handles) {
    let Delta { sets, chains, maps, choices } = delta;
    for (name, edit) in chains {
        if let ChainEdit::Create(chain) = edit {
            transaction.chain(name, chain.base);
        }
    }
    for (name, _) in maps.iter().filter(|(_, edit)| edit.create) {
        transaction.set(name, MAP);
    }
    let literals = literals(chains);
    for late in [false, true] {
        for (name, edit) in sets.iter().filter(|(name, _)| literals.contains(name) == late) {
            match edit {
                SetEdit::Create(set) => {
                    transaction.typed_set(name, set.set_type);
                    transaction.add_elements(name, &set.elements);
                }
                SetEdit::Change { set_type: _, added, removed } => {
                    transaction.delete_elements(name, removed);
                    transaction.add_elements(name, added);
                }
                SetEdit::Remove => {}
            }
        }
    }
    for (name, edit) in choices {
        if let ChoiceEdit::Create(map) = edit {
            transaction.set(name, element::choice_form(map.key));
        }
    }
    for (name, edit) in chains {
        match edit {
            ChainEdit::Create(chain) => transaction.rules(name, &chain.rules),
            ChainEdit::Replace { had, now } => match handles.get(name) {
                Some(handles) => transaction.change_rules(name, had, now, handles),
                None => {
                    transaction.flush_chain(name);
                    transaction.rules(name, &now.rules);
                }
            },
            ChainEdit::Remove => {}
        }
    }
    for (name, edit) in maps {
        transaction.delete_entries(name, edit.removed.iter().map(|(i, chain)| Entry::dispatch(i, chain)));
        transaction.add_entries(name, edit.added.iter().map(|(i, chain)| Entry::dispatch(i, chain)));
    }
    for (name, edit) in choices {
        let entries = |key, chains: &BTreeMap<KeyRange, Name>| -> Vec<Entry> {
            chains.iter().flat_map(|(range, chain)| Entry::choice(key, range, chain)).collect()
        };
        match edit {
            ChoiceEdit::Create(map) => transaction.add_entries(name, entries(map.key, &map.chains)),
            ChoiceEdit::Change { key, added, removed } => {
                transaction.delete_entries(name, entries(*key, removed));
                transaction.add_entries(name, entries(*key, added));
            }
            ChoiceEdit::Remove => {}
        }
    }
    let gone = || chains.iter().filter(|(_, edit)| **edit == ChainEdit::Remove).map(|(name, _)| name);
    gone().for_each(|name| transaction.flush_chain(name));
    // They may name chains that go.
    for (name, _) in choices.iter().filter(|(_, edit)| **edit == ChoiceEdit::Remove) {
        transaction.delete_set(name);
    }
    gone().for_each(|name| transaction.delete_chain(name));
    for (name, _) in sets.iter().filter(|(_, edit)| **edit == SetEdit::Remove) {
        transaction.delete_set(name);
    }
    for (name, _) in maps.iter().filter(|(_, edit)| edit.remove) {
        transaction.delete_set(name);
    }
}

/// Lists that rules carry themselves.
fn literals(chains: &BTreeMap<Name, ChainEdit>) -> BTreeSet<&Name> {
    let now = chains.values().filter_map(|edit| match edit {
        ChainEdit::Create(now) | ChainEdit::Replace { had: _, now } => Some(now),
        ChainEdit::Remove => None,
    });
    now.flat_map(|chain| chain.literals.keys()).collect()
}

/// The chains that other rules replace but for some that stay.
pub(crate) fn kept_in_part(delta: &Delta) -> impl Iterator<Item = (&Name, &Chain)> {
    delta.chains.iter().filter_map(|(name, edit)| match edit {
        ChainEdit::Replace { had, now } => (compare::kept(had, now) != (0, 0)).then_some((name, &**had)),
        ChainEdit::Create(_) | ChainEdit::Remove => None,
    })
}

/// Writes all of a ruleset into an empty table.
pub(crate) fn everything(transaction: &mut Transaction<'_>, ruleset: &Ruleset) {
    delta(transaction, &Delta::between(&Ruleset::default(), ruleset), &Handles::new());
}

/// The transaction that replaces a table that nobody owns by a ruleset, as the kernel gets it: for whoever wants to
/// look at it. A node commits by [`crate::Nftables`].
pub fn replacement(table: &str, ruleset: &Ruleset) -> Vec<u8> {
    let mut transaction = Transaction::new(table, None);
    // Creating what is there changes nothing, and so there is always one to delete.
    transaction.table(0);
    transaction.delete_table();
    transaction.table(0);
    everything(&mut transaction, ruleset);
    transaction.into_bytes()
}
