//! What stands before the policies of workloads: hygiene for all of them, and own chains for those with limits or with
//! more sources than their own addresses.
//!
//! Invariant: no packet with a source that its workload may not use gets to a policy.

use tortie_desired::{Endpoint, Limits, PacketRate, Period, Settings};
use tortie_net::{Family, IpNet, PortRange, Protocol};

use crate::cause::{Beside, Cause};
use crate::literal::Literals;
use crate::model::{Chain, CtState, Direction, Match, Name, Rate, Rule, Side, Verdict};
use crate::names::Names;
use crate::policy::deny;
use crate::record::end;

/// IP in IP (RFC 2003).
pub(crate) const IPIP: Protocol = Protocol(4);

/// What ends packets with foreign sources.
pub(crate) const SPOOFED: Cause = Cause::Beside { what: Beside::Spoofed, direction: Direction::Egress };

/// What a group's first chain starts with.
pub(crate) fn hygiene(direction: Direction, settings: &Settings) -> Vec<Rule> {
    let mut rules = clean(direction, settings);
    let denied = |matches: Vec<Match>, what| end(settings, matches, &Cause::Beside { what, direction }, deny(settings));
    if direction == Direction::Egress {
        // Tunnelled packets would carry what policy does not see.
        if !settings.vxlan_from_workloads {
            let port =
                Match::Port { side: Side::Destination, range: PortRange::single(settings.vxlan_port), negate: false };
            let udp = Match::Protocol { protocol: Protocol::UDP, negate: false };
            rules.push(denied(vec![udp, port], Beside::Vxlan));
        }
        if !settings.ipip_from_workloads {
            rules.push(denied(vec![Match::Protocol { protocol: IPIP, negate: false }], Beside::Ipip));
        }
    }
    rules
}

/// Drops what no policy is asked about.
pub(crate) fn clean(direction: Direction, settings: &Settings) -> Vec<Rule> {
    let invalid = (!settings.accept_invalid).then_some((Match::Conntrack(CtState::Invalid), Beside::Invalid));
    let unmanaged = (!settings.ipv6).then_some((Match::Family(Family::V6), Beside::Ipv6Off));
    let rule = |(m, what)| end(settings, [m], &Cause::Beside { what, direction }, Verdict::Drop);
    unmanaged.into_iter().chain(invalid).map(rule).collect()
}

/// Accepts established flows but those that policy has come to deny, which end here.
pub(crate) fn established(direction: Direction, settings: &Settings) -> Vec<Rule> {
    accept_established(&[Vec::new()], direction, settings)
}

/// The same, only of packets that meet one of these lists of conditions.
pub(crate) fn accept_established(of: &[Vec<Match>], direction: Direction, settings: &Settings) -> Vec<Rule> {
    let state = Match::Conntrack(CtState::EstablishedOrRelated);
    let in_force = settings.revoke_flows.then_some(Match::Revoked { negate: true });
    let accept = |more: &Vec<Match>| {
        let matches = [state.clone()].into_iter().chain(in_force.clone()).chain(more.iter().cloned());
        Rule::new(matches.collect::<Vec<_>>(), Verdict::Accept)
    };
    of.iter().map(accept).chain(revoked(direction, settings)).collect()
}

/// Ends packets of established flows that policy has come to deny. The first packets of others meet policy itself.
pub(crate) fn revoked(direction: Direction, settings: &Settings) -> Option<Rule> {
    let matches = [Match::Conntrack(CtState::EstablishedOrRelated), Match::Revoked { negate: false }];
    let cause = Cause::Beside { what: Beside::Revoked, direction };
    settings.revoke_flows.then(|| end(settings, matches, &cause, Verdict::Drop))
}

/// The limits of packets and connections in a direction.
fn limits(endpoint: &Endpoint, direction: Direction) -> (Option<PacketRate>, Option<u32>) {
    let Limits {
        ingress_packets,
        egress_packets,
        ingress_connections,
        egress_connections,
        dscp: _,
        ingress_bandwidth: _,
        egress_bandwidth: _,
    } = endpoint.limits;
    match direction {
        Direction::Ingress => (ingress_packets, ingress_connections),
        Direction::Egress => (egress_packets, egress_connections),
    }
}

/// Whether every packet of the workload in this direction, of known flows too, must go through a chain of its own.
pub(crate) fn has_own_chain(endpoint: &Endpoint, direction: Direction) -> bool {
    let more_sources = direction == Direction::Egress && !endpoint.allowed_sources.is_empty();
    limits(endpoint, direction) != (None, None) || more_sources
}

/// The own chain, which ends in that of the group.
pub(crate) fn own_chain(
    endpoint: &Endpoint,
    direction: Direction,
    group: &Name,
    names: Names,
    settings: &Settings,
) -> Chain {
    let (packets, connections) = limits(endpoint, direction);
    let mut literals = Literals::new(names);
    let mut rules = Vec::new();
    if direction == Direction::Egress {
        rules.extend(anti_spoof(endpoint, settings, &mut literals));
    }
    if let Some(PacketRate { per_second, burst }) = packets {
        let rate = Rate { packets: per_second, period: Period::Second, burst };
        let cause = Cause::Beside { what: Beside::PacketRate, direction };
        rules.push(end(settings, [Match::Rate { rate, over: true }], &cause, Verdict::Drop));
    }
    rules.extend(established(direction, settings));
    if let Some(limit) = connections {
        let tcp = Match::Protocol { protocol: Protocol::TCP, negate: false };
        let cause = Cause::Beside { what: Beside::Connections, direction };
        rules.push(end(settings, [tcp, Match::ConnectionsOver(limit)], &cause, Verdict::Reset));
    }
    rules.push(Rule::new([], Verdict::Goto(group.clone())));
    Chain { base: None, rules, literals: literals.sets }
}

fn anti_spoof(endpoint: &Endpoint, settings: &Settings, literals: &mut Literals) -> Vec<Rule> {
    let own = endpoint.addresses.iter().copied().map(IpNet::from);
    let sources: Vec<IpNet> = own.chain(endpoint.allowed_sources.iter().copied()).collect();
    let families = Family::ALL.into_iter().filter(|f| settings.ipv6 || *f == Family::V4);
    families
        .filter_map(|family| {
            let foreign = match literals.nets(Side::Source, family, &sources, true) {
                // Every address of the family may be used.
                Some(Match::Address { net, .. }) if net.prefix_len() == 0 => return None,
                foreign => foreign,
            };
            let matches: Vec<Match> = [Match::Family(family)].into_iter().chain(foreign).collect();
            Some(end(settings, matches, &SPOOFED, Verdict::Drop))
        })
        .collect()
}
