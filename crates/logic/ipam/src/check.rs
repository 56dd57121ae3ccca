//! Whether blocks, handles and affinities agree with each other and with who really uses addresses: `ipam check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::ipam::{Affinity, AffinityState, Block, Handle};
use tortie_facts::{AffinityKey, Key, Value};

use crate::block::{self, Claimed, handle_text};
use crate::error::describe;
use crate::settings::Settings;
use crate::{Fact, Owner};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// An address is assigned and nothing uses it.
    Leaked {
        /// The address.
        address: IpAddr,
        /// Who it was for, in words.
        holder: String,
    },
    /// Something uses an address that is not assigned.
    NotAssigned {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// Several things use one address.
    Shared {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// Something uses an address that no pool holds.
    NotInPool {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// A handle under which nothing is assigned.
    LeakedHandle {
        /// The handle.
        handle: String,
    },
    /// Addresses are assigned to a handle that does not exist, or that does not name their block.
    MissingHandle {
        /// The handle.
        handle: String,
        /// The block.
        block: IpNet,
    },
    /// A handle counts more or fewer addresses of a block than the block holds for it.
    WrongCount {
        /// The handle.
        handle: String,
        /// The block.
        block: IpNet,
        /// What the handle counts.
        counted: u32,
        /// What the block holds.
        held: u32,
    },
    /// A block can't be used.
    BrokenBlock {
        /// The block.
        block: IpNet,
        /// What is wrong.
        reason: String,
    },
    /// An affinity for a block that is somebody else's or not there.
    StaleAffinity {
        /// Who has the affinity.
        owner: String,
        /// For which block.
        block: IpNet,
    },
    /// A block without the affinity that its owner should have.
    MissingAffinity {
        /// The block's owner.
        owner: String,
        /// The block.
        block: IpNet,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Leaked { address, holder } => write!(f, "{address} is assigned to {holder}, and nothing uses it"),
            Problem::NotAssigned { address, users } => {
                write!(f, "{address} is used by {} and not assigned", users.join(", "))
            }
            Problem::Shared { address, users } => write!(f, "{address} is used by {}", users.join(" and ")),
            Problem::NotInPool { address, users } => {
                write!(f, "{address} is used by {} and in no active pool", users.join(", "))
            }
            Problem::LeakedHandle { handle } => write!(f, "handle {handle} holds no address"),
            Problem::MissingHandle { handle, block } => {
                write!(f, "block {block} holds addresses of handle {handle}, which does not know of them")
            }
            Problem::WrongCount { handle, block, counted, held } => {
                write!(f, "handle {handle} counts {counted} addresses in block {block}, which holds {held}")
            }
            Problem::BrokenBlock { block, reason } => write!(f, "block {block} is damaged: {reason}"),
            Problem::StaleAffinity { owner, block } => {
                write!(f, "{owner} has an affinity for block {block}, which is not its own")
            }
            Problem::MissingAffinity { owner, block } => write!(f, "{owner} owns block {block} without an affinity"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blocks that were looked at.
    pub blocks: usize,
    /// Addresses that are assigned.
    pub assigned: usize,
    /// Addresses that are in use.
    pub in_use: usize,
    /// Handles that were looked at.
    pub handles: usize,
    /// What is wrong, sorted.
    pub problems: Vec<Problem>,
    /// What to release to repair the leaks, guarded by what was seen.
    pub leaks: Vec<Claimed>,
}

/// Checks a listing of all blocks, handles and affinities against `in_use`: each address that a workload, node or
/// service uses, with its users in words. Without it, nothing is said on leaks.
pub fn check(settings: &Settings, facts: &[Fact], in_use: Option<&BTreeMap<IpAddr, Vec<String>>>) -> Report {
    let mut report = Report { in_use: in_use.map_or(0, BTreeMap::len), ..Report::default() };
    let mut blocks: BTreeMap<IpNet, &Block> = BTreeMap::new();
    let mut handles: BTreeMap<&str, &Handle> = BTreeMap::new();
    let mut affinities: BTreeMap<&AffinityKey, &Affinity> = BTreeMap::new();
    for fact in facts {
        match (&fact.key, &fact.value) {
            (Key::Block(cidr), Value::Block(block)) => {
                report.blocks += 1;
                match block::fault(*cidr, block) {
                    Some(reason) => report.problems.push(Problem::BrokenBlock { block: *cidr, reason }),
                    None => drop(blocks.insert(*cidr, block)),
                }
            }
            (Key::Handle(id), Value::Handle(handle)) => drop(handles.insert(handle_text(id), handle)),
            (Key::Affinity(key), Value::Affinity(affinity)) => drop(affinities.insert(key, affinity)),
            _ => {}
        }
    }
    report.handles = handles.len();
    check_handles(&mut report, &blocks, &handles);
    check_affinities(&mut report, &blocks, &affinities);
    check_use(&mut report, settings, &blocks, in_use);
    report.problems.sort();
    report
}

fn check_handles(report: &mut Report, blocks: &BTreeMap<IpNet, &Block>, handles: &BTreeMap<&str, &Handle>) {
    let mut alive: BTreeSet<String> = BTreeSet::new();
    let held: BTreeMap<IpNet, BTreeMap<String, u32>> =
        blocks.iter().map(|(cidr, block)| (*cidr, block::counts(block))).collect();
    for (cidr, counts) in &held {
        for (id, count) in counts {
            alive.insert(id.clone());
            let counted = handles.get(id.as_str()).and_then(|handle| handle.block.get(&cidr.to_string())).copied();
            match counted {
                None => report.problems.push(Problem::MissingHandle { handle: id.clone(), block: *cidr }),
                Some(counted) if counted != *count => {
                    let handle = id.clone();
                    report.problems.push(Problem::WrongCount { handle, block: *cidr, counted, held: *count });
                }
                Some(_) => {}
            }
        }
    }
    for (id, handle) in handles {
        if !alive.contains(*id) {
            report.problems.push(Problem::LeakedHandle { handle: (*id).to_owned() });
            continue;
        }
        for (text, counted) in &handle.block {
            let Ok(cidr) = text.parse::<IpNet>() else { continue };
            if !held.get(&cidr).is_some_and(|counts| counts.contains_key(*id)) {
                let handle = (*id).to_owned();
                report.problems.push(Problem::WrongCount { handle, block: cidr, counted: *counted, held: 0 });
            }
        }
    }
}

fn check_affinities(
    report: &mut Report,
    blocks: &BTreeMap<IpNet, &Block>,
    affinities: &BTreeMap<&AffinityKey, &Affinity>,
) {
    for (key, affinity) in affinities {
        let owner = Owner { kind: key.kind, name: key.owner.clone() };
        let confirmed = affinity.state == AffinityState::Confirmed;
        let theirs = blocks.get(&key.cidr).and_then(|block| block::owner(block)).as_ref() == Some(&owner);
        if confirmed && !theirs {
            report.problems.push(Problem::StaleAffinity { owner: owner.to_string(), block: key.cidr });
        }
    }
    for (cidr, block) in blocks {
        let Some(owner) = block::owner(block) else { continue };
        if !affinities.contains_key(&owner.affinity_key(*cidr)) {
            report.problems.push(Problem::MissingAffinity { owner: owner.to_string(), block: *cidr });
        }
    }
}

fn check_use(
    report: &mut Report,
    settings: &Settings,
    blocks: &BTreeMap<IpNet, &Block>,
    in_use: Option<&BTreeMap<IpAddr, Vec<String>>>,
) {
    let mut assigned = BTreeSet::new();
    for (cidr, block) in blocks {
        for ordinal in 0..block.allocations.len() {
            let Some(attribute) = block::holder(block, ordinal) else { continue };
            let address = block::address(*cidr, ordinal);
            report.assigned += 1;
            assigned.insert(address);
            if in_use.is_some_and(|users| !users.contains_key(&address)) {
                report.problems.push(Problem::Leaked { address, holder: describe(attribute) });
                report.leaks.push(Claimed {
                    address,
                    handle: attribute.handle_id.as_deref().map(|id| handle_text(id).to_owned()),
                    sequence: Some(block::sequence(block, ordinal)),
                });
            }
        }
    }
    for (address, users) in in_use.into_iter().flatten() {
        let (address, users) = (*address, users.clone());
        if users.len() > 1 {
            report.problems.push(Problem::Shared { address, users: users.clone() });
        }
        if settings.pool_of(address).is_none_or(|pool| pool.closed.is_some()) {
            report.problems.push(Problem::NotInPool { address, users });
        } else if !assigned.contains(&address) {
            report.problems.push(Problem::NotAssigned { address, users });
        }
    }
}
