//! A long random walk of one client, compared with a model that anyone can check by reading.

use std::collections::BTreeMap;

use tortie_facts::{Filter, Revision};

use super::{Subject, brief, collect, delete, handle, now, number_of, put, watch};
use crate::{Expect, WriteError};

/// A small generator: the walk is the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Puts and deletions with right, wrong and no expectations give what the model gives, and the watch tells just them.
pub fn a_random_walk_agrees_with_the_model(subject: &dyn Subject) {
    let store = subject.open();
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    let mut dice = Dice(7);
    let mut model: BTreeMap<String, (u32, Revision)> = BTreeMap::new();
    let mut history = Vec::new();
    for n in 0..400 {
        let name = format!("h{}", dice.roll(6));
        let there = model.get(&name).map(|(_, revision)| *revision);
        let deletes = dice.roll(3) == 0;
        let expect = match dice.roll(4) {
            0 => Expect::Absent,
            1 => Expect::Any,
            2 => Expect::Revision(there.unwrap_or(Revision(1))),
            _ => Expect::Revision(Revision(there.map_or(1, |revision| revision.0.saturating_sub(dice.roll(2))))),
        };
        let holds = match expect {
            Expect::Absent => there.is_none() && !deletes,
            Expect::Any => there.is_some() || !deletes,
            Expect::Revision(revision) => there == Some(revision),
        };
        let write = if deletes { delete(handle(&name), expect) } else { put(handle(&name), expect, n) };
        let result = store.write_one(write);
        match result {
            Ok(revision) if holds => {
                history.push((name.clone(), (!deletes).then_some(n), revision));
                if deletes {
                    model.remove(&name);
                } else {
                    model.insert(name, (n, revision));
                }
            }
            Err(WriteError::Conflict { found, .. }) if !holds => assert_eq!(Some(found), there),
            Err(WriteError::Missing(_)) if !holds => assert_eq!(there, None),
            other => panic!("step {n}: {expect:?} of {there:?} gave {other:?}"),
        }
    }
    let events = collect(&mut *watching, history.len()).expect("nothing was compacted");
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), history);
    let listing = store.list(&Filter::Handles).expect("a listing");
    let listed: Vec<_> = listing.entries.iter().map(|e| (e.key.clone(), number_of(&e.value), e.revision)).collect();
    let wanted: Vec<_> = model.into_iter().map(|(name, (n, revision))| (handle(&name), n, revision)).collect();
    assert_eq!(listed, wanted);
}
