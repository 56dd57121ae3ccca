//! The apply loop and the generic test, on a target that is a map, and on targets that are wrong on purpose.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tortie_dataplane::testing::{Rig, converges};
use tortie_dataplane::{Applier, Cause, Edit, Failures, Target};

/// Entries with their owner; ours are those with `mine`.
#[derive(Default)]
struct Kernel {
    entries: BTreeMap<u8, (bool, u8)>,
    failing: BTreeSet<u8>,
    blind: bool,
    commits: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    TakesForeign,
    NeverRemoves,
    ForgetsValue,
    HidesFailures,
    StopsAtFailure,
}

struct Map(Rc<RefCell<Kernel>>, Flaw);

impl Target for Map {
    type Key = u8;
    type Value = u8;

    fn observe(&mut self) -> Result<BTreeMap<u8, u8>, Cause> {
        let kernel = self.0.borrow();
        if kernel.blind {
            return Err(Cause::Failed("blind".to_owned()));
        }
        let ours = kernel.entries.iter().filter(|(_, (mine, _))| *mine || self.1 == Flaw::TakesForeign);
        Ok(ours.map(|(k, (_, v))| (*k, if self.1 == Flaw::ForgetsValue { 0 } else { *v })).collect())
    }

    fn commit(&mut self, edits: &[Edit<u8, u8>]) -> Failures<u8> {
        let mut kernel = self.0.borrow_mut();
        kernel.commits += 1;
        let mut failures = Failures::new();
        for edit in edits {
            if kernel.failing.contains(edit.key()) {
                if self.1 != Flaw::HidesFailures {
                    failures.add(*edit.key(), Cause::Failed("injected".to_owned()));
                }
                if self.1 == Flaw::StopsAtFailure {
                    edits.iter().for_each(|e| failures.add(*e.key(), Cause::Failed("skipped".to_owned())));
                    break;
                }
                continue;
            }
            match edit {
                Edit::Put { key, value, old: _ } => {
                    kernel.entries.insert(*key, (true, *value));
                }
                Edit::Remove { key: _, old: _ } if self.1 == Flaw::NeverRemoves => {}
                Edit::Remove { key, old: _ } => {
                    kernel.entries.remove(key);
                }
            }
        }
        failures
    }
}

struct MapRig(Rc<RefCell<Kernel>>, Flaw);

impl MapRig {
    fn new(flaw: Flaw) -> MapRig {
        let kernel = Kernel { entries: BTreeMap::from([(200, (false, 1))]), ..Kernel::default() };
        MapRig(Rc::new(RefCell::new(kernel)), flaw)
    }
}

impl Rig for MapRig {
    type Target = Map;

    fn target(&mut self) -> Map {
        Map(Rc::clone(&self.0), self.1)
    }

    fn foreign(&mut self) -> String {
        format!("{:?}", self.0.borrow().entries.iter().filter(|(_, (mine, _))| !mine).collect::<Vec<_>>())
    }

    fn set_failing(&mut self, key: &u8, failing: bool) -> bool {
        let mut kernel = self.0.borrow_mut();
        if failing {
            kernel.failing.insert(*key)
        } else {
            kernel.failing.remove(key)
        };
        true
    }

    fn steal(&mut self, key: &u8) -> bool {
        self.0.borrow_mut().entries.remove(key).is_some()
    }
}

proptest! {
    #[test]
    fn a_right_target_passes(
        states in proptest::collection::vec(proptest::collection::btree_map(0u8..9, 1u8..4, 0..9), 0..8),
    ) {
        converges(&mut MapRig::new(Flaw::None), &states);
    }
}

#[test]
fn every_flaw_is_found() {
    let states = [BTreeMap::from([(1, 1), (2, 2)]), BTreeMap::from([(1, 2), (3, 3), (4, 4)])];
    for flaw in [Flaw::TakesForeign, Flaw::NeverRemoves, Flaw::ForgetsValue, Flaw::HidesFailures, Flaw::StopsAtFailure]
    {
        let outcome = catch_unwind(AssertUnwindSafe(|| converges(&mut MapRig::new(flaw), &states)));
        assert!(outcome.is_err(), "flaw {} was not found", flaw as u8);
    }
    converges(&mut MapRig::new(Flaw::None), &states);
}

#[test]
fn nothing_is_written_blind_and_observation_is_retried_with_back_off() {
    let mut rig = MapRig::new(Flaw::None);
    rig.0.borrow_mut().blind = true;
    let mut applier = Applier::new(rig.target());
    applier.want(1, Some(1));
    let start = Instant::now();
    let report = applier.flush(start);
    assert_eq!(report.blind, Some(Cause::Failed("blind".to_owned())));
    assert_eq!(rig.0.borrow().commits, 0);
    assert_eq!(applier.wake_at(start), Some(start + Duration::from_millis(100)));
    rig.0.borrow_mut().blind = false;
    assert!(!applier.flush(start + Duration::from_millis(50)).wrote(), "not before the back-off ends");
    let report = applier.flush(start + Duration::from_millis(100));
    assert_eq!((report.written, report.is_clean(), applier.settled(&1)), (1, true, true));
    assert_eq!(applier.wake_at(start), None);
}

#[test]
fn a_failure_is_reported_until_it_is_gone_or_no_longer_wanted() {
    let mut rig = MapRig::new(Flaw::None);
    let mut applier = Applier::new(rig.target());
    rig.set_failing(&1, true);
    applier.want(1, Some(1));
    let now = Instant::now();
    assert_eq!(applier.flush(now).failures.len(), 1);
    let quiet = applier.flush(now);
    assert_eq!((quiet.failures.len(), quiet.wrote()), (1, false), "still failing, not yet retried");
    assert_eq!(quiet.to_string(), "0 written, 0 removed, 1 failing; 1: injected");
    applier.want(1, None);
    assert!(applier.flush(now).is_clean());
}
