//! What changed since the last flush?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{
    BgpPeer, BgpPolicy, BgpSpeaker, Endpoint, EndpointId, HostEndpoint, HostInterface, Ipip, Member, Pool, Route,
    Settings, TierPolicies, TunnelDevice, Vtep, Vxlan, Wireguard,
};
use tortie_net::{Family, IpNet};

use crate::bgp::Peers;

/// What the last flush left, for the tables that are compared as a whole or row by row.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) settings: Settings,
    pub(crate) endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    pub(crate) previews: BTreeMap<EndpointId, Arc<[TierPolicies]>>,
    pub(crate) host_previews: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    pub(crate) host_endpoints: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    /// The addresses of all nodes, while they are asked for.
    pub(crate) all_hosts: Option<BTreeSet<Member>>,
    pub(crate) pools: BTreeMap<IpNet, Pool>,
    pub(crate) tunnels: BTreeMap<TunnelDevice, Vxlan>,
    pub(crate) ipip: Option<Ipip>,
    pub(crate) wireguard: BTreeMap<Family, Wireguard>,
    pub(crate) vteps: BTreeMap<IpAddr, Vtep>,
    /// Of this node's own workloads and blocks.
    pub(crate) routes: BTreeMap<IpNet, Route>,
    /// To other nodes; where both have one, that of `routes` counts.
    pub(crate) remote: BTreeMap<IpNet, Route>,
    /// Blocks and addresses that are announced.
    pub(crate) workload_announcements: BTreeSet<IpNet>,
    /// Those and ranges of services.
    pub(crate) announcements: BTreeSet<IpNet>,
    pub(crate) bgp_policy: BgpPolicy,
    /// To peers that are behind a gateway.
    pub(crate) peer_routes: BTreeMap<IpNet, Route>,
    /// Ranges and single addresses of services that the node announces.
    pub(crate) services: BTreeSet<IpNet>,
    /// Those by address are in `bgp_peers`.
    pub(crate) bgp: Peers,
    pub(crate) bgp_speaker: Option<BgpSpeaker>,
    pub(crate) bgp_peers: BTreeMap<IpAddr, BgpPeer>,
}

/// Puts one row; what to tell, if that is news.
pub(crate) fn put<K: Ord + Clone, V: PartialEq + Clone>(
    flushed: &mut BTreeMap<K, V>,
    key: K,
    now: Option<V>,
) -> Option<(K, Option<V>)> {
    if flushed.get(&key) == now.as_ref() {
        return None;
    }
    match &now {
        Some(value) => flushed.insert(key.clone(), value.clone()),
        None => flushed.remove(&key),
    };
    Some((key, now))
}

/// Replaces a whole table; what to tell.
pub(crate) fn replace<K: Ord + Clone, V: PartialEq + Clone>(
    flushed: &mut BTreeMap<K, V>,
    now: BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let (mut out, mut old) = (BTreeMap::new(), flushed.iter().peekable());
    for (key, value) in &now {
        while let Some((gone, _)) = old.next_if(|(known, _)| *known < key) {
            out.insert(gone.clone(), None);
        }
        let had = old.next_if(|(known, _)| *known == key).map(|(_, value)| value);
        if had != Some(value) {
            out.insert(key.clone(), Some(value.clone()));
        }
    }
    out.extend(old.map(|(gone, _)| (gone.clone(), None)));
    *flushed = now;
    out
}

/// Replaces a whole set; what to tell.
pub(crate) fn replace_set<K: Ord + Clone>(flushed: &mut BTreeSet<K>, now: BTreeSet<K>) -> BTreeMap<K, bool> {
    let out = flushed.symmetric_difference(&now).map(|key| (key.clone(), now.contains(key))).collect();
    *flushed = now;
    out
}
