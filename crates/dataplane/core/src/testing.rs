//! The one test that every [`Target`] must pass, on a real kernel or a fake one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Applier, Report, Target};

/// What a target's test brings along: a kernel, ways to look around in it, and ways to disturb it.
pub trait Rig {
    /// The target under test.
    type Target: Target;

    /// A fresh target on the same kernel: as after a restart, without memory.
    fn target(&mut self) -> Self::Target;

    /// Everything in the kernel that is not the target's, as text; it must stay as it is.
    fn foreign(&mut self) -> String;

    /// Makes every change of a key fail, or work again. `false`: this rig can't.
    fn set_failing(&mut self, key: &<Self::Target as Target>::Key, failing: bool) -> bool {
        let _ = (key, failing);
        false
    }

    /// Takes an entry away behind the target's back. `false`: this rig can't.
    fn steal(&mut self, key: &<Self::Target as Target>::Key) -> bool {
        let _ = key;
        false
    }
}

/// A desired state.
pub type State<T> = BTreeMap<<T as Target>::Key, <T as Target>::Value>;

/// More passes than this, and a target does not converge.
const PASSES: usize = 30;

/// Drives a target through desired states and panics, with the reason, unless after each: the kernel holds exactly
/// the state; a second pass, and one without memory, writes nothing; foreign entries are as before; a stolen entry
/// comes back; and after a failure of one key the others are there, the report names it, and it comes later.
///
/// Time is made up, so nothing waits.
pub fn converges<R: Rig>(rig: &mut R, states: &[State<R::Target>]) {
    let foreign = rig.foreign();
    let mut now = Instant::now();
    let mut applier = Applier::new(rig.target());
    let mut failing = None;
    for (at, state) in states.iter().enumerate() {
        // Every other state comes with a failure, of a key that has to be written.
        let previous = applier.tracker().all_wanted().clone();
        let changed = state.iter().find(|(key, value)| previous.get(key) != Some(*value)).map(|(key, _)| key.clone());
        if at % 2 == 1 {
            failing = changed.filter(|key| rig.set_failing(key, true));
        }
        applier.want_all(state.clone());
        if let Some(key) = failing.take() {
            let report = applier.flush(now);
            assert!(report.failures.contains_key(&key), "state {at}: the failure of {key} is not reported: {report}");
            let others = report.failures.keys().filter(|k| **k != key).map(ToString::to_string).collect::<Vec<_>>();
            assert!(others.is_empty(), "state {at}: the failure of {key} took others along: {others:?}");
            assert!(applier.wake_at(now).is_some_and(|wake| wake > now), "state {at}: {key} is retried at once");
            rig.set_failing(&key, false);
        }
        settle(&mut applier, &mut now, at);
        check(rig, &mut applier, state, now, at);
        if let Some(key) = state.keys().next()
            && rig.steal(key)
        {
            applier.resync();
            settle(&mut applier, &mut now, at);
            check(rig, &mut applier, state, now, at);
        }
        assert_eq!(rig.foreign(), foreign, "state {at}: foreign entries changed");
    }
    applier.want_all(BTreeMap::new());
    settle(&mut applier, &mut now, states.len());
    check(rig, &mut applier, &BTreeMap::new(), now, states.len());
    assert_eq!(rig.foreign(), foreign, "foreign entries changed when ours went");
}

/// Flushes, and moves time to the next wake-up, until nothing is left to do.
fn settle<T: Target>(applier: &mut Applier<T>, now: &mut Instant, at: usize) {
    let mut last = Report::default();
    for _ in 0..PASSES {
        let Some(wake) = applier.wake_at(*now) else { return };
        *now = wake.max(*now + Duration::from_millis(1));
        last = applier.flush(*now);
    }
    panic!("state {at}: does not converge in {PASSES} passes: {last}");
}

fn check<R: Rig>(rig: &mut R, applier: &mut Applier<R::Target>, state: &State<R::Target>, now: Instant, at: usize) {
    let mut fresh = rig.target();
    let seen = fresh.observe().unwrap_or_else(|cause| panic!("state {at}: can't observe: {cause}"));
    for (key, value) in state {
        assert_eq!(seen.get(key), Some(value), "state {at}: {key} is not as wanted");
        assert!(applier.settled(key), "state {at}: {key} is there but not known to be");
    }
    let strays: Vec<_> = seen.keys().filter(|key| !state.contains_key(key)).map(ToString::to_string).collect();
    assert!(strays.is_empty(), "state {at}: entries that nobody wants: {strays:?}");

    applier.resync();
    let second = applier.flush(now);
    assert!(!second.wrote() && second.is_clean(), "state {at}: the second pass: {second}");
    let mut restarted = Applier::new(fresh);
    restarted.want_all(state.clone());
    let first = restarted.flush(now);
    assert!(!first.wrote() && first.is_clean(), "state {at}: the first pass without memory: {first}");
}
