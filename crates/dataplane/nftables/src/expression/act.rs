//! What a rule does: statements, verdicts, translation.

use std::net::IpAddr;

use tortie_net::{Family, PortRange};
use tortie_ruleset::{ChoiceKey, Side, Statement, Verdict};

use super::{FIRST, Program, SECOND, octets, port_offset, put_verdict};
use crate::uapi::{NFPROTO_IPV4, NFPROTO_IPV6, data, expr};

/// The verdict register.
const VERDICT: u32 = 0;
/// The third data register, 16 bytes.
const THIRD: u32 = 3;
/// How much of a recorded packet is told, bytes: its headers.
const SNAPLEN: u32 = 128;
/// The longest prefix of log lines that the kernel takes; a longer one is cut, as it must not cost a policy.
pub(super) const LOG_PREFIX_LEN: usize = 127;

impl Program {
    pub(super) fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Log { prefix } => self.add("log", |w| {
                w.put_str(expr::LOG_PREFIX, &prefix[..prefix.floor_char_boundary(LOG_PREFIX_LEN)]);
                w.put_be32(expr::LOG_LEVEL, expr::LEVEL_NOTICE);
            }),
            Statement::Record { group, prefix } => self.add("log", |w| {
                w.put(expr::LOG_GROUP, &group.to_be_bytes());
                w.put_str(expr::LOG_PREFIX, &prefix[..prefix.floor_char_boundary(LOG_PREFIX_LEN)]);
                w.put_be32(expr::LOG_SNAPLEN, SNAPLEN);
            }),
            Statement::Count => self.add("counter", |w| {
                w.put(expr::COUNTER_BYTES, &[0; 8]);
                w.put(expr::COUNTER_PACKETS, &[0; 8]);
            }),
            Statement::SetMark(bits) => self.mark(!bits, *bits),
            Statement::ClearMark(bits) => self.mark(!bits, 0),
            Statement::NoTrack => self.add("notrack", |_| {}),
            Statement::SetDscp { family, value } => self.dscp(*family, *value),
        }
    }

    /// The field lies in the first two bytes of both headers; congestion notification beside it stays.
    fn dscp(&mut self, family: Family, value: u8) {
        let (keep, shift, checksum) = match family {
            Family::V4 => (0xff03_u16, 2, Some(10)),
            Family::V6 => (0xf03f_u16, 6, None),
        };
        self.payload(expr::BASE_NETWORK, 0, 2, FIRST);
        self.bitwise(&keep.to_be_bytes(), &(u16::from(value) << shift).to_be_bytes());
        self.add("payload", |w| {
            w.put_be32(expr::PAYLOAD_SREG, FIRST);
            w.put_be32(expr::PAYLOAD_BASE, expr::BASE_NETWORK);
            w.put_be32(expr::PAYLOAD_OFFSET, 0);
            w.put_be32(expr::PAYLOAD_LEN, 2);
            w.put_be32(expr::PAYLOAD_CSUM_TYPE, checksum.map_or(0, |_| expr::CSUM_INET));
            w.put_be32(expr::PAYLOAD_CSUM_OFFSET, checksum.unwrap_or(0));
            w.put_be32(expr::PAYLOAD_CSUM_FLAGS, 0);
        });
    }

    fn mark(&mut self, keep: u32, set: u32) {
        self.meta(expr::META_MARK, FIRST);
        self.bitwise(&keep.to_ne_bytes(), &set.to_ne_bytes());
        self.add("meta", |w| {
            w.put_be32(expr::META_KEY, expr::META_MARK);
            w.put_be32(expr::META_SREG, FIRST);
        });
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Accept => self.decide(data::ACCEPT, None),
            Verdict::Drop => self.decide(data::DROP, None),
            Verdict::Return => self.decide(data::RETURN, None),
            Verdict::Jump(chain) => self.decide(data::JUMP, Some(chain)),
            Verdict::Goto(chain) => self.decide(data::GOTO, Some(chain)),
            Verdict::Reject => self.add("reject", |w| {
                w.put_be32(expr::REJECT_TYPE, expr::REJECT_ICMPX);
                w.put(expr::REJECT_CODE, &[expr::ICMPX_PORT_UNREACHABLE]);
            }),
            Verdict::Dispatch { side, map } => {
                self.interface(*side);
                self.lookup(map, false, Some(VERDICT));
            }
            Verdict::Choose { key, map } => {
                match key {
                    ChoiceKey::Port => self.payload(expr::BASE_TRANSPORT, port_offset(Side::Destination), 2, FIRST),
                    ChoiceKey::Address { side, family } => self.load_address(*side, *family),
                }
                self.lookup(map, false, Some(VERDICT));
            }
            Verdict::Reset => self.add("reject", |w| w.put_be32(expr::REJECT_TYPE, expr::REJECT_TCP_RESET)),
            Verdict::SourceNat { address: None, ports } => self.masquerade(*ports),
            Verdict::SourceNat { address: Some(address), ports } => self.nat(expr::NAT_SOURCE, *address, *ports),
            Verdict::DestinationNat(address) => self.nat(expr::NAT_DESTINATION, *address, None),
        }
    }

    fn masquerade(&mut self, ports: Option<PortRange>) {
        self.ports(ports);
        self.add("masq", |w| {
            w.put_be32(expr::MASQ_FLAGS, expr::RANDOM_FULLY | ports.map_or(0, |_| expr::RANGE_PORTS));
            if ports.is_some() {
                w.put_be32(expr::MASQ_PROTO_MIN, SECOND);
                w.put_be32(expr::MASQ_PROTO_MAX, THIRD);
            }
        });
    }

    fn nat(&mut self, kind: u32, address: IpAddr, ports: Option<PortRange>) {
        self.value(&octets(address), FIRST);
        self.ports(ports);
        let family = if address.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        self.add("nat", |w| {
            w.put_be32(expr::NAT_TYPE, kind);
            w.put_be32(expr::NAT_FAMILY, u32::from(family));
            w.put_be32(expr::NAT_ADDR_MIN, FIRST);
            w.put_be32(expr::NAT_ADDR_MAX, FIRST);
            if ports.is_some() {
                w.put_be32(expr::NAT_PROTO_MIN, SECOND);
                w.put_be32(expr::NAT_PROTO_MAX, THIRD);
            }
            w.put_be32(expr::NAT_FLAGS, expr::RANGE_ADDRESS | ports.map_or(0, |_| expr::RANGE_PORTS));
        });
    }

    fn ports(&mut self, ports: Option<PortRange>) {
        if let Some(ports) = ports {
            self.value(&ports.first().to_be_bytes(), SECOND);
            self.value(&ports.last().to_be_bytes(), THIRD);
        }
    }

    /// Loads a value into a register.
    fn value(&mut self, value: &[u8], register: u32) {
        self.add("immediate", |w| {
            w.put_be32(expr::IMMEDIATE_DREG, register);
            w.nest(expr::IMMEDIATE_DATA, |w| w.put(data::VALUE, value));
        });
    }

    fn decide(&mut self, code: i32, chain: Option<&str>) {
        self.add("immediate", |w| {
            w.put_be32(expr::IMMEDIATE_DREG, VERDICT);
            w.nest(expr::IMMEDIATE_DATA, |w| put_verdict(w, code, chain));
        });
    }
}
