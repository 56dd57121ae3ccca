//! A store in memory, for tests and for simulating a whole cluster in one process.
//!
//! Deterministic: revisions count up by one, listings are sorted, nothing depends on time but a watch's waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tortie_facts::{Filter, Key, Revision, Value};

use crate::text::check;
use crate::{
    Entry, Event, Expect, InvalidEntry, Listing, Reader, Span, Store, StoreError, Watch, WatchError, Write, WriteError,
    decode_event, judge, spans,
};

/// A change with the key's text, which the spans of a watch are compared with.
struct Change {
    path: String,
    /// `None`: the deletion of something whose key can't be read.
    event: Option<Event>,
}

#[derive(Default)]
struct State {
    /// Key text to what is there: an [`Event::Put`] or [`Event::Invalid`].
    facts: BTreeMap<String, (Event, Revision)>,
    /// The changes after `compacted`, one a revision.
    log: VecDeque<Change>,
    compacted: u64,
    down: bool,
}

impl State {
    fn revision(&self) -> u64 {
        self.compacted + self.log.len() as u64
    }

    fn record(&mut self, path: String, event: Option<Event>) {
        let revision = Revision(self.revision() + 1);
        match &event {
            Some(fact @ (Event::Put(_) | Event::Invalid(_))) => {
                self.facts.insert(path.clone(), (fact.clone(), revision));
            }
            Some(Event::Deleted { .. }) | None => {
                self.facts.remove(&path);
            }
        }
        self.log.push_back(Change { path, event });
    }

    fn write(&mut self, write: &Write) -> Result<Revision, WriteError> {
        let path = check(write)?;
        let Write { key, expect, value } = write;
        let found = self.facts.get(&path).map(|(_, revision)| *revision);
        judge(&key.to_string(), *expect, value.is_none(), found)?;
        let (key, revision) = (key.clone(), Revision(self.revision() + 1));
        let event = match value {
            Some(value) => Event::Put(Entry { key, value: value.clone(), revision }),
            None => Event::Deleted { key, revision },
        };
        self.record(path, Some(event));
        Ok(revision)
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, String> {
        let state = self.lock();
        if state.down { Err("switched off".to_owned()) } else { Ok(state) }
    }
}

/// A store in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store at revision zero.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Forgets the changes up to and including `upto`: watches from before it are [`WatchError::Gone`].
    pub fn compact(&self, upto: Revision) {
        let mut state = self.shared.lock();
        let drop = upto.0.min(state.revision()).saturating_sub(state.compacted);
        state.log.drain(..usize::try_from(drop).expect("no more than the log holds"));
        state.compacted += drop;
        release(state, &self.shared.changed);
    }

    /// Makes every call fail as unavailable until switched on again.
    pub fn set_available(&self, available: bool) {
        let mut state = self.shared.lock();
        state.down = !available;
        release(state, &self.shared.changed);
    }

    /// Writes whatever is there.
    pub fn put(&self, key: Key, value: Value) -> Result<Revision, WriteError> {
        self.write_one(Write { key, expect: Expect::Any, value: Some(value) })
    }

    /// Puts a text under a key's text, readable or not, as a foreign writer might.
    pub fn plant(&self, path: &str, text: &str) {
        let mut state = self.shared.lock();
        let revision = Revision(state.revision() + 1);
        state.record(path.to_owned(), decode_event(path, Some(text), revision));
        release(state, &self.shared.changed);
    }
}

/// Lets go of the state, then wakes the watches.
fn release(state: MutexGuard<'_, State>, changed: &Condvar) {
    drop(state);
    changed.notify_all();
}

impl Reader for MemoryStore {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let state = self.shared.up().map_err(StoreError::Unavailable)?;
        match state.facts.get(&key.path()) {
            Some((Event::Put(entry), _)) => Ok(Some(entry.clone())),
            Some((Event::Invalid(InvalidEntry { reason, .. }), _)) => Err(StoreError::Invalid(reason.clone())),
            Some((Event::Deleted { .. }, _)) | None => Ok(None),
        }
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        let state = self.shared.up().map_err(StoreError::Unavailable)?;
        let mut listing = Listing { revision: Revision(state.revision()), ..Listing::default() };
        for Span { start, end } in spans(filter) {
            for (event, _) in state.facts.range(start..end).map(|(_, fact)| fact) {
                match event {
                    Event::Put(entry) => listing.entries.push(entry.clone()),
                    Event::Invalid(invalid) => listing.invalid.push(invalid.clone()),
                    Event::Deleted { .. } => {}
                }
            }
        }
        Ok(listing)
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        let state = self.shared.up().map_err(WatchError::Unavailable)?;
        if from.0 < state.compacted || from.0 > state.revision() {
            return Err(WatchError::Gone);
        }
        drop(state);
        Ok(Box::new(MemoryWatch { shared: Arc::clone(&self.shared), spans: spans(filter), seen: from.0 }))
    }
}

impl Store for MemoryStore {
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        let mut failed = false;
        let mut results = Vec::with_capacity(writes.len());
        let mut state = self.shared.lock();
        for write in writes {
            let result = match failed {
                true => Err(WriteError::NotTried),
                false if state.down => Err(WriteError::Unavailable("switched off".to_owned())),
                false => state.write(write),
            };
            failed |= result.is_err();
            results.push(result);
        }
        release(state, &self.shared.changed);
        results
    }
}

struct MemoryWatch {
    shared: Arc<Shared>,
    spans: Vec<Span>,
    seen: u64,
}

impl Watch for MemoryWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if state.down {
                return Err(WatchError::Unavailable("switched off".to_owned()));
            }
            let known = self.seen.checked_sub(state.compacted).ok_or(WatchError::Gone)?;
            let known = usize::try_from(known).expect("no more than the log holds");
            let events: Vec<Event> = state
                .log
                .range(known..)
                .filter(|change| self.spans.iter().any(|span| span.covers(&change.path)))
                .filter_map(|change| change.event.clone())
                .collect();
            self.seen = state.revision();
            let left = deadline.saturating_duration_since(Instant::now());
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
