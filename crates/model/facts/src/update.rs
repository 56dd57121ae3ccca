//! What a watcher of facts is told.

use std::fmt;

use crate::{Key, Value};

/// A point in a store's history. Zero is before everything; it is never the revision of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a follower's picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// The store can't be reached or is not ready.
    WaitForDatastore,
    /// The first listing is under way: what is absent may still come.
    Resync,
    /// The picture was complete at some moment; nothing live may be deleted before this.
    InSync,
}

/// One change to the picture of the facts.
///
/// Intermediate values may be skipped, a value may repeat, and after a lost watch values may be told again; absent
/// means deleted. Nothing is promised but convergence: applied in order, updates lead to the store's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// What changed.
    pub key: Key,
    /// The value now; `None`: deleted, or not valid.
    pub value: Option<Value>,
    /// The revision of the change.
    pub revision: Revision,
}
