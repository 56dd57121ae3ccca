//! What a table is given to get from one state to another, and back.
//!
//! Invariant: everything of a table is one transaction of a restore program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tortie_net::Family;
use tortie_ruleset::Name;

use crate::content::{Content, Flavour, Table, commented, hashes, hook};
use crate::error::Error;
use crate::programs::run;
use crate::save::{Seen, SeenHooks, hash_of};

/// Seconds to wait for others that change tables.
const LOCK_SECONDS: &str = "20";

/// Where our rule in a kernel's chain goes (`chainInsertMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HookPlace {
    #[default]
    First,
    Last,
}

/// The part of a table that differs between two states: full rules of chains, and of hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    chains: BTreeMap<Name, Vec<String>>,
    hooks: BTreeMap<Name, Vec<String>>,
}

/// A change of one table.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    family: Family,
    table: Table,
    place: HookPlace,
    old: Part,
    new: Part,
}

impl Change {
    /// From what was written before to what is wanted; `None` if they are the same.
    pub(crate) fn between(
        (family, table): (Family, Table),
        place: HookPlace,
        old: &Content,
        new: &Content,
    ) -> Option<Change> {
        let mut change = Change { family, table, place, old: Part::default(), new: Part::default() };
        let names: BTreeSet<&Name> = old.chains.keys().chain(new.chains.keys()).collect();
        for name in names {
            let (before, after) = (old.chains.get(name), new.chains.get(name));
            if before != after {
                change.old.chains.extend(before.map(|rules| (name.clone(), commented(name, rules))));
                change.new.chains.extend(after.map(|rules| (name.clone(), commented(name, rules))));
            }
        }
        if old.hooks != new.hooks {
            (change.old.hooks, change.new.hooks) = (hooks(old), hooks(new));
        }
        change.differs()
    }

    /// From what was read to what is wanted; `None` if that is there.
    pub(crate) fn from_seen(
        (family, table): (Family, Table),
        place: HookPlace,
        old: &Seen,
        new: &Content,
    ) -> Option<Change> {
        let mut change = Change { family, table, place, old: Part::default(), new: Part::default() };
        for (name, seen) in &old.chains {
            let wanted = new.chains.get(name);
            let same = |rules: &Vec<String>| {
                rules.len() == seen.len()
                    && hashes(name, rules).zip(seen).all(|(hash, seen)| hash_of(seen) == Some(&hash))
            };
            if !wanted.is_some_and(same) {
                change.old.chains.insert(name.clone(), seen.clone());
                change.new.chains.extend(wanted.map(|rules| (name.clone(), commented(name, rules))));
            }
        }
        for (name, rules) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            change.new.chains.insert(name.clone(), commented(name, rules));
        }
        let wanted = hooks(new);
        let builtins: BTreeSet<&Name> = old.hooks.keys().chain(wanted.keys()).collect();
        let empty = (SeenHooks::default(), Vec::new());
        for builtin in builtins {
            let seen = old.hooks.get(builtin).unwrap_or(&empty.0);
            let rules = wanted.get(builtin).unwrap_or(&empty.1);
            let stands = match place {
                HookPlace::First => seen.first == 0,
                HookPlace::Last => seen.behind == 0,
            };
            let same = seen.rules.len() == rules.len()
                && seen.rules.iter().zip(rules).all(|(seen, rule)| hash_of(seen) == hash_of(rule));
            if !same || !(stands || rules.is_empty()) {
                change.old.hooks.insert(builtin.clone(), seen.rules.clone());
                change.new.hooks.insert(builtin.clone(), rules.clone());
            }
        }
        change.differs()
    }

    fn differs(self) -> Option<Change> {
        (self.old != self.new).then_some(self)
    }

    /// Chains of ours that come or change, and those that go.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<String>) {
        let Part { chains, hooks } = &self.new;
        let wrong = chains.keys().chain(hooks.keys()).map(|name| format!("{}/{name}", self.table.word())).collect();
        let gone = self.old.chains.keys().filter(|name| !chains.contains_key(*name));
        (wrong, gone.map(|name| format!("{}/{name}", self.table.word())).collect())
    }

    /// The change that leads back.
    pub(crate) fn back(&self) -> Change {
        Change { old: self.new.clone(), new: self.old.clone(), ..self.clone() }
    }

    /// Makes the change; if it is refused, nothing of it was done.
    pub(crate) fn make(&self, flavour: Flavour) -> Result<(), Error> {
        run(&flavour.program(self.family, "restore"), &["--noflush", "--wait", LOCK_SECONDS], &self.text()).map(drop)
    }

    fn text(&self) -> String {
        let Change { family: _, table, place, old, new } = self;
        let mut text = String::new();
        let mut put = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("writing to a string");
            text.push('\n');
        };
        put(format_args!("*{}", table.word()));
        let names: BTreeSet<&Name> = old.chains.keys().chain(new.chains.keys()).collect();
        // This makes a chain, or empties the one that is there.
        names.iter().for_each(|name| put(format_args!(":{name} - [0:0]")));
        for (name, rules) in &new.chains {
            rules.iter().for_each(|rule| put(format_args!("-A {name} {rule}")));
        }
        for (builtin, rules) in &old.hooks {
            rules.iter().for_each(|rule| put(format_args!("-D {builtin} {rule}")));
        }
        for (builtin, rules) in &new.hooks {
            match place {
                HookPlace::First => rules.iter().rev().for_each(|rule| put(format_args!("-I {builtin} 1 {rule}"))),
                HookPlace::Last => rules.iter().for_each(|rule| put(format_args!("-A {builtin} {rule}"))),
            }
        }
        let gone = names.iter().filter(|name| !new.chains.contains_key(**name));
        gone.for_each(|name| put(format_args!("-X {name}")));
        put(format_args!("COMMIT"));
        text
    }
}

fn hooks(content: &Content) -> BTreeMap<Name, Vec<String>> {
    content.hooks.iter().map(|(builtin, chain)| (Name::from(*builtin), vec![hook(builtin, chain)])).collect()
}

/// Makes all changes. If one is refused, those before it are taken back.
pub(crate) fn make_all(flavour: Flavour, changes: &[Change]) -> Result<(), Error> {
    for (at, change) in changes.iter().enumerate() {
        let Err(error) = change.make(flavour) else { continue };
        for made in changes[..at].iter().rev() {
            if let Err(error) = made.back().make(flavour) {
                tracing::error!(table = made.table.word(), %error, "a change can't be taken back");
            }
        }
        return Err(error);
    }
    Ok(())
}
