//! Where is every pod prefix, and what of it is announced?
//!
//! A route to each local address, a black hole for each block of this node. Announced are the node's blocks whole,
//! and local addresses outside of them (borrowed from other nodes' blocks) one by one; nothing of a pool that forbids
//! it. Routes to the blocks of other nodes come from `remote`, or by BGP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{Pool, Route, RouteTarget};
use tortie_net::{Family, IpNet};

use crate::bgp::Prefixes;
use crate::config::ClusterRoutes;
use crate::local::{Local, LocalEndpoint};
use crate::remote::Encap;

/// What is kept of an IPPool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolFacts {
    pub(crate) cidr: IpNet,
    pub(crate) nat_outgoing: bool,
    pub(crate) announced: bool,
    pub(crate) encap: Encap,
}

/// Blocks and pools.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pools: BTreeMap<Box<str>, PoolFacts>,
    /// Blocks that say that they are this node's.
    blocks: BTreeSet<IpNet>,
    /// This node's confirmed claims.
    claims: BTreeSet<IpNet>,
    dirty: bool,
}

/// Everything that the routes' table and its neighbours should hold.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) pools: BTreeMap<IpNet, Pool>,
    pub(crate) routes: BTreeMap<IpNet, Route>,
    pub(crate) announcements: BTreeSet<IpNet>,
}

impl Routes {
    /// A pool came, changed or went; whether that was news.
    pub(crate) fn set_pool(&mut self, name: &str, pool: Option<PoolFacts>) -> bool {
        let old = match pool {
            Some(pool) => self.pools.insert(name.into(), pool),
            None => self.pools.remove(name),
        };
        self.dirty |= old != pool;
        old != pool
    }

    pub(crate) fn set_block(&mut self, cidr: IpNet, ours: bool) {
        self.dirty |= put(&mut self.blocks, cidr, ours);
    }

    pub(crate) fn set_claim(&mut self, cidr: IpNet, confirmed: bool) {
        self.dirty |= put(&mut self.claims, cidr, confirmed);
    }

    /// Local addresses changed.
    pub(crate) fn mark(&mut self) {
        self.dirty = true;
    }

    /// The tables anew, if they may have changed since the last call.
    pub(crate) fn take(&mut self, local: &Local) -> Option<Outcome> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let mut pools = BTreeMap::new();
        for PoolFacts { cidr, nat_outgoing, announced: _, encap: _ } in self.pools.values() {
            let pool = pools.entry(*cidr).or_insert(Pool { nat_outgoing: false });
            pool.nat_outgoing |= nat_outgoing;
        }
        // A block of one address is its workload's route or nothing.
        let wide = |block: &&IpNet| block.prefix_len() < Family::of_net(**block).bits();
        let blocks: Vec<IpNet> = self.claims.intersection(&self.blocks).filter(wide).copied().collect();
        let announced: Vec<IpNet> = blocks.iter().copied().filter(|block| !self.forbidden(*block)).collect();
        let mut addresses = Vec::new();
        for (_, endpoint) in local.iter() {
            addresses.extend(endpoint.addresses.iter().map(|addr| (IpNet::from(*addr), &endpoint.interface)));
        }
        // Of two endpoints with one address the first has it.
        addresses.sort_by_key(|(net, _)| *net);
        addresses.dedup_by_key(|(net, _)| *net);
        let alone = |net: &IpNet| {
            !announced.iter().any(|block| block.contains(net)) && self.in_pool(*net) && !self.forbidden(*net)
        };
        let singles = addresses.iter().map(|(net, _)| *net).filter(alone);
        let announcements = announced.iter().copied().chain(singles).collect();
        let shut = blocks.iter().map(|block| (*block, RouteTarget::Blackhole));
        let to = |interface: &Arc<str>| RouteTarget::Workload { interface: Arc::clone(interface) };
        let open = addresses.iter().map(|(net, interface)| (*net, to(interface)));
        let routes = shut.chain(open).map(|(net, target)| (net, Route { target })).collect();
        Some(Outcome { pools, routes, announcements })
    }

    /// Blocks and pools as what may be announced depends on them. `singles`: whether addresses are to be told too.
    pub(crate) fn prefixes(&self, local: &Local, singles: bool, bgp: ClusterRoutes) -> Prefixes {
        let addresses = |endpoint: &LocalEndpoint| {
            let interface = endpoint.interface.clone();
            endpoint.addresses.clone().into_iter().map(move |addr| (addr, interface.clone()))
        };
        let learns = |encap| match encap {
            Encap::Plain => bgp.plain,
            Encap::Ipip { beyond_subnet_only: _ } => bgp.ipip,
            Encap::Vxlan { beyond_subnet_only: _ } => false,
        };
        Prefixes {
            blocks: self.claims.intersection(&self.blocks).copied().collect(),
            pools: self.pools.values().map(|pool| (pool.cidr, pool.announced)).collect(),
            unlearned: self.pools.values().filter(|pool| !learns(pool.encap)).map(|pool| pool.cidr).collect(),
            workloads: local.iter().filter(|_| singles).flat_map(|(_, endpoint)| addresses(endpoint)).collect(),
        }
    }

    /// Pools to whose blocks on other nodes neither of the two sources gives routes, and the words for it.
    pub(crate) fn unrouted(&self, blocks: ClusterRoutes, bgp: ClusterRoutes) -> impl Iterator<Item = (&str, String)> {
        let left_out = move |encap| match encap {
            Encap::Plain => (!blocks.plain && !bgp.plain).then_some(("without encapsulation", "EnabledNoEncapOnly")),
            Encap::Ipip { beyond_subnet_only: _ } => {
                (!blocks.ipip && !bgp.ipip).then_some(("with IPIP", "EnabledIPIPOnly"))
            }
            Encap::Vxlan { beyond_subnet_only: _ } => None,
        };
        self.pools.iter().filter_map(move |(name, pool)| {
            let (kind, word) = left_out(pool.encap)?;
            let line = format!(
                "spec: this node has no routes to the blocks of others, as programClusterRoutes of both FelixConfiguration \
                 and BGPConfiguration leaves out pools {kind}; one of them must be Enabled or {word}"
            );
            Some((&**name, line))
        })
    }

    /// How packets to a block travel, by the narrowest pool that it is in.
    pub(crate) fn encap(&self, block: IpNet) -> Option<Encap> {
        let around = self.pools.values().filter(|pool| pool.cidr.contains(&block));
        around.max_by_key(|pool| pool.cidr.prefix_len()).map(|pool| pool.encap)
    }

    /// The pools that are encapsulated, and how.
    pub(crate) fn encapsulated(&self) -> BTreeMap<IpNet, Encap> {
        let pools = self.pools.values().filter(|pool| pool.encap != Encap::Plain);
        pools.map(|pool| (pool.cidr, pool.encap)).collect()
    }

    fn in_pool(&self, net: IpNet) -> bool {
        self.pools.values().any(|pool| pool.cidr.contains(&net))
    }

    fn forbidden(&self, net: IpNet) -> bool {
        self.pools.values().any(|pool| !pool.announced && pool.cidr.contains(&net))
    }
}

fn put(set: &mut BTreeSet<IpNet>, net: IpNet, present: bool) -> bool {
    if present { set.insert(net) } else { set.remove(&net) }
}
