//! The ruleset answers every packet as the oracle does, on its whole way. A slow interpreter plays the packet filter.

mod arbitrary;
mod interpreter;

use std::net::IpAddr;
use std::sync::Arc;

use interpreter::Trip;
use proptest::prelude::*;
use proptest::sample::select;
use tortie_desired::{
    Action, Endpoint, EndpointId, HostAction, HostEndpoint, HostInterface, Member, SetKind, Tables, TunnelDevice, Vtep,
    Vxlan,
};
use tortie_net::{Family, IpNet, Mac, Protocol};
use tortie_ruleset::{ACCEPT_MARK, Beside, Cause, CauseOwner, Direction, Renderer, Ruleset};
use tortie_verdict::{Packet, Place, Source, Step, Target, Way, evaluate_way};

/// Sets hold what their kind says; the calculator yields no others.
fn tidy(tables: &mut Tables) {
    for (kind, members) in tables.sets.values_mut() {
        let fits = |member: &Member| match (*kind, member) {
            (SetKind::Addresses, Member::Net(net)) => *net == IpNet::from(net.addr()),
            (SetKind::Nets, Member::Net(_)) | (SetKind::Ports, Member::Port { .. }) => true,
            (SetKind::Addresses | SetKind::Nets, Member::Port { .. }) | (SetKind::Ports, Member::Net(_)) => false,
        };
        *members = members.iter().copied().filter(fits).collect();
    }
}

fn address(family: Family, low: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, low / 8, low % 8]),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low % 8)]),
    }
}

/// A packet, and its destination before NAT, which mostly is the same.
fn packet() -> impl Strategy<Value = (Packet, (IpAddr, u16))> {
    let protocols =
        [Protocol::TCP, Protocol::UDP, Protocol(132), Protocol(47), Protocol(4), Protocol::ICMP, Protocol::ICMPV6];
    let icmp = (select(vec![0u8, 8, 128]), 0u8..3);
    let nat = prop_oneof![4 => Just(None), 1 => (0u8..16, 0u16..5).prop_map(Some)];
    let ends = (0u8..16, 0u8..16, 0u16..5, 0u16..5);
    (select(Family::ALL.to_vec()), ends, select(protocols.to_vec()), icmp, nat).prop_map(
        |(family, (src, dst, src_port, dst_port), protocol, icmp, nat)| {
            let (src, dst) = (address(family, src), address(family, dst));
            // The other family's ICMP is a protocol like any other.
            let own = if family == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
            let icmp = (protocol == own).then_some(icmp);
            let packet = Packet { src, dst, protocol, src_port, dst_port, icmp };
            let before = nat.map_or((dst, dst_port), |(low, port)| (address(family, low), port));
            (packet, before)
        },
    )
}

/// Where a packet comes from and goes to; empty: the host itself.
fn ways() -> impl Strategy<Value = Vec<(&'static str, bool, &'static str, Packet, (IpAddr, u16))>> {
    let from = select(vec!["", "eth0", "eth1", "wlan0", "cali0", "cali1", "cali2", "tap9", "cali8"]);
    let way = (from, any::<bool>(), select(vec!["eth0", "eth1", "wlan0"]), packet());
    let way = way.prop_map(|(from, to_host, to, (packet, before))| (from, to_host, to, packet, before));
    proptest::collection::vec(way, 48)
}

/// The first endpoint that has an address is the one that packets get to, if the interface is its own.
fn receiver<'a>(tables: &'a Tables, packet: &Packet) -> Option<Result<&'a Endpoint, ()>> {
    let (id, endpoint) = tables.endpoints.iter().find(|(_, e)| e.addresses.contains(&packet.dst))?;
    let holder = tables.endpoints.iter().find(|(_, e)| e.interface == endpoint.interface);
    Some(if holder.map(|(holder, _)| holder) == Some(id) { Ok(endpoint) } else { Err(()) })
}

fn passes(ruleset: &Ruleset, tables: &Tables, way: &Way<'_>, packet: &Packet) -> bool {
    outcome(ruleset, tables, way, packet).is_ok()
}

/// Whether the packet passes; if not, what is told of it.
fn outcome(ruleset: &Ruleset, tables: &Tables, way: &Way<'_>, packet: &Packet) -> Result<(), Option<Arc<str>>> {
    // What others leave in the mark must not count.
    let trip = |from, to| {
        let mark = ACCEPT_MARK;
        let mut trip = Trip { ruleset, packet: *packet, arrived_for: way.arrived_for, from, to, mark, recorded: None };
        if trip.passes() { Ok(()) } else { Err(trip.recorded) }
    };
    let out = receiver(tables, packet).and_then(Result::ok).map(|e| &*e.interface).or(way.leaves_by);
    match (way.source, way.target) {
        (Source::Host, Target::Host) => trip(None, Some("lo")).and_then(|()| trip(Some("lo"), None)),
        (Source::Host, Target::Routed) => trip(None, out),
        (Source::Interface(from), Target::Host) => trip(Some(from), None),
        (Source::Interface(from), Target::Routed) => trip(Some(from), out),
    }
}

fn to_host_ends(tables: &Tables) -> bool {
    tables.settings.endpoint_to_host == HostAction::Drop
}

fn loops(tables: &Tables, packet: &Packet) -> bool {
    tables.settings.service_loops.iter().any(|net| net.contains(&packet.dst))
}

/// The step that ended the packet. A rule of a profile that passes it on to nobody is told of itself.
fn decider(steps: &[Step]) -> Option<&Step> {
    match steps {
        [.., rule @ Step::Rule { place: Place::Profile(_), action: Action::Pass, .. }, Step::NothingMatched { .. }] => {
            Some(rule)
        }
        steps => steps.last(),
    }
}

/// What must be told of a packet that the oracle ended with this step.
fn cause(tables: &Tables, source: Source<'_>, packet: &Packet, step: &Step) -> Option<Cause> {
    let towards = |direction: &tortie_verdict::Direction| match direction {
        tortie_verdict::Direction::Ingress => Direction::Ingress,
        tortie_verdict::Direction::Egress => Direction::Egress,
    };
    let owner = |place: &Place| match place {
        Place::Policy { tier: _, policy } => CauseOwner::Policy(policy.clone()),
        Place::Profile(name) => CauseOwner::Profile(name.clone()),
    };
    let is_host = |endpoint: &EndpointId| tables.host_endpoints.values().any(|host| host.id() == *endpoint);
    let from = |what| Cause::Beside { what, direction: Direction::Egress };
    Some(match step {
        Step::Rule { endpoint: _, direction, place, index, action: _ } => {
            Cause::Rule { owner: owner(place), direction: towards(direction), index: *index }
        }
        Step::Missing { endpoint: _, direction, place } => {
            Cause::Missing { owner: owner(place), direction: towards(direction) }
        }
        Step::EndOfTier { endpoint, direction, tier, action: _ } => {
            Cause::EndOfTier { tier: tier.clone(), direction: towards(direction), host: is_host(endpoint) }
        }
        Step::NothingMatched { endpoint, direction } => {
            Cause::NothingMatched { direction: towards(direction), host: is_host(endpoint) }
        }
        Step::UnknownInterface(_) => from(Beside::UnknownInterface),
        Step::Ipv6Off(endpoint) => {
            let sends = matches!(source, Source::Interface(from) if *tables.endpoints[endpoint].interface == *from);
            let direction = if sends { Direction::Egress } else { Direction::Ingress };
            Cause::Beside { what: Beside::Ipv6Off, direction }
        }
        Step::Spoofed(_) => from(Beside::Spoofed),
        Step::ToHost(_) => from(Beside::ToHost),
        Step::Encapsulated(_) if packet.protocol == Protocol::UDP => from(Beside::Vxlan),
        Step::Encapsulated(_) => from(Beside::Ipip),
        Step::ServiceLoop(_) => from(Beside::ServiceLoop),
        Step::Tunnel { kind: _, allowed: _ } => {
            Cause::Beside { what: Beside::ForeignTunnel, direction: Direction::Ingress }
        }
        Step::MixedFamilies
        | Step::Blackhole(_)
        | Step::FromHost(_)
        | Step::AtHost { .. }
        | Step::Failsafe(_)
        | Step::Open(_)
        | Step::NotOurs => return None,
    })
}

/// `TORTIE_FULL` asks for the full number.
fn cases() -> u32 {
    if std::env::var_os("TORTIE_FULL").is_some() { 100_000 } else { 1500 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_answered_as_the_oracle_does(
        mut batches in proptest::collection::vec(arbitrary::batch(), 1..5),
        ways in ways(),
        run in select(vec![Some(1), Some(2), None]),
        narrow in any::<bool>(),
    ) {
        if narrow {
            batches.iter_mut().for_each(arbitrary::narrow);
        }
        let mut tables = Tables::default();
        batches.iter().for_each(|batch| tables.apply(batch));
        tidy(&mut tables);
        let renderer = Renderer::with_runs(&tables, 200, run);
        for (from, to_host, to, packet, before) in ways {
            let source = if from.is_empty() { Source::Host } else { Source::Interface(from) };
            let target = if to_host { Target::Host } else { Target::Routed };
            if target == Target::Routed && receiver(&tables, &packet) == Some(Err(())) {
                continue;
            }
            // The node's own packets that are translated are judged by the interface of their first way if the
            // kernel can't reject later.
            let way = Way { source, target, leaves_by: Some(to), arrived_for: before };
            let oracle = evaluate_way(&tables, &packet, &way);
            let outcome = outcome(renderer.ruleset(), &tables, &way, &packet);
            let context = || format!("{way:?} {packet:?} {:?}\n{:#?}", oracle.steps, renderer.ruleset().chains);
            prop_assert_eq!(outcome.is_ok(), oracle.allowed, "{}", context());
            let Err(recorded) = outcome else { continue };
            let Some(step) = decider(&oracle.steps).filter(|_| tables.settings.record_drops) else {
                prop_assert_eq!(recorded, None, "{}", context());
                continue;
            };
            // What ends anyway may end before policy is asked.
            let ends = |what| recorded == Some(Cause::Beside { what, direction: Direction::Egress }.prefix().into());
            let early = match target {
                Target::Host => to_host_ends(&tables) && ends(Beside::ToHost),
                Target::Routed => loops(&tables, &packet) && ends(Beside::ServiceLoop),
            };
            let wanted = cause(&tables, source, &packet, step).map(|cause| cause.prefix());
            prop_assert!(early || recorded.as_deref() == wanted.as_deref(), "{recorded:?} {}", context());
        }
    }
}

/// Found by the test above: the node's VXLAN to another node was judged after its destination had been translated.
#[test]
fn vxlan_to_another_node_passes_whatever_its_destination_was_before() {
    let (mac, far) = (Mac([2, 0, 0, 0, 0, 1]), IpAddr::from([10, 0, 1, 5]));
    let mut tables = Tables::default();
    let closed = HostEndpoint {
        name: Arc::from("closed"),
        untracked: vec![],
        pre_dnat: vec![],
        forward: vec![],
        tiers: vec![],
        profiles: vec![],
    };
    tables.host_endpoints.insert(HostInterface::All, Arc::new(closed));
    let device = Vxlan { vni: 4096, port: 4789, underlay: IpAddr::from([192, 0, 2, 1]), address: None, mac, mtu: None };
    tables.tunnels.insert(TunnelDevice::VxlanV4, device);
    tables.vteps.insert(IpAddr::from([10, 0, 0, 1]), Vtep { node: Arc::from("far"), mac, underlay: far });
    let renderer = Renderer::new(&tables, 200);
    for (dst, wanted) in [(far, true), (IpAddr::from([10, 0, 1, 6]), false)] {
        for arrived_for in [(dst, 4789), (IpAddr::from([10, 0, 0, 0]), 1)] {
            let src = IpAddr::from([192, 0, 2, 1]);
            let packet = Packet { src, dst, protocol: Protocol::UDP, src_port: 1, dst_port: 4789, icmp: None };
            let way = Way { source: Source::Host, target: Target::Routed, leaves_by: Some("eth0"), arrived_for };
            let answers =
                (passes(renderer.ruleset(), &tables, &way, &packet), evaluate_way(&tables, &packet, &way).allowed);
            assert_eq!(answers, (wanted, wanted), "{way:?} {packet:?}");
        }
    }
}
