//! From BGPPeers and nodes to the peers of one node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tortie_api::{BgpPeerSpec, GoDuration, NextHopMode, ReversePeering};
use tortie_desired::{BgpPeer, PeerOrigin};
use tortie_net::{AsNumber, Family};
use tortie_selector::Selector;

use crate::read::not_yet;

use super::{Bgp, DEFAULT_PORT, DEFAULT_RESTART_SECS, NodeFacts};

/// Whole seconds, at least 0 and at most what BGP can say (12 bits).
pub(super) fn whole_secs(duration: GoDuration) -> u16 {
    u16::try_from(duration.as_std().as_secs()).unwrap_or(u16::MAX).min(4095)
}

/// The parts of a BGPPeer that this calculation does not heed yet.
pub(crate) fn unsupported(spec: &BgpPeerSpec) -> Vec<String> {
    not_yet(&[
        ("spec.localASNumber", spec.local_as_number.is_some()),
        ("spec.password", spec.password.is_some()),
        ("spec.keepaliveTime", spec.keepalive_time.is_some()),
        ("spec.numAllowedLocalASNumbers", spec.num_allowed_local_as_numbers.is_some()),
        ("spec.ttlSecurity", spec.ttl_security.is_some()),
        ("spec.reachableBy", !spec.reachable_by.is_empty()),
        ("spec.filters", !spec.filters.is_empty()),
        ("spec.localWorkloadSelector", !spec.local_workload_selector.is_empty()),
    ])
}

impl Bgp {
    pub(super) fn peers_of(&self, me: &str, own: &NodeFacts) -> BTreeMap<IpAddr, BgpPeer> {
        let mut out = BTreeMap::new();
        let mut add = |found: Vec<(IpAddr, BgpPeer)>| {
            for (addr, peer) in found {
                let reachable = own.addr(Family::of(addr)).is_some_and(|own| own != addr);
                if reachable {
                    out.entry(addr).or_insert(peer);
                }
            }
        };
        let global = |spec: &BgpPeerSpec| spec.node.is_empty() && spec.node_selector.is_empty();
        for (name, spec) in self.peers.iter().filter(|(_, spec)| global(spec)) {
            add(self.neighbours(name, spec, own, PeerOrigin::Global));
        }
        for (name, spec) in self.peers.iter().filter(|(_, spec)| !global(spec)) {
            if selects(spec, me, own) {
                add(self.neighbours(name, spec, own, PeerOrigin::Node));
            }
        }
        for spec in self.peers.values() {
            add(self.reverse(spec, me, own));
        }
        add(self.mesh(me, own));
        out
    }

    /// The neighbours that a BGPPeer gives to a node that it selects.
    fn neighbours(
        &self,
        name: &Arc<str>,
        spec: &BgpPeerSpec,
        own: &NodeFacts,
        origin: PeerOrigin,
    ) -> Vec<(IpAddr, BgpPeer)> {
        if !spec.local_workload_selector.is_empty() {
            return Vec::new();
        }
        if !spec.peer_selector.is_empty() {
            let matched = self.nodes.iter().filter(|(_, node)| matches(&spec.peer_selector, node));
            return matched
                .flat_map(|(node_name, node)| self.node_peers(node_name, node, &Family::ALL, spec, own, origin))
                .collect();
        }
        let Some((addr, port)) = addr_and_port(&spec.peer_ip) else { return Vec::new() };
        let asn = spec.as_number.unwrap_or_else(|| self.default_asn());
        let is_node =
            |(_, node): &(&Arc<str>, &NodeFacts)| node.addr(Family::of(addr)) == Some(addr) && self.asn_of(node) == asn;
        let known = self.nodes.iter().find(is_node).map(|(node_name, _)| self.port_of(node_name));
        let port = port.or(known).unwrap_or(DEFAULT_PORT);
        vec![(addr, self.peer(name, asn, port, spec, own, origin))]
    }

    /// The nodes that a BGPPeer makes peer with this one, if this one is the neighbour that it names.
    fn reverse(&self, spec: &BgpPeerSpec, me: &str, own: &NodeFacts) -> Vec<(IpAddr, BgpPeer)> {
        if spec.reverse_peering == Some(ReversePeering::Manual) || !spec.local_workload_selector.is_empty() {
            return Vec::new();
        }
        let families = if spec.peer_selector.is_empty() {
            let Some((addr, port)) = addr_and_port(&spec.peer_ip) else { return Vec::new() };
            let family = Family::of(addr);
            let asn = spec.as_number.unwrap_or_else(|| self.default_asn());
            let is_me = own.addr(family) == Some(addr)
                && asn == self.asn_of(own)
                && port.is_none_or(|port| port == self.port_of(me));
            if is_me { vec![family] } else { return Vec::new() }
        } else if matches(&spec.peer_selector, own) {
            Family::ALL.to_vec()
        } else {
            return Vec::new();
        };
        let from = self.nodes.iter().filter(|(name, node)| selects(spec, name, node));
        from.flat_map(|(name, node)| self.node_peers(name, node, &families, spec, own, PeerOrigin::Node)).collect()
    }

    fn mesh(&self, me: &str, own: &NodeFacts) -> Vec<(IpAddr, BgpPeer)> {
        let settings = self.settings.get("");
        let enabled = settings.and_then(|settings| settings.mesh).unwrap_or(true);
        if !enabled || !own.cluster_id.is_empty() {
            return Vec::new();
        }
        let restart = settings.and_then(|settings| settings.restart_secs).unwrap_or(DEFAULT_RESTART_SECS);
        let mut out = Vec::new();
        for (name, node) in &self.nodes {
            if &**name == me || !node.speaks || !node.cluster_id.is_empty() {
                continue;
            }
            for addr in Family::ALL.into_iter().filter_map(|family| node.addr(family)) {
                let peer = BgpPeer {
                    asn: self.asn_of(node),
                    port: self.port_of(name),
                    origin: PeerOrigin::Mesh,
                    name: name.clone(),
                    keep_next_hop: false,
                    max_restart_secs: restart,
                };
                out.push((addr, peer));
            }
        }
        out
    }

    fn node_peers(
        &self,
        name: &Arc<str>,
        node: &NodeFacts,
        families: &[Family],
        spec: &BgpPeerSpec,
        own: &NodeFacts,
        origin: PeerOrigin,
    ) -> Vec<(IpAddr, BgpPeer)> {
        let addrs = families.iter().filter_map(|family| node.addr(*family)).filter(|_| node.speaks);
        let peer = || self.peer(name, self.asn_of(node), self.port_of(name), spec, own, origin);
        addrs.map(|addr| (addr, peer())).collect()
    }

    fn peer(
        &self,
        name: &Arc<str>,
        asn: AsNumber,
        port: u16,
        spec: &BgpPeerSpec,
        own: &NodeFacts,
        origin: PeerOrigin,
    ) -> BgpPeer {
        let external = asn != self.asn_of(own);
        BgpPeer {
            asn,
            port,
            origin,
            name: name.clone(),
            keep_next_hop: spec.next_hop_mode == Some(NextHopMode::Keep) || (spec.keep_original_next_hop && external),
            max_restart_secs: spec.max_restart_time.map_or(DEFAULT_RESTART_SECS, whole_secs),
        }
    }

    fn default_asn(&self) -> AsNumber {
        self.asn_of(&NodeFacts::default())
    }
}

/// Whether the BGPPeer is one of this node's.
fn selects(spec: &BgpPeerSpec, name: &str, node: &NodeFacts) -> bool {
    if !spec.node_selector.is_empty() {
        return matches(&spec.node_selector, node);
    }
    spec.node.is_empty() || spec.node == name
}

/// A selector that can't be read selects nothing.
fn matches(selector: &str, node: &NodeFacts) -> bool {
    Selector::parse(selector).is_ok_and(|selector| selector.matches(&node.labels))
}

/// Reads `ADDRESS`, `ADDRESS:PORT` and `[ADDRESS]:PORT`.
fn addr_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Some((addr, None));
    }
    text.parse::<SocketAddr>().ok().map(|addr| (addr.ip(), Some(addr.port())))
}
