//! Rulesets to the kernel's nf_tables in one transaction, by netlink alone.
//!
//! Everything lives in one table, `inet tortie`, so that one transaction covers both families. On Linux 6.9 and later
//! the table is owned and persistent: a foreign `nft flush ruleset` skips it, and it outlives the process (though
//! then, until the next process takes it over, nothing keeps others off). On older kernels foreign changes are
//! announced through [`Nftables::monitor_fd`] and repaired by [`Nftables::resync`].
//! Invariant: no call ever leaves the kernel with part of a change.

mod backend;
mod compare;
mod counters;
mod element;
mod error;
mod events;
mod expression;
mod observe;
mod port;
mod probe;
mod socket;
mod transaction;
mod uapi;
mod upstream;
mod write;

pub use backend::{CommitReport, MAX_NAME_LEN, Nftables, Options, RepairReport, TABLE};
pub use counters::Counters;
pub use error::{Error, Object};
pub use probe::{has_address_types, has_connection_marks};
pub use tortie_dataplane::ForeignChange;
pub use transaction::Written;
pub use upstream::{holds_policy, remove_empty, remove_upstream};
pub use write::replacement;
