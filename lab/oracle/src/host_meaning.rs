//! What host endpoints mean, read straight from the resources: which one is for an interface, and what each of its
//! stages says. Shares nothing with the calculation and the verdict.

use std::net::IpAddr;

use tortie_api::{FelixConfiguration, HostEndpoint, ProtoPort, Resource};
use tortie_net::{Family, Protocol};
use tortie_verdict::{Direction, Packet, Stage};

use crate::generate::Facts;
use crate::meaning::{Applies, global, owners, profiles_say, resources, tiers_say, with_inherited};
use crate::place::{NODE, OUTSIDE, node_address};

/// What a stage says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Go on.
    Nothing,
    /// A policy allows it.
    Allow,
    /// It ends.
    Deny,
}

/// The host endpoint of an interface: the first by name of those that name it, or have its addresses and name none;
/// or else the first of those for all interfaces.
pub(crate) fn governs<'a>(facts: &'a Facts, interface: &str) -> Option<&'a HostEndpoint> {
    let mut own: Vec<&HostEndpoint> = resources(facts)
        .filter_map(|resource| match resource {
            Resource::HostEndpoint(host) if host.spec.node == NODE => Some(&**host),
            _ => None,
        })
        .collect();
    own.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let addresses: Vec<IpAddr> = if interface == OUTSIDE { Family::ALL.map(node_address).to_vec() } else { Vec::new() };
    let is = |host: &&&HostEndpoint| match host.spec.interface_name.as_str() {
        "*" => false,
        "" => host.spec.expected_ips.iter().filter_map(|net| net.addr()).any(|addr| addresses.contains(&addr)),
        name => name == interface,
    };
    own.iter().find(is).or_else(|| own.iter().find(|host| host.spec.interface_name == "*")).copied()
}

/// Whether the node leaves IPv6 to others.
fn unmanaged(config: Option<&FelixConfiguration>, packet: &Packet) -> bool {
    packet.family() == Family::V6 && config.is_some_and(|config| config.spec.ipv6_support == Some(false))
}

/// Asks one stage of the interface's host endpoint.
pub(crate) fn say(facts: &Facts, interface: &str, stage: Stage, direction: Direction, packet: &Packet) -> Says {
    let config = resources(facts).find_map(|resource| match resource {
        Resource::FelixConfiguration(config) if config.metadata.name == "default" => Some(&**config),
        _ => None,
    });
    let Some(host) = governs(facts, interface).filter(|_| !unmanaged(config, packet)) else { return Says::Nothing };
    // Nothing before connection tracking is for all interfaces at once.
    if stage == Stage::Untracked && host.spec.interface_name == "*" {
        return Says::Nothing;
    }
    let labels = with_inherited(facts, host.metadata.labels.to_map(), &host.spec.profiles);
    let in_stage = |untracked: bool, pre_dnat: bool, forward: bool| match stage {
        Stage::Untracked => untracked,
        Stage::PreDnat => pre_dnat,
        Stage::Forward => forward && !untracked && !pre_dnat,
        Stage::Normal => !untracked && !pre_dnat,
    };
    let policies: Vec<&Resource> = resources(facts)
        .filter(|resource| match resource {
            Resource::GlobalNetworkPolicy(p) => in_stage(p.spec.do_not_track, p.spec.pre_dnat, p.spec.apply_on_forward),
            Resource::KubernetesClusterNetworkPolicy(_) => in_stage(false, false, false),
            _ => false,
        })
        .collect();
    let applies = |direction| -> Vec<Applies<'_>> {
        let applies = policies.iter().filter_map(|resource| match resource {
            Resource::GlobalNetworkPolicy(p) => global("GlobalNetworkPolicy", &p.metadata, &p.spec, &labels, direction),
            Resource::KubernetesClusterNetworkPolicy(p) => {
                global("KubernetesClusterNetworkPolicy", &p.metadata, &p.spec, &labels, direction)
            }
            _ => None,
        });
        applies.collect()
    };
    if stage != Stage::Forward && config.is_some_and(|config| is_failsafe(config, stage, direction, packet)) {
        return Says::Nothing;
    }
    let all = owners(facts);
    let ends = matches!(stage, Stage::Forward | Stage::Normal);
    let say = tiers_say(facts, &all, applies(direction), packet, ends);
    match say
        .or_else(|| (stage == Stage::Normal).then(|| profiles_say(facts, &all, &host.spec.profiles, direction, packet)))
    {
        None => Says::Nothing,
        Some(true) => Says::Allow,
        Some(false) => Says::Deny,
    }
}

fn is_failsafe(config: &FelixConfiguration, stage: Stage, direction: Direction, packet: &Packet) -> bool {
    let lists = [&config.spec.failsafe_inbound_host_ports, &config.spec.failsafe_outbound_host_ports];
    let [inbound, outbound] = lists.map(|list| list.as_deref().unwrap_or_default());
    let (own, other, peer) = match direction {
        Direction::Ingress => (inbound, outbound, packet.src),
        Direction::Egress => (outbound, inbound, packet.dst),
    };
    let holds = |failsafe: &ProtoPort, port: u16| {
        let ProtoPort { protocol, port: open, net } = failsafe;
        let right = if protocol == "UDP" { Protocol::UDP } else { Protocol::TCP };
        packet.protocol == right && *open == port && net.net().is_none_or(|net| net.contains(&peer))
    };
    own.iter().any(|failsafe| holds(failsafe, packet.dst_port))
        || stage == Stage::Untracked && other.iter().any(|failsafe| holds(failsafe, packet.src_port))
}
