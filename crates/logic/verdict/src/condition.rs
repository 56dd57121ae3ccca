//! Which conditions of a rule hold for a packet, one by one.
//!
//! Invariant: a rule matches exactly if every condition listed here holds; a property test compares both.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::{IcmpMatch, Match, Rule, SetId, Tables};
use tortie_net::{Family, PortRange, Protocol};

use crate::Packet;
use crate::matching::{holds_addr, holds_port, icmp_matches};

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Destination => "destination",
        })
    }
}

/// What one condition of a rule demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The packet is of this family.
    Family(Family),
    /// The packet is of this protocol.
    Protocol(Protocol),
    /// The packet is not of this protocol.
    NotProtocol(Protocol),
    /// The packet is ICMP of this type and code.
    Icmp(IcmpMatch),
    /// The packet is not ICMP of this type and code.
    NotIcmp(IcmpMatch),
    /// The address is in one of these prefixes.
    Nets(Side, Vec<IpNet>),
    /// The address is in none of these prefixes.
    NotNets(Side, Vec<IpNet>),
    /// The address is in this set.
    Set(Side, SetId),
    /// The address is not in this set.
    NotSet(Side, SetId),
    /// Address, protocol and port are in one of these sets.
    Services(Side, Vec<SetId>),
    /// The port is in one of these ranges, or address, protocol and port are in one of these sets.
    Ports(Side, Vec<PortRange>, Vec<SetId>),
    /// The port is in none of these ranges.
    NotPorts(Side, Vec<PortRange>),
    /// Address, protocol and port are in none of these sets.
    NotPortSets(Side, Vec<SetId>),
}

/// A condition, and whether the packet meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is demanded.
    pub demand: Demand,
    /// Whether it holds.
    pub holds: bool,
}

/// Every condition of the rule; none if it matches every packet.
pub fn conditions(tables: &Tables, rule: &Rule, packet: &Packet) -> Vec<Condition> {
    let Rule { action: _, family, protocol, not_protocol, icmp, not_icmp, source, destination } = rule;
    let mut out = Vec::new();
    let mut add = |demand, holds| out.push(Condition { demand, holds });
    if let Some(family) = family {
        add(Demand::Family(*family), *family == packet.family());
    }
    if let Some(protocol) = protocol {
        add(Demand::Protocol(*protocol), *protocol == packet.protocol);
    }
    if let Some(protocol) = not_protocol {
        add(Demand::NotProtocol(*protocol), *protocol != packet.protocol);
    }
    if let Some(wanted) = icmp {
        add(Demand::Icmp(*wanted), icmp_matches(*wanted, packet));
    }
    if let Some(unwanted) = not_icmp {
        add(Demand::NotIcmp(*unwanted), !icmp_matches(*unwanted, packet));
    }
    side(tables, Side::Source, source, (packet.src, packet.protocol, packet.src_port), &mut out);
    side(tables, Side::Destination, destination, (packet.dst, packet.protocol, packet.dst_port), &mut out);
    out
}

fn side(
    tables: &Tables,
    at: Side,
    wanted: &Match,
    (addr, protocol, port): (IpAddr, Protocol, u16),
    out: &mut Vec<Condition>,
) {
    let Match { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets } = wanted;
    let mut add = |demand, holds| out.push(Condition { demand, holds });
    let in_one = |sets: &[SetId]| sets.iter().any(|set| holds_port(tables, set, addr, protocol, port));
    let in_range = |ranges: &[PortRange]| protocol.has_ports() && ranges.iter().any(|range| range.contains(port));
    if !nets.is_empty() {
        add(Demand::Nets(at, nets.clone()), nets.iter().any(|net| net.contains(&addr)));
    }
    if !not_nets.is_empty() {
        add(Demand::NotNets(at, not_nets.clone()), !not_nets.iter().any(|net| net.contains(&addr)));
    }
    for set in sets {
        add(Demand::Set(at, set.clone()), holds_addr(tables, set, addr));
    }
    for set in not_sets {
        add(Demand::NotSet(at, set.clone()), !holds_addr(tables, set, addr));
    }
    if !service_sets.is_empty() {
        add(Demand::Services(at, service_sets.clone()), in_one(service_sets));
    }
    if !ports.is_empty() || !port_sets.is_empty() {
        add(Demand::Ports(at, ports.clone(), port_sets.clone()), in_range(ports) || in_one(port_sets));
    }
    if !not_ports.is_empty() {
        add(Demand::NotPorts(at, not_ports.clone()), !in_range(not_ports));
    }
    if !not_port_sets.is_empty() {
        add(Demand::NotPortSets(at, not_port_sets.clone()), !in_one(not_port_sets));
    }
}
