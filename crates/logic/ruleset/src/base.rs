//! The chains that the kernel enters, and how they dispatch to workloads.
//!
//! Invariants: packets of established flows are accepted by the first rules; a packet from or to an interface with a
//! workload prefix that belongs to no endpoint is dropped; packets that touch no workload interface fall through.

use tortie_desired::{HostAction, Settings};
use tortie_net::{Family, Protocol};

use crate::model::{Base, Chain, CtState, Match, Name, Rule, Side, Verdict};
use crate::names;

/// ICMPv6 types that a workload may send to the host whatever its policy says, as upstream: multicast listener
/// query, report and done; router and neighbour solicitation; neighbour advertisement. Not router advertisements.
const NEIGHBOUR_DISCOVERY_TYPES: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// The base chains of the filter, and what only they jump to.
pub(crate) fn chains(settings: &Settings) -> Vec<(Name, Option<Chain>)> {
    let nd = settings.ipv6.then(neighbour_discovery);
    vec![
        (Name::from(names::FORWARD_FROM_WORKLOAD), Some(from_workload(settings))),
        (Name::from(names::FORWARD_TO_WORKLOAD), Some(to_workload(settings))),
        (Name::from(names::NEIGHBOUR_DISCOVERY), nd),
        (Name::from(names::INPUT), Some(input(settings))),
    ]
}

fn established() -> Rule {
    Rule::new([Match::Conntrack(CtState::EstablishedOrRelated)], Verdict::Accept)
}

/// The rules that cut off what matches a workload prefix. An empty prefix means none, not all.
fn unknown(settings: &Settings, side: Side) -> impl Iterator<Item = Rule> {
    let prefixes = settings.interface_prefixes.iter().filter(|p| !p.is_empty());
    prefixes.map(move |p| Rule::new([Match::InterfacePrefix { side, prefix: p.clone() }], Verdict::Drop))
}

fn dispatch(side: Side) -> Rule {
    let map = match side {
        Side::Source => names::FROM_WORKLOAD,
        Side::Destination => names::TO_WORKLOAD,
    };
    Rule::new([], Verdict::Dispatch { side, map: Name::from(map) })
}

fn from_workload(settings: &Settings) -> Chain {
    let state = || Match::Conntrack(CtState::EstablishedOrRelated);
    let mut rules = vec![Rule::new([state(), Match::Family(Family::V4)], Verdict::Accept)];
    if settings.ipv6 {
        // A workload must not slip packets into another one's flow. For IPv4 the kernel's reverse path filter on the
        // interface sees to that; for IPv6 there is none. What is not in the set meets the check of the sources in
        // the workload's chain, or comes from elsewhere and falls through.
        let (family, set) = (Family::V6, Name::from(names::WORKLOAD_SOURCES_V6));
        let own = Match::InterfaceAddressIn { family, set };
        rules.push(Rule::new([state(), Match::Family(family), own], Verdict::Accept));
    }
    rules.push(dispatch(Side::Source));
    rules.extend(unknown(settings, Side::Source));
    Chain { base: Some(Base::FromWorkload), rules, ..Chain::default() }
}

fn to_workload(settings: &Settings) -> Chain {
    let side = Side::Destination;
    let rules = [established(), dispatch(side)].into_iter().chain(unknown(settings, side)).collect();
    Chain { base: Some(Base::ToWorkload), rules, ..Chain::default() }
}

/// Packets to the host. With `HostAction::Drop` the workload's policy need not be asked: they end either way.
/// `Accept` and `Return` are the same here, as accepting in one table leaves a packet to every other table.
fn input(settings: &Settings) -> Chain {
    let mut rules = vec![established()];
    let from_workload = Match::InterfaceIn { side: Side::Source, set: Name::from(names::WORKLOAD_INTERFACES) };
    if settings.ipv6 {
        let icmp = Match::Protocol { protocol: Protocol::ICMPV6, negate: false };
        let matches = [Match::Family(Family::V6), icmp, from_workload.clone()];
        rules.push(Rule::new(matches, Verdict::Jump(Name::from(names::NEIGHBOUR_DISCOVERY))));
    }
    match settings.endpoint_to_host {
        HostAction::Drop => rules.push(Rule::new([from_workload], Verdict::Drop)),
        HostAction::Accept | HostAction::Return => rules.push(dispatch(Side::Source)),
    }
    rules.extend(unknown(settings, Side::Source));
    Chain { base: Some(Base::Input), rules, ..Chain::default() }
}

fn neighbour_discovery() -> Chain {
    let rules = NEIGHBOUR_DISCOVERY_TYPES
        .into_iter()
        .map(|icmp_type| Rule::new([Match::Icmp { icmp_type, code: None, negate: false }], Verdict::Accept))
        .collect();
    Chain { rules, ..Chain::default() }
}
