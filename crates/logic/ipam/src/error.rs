//! Why an operation could not be done, in words that name who, what and which.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::ipam::Attribute;
use tortie_facts::Key;
use tortie_net::Family;

use crate::block;
use crate::pools::Rejected;
use crate::show::PoolFill;

/// Why an operation could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No pool may be used: change a pool's selectors, or the request.
    #[error("no IPv{} pool may be used by {owner}: {}", family.version(), list(rejected, "there is none"))]
    NoPool {
        /// Who asked.
        owner: String,
        /// Of which family.
        family: Family,
        /// Each pool and its reason.
        rejected: Vec<Rejected>,
    },
    /// The request names a range that is no pool's.
    #[error("{requested} is not the range of a pool; pools of its family: {}", list(known, "none"))]
    UnknownPool {
        /// What was asked for.
        requested: IpNet,
        /// The pools there are.
        known: Vec<String>,
    },
    /// All usable pools are full: add a pool, or release addresses.
    #[error("no free address for {owner}{}: {}", if *strict { " (strictAffinity is on, so it can't borrow)" } else { "" }, list(pools, "no pool"))]
    Exhausted {
        /// Who asked.
        owner: String,
        /// Whether borrowing was excluded.
        strict: bool,
        /// How full each pool is.
        pools: Vec<PoolFill>,
    },
    /// The owner may not claim another block.
    #[error("{owner} owns {owned} blocks, all full, and may not claim more than {limit} (maxBlocksPerHost)")]
    BlockLimit {
        /// Who asked.
        owner: String,
        /// Blocks that it has.
        owned: usize,
        /// Blocks that it may have.
        limit: usize,
    },
    /// The address lies in no pool.
    #[error("{address} is not in a pool; pools: {}", list(pools, "none"))]
    NotInPool {
        /// The address.
        address: IpAddr,
        /// The pools there are.
        pools: Vec<String>,
    },
    /// The address lies in a pool that can't be used for it.
    #[error("{address} can't be assigned: pool {rejected}")]
    PoolRefused {
        /// The address.
        address: IpAddr,
        /// The pool and its reason.
        rejected: Rejected,
    },
    /// Somebody has the address.
    #[error("{address} is in use by {holder}")]
    InUse {
        /// The address.
        address: IpAddr,
        /// The handle that holds it, empty if none is recorded.
        handle: String,
        /// Pod, node or tunnel, in words.
        holder: String,
    },
    /// The address was released a short time ago.
    #[error("{address} was released a short time ago and is not given out again before its cooldown ends")]
    Cooling {
        /// The address.
        address: IpAddr,
    },
    /// Strict affinity, and the block is somebody else's.
    #[error("{address} is in block {block} of {owner}, and strictAffinity is on")]
    NotAffine {
        /// The address.
        address: IpAddr,
        /// Its block.
        block: IpNet,
        /// The block's owner in words.
        owner: String,
    },
    /// The address is held by another handle than the one given.
    #[error("{address} is held by handle {found:?}, not by {given:?}; nothing was released")]
    BadHandle {
        /// The address.
        address: IpAddr,
        /// The handle that was given.
        given: String,
        /// The handle that holds it.
        found: String,
    },
    /// The address was given out anew since the caller looked.
    #[error("{address} was given out anew meanwhile (sequence number {found}, expected {given}); nothing was released")]
    BadSequence {
        /// The address.
        address: IpAddr,
        /// The number that was given.
        given: u64,
        /// The number that is recorded.
        found: u64,
    },
    /// No such handle: nothing is assigned under it.
    #[error("there is no handle {0:?}: nothing is assigned under it")]
    UnknownHandle(String),
    /// The handle already has as many addresses as it may.
    #[error("handle {handle:?} already holds {held}, and may hold {limit} per family")]
    HandleFull {
        /// The handle.
        handle: String,
        /// What it holds.
        held: String,
        /// How many it may hold.
        limit: usize,
    },
    /// A range that is no multiple of a block, or lies in no pool.
    #[error("{cidr} can't be used: {reason}")]
    BadRange {
        /// The range.
        cidr: IpNet,
        /// What is wrong.
        reason: String,
    },
    /// The block is not empty, so its affinity stays.
    #[error("block {block} holds {used} addresses")]
    NotEmpty {
        /// The block.
        block: IpNet,
        /// How many are in use.
        used: usize,
    },
    /// What is stored can't be used.
    #[error("{key} is damaged: {reason}")]
    Broken {
        /// The key.
        key: Key,
        /// What is wrong.
        reason: String,
    },
    /// Others changed the same blocks again and again: try later.
    #[error("gave up after {conflicts} conflicting changes by others")]
    Contention {
        /// How many.
        conflicts: u32,
    },
    /// The store failed; what was asked may have happened.
    #[error("{0}")]
    Store(String),
}

fn list<T: ToString>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl IpamError {
    pub(crate) fn in_use(address: IpAddr, attribute: &Attribute) -> IpamError {
        if attribute.released_at.is_some() {
            return IpamError::Cooling { address };
        }
        let handle = attribute.handle_id.as_deref().map_or("", block::handle_text).to_owned();
        IpamError::InUse { address, holder: describe(attribute), handle }
    }
}

/// A holder in words: `pod prod/web-1 on node-2 (handle net.abc)`.
pub fn describe(attribute: &Attribute) -> String {
    let attr = |key: &str| attribute.secondary.get(key).map(String::as_str);
    let mut words = match (attr("pod"), attr("type"), attr("service")) {
        (Some(pod), _, _) => format!("pod {}/{pod}", attr("namespace").unwrap_or("?")),
        (None, Some(kind), _) => kind.to_owned(),
        (None, None, Some(service)) => format!("service {}/{service}", attr("namespace").unwrap_or("?")),
        (None, None, None) => attr("note").unwrap_or("an unnamed holder").to_owned(),
    };
    if let Some(node) = attr("node") {
        words.push_str(&format!(" on {node}"));
    }
    if let Some(handle) = attribute.handle_id.as_deref() {
        words.push_str(&format!(" (handle {})", block::handle_text(handle)));
    }
    words
}
