//! The store port: get, list, write-if-revision, watch from a revision.
//!
//! Calls block, with a deadline inside the adapter; an adapter that is asynchronous inside runs a runtime of its own.
//! Every write names the revision that it saw. A watch that can't go on says [`WatchError::Gone`]: list again.

mod port;

pub use port::{
    Entry, Event, Expect, InvalidEntry, Listing, Reader, Store, StoreError, Watch, WatchError, Write, WriteError,
};
