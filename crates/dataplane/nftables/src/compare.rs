//! Desired against observed: what it takes to make the kernel hold a ruleset again.
//!
//! Small differences are edited in place. Where the frame differs (base chains, forms of sets), the table is replaced
//! by a new one in the same transaction, so that nothing is ever open or half there.

use std::collections::{BTreeMap, BTreeSet};

use tortie_ruleset::{Chain, ChoiceMap, Name, Ruleset};

use crate::element::{self, Entry, Form, MAP};
use crate::expression;
use crate::observe::{SeenChain, SeenPlace, SeenSet, SeenTable};
use crate::transaction::{Place, Transaction, place};
use crate::uapi::{expr, set};
use tortie_nfnetlink::Attributes;

/// What was found to differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Objects of ours that were missing or wrong.
    pub(crate) wrong: Vec<Name>,
    /// Objects in our table that are not ours.
    pub(crate) foreign: Vec<Name>,
}

/// Whether editing in place can't help.
pub(crate) fn needs_replacement(seen: &SeenTable, wanted: &Ruleset) -> bool {
    let chains = wanted.chains.iter().any(|(name, chain)| {
        seen.chains.get(name).is_some_and(|s| !same_place(s.place.as_ref(), chain.base.map(place)))
    });
    chains || forms(wanted).iter().any(|(name, form)| seen.sets.get(*name).is_some_and(|s| s.odd || s.form != *form))
}

/// Whether base chains are lacking, or editing in place can't help.
pub(crate) fn frame_differs(seen: &SeenTable, wanted: &Ruleset) -> bool {
    let mut bases = wanted.chains.iter().filter(|(_, chain)| chain.base.is_some());
    bases.any(|(name, _)| !seen.chains.contains_key(name)) || needs_replacement(seen, wanted)
}

/// Writes what makes the table hold the ruleset.
pub(crate) fn repair(transaction: &mut Transaction<'_>, seen: &SeenTable, wanted: &Ruleset) -> Differences {
    let mut differences = Differences::default();
    let forms = forms(wanted);
    for (name, chain) in &wanted.chains {
        if !seen.chains.contains_key(name) {
            transaction.chain(name, chain.base);
        }
    }
    for (name, form) in &forms {
        let mut wrong = false;
        let have = seen.sets.get(*name);
        if have.is_none() {
            wrong = true;
            transaction.set(name, *form);
        }
        if !is_map(*form) {
            wrong |= entries(transaction, name, *form, have, &wanted_entries(wanted, name));
        }
        if wrong {
            differences.wrong.push((*name).clone());
        }
    }
    for (name, chain) in &wanted.chains {
        match seen.chains.get(name) {
            Some(have) if same_rules(have, chain) => continue,
            Some(_) => transaction.flush_chain(name),
            None => {}
        }
        transaction.rules(name, &chain.rules);
        differences.wrong.push(name.clone());
    }
    for (name, form) in forms.iter().filter(|(_, form)| is_map(**form)) {
        let changed = entries(transaction, name, *form, seen.sets.get(*name), &wanted_entries(wanted, name));
        if changed && !differences.wrong.contains(name) {
            differences.wrong.push((*name).clone());
        }
    }
    let chains = || seen.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
    chains().for_each(|name| transaction.flush_chain(name));
    let sets: Vec<&Name> = seen.sets.keys().filter(|name| !forms.contains_key(*name)).collect();
    // A map that goes may name chains that go.
    for name in sets.iter().filter(|name| is_map(seen.sets[**name].form)) {
        transaction.flush_elements(name);
    }
    chains().for_each(|name| transaction.delete_chain(name));
    sets.iter().for_each(|name| transaction.delete_set(name));
    differences.foreign = chains().chain(sets).cloned().collect();
    differences
}

fn is_map(form: Form) -> bool {
    form.flags & set::FLAG_MAP != 0
}

fn forms(wanted: &Ruleset) -> BTreeMap<&Name, Form> {
    let sets = wanted.sets.iter().map(|(name, set)| (name, element::form(set.set_type)));
    let choices = wanted.choices.iter().map(|(name, map)| (name, element::choice_form(map.key)));
    sets.chain(wanted.maps.keys().map(|name| (name, MAP))).chain(choices).collect()
}

fn wanted_entries(wanted: &Ruleset, name: &Name) -> BTreeSet<Entry> {
    let choices = |ChoiceMap { key, chains }: &ChoiceMap| {
        chains.iter().flat_map(|(range, chain)| Entry::choice(*key, range, chain)).collect()
    };
    match (wanted.sets.get(name), wanted.maps.get(name)) {
        (Some(set), _) => set.elements.iter().flat_map(element::entries).collect(),
        (None, Some(map)) => map.iter().map(|(interface, chain)| Entry::dispatch(interface, chain)).collect(),
        (None, None) => wanted.choices.get(name).map(|map| choices(map)).unwrap_or_default(),
    }
}

/// Writes the difference of entries; returns whether there is one.
fn entries(
    transaction: &mut Transaction<'_>,
    name: &Name,
    form: Form,
    have: Option<&SeenSet>,
    wanted: &BTreeSet<Entry>,
) -> bool {
    let empty = BTreeSet::new();
    let have = have.map_or(&empty, |s| &s.entries);
    if have == wanted {
        return false;
    }
    if form.flags & set::FLAG_INTERVAL != 0 && !have.is_empty() {
        // Foreign ranges may overlap ours: start over.
        transaction.flush_elements(name);
        transaction.add_entries(name, wanted.iter().cloned());
    } else {
        transaction.delete_entries(name, have.difference(wanted).cloned());
        transaction.add_entries(name, wanted.difference(have).cloned());
    }
    true
}

fn same_place(seen: Option<&SeenPlace>, wanted: Option<Place>) -> bool {
    match (seen, wanted) {
        (None, None) => true,
        (Some(seen), Some(Place { kind, hook, priority })) => {
            *seen == SeenPlace { kind: kind.to_owned(), hook, priority, accepts: true }
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// How many rules at the beginning and how many at the end stay when a chain becomes another one.
pub(crate) fn kept(had: &Chain, now: &Chain) -> (usize, usize) {
    let (had, now) = (&had.rules, &now.rules);
    let head = had.iter().zip(now).take_while(|(a, b)| a == b).count();
    let rest = had.len().min(now.len()) - head;
    let tail = had.iter().rev().zip(now.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    (head, tail)
}

fn same_rules(seen: &SeenChain, wanted: &Chain) -> bool {
    seen.rules.len() == wanted.rules.len()
        && seen.rules.iter().zip(&wanted.rules).all(|(have, rule)| same_expressions(have, &expression::encode(rule)))
}

/// Compares two lists of expressions; the order of attributes within an expression does not count.
fn same_expressions(a: &[u8], b: &[u8]) -> bool {
    a == b || canonical(a) == canonical(b)
}

fn canonical(expressions: &[u8]) -> Vec<(Option<&str>, BTreeMap<u16, &[u8]>)> {
    Attributes(expressions)
        .map(|(_, item)| {
            let item = Attributes(item);
            let name = item.text(expr::NAME);
            // What was counted is no part of a rule.
            let is_filling = |kind: u16| name == Some("counter") || name == Some("limit") && kind == expr::LIMIT_PAD;
            (name, item.nested(expr::DATA).filter(|(kind, _)| !is_filling(*kind)).collect())
        })
        .collect()
}
