//! Rules as expressions of the kernel's little machine: load into a register, compare, look up, decide.
//!
//! Invariant: attributes are written as the kernel dumps them, so that a rule that was read back can be compared byte
//! by byte.

mod act;

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::Period;
use tortie_net::{Family, Protocol};
use tortie_ruleset::{CtState, Match, REVOKED_MARK, Rate, Rule, Side};

use crate::uapi::{NFPROTO_IPV4, NFPROTO_IPV6, data, expr};
use tortie_nfnetlink::Writer;

/// The first data register, 16 bytes.
const FIRST: u32 = 1;
/// The second data register, 16 bytes.
const SECOND: u32 = 2;
/// The 4-byte registers that overlay the data registers start here.
const SMALL: u32 = 8;
const INTERFACE_LEN: usize = 16;

/// The list of a rule's expressions, as it stands inside a rule's attribute.
pub(crate) fn encode(rule: &Rule) -> Vec<u8> {
    let Rule { matches, statements, verdict } = rule;
    let mut program = Program(Writer::default());
    matches.iter().for_each(|m| program.condition(m));
    statements.iter().for_each(|s| program.statement(s));
    if let Some(verdict) = verdict {
        program.verdict(verdict);
    }
    program.0.bytes
}

/// Writes a verdict as data: in an immediate expression, or as the value of a map's element.
pub(crate) fn put_verdict(writer: &mut Writer, code: i32, chain: Option<&str>) {
    writer.nest(data::VERDICT, |w| {
        w.put(data::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            w.put_str(data::VERDICT_CHAIN, chain);
        }
    });
}

/// An interface name as the kernel compares it.
pub(crate) fn interface_key(name: &str) -> [u8; INTERFACE_LEN] {
    let mut key = [0; INTERFACE_LEN];
    let len = name.len().min(INTERFACE_LEN - 1);
    key[..len].copy_from_slice(&name.as_bytes()[..len]);
    key
}

struct Program(Writer);

impl Program {
    fn add(&mut self, name: &str, inner: impl FnOnce(&mut Writer)) {
        self.0.nest(expr::ITEM, |w| {
            w.put_str(expr::NAME, name);
            w.nest(expr::DATA, inner);
        });
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Conntrack(state) => self.conntrack(*state),
            Match::Translated => self.ct_bits(expr::CT_STATUS, expr::CT_TRANSLATED, true),
            Match::Revoked { negate } => self.ct_bits(expr::CT_MARK, REVOKED_MARK, !negate),
            Match::Family(family) => {
                self.meta(expr::META_NFPROTO, FIRST);
                let number = if *family == Family::V4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
                self.compare(&[number], false);
            }
            Match::Protocol { protocol: Protocol(number), negate } => {
                self.meta(expr::META_L4PROTO, FIRST);
                self.compare(&[*number], *negate);
            }
            Match::InterfacePrefix { side, prefix } => {
                self.interface(*side);
                self.compare(&prefix.as_bytes()[..prefix.len().min(INTERFACE_LEN - 1)], false);
            }
            Match::InterfaceIn { side, set } => {
                self.interface(*side);
                self.lookup(set, false, None);
            }
            Match::InterfaceAddressIn { family, set, negate } => {
                self.interface(Side::Source);
                self.load_address_into(Side::Source, *family, SECOND);
                self.lookup(set, *negate, None);
            }
            Match::Address { side, net, negate } => self.address(*side, *net, *negate),
            Match::AddressIn { side, family, set, negate } => {
                self.load_address(*side, *family);
                self.lookup(set, *negate, None);
            }
            Match::AddressPortIn { side, family, set, negate } => {
                self.load_address(*side, *family);
                let (protocol, port) = match family {
                    Family::V4 => (SMALL + 1, SMALL + 2),
                    Family::V6 => (SECOND, SMALL + 5),
                };
                self.meta(expr::META_L4PROTO, protocol);
                self.payload(expr::BASE_TRANSPORT, port_offset(*side), 2, port);
                self.lookup(set, *negate, None);
            }
            Match::Port { side, range, negate } => {
                self.payload(expr::BASE_TRANSPORT, port_offset(*side), 2, FIRST);
                let (first, last) = (range.first().to_be_bytes(), range.last().to_be_bytes());
                if first == last { self.compare(&first, *negate) } else { self.range(&first, &last, *negate) }
            }
            Match::PortIn { side, set, negate } => {
                self.payload(expr::BASE_TRANSPORT, port_offset(*side), 2, FIRST);
                self.lookup(set, *negate, None);
            }
            Match::Icmp { icmp_type, code, negate } => {
                let wanted: Vec<u8> = [*icmp_type].into_iter().chain(*code).collect();
                self.payload(expr::BASE_TRANSPORT, 0, wanted.len(), FIRST);
                self.compare(&wanted, *negate);
            }
            Match::BorrowedSource { interface } => {
                self.interface(Side::Destination);
                self.compare(&interface_key(interface), false);
                for (flags, negate) in [(expr::FIB_SOURCE, false), (expr::FIB_SOURCE | expr::FIB_OIF, true)] {
                    self.add("fib", |w| {
                        w.put_be32(expr::FIB_DREG, FIRST);
                        w.put_be32(expr::FIB_RESULT, expr::FIB_TYPE);
                        w.put_be32(expr::FIB_FLAGS, flags);
                    });
                    self.compare(&expr::TYPE_LOCAL.to_ne_bytes(), negate);
                }
            }
            Match::Mark(bits) => {
                self.meta(expr::META_MARK, FIRST);
                self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
                self.compare(&[0; 4], true);
            }
            Match::Rate { rate, over } => self.rate(*rate, *over),
            Match::ConnectionsOver(limit) => self.add("connlimit", |w| {
                w.put_be32(expr::CONNLIMIT_COUNT, *limit);
                w.put_be32(expr::CONNLIMIT_FLAGS, expr::CONNLIMIT_INVERTED);
            }),
        }
    }

    fn rate(&mut self, rate: Rate, over: bool) {
        let Rate { packets, period, burst } = rate;
        let seconds: u64 = match period {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3600,
            Period::Day => 86400,
        };
        self.add("limit", |w| {
            w.put(expr::LIMIT_RATE, &u64::from(packets).to_be_bytes());
            w.put(expr::LIMIT_UNIT, &seconds.to_be_bytes());
            w.put_be32(expr::LIMIT_BURST, burst);
            w.put_be32(expr::LIMIT_TYPE, 0);
            w.put_be32(expr::LIMIT_FLAGS, if over { expr::LIMIT_INVERTED } else { 0 });
        });
    }

    fn conntrack(&mut self, state: CtState) {
        let bits = match state {
            CtState::EstablishedOrRelated => expr::CT_BIT_ESTABLISHED | expr::CT_BIT_RELATED,
            CtState::Invalid => expr::CT_BIT_INVALID,
        };
        self.ct_bits(expr::CT_STATE, bits, true);
    }

    /// One of the bits is set, or none.
    fn ct_bits(&mut self, key: u32, bits: u32, any: bool) {
        self.add("ct", |w| {
            w.put_be32(expr::CT_DREG, FIRST);
            w.put_be32(expr::CT_KEY, key);
        });
        self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
        self.compare(&[0; 4], any);
    }

    fn address(&mut self, side: Side, net: IpNet, negate: bool) {
        self.load_address(side, Family::of_net(net));
        if net.prefix_len() < net.max_prefix_len() {
            self.bitwise(&octets(net.netmask()), &vec![0; octets(net.netmask()).len()]);
        }
        self.compare(&octets(net.network()), negate);
    }

    fn load_address(&mut self, side: Side, family: Family) {
        self.load_address_into(side, family, FIRST);
    }

    fn load_address_into(&mut self, side: Side, family: Family, register: u32) {
        let (offset, len) = match (family, side) {
            (Family::V4, Side::Source) => (12, 4),
            (Family::V4, Side::Destination) => (16, 4),
            (Family::V6, Side::Source) => (8, 16),
            (Family::V6, Side::Destination) => (24, 16),
        };
        self.payload(expr::BASE_NETWORK, offset, len, register);
    }

    fn interface(&mut self, side: Side) {
        let key = match side {
            Side::Source => expr::META_IIFNAME,
            Side::Destination => expr::META_OIFNAME,
        };
        self.meta(key, FIRST);
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |w| {
            w.put_be32(expr::META_KEY, key);
            w.put_be32(expr::META_DREG, register);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, len: usize, register: u32) {
        self.add("payload", |w| {
            w.put_be32(expr::PAYLOAD_DREG, register);
            w.put_be32(expr::PAYLOAD_BASE, base);
            w.put_be32(expr::PAYLOAD_OFFSET, offset);
            w.put_be32(expr::PAYLOAD_LEN, u32::try_from(len).expect("at most 16"));
        });
    }

    fn compare(&mut self, value: &[u8], negate: bool) {
        self.add("cmp", |w| {
            w.put_be32(expr::CMP_SREG, FIRST);
            w.put_be32(expr::CMP_OP, if negate { expr::OP_NOT_EQUAL } else { expr::OP_EQUAL });
            w.nest(expr::CMP_DATA, |w| w.put(data::VALUE, value));
        });
    }

    fn range(&mut self, first: &[u8], last: &[u8], negate: bool) {
        self.add("range", |w| {
            w.put_be32(expr::RANGE_SREG, FIRST);
            w.put_be32(expr::RANGE_OP, if negate { expr::OP_NOT_EQUAL } else { expr::OP_EQUAL });
            w.nest(expr::RANGE_FROM, |w| w.put(data::VALUE, first));
            w.nest(expr::RANGE_TO, |w| w.put(data::VALUE, last));
        });
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        self.add("bitwise", |w| {
            w.put_be32(expr::BITWISE_SREG, FIRST);
            w.put_be32(expr::BITWISE_DREG, FIRST);
            w.put_be32(expr::BITWISE_LEN, u32::try_from(mask.len()).expect("at most 16"));
            w.put_be32(expr::BITWISE_OP, 0);
            w.nest(expr::BITWISE_MASK, |w| w.put(data::VALUE, mask));
            w.nest(expr::BITWISE_XOR, |w| w.put(data::VALUE, xor));
        });
    }

    fn lookup(&mut self, set: &str, negate: bool, result: Option<u32>) {
        self.add("lookup", |w| {
            w.put_str(expr::LOOKUP_SET, set);
            w.put_be32(expr::LOOKUP_SREG, FIRST);
            if let Some(register) = result {
                w.put_be32(expr::LOOKUP_DREG, register);
            }
            w.put_be32(expr::LOOKUP_FLAGS, u32::from(negate));
        });
    }
}

fn port_offset(side: Side) -> u32 {
    match side {
        Side::Source => 0,
        Side::Destination => 2,
    }
}

/// The bytes of an address in network order.
pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::LOG_PREFIX_LEN;
    use tortie_ruleset::{Statement, Verdict};

    use tortie_nfnetlink::Attributes;

    /// The names of a rule's expressions, as the kernel will read them.
    fn names(rule: &Rule) -> Vec<String> {
        let bytes = encode(rule);
        Attributes(&bytes).filter_map(|(_, item)| Attributes(item).text(expr::NAME).map(str::to_owned)).collect()
    }

    #[test]
    fn established_packets_cost_three_small_expressions() {
        let rule = Rule::new([Match::Conntrack(CtState::EstablishedOrRelated)], Verdict::Accept);
        assert_eq!(names(&rule), ["ct", "bitwise", "cmp", "immediate"]);
    }

    #[test]
    fn single_addresses_are_compared_without_a_mask() {
        let address = |net: &str| {
            let net = net.parse().expect("literal");
            Rule { matches: vec![Match::Address { side: Side::Source, net, negate: false }], ..Rule::default() }
        };
        assert_eq!(names(&address("10.0.0.1/32")), ["payload", "cmp"]);
        assert_eq!(names(&address("fd00::/64")), ["payload", "bitwise", "cmp"]);
    }

    #[test]
    fn a_long_log_prefix_is_cut_between_characters() {
        let prefix = format!("{}ü", "x".repeat(LOG_PREFIX_LEN - 1)).into();
        let bytes = encode(&Rule { statements: vec![Statement::Log { prefix }], ..Rule::default() });
        let (_, item) = Attributes(&bytes).next().expect("one expression");
        let kept = Attributes(item).nested(expr::DATA).text(expr::LOG_PREFIX).expect("a prefix");
        assert_eq!(kept.len(), LOG_PREFIX_LEN - 1);
    }
}
