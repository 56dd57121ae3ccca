//! The arithmetic of one block: ordinals, the queue of free addresses, sequence numbers, cooldown.
//!
//! Invariant: every ordinal is either in `unallocated`, once, or has an attribute in `allocations`; never both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tortie_api::Timestamp;
use tortie_api::ipam::{Attribute, Block};
use tortie_net::Family;

use crate::reserved::Reserved;
use crate::{IpamError, Owner};

/// Address bits of the largest block that is supported.
const MOST_BLOCK_BITS: u8 = 16;

/// What is recorded with an address that another CNI plugin asked for: no endpoint in the datastore will ever have it.
pub const WITHOUT_ENDPOINT: (&str, &str) = ("note", "address without endpoint");

/// A moment, given by the caller: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

impl Now {
    /// The moment in whole seconds, as blocks keep it.
    pub fn timestamp(self) -> Timestamp {
        let seconds = i64::try_from(self.0 / 1_000_000_000).expect("2^64 ns are less than 2^63 s");
        Timestamp::from_unix_seconds(seconds).expect("2^64 ns after the epoch is the year 2554")
    }
}

/// For whom an address is: what is recorded with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The handle by which the address can be found and released. Without one, only by address.
    pub handle: Option<String>,
    /// Pod, namespace, node and the like.
    pub attrs: BTreeMap<String, String>,
}

impl Holder {
    fn attribute(&self) -> Attribute {
        Attribute { handle_id: self.handle.clone(), secondary: self.attrs.clone(), ..Attribute::default() }
    }
}

/// How many addresses a block of this prefix holds.
pub fn size(cidr: IpNet) -> usize {
    1 << (cidr.max_prefix_len() - cidr.prefix_len()).min(MOST_BLOCK_BITS)
}

/// How far into the block an address lies, if it lies in it.
pub fn ordinal(cidr: IpNet, addr: IpAddr) -> Option<usize> {
    if !cidr.contains(&addr) {
        return None;
    }
    let far = match (cidr.network(), addr) {
        (IpAddr::V4(base), IpAddr::V4(addr)) => u128::from(u32::from(addr) - u32::from(base)),
        (IpAddr::V6(base), IpAddr::V6(addr)) => u128::from(addr) - u128::from(base),
        _ => return None,
    };
    usize::try_from(far).ok().filter(|far| *far < size(cidr))
}

/// The address this far into the block; the block's last address at most.
pub fn address(cidr: IpNet, ordinal: usize) -> IpAddr {
    let far = ordinal.min(size(cidr) - 1);
    match cidr.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) + far as u32).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) + far as u128).into(),
    }
}

/// The block that an address lies in, in a pool whose blocks have this prefix length.
pub fn containing(addr: IpAddr, block_size: u8) -> Option<IpNet> {
    IpNet::new(addr, block_size).ok().map(|net| net.trunc())
}

/// A new block with all addresses free. Its sequence number starts at the time, so that a block that is deleted and
/// made again never repeats a number.
pub fn new(cidr: IpNet, owner: Option<&Owner>, now: Now) -> Block {
    Block {
        cidr: cidr.into(),
        affinity: owner.map(Owner::to_string),
        affinity_claim_time: owner.map(|_| now.timestamp()),
        allocations: vec![None; size(cidr)],
        unallocated: (0..size(cidr)).collect(),
        sequence_number: now.0,
        ..Block::default()
    }
}

/// What is wrong with the structure of a block, if anything. Such a block is left alone.
pub fn fault(cidr: IpNet, block: &Block) -> Option<String> {
    if cidr.max_prefix_len() - cidr.prefix_len() > MOST_BLOCK_BITS {
        return Some(format!("a block of /{} is larger than is supported", cidr.prefix_len()));
    }
    if block.allocations.len() != size(cidr) {
        return Some(format!("it has {} allocations, expected {}", block.allocations.len(), size(cidr)));
    }
    let mut free = BTreeSet::new();
    for ordinal in &block.unallocated {
        match block.allocations.get(*ordinal) {
            None => return Some(format!("ordinal {ordinal} in the list of free ones is out of range")),
            Some(Some(_)) => return Some(format!("ordinal {ordinal} is both free and allocated")),
            Some(None) if !free.insert(*ordinal) => return Some(format!("ordinal {ordinal} is free twice")),
            Some(None) => {}
        }
    }
    for (ordinal, index) in block.allocations.iter().enumerate() {
        match index {
            Some(index) if *index >= block.attributes.len() => {
                return Some(format!("ordinal {ordinal} names attribute {index} of {}", block.attributes.len()));
            }
            None if !free.contains(&ordinal) => {
                return Some(format!("ordinal {ordinal} is neither free nor allocated"));
            }
            Some(_) | None => {}
        }
    }
    None
}

/// Who owns the block.
pub fn owner(block: &Block) -> Option<Owner> {
    match (&block.affinity, &block.host_affinity) {
        (Some(text), _) => Owner::parse(text),
        (None, Some(host)) => Some(Owner::host(host)),
        (None, None) => None,
    }
}

/// The owner gives the block up, addresses and all.
pub fn disown(block: &mut Block) {
    block.affinity = None;
    block.affinity_claim_time = None;
    block.host_affinity = None;
}

/// Marks a new state of the block.
pub(crate) fn bump(block: &mut Block) {
    block.sequence_number = block.sequence_number.wrapping_add(1);
}

/// A handle as it is meant; a broken tool once wrote ids with more behind a carriage return.
pub fn handle_text(id: &str) -> &str {
    id.split('\r').next().unwrap_or(id)
}

/// What is recorded for an ordinal: `None` if it is free.
pub fn attribute(block: &Block, ordinal: usize) -> Option<&Attribute> {
    block.attributes.get((*block.allocations.get(ordinal)?)?)
}

/// What is recorded for an ordinal that somebody holds: `None` if it is free or cools down.
pub fn holder(block: &Block, ordinal: usize) -> Option<&Attribute> {
    attribute(block, ordinal).filter(|attribute| attribute.released_at.is_none())
}

/// The block's sequence number when the ordinal was given out, 0 if that is not known.
pub fn sequence(block: &Block, ordinal: usize) -> u64 {
    block.sequence_number_for_allocation.get(&ordinal.to_string()).copied().unwrap_or(0)
}

/// The ordinals that a handle holds.
pub fn ordinals_of(block: &Block, handle: &str) -> Vec<usize> {
    let held = |ordinal: &usize| {
        holder(block, *ordinal).and_then(|a| a.handle_id.as_deref()).is_some_and(|id| handle_text(id) == handle)
    };
    (0..block.allocations.len()).filter(held).collect()
}

/// How many ordinals each handle holds.
pub fn counts(block: &Block) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for ordinal in 0..block.allocations.len() {
        if let Some(id) = holder(block, ordinal).and_then(|a| a.handle_id.as_deref()) {
            *counts.entry(handle_text(id).to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Whether no ordinal is held, and none cools down.
pub fn is_empty(block: &Block) -> bool {
    const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";
    (0..block.allocations.len()).filter_map(|ordinal| attribute(block, ordinal)).all(|attribute| {
        attribute.handle_id.as_deref().is_some_and(|handle| handle.eq_ignore_ascii_case(WINDOWS_RESERVED))
    })
}

/// How many addresses can still be given out.
pub fn free(cidr: IpNet, block: &Block, reserved: &Reserved) -> usize {
    if !reserved.touches(cidr) {
        return block.unallocated.len();
    }
    block.unallocated.iter().filter(|ordinal| !reserved.contains(address(cidr, **ordinal))).count()
}

/// Ends the cooldown of addresses that were released at least so long ago, and drops attributes that nothing uses.
/// Says whether that changed the block.
pub fn thaw(block: &mut Block, now: Now, cooldown_secs: i64) -> bool {
    let due = now.timestamp().unix_seconds().saturating_sub(cooldown_secs.max(0));
    let mut changed = false;
    let mut used = BTreeSet::new();
    for ordinal in 0..block.allocations.len() {
        let Some(index) = block.allocations[ordinal] else { continue };
        let released_at = block.attributes.get(index).and_then(|attribute| attribute.released_at);
        if released_at.is_some_and(|at| at.unix_seconds() <= due) {
            block.allocations[ordinal] = None;
            block.unallocated.push(ordinal);
            block.sequence_number_for_allocation.remove(&ordinal.to_string());
            changed = true;
        } else {
            used.insert(index);
        }
    }
    if used.len() < block.attributes.len() {
        changed = true;
        let moved: BTreeMap<usize, usize> = used.iter().enumerate().map(|(to, from)| (*from, to)).collect();
        let attributes = std::mem::take(&mut block.attributes);
        block.attributes =
            attributes.into_iter().enumerate().filter(|(index, _)| used.contains(index)).map(|(_, a)| a).collect();
        for index in block.allocations.iter_mut().flatten() {
            *index = moved.get(index).copied().unwrap_or(*index);
        }
    }
    changed
}

fn record(block: &mut Block, ordinal: usize, attribute: &Attribute) {
    let index = block.attributes.iter().position(|existing| existing == attribute).unwrap_or_else(|| {
        block.attributes.push(attribute.clone());
        block.attributes.len() - 1
    });
    block.allocations[ordinal] = Some(index);
    block.sequence_number_for_allocation.insert(ordinal.to_string(), block.sequence_number);
}

/// Gives out up to `count` addresses, those that have been free longest first.
pub fn assign(cidr: IpNet, block: &mut Block, count: usize, holder: &Holder, reserved: &Reserved) -> Vec<IpAddr> {
    let attribute = holder.attribute();
    let skips = reserved.touches(cidr);
    let mut given = Vec::new();
    let mut rest = Vec::with_capacity(block.unallocated.len());
    for ordinal in std::mem::take(&mut block.unallocated) {
        let addr = address(cidr, ordinal);
        if given.len() < count && !(skips && reserved.contains(addr)) {
            record(block, ordinal, &attribute);
            given.push(addr);
        } else {
            rest.push(ordinal);
        }
    }
    block.unallocated = rest;
    given
}

/// Gives out one address, if it is free.
pub fn assign_at(cidr: IpNet, block: &mut Block, addr: IpAddr, holder: &Holder) -> Result<(), IpamError> {
    let at = ordinal(cidr, addr).ok_or(IpamError::NotInPool { address: addr, pools: Vec::new() })?;
    if let Some(attribute) = attribute(block, at) {
        return Err(IpamError::in_use(addr, attribute));
    }
    block.unallocated.retain(|free| *free != at);
    record(block, at, &holder.attribute());
    Ok(())
}

/// What to release, and the evidence that it is still what the caller means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The address.
    pub address: IpAddr,
    /// The handle that must hold it, if given.
    pub handle: Option<String>,
    /// The sequence number with which it must have been given out, if given.
    pub sequence: Option<u64>,
}

/// What a release of addresses did to a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Addresses that were held and are no more.
    pub released: Vec<IpAddr>,
    /// Addresses that nobody held.
    pub idle: Vec<IpAddr>,
    /// The handles that lost addresses.
    pub handles: BTreeSet<String>,
}

fn check(block: &Block, at: usize, claimed: &Claimed) -> Result<(), IpamError> {
    let Claimed { address, handle, sequence: wanted } = claimed;
    let found = sequence(block, at);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
        return Err(IpamError::BadSequence { address: *address, given: wanted, found });
    }
    let Some(holder) = holder(block, at) else { return Ok(()) };
    let held_by = holder.handle_id.as_deref().map_or("", handle_text);
    match handle.as_deref().map(handle_text) {
        Some(given) if !given.is_empty() && given != held_by => {
            Err(IpamError::BadHandle { address: *address, given: given.to_owned(), found: held_by.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

fn cool(block: &mut Block, ordinals: &[usize], now: Now, cooldown_secs: i64) {
    if ordinals.is_empty() {
        return;
    }
    let index = block.attributes.len();
    block.attributes.push(Attribute { released_at: Some(now.timestamp()), ..Attribute::default() });
    for ordinal in ordinals {
        block.allocations[*ordinal] = Some(index);
        block.sequence_number_for_allocation.insert(ordinal.to_string(), block.sequence_number);
    }
    thaw(block, now, cooldown_secs);
}

/// Releases addresses. If the evidence for one of them does not fit, none is released.
pub fn release(
    cidr: IpNet,
    block: &mut Block,
    claimed: &[Claimed],
    now: Now,
    cooldown_secs: i64,
) -> Result<Freed, IpamError> {
    let mut freed = Freed::default();
    let mut ordinals = BTreeSet::new();
    for one in claimed {
        let Some(at) = ordinal(cidr, one.address) else { continue };
        check(block, at, one)?;
        match holder(block, at) {
            None => freed.idle.push(one.address),
            Some(attribute) => {
                freed.handles.extend(attribute.handle_id.as_deref().map(|id| handle_text(id).to_owned()));
                if ordinals.insert(at) {
                    freed.released.push(one.address);
                }
            }
        }
    }
    cool(block, &ordinals.into_iter().collect::<Vec<_>>(), now, cooldown_secs);
    Ok(freed)
}

/// Releases all addresses of a handle and returns them.
pub fn release_handle(cidr: IpNet, block: &mut Block, handle: &str, now: Now, cooldown_secs: i64) -> Vec<IpAddr> {
    let ordinals = ordinals_of(block, handle);
    cool(block, &ordinals, now, cooldown_secs);
    ordinals.into_iter().map(|ordinal| address(cidr, ordinal)).collect()
}

/// The family of a block's addresses.
pub fn family(cidr: IpNet) -> Family {
    Family::of_net(cidr)
}
