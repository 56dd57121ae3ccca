//! Whether one rule matches one packet.
//!
//! A positive condition on ports holds only for protocols that have ports; a negative one holds for those that don't.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::{IcmpMatch, Match, Member, Rule, SetId, Tables};
use tortie_net::{Family, Protocol};

use crate::Packet;

/// Whether every condition of the rule holds for the packet. A set that the tables lack has no members.
pub fn rule_matches(tables: &Tables, rule: &Rule, packet: &Packet) -> bool {
    let Rule { action: _, family, protocol, not_protocol, icmp, not_icmp, source, destination } = rule;
    if family.is_some_and(|family| family != packet.family()) {
        return false;
    }
    if protocol.is_some_and(|protocol| protocol != packet.protocol) {
        return false;
    }
    if not_protocol.is_some_and(|protocol| protocol == packet.protocol) {
        return false;
    }
    if icmp.is_some_and(|wanted| !icmp_matches(wanted, packet)) {
        return false;
    }
    if not_icmp.is_some_and(|unwanted| icmp_matches(unwanted, packet)) {
        return false;
    }
    side_matches(tables, source, packet.src, packet.protocol, packet.src_port)
        && side_matches(tables, destination, packet.dst, packet.protocol, packet.dst_port)
}

pub(crate) fn icmp_matches(wanted: IcmpMatch, packet: &Packet) -> bool {
    let protocol = match packet.family() {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    };
    let Some((icmp_type, code)) = packet.icmp else { return false };
    packet.protocol == protocol && wanted.icmp_type == icmp_type && wanted.code.is_none_or(|wanted| wanted == code)
}

fn side_matches(tables: &Tables, side: &Match, addr: IpAddr, protocol: Protocol, port: u16) -> bool {
    let Match { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets } = side;
    if !nets.is_empty() && !nets.iter().any(|net| net.contains(&addr)) {
        return false;
    }
    if not_nets.iter().any(|net| net.contains(&addr)) {
        return false;
    }
    if !sets.iter().all(|set| holds_addr(tables, set, addr)) {
        return false;
    }
    if not_sets.iter().any(|set| holds_addr(tables, set, addr)) {
        return false;
    }
    if !service_sets.is_empty() && !service_sets.iter().any(|set| holds_port(tables, set, addr, protocol, port)) {
        return false;
    }
    let any_port = ports.is_empty() && port_sets.is_empty();
    let numbered = protocol.has_ports() && ports.iter().any(|range| range.contains(port));
    let named = port_sets.iter().any(|set| holds_port(tables, set, addr, protocol, port));
    if !any_port && !numbered && !named {
        return false;
    }
    if protocol.has_ports() && not_ports.iter().any(|range| range.contains(port)) {
        return false;
    }
    !not_port_sets.iter().any(|set| holds_port(tables, set, addr, protocol, port))
}

fn members<'a>(tables: &'a Tables, set: &SetId) -> impl Iterator<Item = &'a Member> {
    tables.sets.get(set).into_iter().flat_map(|(_, members)| members)
}

pub(crate) fn holds_addr(tables: &Tables, set: &SetId, addr: IpAddr) -> bool {
    members(tables, set).any(|member| match member {
        Member::Net(net) => IpNet::contains(net, &addr),
        Member::Port { addr: _, protocol: _, port: _ } => false,
    })
}

pub(crate) fn holds_port(tables: &Tables, set: &SetId, addr: IpAddr, protocol: Protocol, port: u16) -> bool {
    protocol.has_ports() && members(tables, set).any(|member| *member == Member::Port { addr, protocol, port })
}
