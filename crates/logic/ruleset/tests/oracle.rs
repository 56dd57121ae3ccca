//! The ruleset answers every packet as the oracle does. A slow interpreter plays the packet filter.

mod arbitrary;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use tortie_desired::{Member, SetKind, Tables};
use tortie_net::{Family, IpNet, Protocol};
use tortie_ruleset::{CtState, Element, Match, Renderer, Rule, Ruleset, Side, Statement, Verdict};
use tortie_verdict::{Direction, Packet, evaluate_endpoint};

/// A packet on its way through chains.
struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    mark: u32,
}

impl Walk<'_> {
    /// Whether the chain accepts (`Some(true)`), drops (`Some(false)`) or returns (`None`).
    fn chain(&mut self, name: &str) -> Option<bool> {
        let chain = self.ruleset.chains[name].clone();
        for Rule { matches, statements, verdict } in &chain.rules {
            if !matches.iter().all(|m| self.holds(m)) {
                continue;
            }
            for statement in statements {
                match statement {
                    Statement::Log { .. } => {}
                    Statement::SetMark(bits) => self.mark |= bits,
                    Statement::ClearMark(bits) => self.mark &= !bits,
                }
            }
            match verdict {
                None => {}
                Some(Verdict::Accept) => return Some(true),
                Some(Verdict::Drop | Verdict::Reject) => return Some(false),
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(name)) => return self.chain(name),
                Some(Verdict::Jump(name)) => {
                    if let Some(decided) = self.chain(name) {
                        return Some(decided);
                    }
                }
                Some(Verdict::Dispatch { .. } | Verdict::Masquerade) => panic!("only in base chains"),
            }
        }
        None
    }

    fn holds(&self, condition: &Match) -> bool {
        let packet = self.packet;
        let addr = |side: &Side| if *side == Side::Source { packet.src } else { packet.dst };
        // Where a packet has no ports, other bytes stand in their place.
        let port = |side: &Side| match (packet.icmp, side) {
            (Some((icmp_type, code)), Side::Source) => u16::from_be_bytes([icmp_type, code]),
            (_, Side::Source) => packet.src_port,
            (_, Side::Destination) => packet.dst_port,
        };
        let has = |set: &str, element: Element| self.ruleset.sets[set].elements.contains(&element);
        match condition {
            Match::Conntrack(CtState::EstablishedOrRelated | CtState::Invalid) => false,
            Match::Family(family) => *family == packet.family(),
            Match::Protocol { protocol, negate } => (*protocol == packet.protocol) != *negate,
            Match::Address { side, net, negate } => net.contains(&addr(side)) != *negate,
            Match::AddressIn { side, family, set, negate } => {
                assert_eq!(*family, packet.family(), "tested before");
                let inside = self.ruleset.sets[set].elements.iter().any(|e| match e {
                    Element::Address(a) => *a == addr(side),
                    Element::Net(net) => net.contains(&addr(side)),
                    _ => panic!("{set} holds {e:?}"),
                });
                inside != *negate
            }
            Match::AddressPortIn { side, family, set, negate } => {
                assert_eq!(*family, packet.family(), "tested before");
                let (addr, protocol, port) = (addr(side), packet.protocol, port(side));
                has(set, Element::AddressPort { addr, protocol, port }) != *negate
            }
            Match::Port { side, range, negate } => {
                assert!(packet.protocol.has_ports(), "tested before");
                range.contains(port(side)) != *negate
            }
            Match::PortIn { side, set, negate } => {
                assert!(packet.protocol.has_ports(), "tested before");
                let inside = |e: &Element| matches!(e, Element::Ports(range) if range.contains(port(side)));
                self.ruleset.sets[set].elements.iter().any(inside) != *negate
            }
            Match::Icmp { icmp_type, code, negate } => {
                let (seen_type, seen_code) = packet.icmp.expect("tested before");
                (*icmp_type == seen_type && code.is_none_or(|c| c == seen_code)) != *negate
            }
            Match::Mark(bits) => self.mark & bits != 0,
            Match::InterfacePrefix { .. } | Match::InterfaceIn { .. } | Match::InterfaceAddressIn { .. } => {
                panic!("only in base chains")
            }
        }
    }
}

/// Sets hold what their kind says; the calculator yields no others.
fn tidy(tables: &mut Tables) {
    for (kind, members) in tables.sets.values_mut() {
        members.retain(|member| match (*kind, member) {
            (SetKind::Addresses, Member::Net(net)) => *net == IpNet::from(net.addr()),
            (SetKind::Nets, Member::Net(_)) | (SetKind::Ports, Member::Port { .. }) => true,
            (SetKind::Addresses | SetKind::Nets, Member::Port { .. }) | (SetKind::Ports, Member::Net(_)) => false,
        });
    }
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let address = |family: Family, low: u8| -> IpAddr {
        match family {
            Family::V4 => IpAddr::from([10, 0, low / 8, low % 8]),
            Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low % 8)]),
        }
    };
    let protocol =
        select(vec![Protocol::TCP, Protocol::UDP, Protocol(132), Protocol(47), Protocol::ICMP, Protocol::ICMPV6]);
    let icmp = (select(vec![0u8, 8, 128]), 0u8..3);
    let packet = (select(Family::ALL.to_vec()), 0u8..16, 0u8..16, protocol, 0u16..5, 0u16..5, icmp).prop_map(
        move |(family, src, dst, protocol, src_port, dst_port, icmp)| {
            let (src, dst) = (address(family, src), address(family, dst));
            // The other family's ICMP is a protocol like any other.
            let own = if family == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
            let icmp = (protocol == own).then_some(icmp);
            Packet { src, dst, protocol, src_port, dst_port, icmp }
        },
    );
    proptest::collection::vec(packet, 24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_answered_as_the_oracle_does(
        batches in proptest::collection::vec(arbitrary::batch(), 1..5),
        packets in packets(),
    ) {
        let mut tables = Tables::default();
        batches.iter().for_each(|batch| tables.apply(batch));
        tidy(&mut tables);
        let renderer = Renderer::new(&tables, 200);
        let ruleset = renderer.ruleset();
        for (id, endpoint) in &tables.endpoints {
            let owner = tables.endpoints.iter().find(|(_, e)| e.interface == endpoint.interface);
            if owner.map(|(id, _)| id) != Some(id) {
                continue;
            }
            for packet in &packets {
                let managed = tables.settings.ipv6 || packet.family() == Family::V4;
                for (direction, map, known) in [
                    (Direction::Ingress, "cali-to-wl-dispatch", true),
                    (Direction::Egress, "cali-from-wl-dispatch", endpoint.addresses.contains(&packet.src)),
                ] {
                    let oracle = evaluate_endpoint(&tables, id, direction, packet).expect("it is there");
                    let chain = Arc::clone(&ruleset.maps[map][&endpoint.interface]);
                    let mut walk = Walk { ruleset, packet, mark: 0 };
                    let decided = walk.chain(&chain);
                    let context = format!("{direction:?} {packet:?} {:?} {:?}", oracle.steps, ruleset.chains);
                    prop_assert_eq!(decided, Some(managed && known && oracle.allowed), "{}", context);
                }
            }
        }
    }
}
