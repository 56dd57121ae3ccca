//! An established flow is judged as the ruleset answers its first packet. A slow interpreter plays the packet filter.

mod arbitrary;
mod interpreter;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use interpreter::Trip;
use proptest::prelude::*;
use proptest::sample::select;
use tortie_desired::{Member, SetKind, Tables};
use tortie_flow::{Connection, Ends, Judge, Standing, Surroundings};
use tortie_net::{Family, IpNet, Protocol};
use tortie_ruleset::Renderer;
use tortie_verdict::Packet;

/// Sets hold what their kind says; the calculator yields no others. Routes are not what this is about.
fn tidy(tables: &mut Tables) {
    for (kind, members) in tables.sets.values_mut() {
        let fits = |member: &Member| match (*kind, member) {
            (SetKind::Addresses, Member::Net(net)) => *net == IpNet::from(net.addr()),
            (SetKind::Nets, Member::Net(_)) | (SetKind::Ports, Member::Port { .. }) => true,
            (SetKind::Addresses | SetKind::Nets, Member::Port { .. }) | (SetKind::Ports, Member::Net(_)) => false,
        };
        *members = members.iter().copied().filter(fits).collect();
    }
    tables.routes.clear();
}

fn address(family: Family, low: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, low / 8, low % 8]),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)]),
    }
}

/// A flow, mostly without NAT.
fn flow() -> impl Strategy<Value = Connection> {
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol(4), Protocol::ICMP, Protocol::ICMPV6];
    let nat = prop_oneof![4 => Just(None), 1 => (0u8..16, 0u16..5).prop_map(Some)];
    let ends = (0u8..16, 0u8..16, 0u16..5, 0u16..5);
    (select(Family::ALL.to_vec()), ends, select(protocols.to_vec()), 0u8..3, nat).prop_map(
        |(family, (src, dst, src_port, dst_port), protocol, code, nat)| {
            let (src, dst) = (address(family, src), address(family, dst));
            let own = if family == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
            let icmp = (protocol == own).then_some((if family == Family::V4 { 8 } else { 128 }, code));
            let (before, before_port) = nat.map_or((dst, dst_port), |(low, port)| (address(family, low), port));
            Connection {
                protocol,
                original: Ends { src, dst: before, src_port, dst_port: before_port },
                reply: Ends { src: dst, dst: src, src_port: dst_port, dst_port: src_port },
                icmp,
            }
        },
    )
}

/// The node: one address of its own, and two ways out of it.
fn surroundings() -> Surroundings {
    let net = |text: &str| text.parse::<IpNet>().expect("literal");
    let routes = [("0.0.0.0/0", "eth0"), ("::/0", "eth0"), ("10.0.1.0/30", "eth1"), ("fd00::8/126", "eth1")];
    Surroundings {
        own: Family::ALL.map(|family| address(family, 15)).into(),
        routes: routes.into_iter().map(|(text, name)| (net(text), Arc::from(name))).collect(),
    }
}

fn way_out(addr: IpAddr) -> &'static str {
    let far: BTreeSet<IpAddr> = Family::ALL.into_iter().flat_map(|f| (8..12).map(move |low| address(f, low))).collect();
    if far.contains(&addr) { "eth1" } else { "eth0" }
}

/// The interface of the first endpoint with an address, or else with the right to use it.
fn behind(tables: &Tables, addr: IpAddr, further: bool) -> Option<&str> {
    let mut all = tables.endpoints.values();
    let holds = all.clone().find(|e| e.addresses.contains(&addr));
    let found = holds.or_else(|| all.find(|e| further && e.allowed_sources.iter().any(|net| net.contains(&addr))));
    found.map(|endpoint| &*endpoint.interface)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flow_stands_as_its_first_packet_would_pass(
        batches in proptest::collection::vec(arbitrary::batch(), 1..5),
        flows in proptest::collection::vec(flow(), 48),
    ) {
        let mut tables = Tables::default();
        batches.iter().for_each(|batch| tables.apply(batch));
        tidy(&mut tables);
        let renderer = Renderer::new(&tables, 200);
        let (around, judge) = (surroundings(), Judge::new(&tables));
        for flow in flows {
            let Connection { protocol, original, reply, icmp } = flow;
            let (src, dst) = (original.src, reply.src);
            let own = |addr: IpAddr| around.own.contains(&addr);
            let from = behind(&tables, src, !own(src));
            let to = behind(&tables, dst, false);
            let standing = judge.standing(&tables, &around, &flow);
            if from.is_none() && to.is_none() && tables.host_endpoints.is_empty() {
                prop_assert_eq!(standing, Standing::Foreign);
                continue;
            }
            // The kernel delivers by routes: to the interface of one who does not hold it, nothing gets.
            let holders: BTreeMap<&str, _> =
                tables.endpoints.values().rev().map(|e| (&*e.interface, e.clone())).collect();
            if to.is_some_and(|to| !holders[to].addresses.contains(&dst)) {
                continue;
            }
            let packet =
                Packet { src, dst, protocol, src_port: original.src_port, dst_port: reply.src_port, icmp };
            let arrived_for = (original.dst, original.dst_port);
            let ruleset = renderer.ruleset();
            let passes = |from, to| {
                Trip { ruleset, packet, arrived_for, from, to, mark: 0, recorded: None }.passes()
            };
            let here = own(dst) && to.is_none();
            let out = if here { None } else { Some(to.unwrap_or_else(|| way_out(dst))) };
            let wanted = match from {
                None if own(src) && here => passes(None, Some("lo")) && passes(Some("lo"), None),
                None if own(src) => passes(None, out),
                from => passes(Some(from.unwrap_or_else(|| way_out(src))), out),
            };
            let wanted = if wanted { Standing::Allowed } else { Standing::Denied };
            prop_assert_eq!(standing, wanted, "{:?} {:#?}", flow, tables);
        }
    }
}
