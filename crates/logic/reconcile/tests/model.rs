//! The tracker against a model that remembers only inputs and works everything out anew, slowly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tortie_reconcile::{Backoff, Edit, Tracker};

#[derive(Clone, Debug)]
enum Step {
    Want(u8, Option<u8>),
    WantMore(BTreeMap<u8, u8>),
    WantAll(BTreeMap<u8, u8>),
    Saw(u8, Option<u8>),
    SawAll(BTreeMap<u8, u8>),
    Keep(u8),
    Release,
    Retry(u8),
    Fail(u8),
    Pass(u64),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    let value = proptest::option::of(0u8..3);
    let map = || proptest::collection::btree_map(0u8..6, 0u8..3, 0..6);
    prop_oneof![
        4 => (key.clone(), value.clone()).prop_map(|(k, v)| Step::Want(k, v)),
        2 => map().prop_map(Step::WantMore),
        1 => map().prop_map(Step::WantAll),
        2 => (key.clone(), value).prop_map(|(k, v)| Step::Saw(k, v)),
        2 => map().prop_map(Step::SawAll),
        1 => key.clone().prop_map(Step::Keep),
        1 => Just(Step::Release),
        3 => key.clone().prop_map(Step::Fail),
        1 => key.prop_map(Step::Retry),
        2 => (0u64..500).prop_map(Step::Pass),
        1 => Just(Step::Commit),
    ]
}

#[derive(Default)]
struct Model {
    want: BTreeMap<u8, u8>,
    seen: Option<BTreeMap<u8, u8>>,
    before_seen: BTreeMap<u8, u8>,
    kept: Vec<u8>,
    failures: Vec<(u8, Duration)>,
}

impl Model {
    fn view(&self) -> &BTreeMap<u8, u8> {
        self.seen.as_ref().unwrap_or(&self.before_seen)
    }

    fn view_mut(&mut self) -> &mut BTreeMap<u8, u8> {
        self.seen.as_mut().unwrap_or(&mut self.before_seen)
    }

    fn differs(&self, key: u8) -> bool {
        self.want.get(&key) != self.view().get(&key)
    }

    /// Forgets what no longer holds.
    fn tidy(&mut self) {
        let gone: Vec<u8> = (0..6).filter(|k| !self.view().contains_key(k)).collect();
        self.kept.retain(|k| !gone.contains(k));
        let same: Vec<u8> = (0..6).filter(|k| !self.differs(*k)).collect();
        self.failures.retain(|(k, _)| !same.contains(k));
    }

    fn want(&mut self, key: u8, value: Option<u8>) {
        if self.want.get(&key).copied() != value || self.kept.contains(&key) {
            self.failures.retain(|(k, _)| *k != key);
        }
        self.kept.retain(|k| *k != key);
        match value {
            Some(value) => self.want.insert(key, value),
            None => self.want.remove(&key),
        };
    }

    fn retry_at(&self, key: u8, backoff: Backoff) -> Duration {
        let of_key: Vec<_> = self.failures.iter().filter(|(k, _)| *k == key).collect();
        of_key.last().map_or(Duration::ZERO, |(_, at)| *at + backoff.delay(of_key.len() as u32))
    }

    fn pending(&self) -> Vec<u8> {
        (0..6).filter(|k| self.seen.is_some() && self.differs(*k) && !self.kept.contains(k)).collect()
    }

    fn edits(&self, now: Duration, backoff: Backoff) -> Vec<Edit<u8, u8>> {
        let due: Vec<u8> = self.pending().into_iter().filter(|k| self.retry_at(*k, backoff) <= now).collect();
        let puts = due
            .iter()
            .filter_map(|k| Some(Edit::Put { key: *k, value: *self.want.get(k)?, old: self.view().get(k).copied() }));
        let removals = due.iter().rev().filter(|k| !self.want.contains_key(k));
        puts.chain(removals.map(|k| Edit::Remove { key: *k, old: self.view()[k] })).collect()
    }
}

fn commit(tracker: &mut Tracker<u8, u8>, model: &mut Model, edits: Vec<Edit<u8, u8>>) {
    for edit in &edits {
        match edit {
            Edit::Put { key, value, old: _ } => model.view_mut().insert(*key, *value),
            Edit::Remove { key, old: _ } => model.view_mut().remove(key),
        };
    }
    tracker.made_all(edits);
}

fn apply(tracker: &mut Tracker<u8, u8>, model: &mut Model, step: Step, start: Instant, now: &mut Duration) {
    match step {
        Step::Want(key, value) => {
            tracker.want(key, value);
            model.want(key, value);
        }
        Step::WantMore(more) => {
            tracker.want_more(more.clone());
            more.into_iter().for_each(|(key, value)| model.want(key, Some(value)));
        }
        Step::WantAll(all) => {
            tracker.want_all(all.clone());
            // Only what changes counts as a change of mind; what is gone is wanted gone.
            for key in 0..6 {
                if all.contains_key(&key) || model.want.contains_key(&key) {
                    model.want(key, all.get(&key).copied());
                }
            }
        }
        Step::Saw(key, value) => {
            tracker.saw(key, value);
            match value {
                Some(value) => model.view_mut().insert(key, value),
                None => model.view_mut().remove(&key),
            };
        }
        Step::SawAll(all) => {
            tracker.saw_all(all.clone());
            model.seen = Some(all);
        }
        Step::Keep(key) => {
            tracker.keep(key);
            if model.view().contains_key(&key) && !model.want.contains_key(&key) {
                model.kept.push(key);
            }
        }
        Step::Release => {
            tracker.release();
            model.kept.clear();
        }
        Step::Fail(key) => {
            tracker.failed(key, start + *now);
            if model.differs(key) {
                model.failures.push((key, *now));
            }
        }
        Step::Retry(key) => {
            tracker.retry(&key);
            model.failures.retain(|(k, _)| *k != key);
        }
        Step::Pass(millis) => *now += Duration::from_millis(millis),
        Step::Commit => {
            let edits = tracker.edits(start + *now);
            commit(tracker, model, edits);
        }
    }
    model.tidy();
}

proptest! {
    #[test]
    fn the_tracker_answers_as_the_model(steps in proptest::collection::vec(step(), 0..60)) {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_millis(700) };
        let start = Instant::now();
        let mut now = Duration::ZERO;
        let (mut tracker, mut model) = (Tracker::new(backoff), Model::default());
        for step in steps {
            apply(&mut tracker, &mut model, step.clone(), start, &mut now);
            prop_assert_eq!(tracker.edits(start + now), model.edits(now, backoff), "after {:?}", step);
            let wake = model.pending().into_iter().map(|k| model.retry_at(k, backoff).max(now)).min();
            prop_assert_eq!(tracker.wake_at(start + now), wake.map(|at| start + at), "after {:?}", step);
            for key in 0..6 {
                let settled = model.seen.is_some() && model.want.contains_key(&key) && !model.differs(key);
                prop_assert_eq!(tracker.settled(&key), settled);
            }
        }
        // From any state: observing and committing everything that comes due ends with nothing to do.
        tracker.saw_all(model.view().clone());
        tracker.release();
        for _ in 0..2 {
            let at = tracker.wake_at(start + now).unwrap_or(start + now);
            now = now.max(at - start) + backoff.max;
            let edits = tracker.edits(start + now);
            commit(&mut tracker, &mut model, edits);
        }
        prop_assert_eq!(tracker.wake_at(start + now), None);
        prop_assert_eq!(tracker.all_seen(), tracker.all_wanted());
    }
}
