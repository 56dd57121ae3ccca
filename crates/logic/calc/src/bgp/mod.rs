//! Who are my peers?
//!
//! Worked out anew from all nodes and BGPPeers whenever one of them changed: there are few, and they change rarely.
//! Of several reasons to peer with one address the first counts: a BGPPeer for all nodes, one for this node, one of
//! another node that peers back, the mesh.

mod extras;
mod filters;
mod peers;
mod policy;
mod reflectors;
mod services;
mod settings;

pub(crate) use filters::filter;
pub(crate) use peers::PeerFacts;
pub(crate) use policy::Prefixes;
pub use reflectors::elect_reflectors;
pub(crate) use services::{Behind, ServiceFacts};
pub(crate) use settings::BgpSettings;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tortie_api::{Kind, LabelMap};
use tortie_desired::{BgpFilter, BgpPeer, BgpSpeaker};
use tortie_facts::Key;
use tortie_net::{AsNumber, Family, IpNet};

use crate::config::ClusterRoutes;
use crate::labels::LabelSet;

const DEFAULT_AS: AsNumber = AsNumber(64512);
const DEFAULT_PORT: u16 = 179;
const DEFAULT_RESTART_SECS: u16 = 120;

/// What is kept of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) labels: LabelMap,
    /// Whether the node has a BGP specification at all.
    pub(crate) speaks: bool,
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
    pub(crate) asn: Option<AsNumber>,
    /// Set if the node is a route reflector.
    pub(crate) cluster: Option<Ipv4Addr>,
}

impl NodeFacts {
    fn addr(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// Who this node peers with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    pub(crate) by_address: BTreeMap<IpAddr, BgpPeer>,
    /// Whose hosts may connect as peers.
    pub(crate) ranges: BTreeMap<IpNet, BgpPeer>,
    /// Addresses of this node on interfaces of workloads that are peers.
    pub(crate) peering: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

/// A workload of this node, as peers are selected from.
pub(crate) struct Workload<'a> {
    /// With those that it inherits.
    pub(crate) labels: LabelSet,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) interface: &'a Arc<str>,
}

/// Nodes, settings and peers of the whole cluster.
#[derive(Debug, Default)]
pub(crate) struct Bgp {
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// By node; that of the empty name is for all.
    settings: BTreeMap<Arc<str>, BgpSettings>,
    peers: BTreeMap<Arc<str>, PeerFacts>,
    filters: BTreeMap<Arc<str>, Arc<BgpFilter>>,
    /// By namespace and name.
    services: BTreeMap<Arc<str>, ServiceFacts>,
    dirty: bool,
}

impl Bgp {
    pub(crate) fn set_node(&mut self, name: &str, node: Option<NodeFacts>) {
        self.dirty |= put(&mut self.nodes, name, node);
    }

    /// Settings of all nodes are named `default`, those of one `node.NAME`; others mean nothing.
    pub(crate) fn set_settings(&mut self, name: &str, settings: Option<BgpSettings>) {
        let node = if name == "default" { Some("") } else { name.strip_prefix("node.") };
        if let Some(node) = node {
            self.dirty |= put(&mut self.settings, node, settings);
        }
    }

    /// The labels of a node; none if the node is not there.
    pub(crate) fn labels(&self, node: &str) -> Option<&LabelMap> {
        self.nodes.get(node).map(|node| &node.labels)
    }

    /// Which learned routes a node's kernel gets.
    pub(crate) fn cluster_routes(&self, node: &str) -> ClusterRoutes {
        let set = [node, ""].into_iter().find_map(|name| self.settings.get(name)?.cluster_routes);
        set.unwrap_or(ClusterRoutes::BGP)
    }

    /// The addresses of all nodes.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.nodes.values().flat_map(|node| node.ipv4.into_iter().chain(node.ipv6))
    }

    pub(crate) fn set_peer(&mut self, name: &str, peer: Option<PeerFacts>) {
        self.dirty |= put(&mut self.peers, name, peer);
    }

    pub(crate) fn set_filter(&mut self, name: &str, filter: Option<BgpFilter>) {
        self.dirty |= put(&mut self.filters, name, filter.map(Arc::new));
    }

    /// Local workloads or their labels changed, which peers may depend on.
    pub(crate) fn mark(&mut self) {
        self.dirty |= self.selects_workloads();
    }

    /// Whether there are peers that are selected among workloads.
    pub(crate) fn selects_workloads(&self) -> bool {
        self.peers.values().any(|peer| !peer.spec.local_workload_selector.is_empty())
    }

    /// BGPPeers that name filters which are not there; upstream lets everything pass then, and so does this.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (Key, String)> {
        self.peers.iter().flat_map(|(name, peer)| {
            let missing = peer.spec.filters.iter().filter(|filter| !self.filters.contains_key(filter.as_str()));
            missing.map(move |filter| {
                let line = format!("spec.filters: there is no BGPFilter {filter:?}, so it keeps nothing back");
                (Key::resource(Kind::BgpPeer, "", name), line)
            })
        })
    }

    /// Whether `take` has news.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The speaker and its peers anew, if they may have changed since the last call. A node that is not there, or has
    /// no BGP address, does not speak.
    pub(crate) fn take(
        &mut self,
        me: &str,
        router_id: Option<Ipv4Addr>,
        workloads: &[Workload<'_>],
    ) -> Option<(Option<BgpSpeaker>, Peers)> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let own = self.nodes.get(me).filter(|node| node.speaks && (node.ipv4.is_some() || node.ipv6.is_some()));
        let Some(own) = own else { return Some((None, Peers::default())) };
        let router_id = router_id.unwrap_or_else(|| id_of(me, own));
        let speaker = BgpSpeaker {
            router_id,
            asn: self.asn_of(own),
            listen_port: self.port_of(me),
            ipv4: own.ipv4,
            ipv6: own.ipv6,
        };
        let peers = Peers {
            by_address: self.peers_of(me, own, router_id, workloads),
            ranges: self.ranges_of(me, own),
            peering: self.peering(me, own, workloads),
        };
        Some((Some(speaker), peers))
    }

    fn asn_of(&self, node: &NodeFacts) -> AsNumber {
        node.asn.or_else(|| self.settings.get("")?.asn).unwrap_or(DEFAULT_AS)
    }

    fn port_of(&self, node: &str) -> u16 {
        let port = |name: &str| self.settings.get(name)?.port;
        port(node).or_else(|| port("")).unwrap_or(DEFAULT_PORT)
    }
}

fn id_of(name: &str, node: &NodeFacts) -> Ipv4Addr {
    match node.ipv4 {
        Some(IpAddr::V4(addr)) => addr,
        Some(IpAddr::V6(_)) | None => hashed_router_id(name),
    }
}

/// The BGP identifier that upstream makes of a node's name (`CALICO_ROUTER_ID=hash`): the hash's first bytes, outside of
/// multicast and what is reserved. Also that of a node without an IPv4 address.
pub fn hashed_router_id(node: &str) -> Ipv4Addr {
    const MULTICAST: u8 = 224;
    const RESERVED: u8 = 32;
    let hash = Sha256::digest(node);
    let first = if hash[0] < MULTICAST { hash[0] } else { hash[0] - RESERVED };
    Ipv4Addr::new(first, hash[1], hash[2], hash[3])
}

fn put<T: PartialEq>(map: &mut BTreeMap<Arc<str>, T>, name: &str, value: Option<T>) -> bool {
    if map.get(name) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(Arc::from(name), value),
        None => map.remove(name),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_of_a_name_is_upstreams() {
        for (name, id) in [("nodeTest", [109, 174, 215, 226]), ("Testrobin123", [207, 94, 5, 27])] {
            assert_eq!(hashed_router_id(name), Ipv4Addr::from(id), "{name}");
        }
    }
}
