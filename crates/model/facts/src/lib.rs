//! The input contract of the logic: typed keys and values, revisions, and updates.
//!
//! A key's text form is upstream's etcd key, so every store that keeps text keeps the same text.

mod foreign;
mod key;
mod update;
mod value;

pub use foreign::Foreign;
pub use key::{AffinityKey, Filter, Key, KeyError, OwnerKind};
pub use update::{Revision, SyncStatus, Update};
pub use value::{Value, ValueError};
