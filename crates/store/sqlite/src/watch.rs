//! Watches: each reads the change log on its own, woken by commits of this process or by the doorbell of others.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tortie_store::{Event, Span, Watch, WatchError, decode_event};

use crate::bell::Ear;
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
    /// Why the file could not be read the last time.
    fault: Option<Fault>,
    /// The listening thread exists.
    listening: bool,
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

    /// A revision was committed or found.
    pub(crate) fn publish(&self, revision: u64) {
        let mut state = self.state();
        state.fault = None;
        if revision > state.latest {
            state.latest = revision;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
        self.changed.notify_all();
    }

    /// Waits until there is something behind `seen` (true) or the deadline is over (false).
    fn wait_behind(&self, seen: u64, deadline: Instant) -> Result<bool, WatchError> {
        let mut state = self.state();
        loop {
            if state.latest > seen {
                return Ok(true);
            }
            if let Some(fault) = &state.fault {
                return Err(fault.clone().into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts the listening thread unless it runs. Commits after this call are heard.
    pub(crate) fn listen(shared: &Arc<Shared>) -> Result<(), Fault> {
        let mut state = shared.hub.state();
        if state.listening {
            return Ok(());
        }
        let ear = Ear::new(&shared.bell_path);
        let (weak, poll) = (Arc::downgrade(shared), shared.poll);
        std::thread::Builder::new()
            .name("store-watch".to_owned())
            .spawn(move || listen(&weak, ear, poll))
            .map_err(|error| Fault::Unavailable(format!("no thread to watch by: {error}")))?;
        state.listening = true;
        Ok(())
    }
}

/// The listening thread: ends once nobody uses the store.
fn listen(weak: &Weak<Shared>, mut ear: Ear, poll: Duration) {
    loop {
        ear.wait(poll);
        let Some(shared) = weak.upgrade() else { return };
        match shared.pool.with(|connection| revision(connection)) {
            Ok(latest) => shared.hub.publish(latest),
            Err(fault) => shared.hub.fail(fault),
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
        Hub::listen(shared)?;
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
        while self.shared.hub.wait_behind(self.seen, deadline)? {
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
