//! What may be told to peers, and what of what they tell goes to the kernel.
//!
//! Told are blocks of this node, addresses outside of them and ranges of services, all within pools that allow it. A
//! route that was learned from outside is passed on only if a filter says so.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{BgpPolicy, ExportRule};
use tortie_net::IpNet;

use super::{Bgp, Peers};

const DEFAULT_PRIORITY: u32 = 1024;

/// What the rules are made from, besides BGP's own resources.
pub(crate) struct Prefixes {
    /// Blocks of this node.
    pub(crate) blocks: Vec<IpNet>,
    /// Pools, and whether they may be announced.
    pub(crate) pools: Vec<(IpNet, bool)>,
    /// Pools whose routes are not BGP's.
    pub(crate) unlearned: Vec<IpNet>,
    /// Addresses of this node's workloads and their interfaces, if [`Bgp::asks_for_addresses`].
    pub(crate) workloads: Vec<(IpAddr, Arc<str>)>,
}

impl Bgp {
    /// Without a filter that might let them out, single addresses need not be known.
    pub(crate) fn asks_for_addresses(&self) -> bool {
        self.filters.values().any(|filter| !filter.export_v4.is_empty() || !filter.export_v6.is_empty())
    }

    /// The rules for a node.
    /// `services`: as [`Bgp::services`] gives them.
    pub(crate) fn policy(&self, me: &str, prefixes: Prefixes, services: &BTreeSet<IpNet>, peers: &Peers) -> BgpPolicy {
        let Prefixes { blocks, pools, unlearned, workloads } = prefixes;
        let global = self.settings.get("").cloned().unwrap_or_default();
        let own = self.settings.get(me);
        let reflects = self.nodes.get(me).is_some_and(|node| node.cluster.is_some());
        let mut export: Vec<ExportRule> =
            pools.iter().filter(|(_, announced)| !announced).map(|(net, _)| ExportRule::Refuse(*net)).collect();
        export.extend(blocks.into_iter().map(ExportRule::Block));
        export.extend(services.iter().copied().map(ExportRule::Tell));
        if reflects {
            export.extend(global.balancers.iter().chain(&global.externals).copied().map(ExportRule::Tell));
        }
        export.extend(pools.iter().filter(|(_, announced)| *announced).map(|(net, _)| ExportRule::Tell(*net)));
        let advertised = own.and_then(|own| own.advertisements.clone()).or(global.advertisements);
        let ignored = own.map(|own| &own.ignored_interfaces).filter(|own| !own.is_empty());
        let ignored = ignored.unwrap_or(&global.ignored_interfaces);
        BgpPolicy {
            export,
            communities: advertised.unwrap_or_default(),
            workloads: workloads.into_iter().map(|(addr, interface)| (IpNet::from(addr), interface)).collect(),
            unprogrammed: global.services.iter().copied().chain(unlearned).collect(),
            normal_priority: global.normal_priority.map(|priority| priority.unwrap_or(DEFAULT_PRIORITY)),
            bind_to_node: global.bind_to_node || own.is_some_and(|own| own.bind_to_node),
            ignored_interfaces: ignored.iter().map(|name| Arc::from(name.as_str())).collect(),
            ranges: peers.ranges.clone(),
            peering: peers.peering.clone(),
        }
    }
}
