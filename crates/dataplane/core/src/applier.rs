//! The apply loop of one target.
//!
//! Invariant: nothing is written before the first successful observation, and `failing` holds only keys that differ.

use std::collections::BTreeMap;
use std::time::Instant;

use tortie_reconcile::{Backoff, Edit, Tracker};

use crate::{Cause, Report, Target};

/// Keeps one target as wanted: call [`Applier::want`] for every change, then [`Applier::flush`], and again at
/// [`Applier::wake_at`].
#[derive(Debug)]
pub struct Applier<T: Target> {
    target: T,
    tracker: Tracker<T::Key, T::Value>,
    failing: BTreeMap<T::Key, Cause>,
    stale: bool,
    blind: u32,
    observe_at: Option<Instant>,
    backoff: Backoff,
}

impl<T: Target> Applier<T> {
    /// A loop that wants nothing yet and will observe first.
    pub fn new(target: T) -> Self {
        Applier::with_backoff(target, Backoff::default())
    }

    /// The same, with another back-off after failures.
    pub fn with_backoff(target: T, backoff: Backoff) -> Self {
        let tracker = Tracker::new(backoff);
        Applier { target, tracker, failing: BTreeMap::new(), stale: true, blind: 0, observe_at: None, backoff }
    }

    /// Sets the wanted value of a key; `None` wants it gone. Cheap: nothing is written before [`Applier::flush`].
    pub fn want(&mut self, key: T::Key, value: Option<T::Value>) {
        self.tracker.want(key, value);
    }

    /// The same of several keys, each wanted with a value.
    pub fn want_more(&mut self, more: BTreeMap<T::Key, T::Value>) {
        self.tracker.want_more(more);
    }

    /// Replaces everything that is wanted.
    pub fn want_all(&mut self, all: BTreeMap<T::Key, T::Value>) {
        self.tracker.want_all(all);
    }

    /// Records what an event of the kernel said of one key.
    pub fn saw(&mut self, key: T::Key, value: Option<T::Value>) {
        self.tracker.saw(key, value);
    }

    /// Records everything that is there and ours, when the caller observed it already.
    pub fn saw_all(&mut self, all: BTreeMap<T::Key, T::Value>) {
        self.tracker.saw_all(all);
        (self.stale, self.blind, self.observe_at) = (false, 0, None);
    }

    /// Observes everything anew at the next flush.
    pub fn resync(&mut self) {
        self.stale = true;
    }

    /// Observes if that is due, then writes what differs and is due.
    pub fn flush(&mut self, now: Instant) -> Report<T::Key> {
        let mut report = Report { blind: self.observe(now), ..Report::default() };
        let edits = self.tracker.edits(now);
        if !edits.is_empty() {
            let mut failures = self.target.commit(&edits);
            let mut made = edits;
            made.retain(|edit| {
                let Some(cause) = failures.take(edit.key()) else { return true };
                self.tracker.failed(edit.key().clone(), now);
                self.failing.insert(edit.key().clone(), cause);
                false
            });
            let puts = made.iter().filter(|edit| matches!(edit, Edit::Put { key: _, value: _, old: _ })).count();
            (report.written, report.removed) = (puts, made.len() - puts);
            self.tracker.made_all(made);
        }
        let tracker = &self.tracker;
        self.failing.retain(|key, _| tracker.differs(key));
        report.failures = self.failing.clone();
        report
    }

    fn observe(&mut self, now: Instant) -> Option<Cause> {
        if !self.stale || self.observe_at.is_some_and(|at| at > now) {
            return None;
        }
        match self.target.observe() {
            Ok(all) => {
                self.saw_all(all);
                None
            }
            Err(cause) => {
                self.blind = self.blind.saturating_add(1);
                self.observe_at = Some(now + self.backoff.delay(self.blind));
                Some(cause)
            }
        }
    }

    /// When the next flush has something to do: `now` when it has already, `None` when all is as wanted.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let observe = self.stale.then(|| self.observe_at.map_or(now, |at| at.max(now)));
        observe.into_iter().chain(self.tracker.wake_at(now)).min()
    }

    /// Whether a key is wanted and known to be there with the wanted value.
    pub fn settled(&self, key: &T::Key) -> bool {
        self.tracker.settled(key)
    }

    /// What is known of wanted and seen.
    pub fn tracker(&self) -> &Tracker<T::Key, T::Value> {
        &self.tracker
    }

    /// The tracker, for keys to keep or release.
    pub fn tracker_mut(&mut self) -> &mut Tracker<T::Key, T::Value> {
        &mut self.tracker
    }

    /// The target.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The target, to change what it knows.
    pub fn target_mut(&mut self) -> &mut T {
        &mut self.target
    }
}
