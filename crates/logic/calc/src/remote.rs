//! Which routes lead to the pods of other nodes?
//!
//! One for each block of another node in a pool whose routes are not BGP's, and one for each address that is held by
//! another node than its block's (borrowed, or left over). With `routeSource: WorkloadIPs` each address of a workload
//! stands for a block, and there are no others (`places`). BGP carries the blocks of all other pools. Only blocks that changed
//! are looked at anew; a change of pools, nodes or settings concerns all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api::ipam::Block;
use tortie_desired::{Route, RouteTarget};
use tortie_net::{Family, IpNet};

use crate::tunnels::{Tunnels, Way};

/// What is kept of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockFacts {
    owner: Option<Arc<str>>,
    /// Addresses that other nodes than the owner hold.
    borrowed: BTreeMap<IpAddr, Arc<str>>,
}

impl BlockFacts {
    pub(crate) fn of(cidr: IpNet, block: &Block) -> BlockFacts {
        if block.deleted {
            return BlockFacts::default();
        }
        let owner = block.affinity.as_deref().and_then(|owner| owner.strip_prefix("host:"));
        let owner: Option<Arc<str>> = owner.or(block.host_affinity.as_deref()).map(Arc::from);
        let mut borrowed = BTreeMap::new();
        for (ordinal, slot) in block.allocations.iter().enumerate() {
            let holder = slot.and_then(|index| block.attributes.get(index));
            let Some(node) = holder.and_then(|holder| holder.secondary.get("node")) else { continue };
            if owner.as_deref() != Some(node.as_str())
                && let Some(addr) = address(cidr, ordinal)
            {
                borrowed.insert(addr, Arc::from(node.as_str()));
            }
        }
        BlockFacts { owner, borrowed }
    }

    /// As a block of one address, which a node has.
    pub(crate) fn single(node: Arc<str>) -> BlockFacts {
        BlockFacts { owner: Some(node), borrowed: BTreeMap::new() }
    }

    pub(crate) fn is_of(&self, node: &str) -> bool {
        self.owner.as_deref() == Some(node)
    }
}

fn address(cidr: IpNet, ordinal: usize) -> Option<IpAddr> {
    let addr = match cidr.network() {
        IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(u32::try_from(ordinal).ok()?)?.into()),
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(u128::try_from(ordinal).ok()?)?.into()),
    };
    cidr.contains(&addr).then_some(addr)
}

/// How packets to another node's part of a pool travel; `beyond_subnet_only`: not within this node's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encap {
    Plain,
    Vxlan { beyond_subnet_only: bool },
    Ipip { beyond_subnet_only: bool },
}

/// All blocks, and the routes that they gave.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    blocks: BTreeMap<IpNet, BlockFacts>,
    dirty: BTreeSet<IpNet>,
    /// By block.
    given: BTreeMap<IpNet, BTreeMap<IpNet, Route>>,
}

impl Remote {
    pub(crate) fn set_block(&mut self, cidr: IpNet, block: Option<BlockFacts>) {
        let block = block.filter(|block| *block != BlockFacts::default());
        if self.blocks.get(&cidr) == block.as_ref() {
            return;
        }
        match block {
            Some(block) => self.blocks.insert(cidr, block),
            None => self.blocks.remove(&cidr),
        };
        self.dirty.insert(cidr);
    }

    /// Whether the next [`Remote::take`] looks at anything.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Which node has each block and each borrowed address.
    pub(crate) fn held(&self) -> Vec<(IpNet, Arc<str>)> {
        let blocks = self.blocks.iter().filter_map(|(cidr, block)| Some((*cidr, block.owner.clone()?)));
        let borrowed = self.blocks.values().flat_map(|block| &block.borrowed);
        blocks.chain(borrowed.map(|(addr, node)| (IpNet::from(*addr), node.clone()))).collect()
    }

    pub(crate) fn mark_all(&mut self) {
        self.dirty.extend(self.blocks.keys());
    }

    /// What changed since the last call.
    pub(crate) fn take(
        &mut self,
        me: &str,
        tunnels: &Tunnels,
        encap: impl Fn(IpNet) -> Option<Encap>,
    ) -> BTreeMap<IpNet, Option<Route>> {
        let mut out = BTreeMap::new();
        for cidr in std::mem::take(&mut self.dirty) {
            let now = self.blocks.get(&cidr).map_or_else(BTreeMap::new, |block| {
                encap(cidr).map_or_else(BTreeMap::new, |encap| routes(me, cidr, block, encap, tunnels))
            });
            let old = self.given.remove(&cidr).unwrap_or_default();
            out.extend(old.keys().filter(|net| !now.contains_key(net)).map(|net| (*net, None)));
            let news = now.iter().filter(|(net, route)| old.get(net) != Some(route));
            out.extend(news.map(|(net, route)| (*net, Some(route.clone()))));
            if !now.is_empty() {
                self.given.insert(cidr, now);
            }
        }
        out
    }
}

fn routes(me: &str, cidr: IpNet, block: &BlockFacts, encap: Encap, tunnels: &Tunnels) -> BTreeMap<IpNet, Route> {
    let BlockFacts { owner, borrowed } = block;
    let single = borrowed.iter().map(|(addr, node)| (IpNet::from(*addr), node));
    let all = owner.iter().map(|owner| (cidr, owner)).chain(single).filter(|(_, node)| &***node != me);
    let route = |(net, node): (IpNet, &Arc<str>)| {
        let target = match tunnels.way(me, node, Family::of_net(net), encap)? {
            Way::Direct(via) => RouteTarget::Node { node: node.clone(), via },
            Way::Tunnel(device, via) => RouteTarget::Tunnel { device, node: node.clone(), via },
        };
        Some((net, Route { target }))
    };
    all.filter_map(route).collect()
}
