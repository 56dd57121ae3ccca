//! How full pools and blocks are, and who borrows: `calicoctl ipam show`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::ipam::Block;

use crate::block;
use crate::order::addresses;
use crate::reserved::Reserved;
use crate::settings::{Pool, Settings};

/// How full one block is. An address that is in use and reserved counts as both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUse {
    /// The block.
    pub cidr: IpNet,
    /// Addresses in it.
    pub capacity: u128,
    /// Addresses that are assigned or cool down.
    pub in_use: u128,
    /// Addresses that are reserved.
    pub reserved: u128,
    /// Addresses that can be assigned.
    pub available: u128,
}

/// How full one pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its name; empty for the blocks that lie in no pool.
    pub name: String,
    /// Its range; `None` for the blocks that lie in no pool.
    pub cidr: Option<IpNet>,
    /// Addresses in its range.
    pub capacity: u128,
    /// Addresses of its blocks that are in use.
    pub in_use: u128,
    /// Addresses in its range that are reserved.
    pub reserved: u128,
    /// Addresses that can be assigned, those outside blocks too.
    pub available: u128,
    /// Its blocks, by address.
    pub blocks: Vec<BlockUse>,
}

fn block_use(cidr: IpNet, block: &Block, reserved: &Reserved) -> BlockUse {
    let capacity = addresses(cidr);
    BlockUse {
        cidr,
        capacity,
        in_use: capacity.saturating_sub(block.unallocated.len() as u128),
        reserved: reserved.count(cidr),
        available: block::free(cidr, block, reserved) as u128,
    }
}

/// The use of every pool, by name, and then of the blocks that lie in none.
pub fn usage<'a>(settings: &Settings, blocks: impl IntoIterator<Item = (IpNet, &'a Block)>) -> Vec<PoolUse> {
    let blocks: Vec<BlockUse> =
        blocks.into_iter().map(|(cidr, block)| block_use(cidr, block, &settings.reserved)).collect();
    let mut pools: Vec<PoolUse> = Vec::new();
    let mut orphans = blocks;
    for pool in &settings.pools {
        let (mine, others) = orphans.into_iter().partition::<Vec<_>, _>(|block| pool.cidr.contains(&block.cidr));
        orphans = others;
        let capacity = addresses(pool.cidr);
        let reserved = settings.reserved.count(pool.cidr);
        let (mut in_use, mut available, mut in_blocks, mut reserved_in_blocks) = (0, 0, 0, 0u128);
        for block in &mine {
            in_use += block.in_use;
            available += block.available;
            in_blocks += block.capacity;
            reserved_in_blocks += block.reserved;
        }
        let outside = capacity.saturating_sub(in_blocks);
        available += outside.saturating_sub(reserved.saturating_sub(reserved_in_blocks));
        let (name, cidr) = (pool.name.clone(), Some(pool.cidr));
        pools.push(PoolUse { name, cidr, capacity, in_use, reserved, available, blocks: mine });
    }
    if !orphans.is_empty() {
        let sum = |of: fn(&BlockUse) -> u128| orphans.iter().map(of).sum();
        pools.push(PoolUse {
            name: String::new(),
            cidr: None,
            capacity: sum(|block| block.capacity),
            in_use: sum(|block| block.in_use),
            reserved: sum(|block| block.reserved),
            available: sum(|block| block.available),
            blocks: orphans,
        });
    }
    pools
}

/// How full a pool is, for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFill {
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// Addresses in its range.
    pub addresses: u128,
    /// Addresses in use.
    pub in_use: u128,
    /// Addresses reserved.
    pub reserved: u128,
    /// Blocks that its range has room for.
    pub room: u128,
    /// Blocks that exist.
    pub blocks: usize,
}

impl fmt::Display for PoolFill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolFill { name, cidr, addresses, in_use, reserved, room, blocks } = self;
        write!(f, "pool {name} ({cidr}): {in_use} of {addresses} addresses in use")?;
        if *reserved > 0 {
            write!(f, ", {reserved} reserved")?;
        }
        write!(f, ", {blocks} of {room} blocks claimed")
    }
}

/// How full these pools are.
pub fn fill<'a>(
    pools: &[Pool],
    blocks: impl Iterator<Item = (IpNet, &'a Block)> + Clone,
    reserved: &Reserved,
) -> Vec<PoolFill> {
    let one = |pool: &Pool| {
        let mine = blocks.clone().filter(|(cidr, _)| pool.cidr.contains(cidr));
        let used = mine.clone().map(|(_, block)| block.allocations.iter().flatten().count() as u128);
        let bits = u32::from(pool.block_size.saturating_sub(pool.cidr.prefix_len()));
        PoolFill {
            name: pool.name.clone(),
            cidr: pool.cidr,
            addresses: addresses(pool.cidr),
            in_use: used.sum(),
            reserved: reserved.count(pool.cidr),
            room: 1u128.checked_shl(bits).unwrap_or(u128::MAX),
            blocks: mine.count(),
        }
    };
    pools.iter().map(one).collect()
}

/// An address that a node has from a block that is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borrowed {
    /// The address.
    pub address: IpAddr,
    /// The node that uses it.
    pub node: String,
    /// The block.
    pub block: IpNet,
    /// The block's owner; empty if it has none.
    pub owner: String,
    /// `pod`, `vmi`, or the kind of tunnel address.
    pub kind: String,
    /// `NAMESPACE/NAME` of the pod, if it is one.
    pub holder: String,
}

/// Every borrowed address, and how many are held without a node recorded, of which that can't be said.
pub fn borrowed<'a>(blocks: impl IntoIterator<Item = (IpNet, &'a Block)>) -> (Vec<Borrowed>, usize) {
    let mut found = Vec::new();
    let mut unclear = 0;
    for (cidr, block) in blocks {
        let owner = block::owner(block).map(|owner| owner.name).unwrap_or_default();
        for ordinal in 0..block.allocations.len() {
            let Some(attribute) = block::holder(block, ordinal) else { continue };
            let attr = |key: &str| attribute.secondary.get(key).cloned();
            let Some(node) = attr("node") else {
                unclear += 1;
                continue;
            };
            if node == owner {
                continue;
            }
            let named = |name: String| format!("{}/{name}", attr("namespace").unwrap_or_default());
            let (kind, holder) = match (attr("vmi-name"), attr("pod"), attr("type")) {
                (Some(vmi), _, _) => ("vmi".to_owned(), named(vmi)),
                (None, Some(pod), _) => ("pod".to_owned(), named(pod)),
                (None, None, kind) => (kind.unwrap_or_default(), String::new()),
            };
            let address = block::address(cidr, ordinal);
            found.push(Borrowed { address, node, block: cidr, owner: owner.clone(), kind, holder });
        }
    }
    (found, unclear)
}
