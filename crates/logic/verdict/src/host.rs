//! What host endpoints say, stage by stage.
//!
//! Order of evaluation, as upstream: untracked, pre-DNAT; then forward for what is forwarded, or normal for what the
//! node itself sends or receives. Failsafe ports come first everywhere but in forward.

use std::net::IpAddr;

use tortie_desired::{Failsafe, HostEndpoint, HostInterface, Tables};
use tortie_net::Family;

use crate::lists::Look;
use crate::{Direction, Packet, Stage, Step};

/// What a stage made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// A policy, a profile or a failsafe port allows it, or nothing forbids it.
    Passes,
    /// A policy allows it with effect on later stages.
    Accepted,
    /// It ends here.
    Denied,
}

/// The host endpoint of an interface; of an unknown one, the endpoint of all.
pub(crate) fn of_interface<'a>(tables: &'a Tables, interface: Option<&str>) -> Option<&'a HostEndpoint> {
    let named = interface.and_then(|name| tables.host_endpoints.get(&HostInterface::Named(name.into())));
    named.or_else(|| tables.host_endpoints.get(&HostInterface::All)).map(|endpoint| &**endpoint)
}

/// Asks one stage of the host endpoint of an interface.
pub(crate) fn ask(
    tables: &Tables,
    interface: Option<&str>,
    stage: Stage,
    direction: Direction,
    packet: &Packet,
    steps: &mut Vec<Step>,
) -> Ruling {
    // Of the node's own packets, IPv6 is left alone where it is not managed, as upstream.
    if packet.family() == Family::V6 && !tables.settings.ipv6 {
        return Ruling::Passes;
    }
    let Some(endpoint) = of_interface(tables, interface) else { return Ruling::Passes };
    let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles } = endpoint;
    let list = match stage {
        Stage::Untracked => untracked,
        Stage::PreDnat => pre_dnat,
        Stage::Forward => forward,
        Stage::Normal => tiers,
    };
    let id = endpoint.id();
    if stage != Stage::Normal && list.is_empty() {
        return Ruling::Passes;
    }
    steps.push(Step::AtHost { endpoint: id.clone(), stage, direction });
    if stage != Stage::Forward && is_failsafe(tables, stage, direction, packet) {
        steps.push(Step::Failsafe(stage));
        return Ruling::Passes;
    }
    let mut look = Look { tables, id: &id, direction, packet, steps };
    let decided = match stage {
        Stage::Normal => Some(look.all(list, profiles)),
        Stage::Forward => look.tiers(list, true),
        Stage::Untracked | Stage::PreDnat => look.tiers(list, false),
    };
    match (decided, stage) {
        (Some(false), _) => Ruling::Denied,
        (Some(true), Stage::Untracked | Stage::PreDnat) => Ruling::Accepted,
        (Some(true), Stage::Forward | Stage::Normal) => Ruling::Passes,
        (None, _) => {
            steps.push(Step::Open(stage));
            Ruling::Passes
        }
    }
}

/// Before connection tracking, answers to what failsafe ports let through are let through by them too.
fn is_failsafe(tables: &Tables, stage: Stage, direction: Direction, packet: &Packet) -> bool {
    let settings = &tables.settings;
    let (own, other, peer) = match direction {
        Direction::Ingress => (&settings.failsafe_inbound, &settings.failsafe_outbound, packet.src),
        Direction::Egress => (&settings.failsafe_outbound, &settings.failsafe_inbound, packet.dst),
    };
    let holds = |failsafe: &Failsafe, at: u16, peer: IpAddr| {
        let Failsafe { protocol, port, net } = failsafe;
        *protocol == packet.protocol && *port == at && net.is_none_or(|net| net.contains(&peer))
    };
    own.iter().any(|f| holds(f, packet.dst_port, peer))
        || stage == Stage::Untracked && other.iter().any(|f| holds(f, packet.src_port, peer))
}
