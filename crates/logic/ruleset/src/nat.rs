//! Translation of what leaves pools with outgoing NAT, of what the host sends into tunnels from another of its addresses
//! and of floating addresses, and marks of what leaves the cluster.
//!
//! Invariant: a chain that would do nothing is not there at all, as even an empty one costs every new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{Endpoint, EndpointId, FloatingAddress, NatSettings, Pool, Settings};
use tortie_net::{Family, PortRange, Protocol, host_net};

use crate::model::{Base, Chain, Element, Match, Name, Rule, Set, SetType, Side, Statement, Verdict};
use crate::names::{self, Names};
use crate::sets::maximal;

/// Upstream's names of the sets.
const MASQUERADED: &str = "masq-ipam-pools";
const ALL: &str = "all-ipam-pools";

/// What translation is made of.
pub(crate) struct Parts<'a> {
    pub(crate) names: Names,
    pub(crate) settings: &'a Settings,
    pub(crate) pools: &'a BTreeMap<IpNet, Pool>,
    /// The endpoints with floating addresses or marks.
    pub(crate) endpoints: &'a BTreeMap<EndpointId, Arc<Endpoint>>,
    /// The tunnels of this node that have addresses.
    pub(crate) tunnels: &'a [Entrance],
    /// The set of all hosts of a family, if it is there.
    pub(crate) hosts: &'a dyn Fn(Family) -> Option<Name>,
}

/// The device that leads into a tunnel.
pub(crate) struct Entrance {
    pub(crate) family: Family,
    pub(crate) interface: Arc<str>,
    /// The UDP port that only other nodes may send to, if the tunnel has such.
    pub(crate) closed_port: Option<u16>,
}

/// Every set and chain that translation may use, with its content if it is in use.
pub(crate) struct Nat {
    pub(crate) sets: Vec<(Name, Option<Set>)>,
    pub(crate) chains: Vec<(Name, Option<Chain>)>,
}

pub(crate) fn render(parts: &Parts<'_>) -> Nat {
    let mut sets = Vec::new();
    let (arriving, mut source) = floating(parts.endpoints);
    let mut marking = Vec::new();
    for family in Family::ALL {
        let managed = parts.settings.ipv6 || family == Family::V4;
        let own = || parts.pools.iter().filter(move |(net, _)| managed && Family::of_net(**net) == family);
        let (masqueraded, all) = (parts.names.pools(family, MASQUERADED), parts.names.pools(family, ALL));
        let wanted = own().any(|(_, Pool { nat_outgoing })| *nat_outgoing);
        let marked = marks(parts, family, &all);
        let set = |wanted: bool, elements| wanted.then_some(Set { set_type: SetType::Nets(family), elements });
        let translated: BTreeSet<Element> =
            maximal(own().filter(|(_, Pool { nat_outgoing })| *nat_outgoing).map(|(net, _)| *net));
        sets.push((masqueraded.clone(), set(wanted, translated)));
        sets.push((all.clone(), set(wanted || !marked.is_empty(), maximal(own().map(|(net, _)| *net)))));
        marking.extend(marked);
        if wanted {
            let inside = Match::AddressIn { side: Side::Source, family, set: masqueraded, negate: false };
            let outside = Match::AddressIn { side: Side::Destination, family, set: all, negate: true };
            let mut matches = vec![Match::Family(family), inside, outside];
            if parts.settings.nat.exclude_hosts
                && let Some(set) = (parts.hosts)(family)
            {
                matches.push(Match::AddressIn { side: Side::Destination, family, set, negate: true });
            }
            source.extend(outgoing(&matches, family, &parts.settings.nat));
        }
    }
    if parts.settings.tunnel_sources {
        source.extend(parts.tunnels.iter().flat_map(entering));
    }
    let chain = |base, rules: &[Rule]| {
        (!rules.is_empty()).then(|| Chain { base: Some(base), rules: rules.to_vec(), ..Chain::default() })
    };
    let chains = vec![
        (Name::from(names::PREROUTING), chain(Base::DestinationNat, &arriving)),
        (Name::from(names::NAT_OUTPUT), chain(Base::DestinationNatOutput, &arriving)),
        (Name::from(names::POSTROUTING), chain(Base::SourceNat, &source)),
        (Name::from(names::MARKING), chain(Base::Marking, &marking)),
    ];
    Nat { sets, chains }
}

/// Outgoing NAT for what meets these conditions.
fn outgoing(matches: &[Match], family: Family, nat: &NatSettings) -> Vec<Rule> {
    let NatSettings { ports, address, exclude_hosts: _ } = *nat;
    let address = address.filter(|_| family == Family::V4).map(IpAddr::V4);
    let mut rules = Vec::new();
    for protocol in [Protocol::TCP, Protocol::UDP].into_iter().filter(|_| ports.is_some()) {
        let ported = [vec![Match::Protocol { protocol, negate: false }], matches.to_vec()].concat();
        rules.push(Rule::new(ported, Verdict::SourceNat { address, ports }));
    }
    rules.push(Rule::new(matches, Verdict::SourceNat { address, ports: None }));
    rules
}

/// What the host sends into a tunnel gets the tunnel's address, as upstream: who bound to another one, or wrote to a
/// destination that was translated later, would be answered past the tunnel. An answer to the port that only nodes may
/// send to would be dropped, so it is nobody's.
fn entering(Entrance { family, interface, closed_port }: &Entrance) -> Vec<Rule> {
    let borrowed = [Match::Family(*family), Match::BorrowedSource { interface: interface.clone() }];
    let masquerade = |ports| Verdict::SourceNat { address: None, ports };
    let range = closed_port.and_then(|port| match port {
        0..0x8000 => PortRange::new(port + 1, u16::MAX).ok(),
        _ => PortRange::new(1024, port - 1).ok(),
    });
    let udp = range.map(|range| {
        let matches = [vec![Match::Protocol { protocol: Protocol::UDP, negate: false }], borrowed.to_vec()].concat();
        Rule::new(matches, masquerade(Some(range)))
    });
    udp.into_iter().chain([Rule::new(borrowed, masquerade(None))]).collect()
}

/// Rules for the destination of what arrives, and for the source of what a workload sends to itself. Of several
/// workloads with one floating address the lowest has it, as upstream.
fn floating(endpoints: &BTreeMap<EndpointId, Arc<Endpoint>>) -> (Vec<Rule>, Vec<Rule>) {
    let mut inward: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
    for FloatingAddress { external, internal } in endpoints.values().flat_map(|endpoint| &endpoint.floating) {
        inward.entry(*external).and_modify(|known| *known = (*known).min(*internal)).or_insert(*internal);
    }
    let mut outward: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
    for (external, internal) in &inward {
        outward.entry(*internal).or_insert(*external);
    }
    let is = |side, addr: IpAddr| Match::Address { side, net: host_net(addr), negate: false };
    let arriving = |(external, internal): (&IpAddr, &IpAddr)| {
        let matches = [Match::Family(Family::of(*external)), is(Side::Destination, *external)];
        Rule::new(matches, Verdict::DestinationNat(*internal))
    };
    let leaving = |(internal, external): (&IpAddr, &IpAddr)| {
        let ends = [is(Side::Source, *internal), is(Side::Destination, *internal)];
        let matches: Vec<Match> = [Match::Family(Family::of(*internal))].into_iter().chain(ends).collect();
        Rule::new(matches, Verdict::SourceNat { address: Some(*external), ports: None })
    };
    (inward.iter().map(arriving).collect(), outward.iter().map(leaving).collect())
}

/// Marks of packets from workloads to outside every pool.
fn marks(parts: &Parts<'_>, family: Family, all: &Name) -> Vec<Rule> {
    let managed = parts.settings.ipv6 || family == Family::V4;
    let marked = parts.endpoints.values().filter(|_| managed).filter_map(|e| e.limits.dscp.map(|dscp| (e, dscp)));
    let rule = |addr: &IpAddr, value: u8| Rule {
        matches: vec![
            Match::Family(family),
            Match::Address { side: Side::Source, net: host_net(*addr), negate: false },
            Match::AddressIn { side: Side::Destination, family, set: all.clone(), negate: true },
        ],
        statements: vec![Statement::SetDscp { family, value }],
        verdict: None,
    };
    marked
        .flat_map(|(endpoint, value)| {
            let own = endpoint.addresses.iter().filter(move |addr| Family::of(**addr) == family);
            own.map(move |addr| rule(addr, value)).collect::<Vec<_>>()
        })
        .collect()
}
