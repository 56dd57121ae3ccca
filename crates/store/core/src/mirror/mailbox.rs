//! Between a follower and its user: what was told and not taken yet, merged by key.
//!
//! It never holds more than one update a key, one note an unreadable text, one status. A status in a batch is true
//! after the batch's updates.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tortie_facts::{Key, SyncStatus, Update};

use crate::InvalidEntry;
use crate::mirror::Told;

/// What happened since the last batch: apply the updates, then heed the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Changed facts, each key once, by revision.
    pub updates: Vec<Update>,
    /// Texts that can't be read, by path; their facts are deleted in `updates`.
    pub invalid: Vec<InvalidEntry>,
    /// The status after the updates, if it changed.
    pub status: Option<SyncStatus>,
    /// Why the store could not be followed; the last reason.
    pub trouble: Option<String>,
}

impl Batch {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        let Batch { updates, invalid, status, trouble } = self;
        updates.is_empty() && invalid.is_empty() && status.is_none() && trouble.is_none()
    }
}

#[derive(Default)]
struct Pending {
    updates: BTreeMap<Key, Update>,
    invalid: BTreeMap<String, InvalidEntry>,
    status: Option<SyncStatus>,
    trouble: Option<String>,
    /// Whether the user may still be busy with what was taken last.
    busy: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Pending { updates, invalid, status, trouble, busy: _ } = self;
        updates.is_empty() && invalid.is_empty() && status.is_none() && trouble.is_none()
    }

    fn merge(&mut self, told: Told) {
        match told {
            Told::Update(update) => {
                if !self.invalid.is_empty() {
                    self.invalid.remove(&update.key.path());
                }
                self.updates.insert(update.key.clone(), update);
            }
            Told::Invalid(entry) => {
                self.invalid.insert(entry.path.clone(), entry);
            }
            Told::Status(status) => self.status = Some(status),
            Told::Trouble(text) => self.trouble = Some(text),
        }
    }
}

/// A merging buffer between two threads.
pub struct Mailbox {
    pending: Mutex<Pending>,
    filled: Condvar,
    idle: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    /// An empty mailbox; `wake` is called each time that it stops being empty.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Mailbox {
        Mailbox { pending: Mutex::default(), filled: Condvar::new(), idle: Condvar::new(), wake }
    }

    /// Adds what was told; all of it lands in one batch.
    pub fn push(&self, told: Vec<Told>) {
        if told.is_empty() {
            return;
        }
        let mut pending = self.lock();
        let was_empty = pending.is_empty();
        for one in told {
            pending.merge(one);
        }
        drop(pending);
        if was_empty {
            self.filled.notify_all();
            (self.wake)();
        }
    }

    /// Waits until all was taken and its user is done with it, up to `timeout`; whether that is so.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut pending = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let idle = pending.is_empty() && !pending.busy;
            if idle || left.is_zero() {
                return idle;
            }
            pending = self.idle.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was taken is used up. To take again says so too.
    pub fn done(&self) {
        let mut pending = self.lock();
        self.user_is_back(&mut pending);
    }

    /// Everything that is there.
    pub fn take(&self) -> Batch {
        let mut pending = self.lock();
        self.user_is_back(&mut pending);
        take(&mut pending)
    }

    /// Everything that is there, or that comes first within `timeout`.
    pub fn wait(&self, timeout: Duration) -> Batch {
        let deadline = Instant::now() + timeout;
        let mut pending = self.lock();
        self.user_is_back(&mut pending);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !pending.is_empty() || left.is_zero() {
                return take(&mut pending);
            }
            pending = self.filled.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn user_is_back(&self, pending: &mut Pending) {
        pending.busy = false;
        if pending.is_empty() {
            self.idle.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(pending: &mut Pending) -> Batch {
    let busy = !pending.is_empty();
    let Pending { updates, invalid, status, trouble, busy: _ } =
        std::mem::replace(pending, Pending { busy, ..Pending::default() });
    let mut updates: Vec<Update> = updates.into_values().collect();
    // Stable: the keys of one revision stay sorted.
    updates.sort_by_key(|update| update.revision);
    Batch { updates, invalid: invalid.into_values().collect(), status, trouble }
}
