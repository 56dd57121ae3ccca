//! The port to a packet filter: what a node's policy is kept in force with.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use tortie_desired::{Batch, Tables};

use crate::Cause;

/// Somebody else's change of our rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// The process, in the numbering of the initial PID namespace; `None` if it is not known.
    pub process_id: Option<u32>,
    /// The name of the process.
    pub process_name: Option<String>,
    /// How many objects of ours were announced as changed.
    pub objects: usize,
    /// Whether everything of ours was removed.
    pub table_removed: bool,
}

/// What a call found and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// Whether anything was written; nothing is if the kernel held just what it should.
    pub wrote: bool,
    /// Objects of ours that were missing or wrong.
    pub repaired: Vec<String>,
    /// Objects in our place that did not belong there, removed.
    pub foreign: Vec<String>,
    /// Whether all was replaced in one step.
    pub replaced: bool,
    /// Policies, profiles and other parts whose rules the filter can't hold, with why. They deny everything; all others
    /// are in force.
    pub unsupported: BTreeMap<String, String>,
}

/// A packet filter that holds a node's policy.
///
/// Contract: a call either brings the kernel to what the tables say or changes nothing in force, and says why; what is
/// in force is never open in between. Objects of others survive. After an error the next call reads everything back.
pub trait PolicyBackend: fmt::Debug + Send {
    /// Its name, for the status and messages, such as `nftables`.
    fn name(&self) -> &'static str;

    /// Commits a batch; `tables` already hold it. The first call, and the one after an error, reads back instead.
    fn commit(&mut self, tables: &Tables, batch: &Batch) -> Result<PolicyReport, Cause>;

    /// Reads everything back and makes the kernel hold what `tables` say; writes nothing if it does.
    fn resync(&mut self, tables: &Tables) -> Result<PolicyReport, Cause>;

    /// Removes everything of ours. Removing what is not there is fine.
    fn remove_all(&mut self) -> Result<(), Cause>;

    /// Whether the kernel keeps others from changing our rules.
    fn is_owned(&self) -> bool;

    /// Becomes readable when rules change; `None` if nothing tells.
    fn monitor_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Changes by others since the last call; never waits. Answer any with [`PolicyBackend::resync`].
    fn drain_events(&mut self) -> Vec<ForeignChange>;
}
