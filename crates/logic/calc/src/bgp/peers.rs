//! From BGPPeers and nodes to the peers of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tortie_api::{self as api, BgpPeerSpec, GoDuration, NextHopMode, ReversePeering, SourceAddress};
use tortie_desired::{BgpNextHop, BgpPeer, PeerOrigin};
use tortie_net::{AsNumber, Family, IpNet};
use tortie_selector::{Labels, Selector};

use super::extras::Extras;
use super::reflectors::{MOST_MESHED, elect_reflectors};
use super::settings::secret;
use super::{Bgp, DEFAULT_PORT, DEFAULT_RESTART_SECS, NodeFacts, Workload};
use crate::labels::LabelSet;

/// Whole seconds, rounded, at most what BGP can say (12 bits).
pub(super) fn whole_secs(duration: GoDuration) -> u16 {
    let millis = duration.as_std().as_millis();
    u16::try_from((millis + 500) / 1000).unwrap_or(u16::MAX).min(4095)
}

/// What is kept of a BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    pub(super) spec: BgpPeerSpec,
    extras: Extras,
}

impl PeerFacts {
    pub(crate) fn of(peer: &api::BgpPeer, problems: &mut Vec<String>) -> PeerFacts {
        let spec = &peer.spec;
        let mut selector = |field: &str, text: &str| {
            if let Err(error) = Selector::parse(text) {
                problems.push(format!("spec.{field}: {error}; it selects nothing"));
            }
        };
        selector("nodeSelector", &spec.node_selector);
        selector("peerSelector", &spec.peer_selector);
        selector("localWorkloadSelector", &spec.local_workload_selector);
        PeerFacts { spec: spec.clone(), extras: Extras::of(&peer.metadata.annotations, problems) }
    }

    fn global(&self) -> bool {
        self.spec.node.is_empty() && self.spec.node_selector.is_empty()
    }

    fn origin(&self) -> PeerOrigin {
        if self.global() { PeerOrigin::Global } else { PeerOrigin::Node }
    }
}

/// The own side of all sessions of a node.
struct Own<'a> {
    node: &'a NodeFacts,
    asn: AsNumber,
}

impl Bgp {
    pub(super) fn peers_of(
        &self,
        me: &str,
        node: &NodeFacts,
        router_id: Ipv4Addr,
        workloads: &[Workload<'_>],
    ) -> BTreeMap<IpAddr, BgpPeer> {
        let own = Own { node, asn: self.asn_of(node) };
        let mut out = BTreeMap::new();
        let mut add = |found: Vec<(IpAddr, BgpPeer)>| {
            for (addr, peer) in found {
                let reachable = node.addr(Family::of(addr)).is_some_and(|own| own != addr);
                if reachable {
                    out.entry(addr).or_insert(peer);
                }
            }
        };
        for globals in [true, false] {
            for (name, facts) in self.peers.iter().filter(|(_, facts)| facts.global() == globals) {
                if selects(&facts.spec, me, node) {
                    add(self.neighbours(name, facts, &own, workloads));
                }
            }
        }
        for facts in self.peers.values() {
            add(self.reverse(facts, me, &own));
        }
        add(self.mesh(me, &own, router_id));
        out
    }

    /// Ranges whose hosts may connect to a node.
    pub(super) fn ranges_of(&self, me: &str, node: &NodeFacts) -> BTreeMap<IpNet, BgpPeer> {
        let own = Own { node, asn: self.asn_of(node) };
        let mut out = BTreeMap::new();
        for (name, facts) in &self.peers {
            let PeerFacts { spec, extras } = facts;
            let Some(range) = extras.range.filter(|_| selects(spec, me, node)) else { continue };
            if node.addr(Family::of_net(range)).is_some() {
                let asn = spec.as_number.unwrap_or_else(|| self.default_asn());
                let peer = BgpPeer { passive: true, ..self.peer(name, asn, DEFAULT_PORT, None, facts, &own) };
                out.entry(range).or_insert(peer);
            }
        }
        out
    }

    /// The neighbours that a BGPPeer gives to a node that it selects.
    fn neighbours(
        &self,
        name: &Arc<str>,
        facts: &PeerFacts,
        own: &Own<'_>,
        workloads: &[Workload<'_>],
    ) -> Vec<(IpAddr, BgpPeer)> {
        let spec = &facts.spec;
        if !spec.local_workload_selector.is_empty() {
            return self.local_workloads(name, facts, own, workloads);
        }
        if !spec.peer_selector.is_empty() {
            let matched = self.nodes.iter().filter(|(_, node)| matches(&spec.peer_selector, node));
            return matched
                .flat_map(|(node_name, node)| self.node_peers(node_name, node, &Family::ALL, facts, own))
                .collect();
        }
        let Some((addr, port)) = addr_and_port(&spec.peer_ip) else { return Vec::new() };
        let asn = spec.as_number.unwrap_or_else(|| self.default_asn());
        let is_node =
            |(_, node): &(&Arc<str>, &NodeFacts)| node.addr(Family::of(addr)) == Some(addr) && self.asn_of(node) == asn;
        let known = self.nodes.iter().find(is_node).map(|(node_name, _)| self.port_of(node_name));
        let port = port.or(known).unwrap_or(DEFAULT_PORT);
        let mut peer = self.peer(name, asn, port, None, facts, own);
        peer.source = own.node.addr(Family::of(addr)).filter(|_| uses_node_addr(spec));
        peer.reachable_by = spec.reachable_by.parse().ok().filter(|via| Family::of(*via) == Family::of(addr));
        vec![(addr, peer)]
    }

    /// The node's addresses on the interfaces of workloads that are its peers.
    pub(super) fn peering(
        &self,
        me: &str,
        node: &NodeFacts,
        workloads: &[Workload<'_>],
    ) -> BTreeMap<Arc<str>, Vec<IpAddr>> {
        let Some(addresses) = self.settings.get("").map(|settings| &settings.peering).filter(|all| !all.is_empty())
        else {
            return BTreeMap::new();
        };
        let mine = self.peers.values().filter(|facts| selects(&facts.spec, me, node));
        let routers = mine.flat_map(|facts| routers(&facts.spec, workloads));
        routers.map(|workload| (workload.interface.clone(), addresses.clone())).collect()
    }

    /// Workloads of this node that are routers themselves; they connect to us.
    fn local_workloads(
        &self,
        name: &Arc<str>,
        facts: &PeerFacts,
        own: &Own<'_>,
        workloads: &[Workload<'_>],
    ) -> Vec<(IpAddr, BgpPeer)> {
        let spec = &facts.spec;
        let Some(asn) = spec.as_number else { return Vec::new() };
        let first = |workload: &Workload<'_>, family| {
            workload.addresses.iter().copied().find(|addr| Family::of(*addr) == family)
        };
        let addrs = routers(spec, workloads).flat_map(|workload| Family::ALL.map(|family| first(workload, family)));
        let peer = || BgpPeer {
            origin: PeerOrigin::Workload,
            passive: true,
            source: None,
            ..self.peer(name, asn, DEFAULT_PORT, None, facts, own)
        };
        addrs.flatten().map(|addr| (addr, peer())).collect()
    }

    /// The nodes that a BGPPeer makes peer with this one, if this one is the neighbour that it names.
    fn reverse(&self, facts: &PeerFacts, me: &str, own: &Own<'_>) -> Vec<(IpAddr, BgpPeer)> {
        let (spec, node) = (&facts.spec, own.node);
        if spec.reverse_peering == Some(ReversePeering::Manual) || !spec.local_workload_selector.is_empty() {
            return Vec::new();
        }
        let families = if spec.peer_selector.is_empty() {
            let Some((addr, port)) = addr_and_port(&spec.peer_ip) else { return Vec::new() };
            let family = Family::of(addr);
            let asn = spec.as_number.unwrap_or_else(|| self.default_asn());
            let is_me =
                node.addr(family) == Some(addr) && asn == own.asn && port.is_none_or(|port| port == self.port_of(me));
            if is_me { vec![family] } else { return Vec::new() }
        } else if matches(&spec.peer_selector, node) {
            Family::ALL.to_vec()
        } else {
            return Vec::new();
        };
        let from = self.nodes.iter().filter(|(name, node)| selects(spec, name, node));
        let peers = from.flat_map(|(name, node)| self.node_peers(name, node, &families, facts, own));
        peers.map(|(addr, peer)| (addr, BgpPeer { origin: PeerOrigin::Node, ..peer })).collect()
    }

    /// The mesh, or the sessions to and of the reflectors that it elects among the nodes of this one's AS. Reflectors
    /// must have every kind of address that a node of theirs has; without three such ones the mesh stays.
    fn mesh(&self, me: &str, own: &Own<'_>, router_id: Ipv4Addr) -> Vec<(IpAddr, BgpPeer)> {
        let settings = self.settings.get("");
        let enabled = settings.and_then(|settings| settings.mesh).unwrap_or(true);
        if !enabled || own.node.cluster.is_some() {
            return Vec::new();
        }
        let restart = settings.and_then(|settings| settings.restart_secs).unwrap_or(DEFAULT_RESTART_SECS);
        let extras = settings.map(|settings| settings.extras.clone()).unwrap_or_default();
        let reflectors = if extras.elects { self.elected(own) } else { BTreeSet::new() };
        let mut out = Vec::new();
        for (name, node) in &self.nodes {
            if &**name == me || !node.speaks || node.cluster.is_some() {
                continue;
            }
            let (reflects, reflected) = (reflectors.contains(me), reflectors.contains(&**name));
            let elects = !reflectors.is_empty() && self.asn_of(node) == own.asn;
            if elects && !reflects && !reflected {
                continue;
            }
            for addr in Family::ALL.into_iter().filter_map(|family| node.addr(family)) {
                let peer = BgpPeer {
                    source: own.node.addr(Family::of(addr)),
                    cluster: (elects && reflects && !reflected).then_some(router_id),
                    lingers: extras.elects,
                    max_restart_secs: restart,
                    password: settings.and_then(|settings| settings.mesh_password.clone()),
                    bfd: extras.bfd,
                    max_prefixes: extras.max_prefixes,
                    long_lived_secs: extras.long_lived_secs,
                    ..BgpPeer::new(self.asn_of(node), self.port_of(name), PeerOrigin::Mesh, name.clone())
                };
                out.push((addr, peer));
            }
        }
        out
    }

    fn elected(&self, own: &Own<'_>) -> BTreeSet<&str> {
        let group =
            self.nodes.iter().filter(|(_, node)| node.speaks && node.cluster.is_none() && self.asn_of(node) == own.asn);
        let group: Vec<_> = group.collect();
        let has = |node: &NodeFacts| Family::ALL.map(|family| node.addr(family).is_some());
        let all = group.iter().fold([false; 2], |all, (_, node)| [0, 1].map(|at| all[at] || has(node)[at]));
        if group.len() <= MOST_MESHED {
            return BTreeSet::new();
        }
        let fit = group.iter().filter(|(_, node)| has(node) == all);
        elect_reflectors(fit.map(|(name, _)| &***name), MOST_MESHED)
    }

    fn node_peers(
        &self,
        name: &Arc<str>,
        node: &NodeFacts,
        families: &[Family],
        facts: &PeerFacts,
        own: &Own<'_>,
    ) -> Vec<(IpAddr, BgpPeer)> {
        let addrs = families.iter().filter_map(|family| node.addr(*family)).filter(|_| node.speaks);
        let peer = |addr: IpAddr| BgpPeer {
            source: own.node.addr(Family::of(addr)).filter(|_| uses_node_addr(&facts.spec)),
            ..self.peer(name, self.asn_of(node), self.port_of(name), node.cluster, facts, own)
        };
        addrs.map(|addr| (addr, peer(addr))).collect()
    }

    /// A peer as its BGPPeer has it. `cluster`: that of the peer, if it is a reflector itself.
    fn peer(
        &self,
        name: &Arc<str>,
        asn: AsNumber,
        port: u16,
        cluster: Option<Ipv4Addr>,
        facts: &PeerFacts,
        own: &Own<'_>,
    ) -> BgpPeer {
        let PeerFacts { spec, extras } = facts;
        let internal = asn == spec.local_as_number.unwrap_or(own.asn);
        let next_hop = match spec.next_hop_mode {
            Some(NextHopMode::Keep) => BgpNextHop::Keep,
            Some(NextHopMode::Self_) => BgpNextHop::Own,
            None if spec.keep_original_next_hop && !internal => BgpNextHop::Keep,
            Some(NextHopMode::Auto) | None => BgpNextHop::Auto,
        };
        let filters = spec.filters.iter().filter_map(|filter| self.filters.get(filter.as_str()).cloned());
        BgpPeer {
            asn,
            port,
            origin: facts.origin(),
            name: name.clone(),
            local_asn: spec.local_as_number.filter(|asn| asn.0 != 0),
            next_hop,
            source: None,
            passive: false,
            cluster: own.node.cluster.filter(|own| internal && cluster != Some(*own)),
            max_restart_secs: spec.max_restart_time.map_or(DEFAULT_RESTART_SECS, whole_secs),
            keepalive_secs: spec.keepalive_time.map(whole_secs),
            allowed_local_asn: spec
                .num_allowed_local_as_numbers
                .map_or(0, |n| u8::try_from(n.max(0)).unwrap_or(u8::MAX)),
            ttl_hops: spec.ttl_security.filter(|hops| *hops > 0),
            reachable_by: None,
            password: spec.password.as_ref().and_then(secret),
            filters: filters.collect(),
            bfd: extras.bfd,
            max_prefixes: extras.max_prefixes,
            long_lived_secs: extras.long_lived_secs,
            lingers: false,
        }
    }

    fn default_asn(&self) -> AsNumber {
        self.asn_of(&NodeFacts::default())
    }
}

fn uses_node_addr(spec: &BgpPeerSpec) -> bool {
    match spec.source_address {
        None | Some(SourceAddress::UseNodeIp) => true,
        Some(SourceAddress::None) => false,
    }
}

/// The workloads that a BGPPeer selects as routers; none without their AS.
fn routers<'a>(spec: &BgpPeerSpec, workloads: &'a [Workload<'a>]) -> impl Iterator<Item = &'a Workload<'a>> {
    let asked = !spec.local_workload_selector.is_empty() && spec.as_number.is_some();
    let selector = asked.then(|| Selector::parse(&spec.local_workload_selector).ok()).flatten();
    let selected = move |workload: &&Workload<'_>| {
        selector.as_ref().is_some_and(|selector| selector.matches(&WorkloadLabels(&workload.labels)))
    };
    workloads.iter().filter(selected)
}

/// A workload's labels.
struct WorkloadLabels<'a>(&'a LabelSet);

impl Labels for WorkloadLabels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
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
