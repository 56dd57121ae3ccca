//! The tracker: what is wanted, what was seen, and the edits between them.
//!
//! Invariant: `differing` holds exactly the keys whose wanted and seen values differ, and `failures` only such keys.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use crate::{Backoff, Walk};

/// One edit that brings the observed side nearer to the desired one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<K, V> {
    /// Make the key have this value.
    Put {
        /// The key.
        key: K,
        /// The value wanted.
        value: V,
        /// The value seen, if the key is there.
        old: Option<V>,
    },
    /// Take the key away.
    Remove {
        /// The key.
        key: K,
        /// The value seen.
        old: V,
    },
}

impl<K, V> Edit<K, V> {
    /// The key that the edit is about.
    pub fn key(&self) -> &K {
        match self {
            Edit::Put { key, value: _, old: _ } | Edit::Remove { key, old: _ } => key,
        }
    }
}

impl<K: fmt::Display, V: fmt::Debug> fmt::Display for Edit<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::Put { key, value, old: _ } => write!(f, "put {key} = {value:?}"),
            Edit::Remove { key, old: _ } => write!(f, "remove {key}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    count: u32,
    retry_at: Instant,
}

/// Compares what is wanted with what was seen. See the crate's documentation.
///
/// Before the first [`Tracker::saw_all`] there are no edits: nothing is known of the other side.
#[derive(Clone, Debug)]
pub struct Tracker<K, V> {
    want: BTreeMap<K, V>,
    seen: BTreeMap<K, V>,
    differing: BTreeSet<K>,
    kept: BTreeSet<K>,
    failures: BTreeMap<K, Failure>,
    backoff: Backoff,
    observed: bool,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Default for Tracker<K, V> {
    fn default() -> Self {
        Tracker::new(Backoff::default())
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Tracker<K, V> {
    /// A tracker that wants nothing and saw nothing.
    pub fn new(backoff: Backoff) -> Self {
        Tracker {
            want: BTreeMap::new(),
            seen: BTreeMap::new(),
            differing: BTreeSet::new(),
            kept: BTreeSet::new(),
            failures: BTreeMap::new(),
            backoff,
            observed: false,
        }
    }

    /// Sets the wanted value; `None` wants the key gone. A changed want is tried at once, whatever failed before; and
    /// the key is no longer kept.
    pub fn want(&mut self, key: K, value: Option<V>) {
        let was_kept = self.kept.remove(&key);
        let settled = self.seen.get(&key) == value.as_ref();
        let changed = match value {
            None => self.want.remove(&key).is_some(),
            Some(value) => match self.want.entry(key.clone()) {
                Entry::Vacant(slot) => {
                    slot.insert(value);
                    true
                }
                Entry::Occupied(slot) if *slot.get() == value => false,
                Entry::Occupied(mut slot) => {
                    slot.insert(value);
                    true
                }
            },
        };
        if changed || was_kept {
            self.failures.remove(&key);
            self.mark(key, settled);
        }
    }

    /// The same of several keys, each wanted with a value.
    pub fn want_more(&mut self, mut more: BTreeMap<K, V>) {
        // One by one is dear if nearly everything is new: then the two are merged.
        if more.len() < self.want.len() {
            return more.into_iter().for_each(|(key, value)| self.want(key, Some(value)));
        }
        let mut differing = Vec::with_capacity(more.len());
        let (mut want, mut seen) = (Walk::new(&self.want, more.len()), Walk::new(&self.seen, more.len()));
        for (key, value) in &more {
            let was_kept = self.kept.remove(key);
            if want.get(key) == Some(value) && !was_kept {
                continue;
            }
            self.failures.remove(key);
            if seen.get(key) == Some(value) {
                self.differing.remove(key);
            } else {
                differing.push(key.clone());
            }
        }
        self.want.append(&mut more);
        self.differing.append(&mut differing.into_iter().collect());
    }

    /// Replaces everything that is wanted.
    pub fn want_all(&mut self, mut all: BTreeMap<K, V>) {
        let gone: Vec<K> = self.want.keys().filter(|key| !all.contains_key(key)).cloned().collect();
        for key in gone {
            self.want(key, None);
        }
        while let Some((key, value)) = all.pop_first() {
            self.want(key, Some(value));
        }
    }

    /// Records a full observation: keys that are not in it are not there.
    pub fn saw_all(&mut self, all: BTreeMap<K, V>) {
        self.observed = true;
        self.seen = all;
        let gone: Vec<K> = self.kept.iter().filter(|key| !self.seen.contains_key(key)).cloned().collect();
        for key in gone {
            self.kept.remove(&key);
        }
        self.differing.clear();
        let both = self.want.keys().chain(self.seen.keys());
        self.differing.extend(both.filter(|key| self.want.get(key) != self.seen.get(key)).cloned());
        let differing = &self.differing;
        self.failures.retain(|key, _| differing.contains(key));
    }

    /// Records what was seen of one key; `None`: it is not there.
    pub fn saw(&mut self, key: K, value: Option<V>) {
        match value {
            Some(value) => self.seen.insert(key.clone(), value),
            None => {
                self.kept.remove(&key);
                self.seen.remove(&key)
            }
        };
        self.compare(key);
    }

    /// Spares a key that was seen and is not wanted, until it is wanted, gone, or [`Tracker::release`]d: what another
    /// life of this process put there is not taken away before this one knows better.
    pub fn keep(&mut self, key: K) {
        if self.seen.contains_key(&key) && !self.want.contains_key(&key) {
            self.kept.insert(key);
        }
    }

    /// Stops to spare keys: what is not wanted now will be removed.
    pub fn release(&mut self) {
        self.kept.clear();
    }

    /// The keys that are spared.
    pub fn kept(&self) -> &BTreeSet<K> {
        &self.kept
    }

    /// The edits that are due: puts by ascending key, then removals by descending key, so that with keys ordered by
    /// dependency a reference comes after its referent and goes before it.
    pub fn edits(&self, now: Instant) -> Vec<Edit<K, V>> {
        let due = self.due().filter(|key| self.failures.get(key).is_none_or(|f| f.retry_at <= now));
        let (mut edits, mut removals) = (Vec::with_capacity(self.differing.len()), Vec::new());
        let keys = self.differing.len();
        let (mut want, mut seen) = (Walk::new(&self.want, keys), Walk::new(&self.seen, keys));
        for key in due {
            match (want.get(key), seen.get(key)) {
                (Some(value), old) => {
                    edits.push(Edit::Put { key: key.clone(), value: value.clone(), old: old.cloned() });
                }
                (None, Some(old)) => removals.push(Edit::Remove { key: key.clone(), old: old.clone() }),
                (None, None) => {}
            }
        }
        edits.extend(removals.into_iter().rev());
        edits
    }

    /// Records that an edit was made: the same as seeing its outcome.
    pub fn made(&mut self, edit: Edit<K, V>) {
        match edit {
            Edit::Put { key, value, old: _ } => self.saw(key, Some(value)),
            Edit::Remove { key, old: _ } => self.saw(key, None),
        }
    }

    /// The same of several edits, which [`Tracker::edits`] gave and since when nothing else was told.
    pub fn made_all(&mut self, edits: Vec<Edit<K, V>>) {
        // One by one is dear if everything is new: then the two are merged.
        if edits.len() < self.seen.len() {
            return edits.into_iter().for_each(|edit| self.made(edit));
        }
        let everything = edits.len() == self.differing.len();
        let mut puts = Vec::with_capacity(edits.len());
        for edit in edits {
            self.failures.remove(edit.key());
            if !everything {
                self.differing.remove(edit.key());
            }
            match edit {
                Edit::Put { key, value, old: _ } => puts.push((key, value)),
                Edit::Remove { key, old: _ } => {
                    self.kept.remove(&key);
                    self.seen.remove(&key);
                }
            }
        }
        if everything {
            self.differing.clear();
        }
        self.seen.append(&mut puts.into_iter().collect());
    }

    /// Records that the edit of a key failed: it is due again after a delay that doubles with every failure in a row.
    pub fn failed(&mut self, key: K, now: Instant) {
        if self.differing.contains(&key) {
            let count = self.failures.get(&key).map_or(0, |f| f.count).saturating_add(1);
            self.failures.insert(key, Failure { count, retry_at: now + self.backoff.delay(count) });
        }
    }

    /// Makes the edit of a key due at once, whatever failed before: what stood in its way may be gone.
    pub fn retry(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// When the next edit is due: `now` when one is already, `None` when there is nothing to do.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.due().map(|key| self.failures.get(key).map_or(now, |f| f.retry_at.max(now))).min()
    }

    /// The value wanted for a key.
    pub fn wanted(&self, key: &K) -> Option<&V> {
        self.want.get(key)
    }

    /// The value that was last seen of a key.
    pub fn seen(&self, key: &K) -> Option<&V> {
        self.seen.get(key)
    }

    /// Everything that was last seen.
    pub fn all_seen(&self) -> &BTreeMap<K, V> {
        &self.seen
    }

    /// Everything that is wanted.
    pub fn all_wanted(&self) -> &BTreeMap<K, V> {
        &self.want
    }

    /// Whether the other side was ever observed.
    pub fn observed(&self) -> bool {
        self.observed
    }

    /// Whether the wanted and the seen value of a key differ.
    pub fn differs(&self, key: &K) -> bool {
        self.differing.contains(key)
    }

    /// Whether a key is wanted and was seen with the wanted value.
    pub fn settled(&self, key: &K) -> bool {
        self.observed && self.want.contains_key(key) && !self.differing.contains(key)
    }

    fn due(&self) -> impl DoubleEndedIterator<Item = &K> {
        let observed = self.observed;
        self.differing.iter().filter(move |key| observed && !self.kept.contains(key))
    }

    fn compare(&mut self, key: K) {
        let settled = self.want.get(&key) == self.seen.get(&key);
        self.mark(key, settled);
    }

    fn mark(&mut self, key: K, settled: bool) {
        if settled {
            self.failures.remove(&key);
            self.differing.remove(&key);
        } else {
            self.differing.insert(key);
        }
    }
}
