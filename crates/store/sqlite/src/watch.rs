//! Watches: each reads the change log on its own, woken by commits of this process or by the doorbell of others.
//!
//! No thread of its own: of the watches that wait, one listens to the doorbell for all.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tortie_store::{Event, Span, Watch, WatchError, decode_event};

use crate::bell::{Ear, Waker};
use crate::fault::Fault;
use crate::read;
use crate::store::Shared;
use crate::transaction::revision;

/// How many rows of the log one read takes.
const PART: u32 = 1024;

#[derive(Default)]
struct State {
    /// The last revision that this process knows of.
    latest: u64,
    /// The ear, unless a watch listens with it at the moment.
    ear: Option<Ear>,
    /// Ends the wait of the one that listens; there once the first watch was opened.
    waker: Option<Waker>,
}

/// What wakes the watches of this process.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A revision was committed by this process, or found.
    pub(crate) fn publish(&self, revision: u64) {
        let mut state = self.state();
        if revision <= state.latest {
            return;
        }
        state.latest = revision;
        if let State { ear: None, waker: Some(waker), latest: _ } = &*state {
            waker.wake();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Gets an ear unless there is one. Rings after this call are heard.
    fn open_ear(&self, shared: &Shared) -> Result<(), Fault> {
        let mut state = self.state();
        if state.waker.is_none() {
            let (ear, waker) = Ear::new(&shared.bell_path)?;
            state.ear = Some(ear);
            state.waker = Some(waker);
        }
        Ok(())
    }

    /// Waits until there is something behind `seen` (true) or the deadline is over (false).
    fn wait_behind(&self, shared: &Shared, seen: u64, deadline: Instant) -> Result<bool, Fault> {
        let mut state = self.state();
        loop {
            if state.latest > seen {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(mut ear) = state.ear.take() {
                drop(state);
                ear.wait(left.min(shared.poll));
                let found = shared.pool.with(|connection| revision(connection));
                state = self.state();
                state.ear = Some(ear);
                // Somebody else may have to listen now.
                self.changed.notify_all();
                state.latest = state.latest.max(found?);
                if state.latest > seen {
                    return Ok(true);
                }
            }
            if left.is_zero() {
                return Ok(false);
            }
            if state.ear.is_none() {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// One watch.
pub(crate) struct SqliteWatch {
    shared: Arc<Shared>,
    spans: Vec<Span>,
    seen: u64,
}

impl SqliteWatch {
    /// A watch behind this revision.
    pub(crate) fn open(shared: &Arc<Shared>, spans: Vec<Span>, seen: u64) -> Result<SqliteWatch, WatchError> {
        shared.hub.open_ear(shared)?;
        let (first, last) = shared.pool.with(|connection| read::bounds(connection))?;
        // From the future: the revision is of another file that was here before.
        if seen > last || seen + 1 < first {
            return Err(WatchError::Gone);
        }
        shared.hub.publish(last);
        Ok(SqliteWatch { shared: Arc::clone(shared), spans, seen })
    }
}

impl Watch for SqliteWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        while self.shared.hub.wait_behind(&self.shared, self.seen, deadline)? {
            let part = self.shared.pool.with(|connection| read::changes(connection, &self.spans, self.seen, PART))?;
            // The log has no gap: one at its start was trimmed, and nothing at all means another file.
            if part.first != Some(self.seen + 1) {
                return Err(WatchError::Gone);
            }
            self.seen = part.last;
            let events: Vec<Event> = part
                .rows
                .iter()
                .filter_map(|row| decode_event(&row.path, row.value.as_deref(), row.revision))
                .collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }
}
