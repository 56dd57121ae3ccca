//! A slow packet filter for the first packet of a flow: the chains of a ruleset, rule by rule.

use std::net::IpAddr;
use std::sync::Arc;

use tortie_ruleset::{Base, ChoiceKey, CtState, Element, Match, Name, Rule, Ruleset, Side, Statement, Verdict};
use tortie_verdict::Packet;

/// A packet on its way.
pub struct Trip<'a> {
    /// The rules.
    pub ruleset: &'a Ruleset,
    /// The packet, after any NAT.
    pub packet: Packet,
    /// Its destination before that.
    pub arrived_for: (IpAddr, u16),
    /// The interface that it came in by; `None`: the host sent it.
    pub from: Option<&'a str>,
    /// The interface that it goes out by; `None`: it is for the host.
    pub to: Option<&'a str>,
    /// Its mark.
    pub mark: u32,
    /// What was told of it.
    pub recorded: Option<Arc<str>>,
}

impl Trip<'_> {
    /// Whether it gets where it goes.
    pub fn passes(&mut self) -> bool {
        let mut bases = match self.from {
            Some(_) => vec![Base::RawPrerouting, Base::BeforeNat],
            None => vec![Base::RawOutput, Base::Output],
        };
        if self.from.is_some() {
            bases.extend(match self.to {
                Some(_) => vec![Base::FromHost, Base::FromWorkload, Base::ToWorkload, Base::ToHost],
                None => vec![Base::Input],
            });
        }
        if self.to.is_some() {
            bases.push(Base::Postrouting);
        }
        bases.into_iter().all(|base| self.base(base))
    }

    fn base(&mut self, base: Base) -> bool {
        let after = self.packet;
        if matches!(base, Base::RawPrerouting | Base::BeforeNat | Base::RawOutput) {
            (self.packet.dst, self.packet.dst_port) = self.arrived_for;
        }
        let named = self.ruleset.chains.iter().filter(|(_, chain)| chain.base == Some(base));
        let names: Vec<_> = named.map(|(name, _)| name.clone()).collect();
        let passes = names.iter().all(|name| self.chain(name, base) != Some(false));
        self.packet = after;
        passes
    }

    /// Whether the chain accepts (`Some(true)`), drops (`Some(false)`) or returns (`None`).
    fn chain(&mut self, name: &str, base: Base) -> Option<bool> {
        let chain = self.ruleset.chains[name].clone();
        for Rule { matches, statements, verdict } in &chain.rules {
            if !matches.iter().all(|m| self.holds(m, base)) {
                continue;
            }
            for statement in statements {
                match statement {
                    Statement::Log { .. } | Statement::Count => {}
                    Statement::Record { group: _, prefix } => self.recorded = Some(prefix.clone()),
                    Statement::SetMark(bits) => self.mark |= bits,
                    Statement::ClearMark(bits) => self.mark &= !bits,
                    Statement::NoTrack => assert!(matches!(base, Base::RawPrerouting | Base::RawOutput)),
                    Statement::SetDscp { .. } => panic!("only where headers are marked"),
                }
            }
            match verdict {
                None => {}
                Some(Verdict::Accept) => return Some(true),
                Some(Verdict::Reject | Verdict::Reset) => {
                    assert!(base != Base::Postrouting, "the kernel can't reject there");
                    return Some(false);
                }
                Some(Verdict::Drop) => return Some(false),
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(name)) => return self.chain(name, base),
                Some(Verdict::Jump(name)) => {
                    if let Some(decided) = self.chain(name, base) {
                        return Some(decided);
                    }
                }
                Some(Verdict::Dispatch { side, map }) => {
                    let interface = self.interface(*side, base);
                    let chain = interface.and_then(|interface| self.ruleset.maps[map].get(interface)).cloned();
                    if let Some(chain) = chain {
                        return self.chain(&chain, base);
                    }
                }
                Some(Verdict::Choose { key, map }) => {
                    if let Some(decided) = self.choice(*key, map).and_then(|chain| self.chain(&chain, base)) {
                        return Some(decided);
                    }
                }
                Some(Verdict::SourceNat { .. } | Verdict::DestinationNat(_)) => panic!("only in chains of NAT"),
            }
        }
        None
    }

    fn choice(&self, key: ChoiceKey, map: &str) -> Option<Name> {
        let wanted = match key {
            ChoiceKey::Port => {
                assert!(self.packet.protocol.has_ports(), "tested before");
                self.packet.dst_port.into()
            }
            ChoiceKey::Address { side, family } => {
                assert_eq!(family, self.packet.family(), "tested before");
                match if side == Side::Source { self.packet.src } else { self.packet.dst } {
                    IpAddr::V4(addr) => u32::from(addr).into(),
                    IpAddr::V6(addr) => u128::from(addr),
                }
            }
        };
        let map = &self.ruleset.choices[map];
        assert_eq!(map.key, key);
        let mut found = map.chains.iter().filter(|(range, _)| range.first <= wanted && wanted <= range.last);
        let chain = found.next().map(|(_, chain)| chain.clone());
        assert_eq!(found.next(), None, "ranges are disjoint");
        chain
    }

    fn interface(&self, side: Side, base: Base) -> Option<&str> {
        match side {
            Side::Source => self.from.filter(|_| base != Base::Postrouting),
            Side::Destination => self.to,
        }
    }

    fn holds(&self, condition: &Match, base: Base) -> bool {
        let packet = &self.packet;
        let addr = |side: &Side| if *side == Side::Source { packet.src } else { packet.dst };
        // Where a packet has no ports, other bytes stand in their place.
        let port = |side: &Side| match (packet.icmp, side) {
            (Some((icmp_type, code)), Side::Source) => u16::from_be_bytes([icmp_type, code]),
            (_, Side::Source) => packet.src_port,
            (_, Side::Destination) => packet.dst_port,
        };
        let has = |set: &str, element: Element| self.ruleset.sets[set].elements.contains(&element);
        match condition {
            Match::Conntrack(CtState::EstablishedOrRelated | CtState::Invalid) => {
                assert!(!matches!(base, Base::RawPrerouting | Base::RawOutput), "nothing is known there");
                false
            }
            // What is new is not revoked.
            Match::Revoked { negate } => *negate,
            Match::Translated => self.arrived_for != (packet.dst, packet.dst_port),
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
            Match::BorrowedSource { .. } => panic!("only in chains of NAT"),
            Match::Mark(bits) => self.mark & bits != 0,
            Match::InterfacePrefix { side, prefix } => {
                self.interface(*side, base).is_some_and(|name| name.starts_with(&**prefix))
            }
            Match::InterfaceIn { side, set } => {
                self.interface(*side, base).is_some_and(|name| has(set, Element::Interface(name.into())))
            }
            Match::InterfaceAddressIn { family, set, negate } => {
                assert_eq!(*family, packet.family(), "tested before");
                let element = |name: &str| Element::interface_address(name, addr(&Side::Source));
                self.interface(Side::Source, base).is_some_and(|name| has(set, element(name))) != *negate
            }
            // One packet is within every limit.
            Match::Rate { rate: _, over } => !*over,
            Match::ConnectionsOver(_) => false,
        }
    }
}
