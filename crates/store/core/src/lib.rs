//! The store port: get, list, write-if-revision, watch from a revision.
//!
//! Calls block, with a deadline inside the adapter; an adapter that is asynchronous inside runs a runtime of its own.
//! Every write names the revision that it saw. A watch that can't go on says [`WatchError::Gone`]: list again.

pub mod conformance;
mod expect;
mod memory;
pub mod mirror;
mod policy_name;
mod port;
pub mod resource;
mod span;
mod text;

pub use expect::judge;
pub use memory::MemoryStore;
pub use mirror::Mirror;
pub use policy_name::older_key;
pub use port::{
    Entry, Event, Expect, InvalidEntry, Listing, Reader, Store, StoreError, Watch, WatchError, Write, WriteError,
};
pub use span::{Span, spans};
pub use text::{TextWrite, decode, decode_event, encode};
