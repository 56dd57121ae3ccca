//! The headers of an IP packet, as far as a record needs them (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tortie_flow::Flow;
use tortie_net::Protocol;

/// Extension headers that are walked over: hop-by-hop options, routing, destination options, mobility.
const OPTIONS: [u8; 4] = [0, 43, 60, 135];
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// More than this no sender has a reason for.
const MOST_EXTENSIONS: usize = 16;

/// Reads the headers of a packet that may be cut off; `None`: not even its addresses are there.
pub fn flow(packet: &[u8]) -> Option<Flow> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Flow> {
    let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    let (source, destination) = (address(12)?, address(16)?);
    let protocol = Protocol(*packet.get(9)?);
    let header = usize::from(packet.first()? & 0xf) * 4;
    let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
    // Only the first fragment has the header of what it carries.
    let inner = packet.get(header..).filter(|_| header >= 20 && offset == 0).unwrap_or_default();
    Some(with_transport(source, destination, protocol, inner))
}

fn v6(packet: &[u8]) -> Option<Flow> {
    let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    let (source, destination) = (address(8)?, address(24)?);
    let mut next = *packet.get(6)?;
    let mut inner = packet.get(40..).unwrap_or_default();
    for _ in 0..MOST_EXTENSIONS {
        let len = match next {
            FRAGMENT if inner.get(2..4).is_some_and(|o| u16::from_be_bytes([o[0], o[1]]) & 0xfff8 != 0) => {
                // A later fragment: what it is part of is not in it.
                let protocol = Protocol(inner.first().copied().unwrap_or(next));
                return Some(with_transport(source, destination, protocol, &[]));
            }
            FRAGMENT => 8,
            AUTHENTICATION => inner.get(1).map_or(0, |len| (usize::from(*len) + 2) * 4),
            other if OPTIONS.contains(&other) => inner.get(1).map_or(0, |len| (usize::from(*len) + 1) * 8),
            _ => break,
        };
        let Some(after) = inner.first().copied().filter(|_| len > 0) else { break };
        next = after;
        inner = inner.get(len..).unwrap_or_default();
    }
    Some(with_transport(source, destination, Protocol(next), inner))
}

fn with_transport(source: IpAddr, destination: IpAddr, protocol: Protocol, inner: &[u8]) -> Flow {
    let pair = |at: usize| Some(u16::from_be_bytes([*inner.get(at)?, *inner.get(at + 1)?]));
    let ports = protocol.has_ports().then(|| pair(0).zip(pair(2))).flatten();
    let is_icmp = protocol == if source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    let icmp = is_icmp.then(|| inner.first().copied().zip(inner.get(1).copied())).flatten();
    Flow { source, destination, protocol, ports, icmp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4_packet(protocol: u8, fragment: u16, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(inner);
        bytes
    }

    fn v6_packet(next: u8, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        bytes.extend(inner);
        bytes
    }

    #[test]
    fn addresses_ports_and_icmp_are_read() {
        let udp = flow(&v4_packet(17, 0, &[0x9c, 0x40, 0, 53])).expect("whole");
        assert_eq!((udp.source, udp.destination), (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])));
        assert_eq!((udp.protocol, udp.ports, udp.icmp), (Protocol::UDP, Some((40000, 53)), None));
        let ping = flow(&v4_packet(1, 0, &[8, 0, 1, 2])).expect("whole");
        assert_eq!((ping.ports, ping.icmp), (None, Some((8, 0))));
        // A later fragment has no ports, and neither has a packet that is cut off.
        assert_eq!(flow(&v4_packet(17, 5, &[0x9c, 0x40, 0, 53])).expect("addresses").ports, None);
        assert_eq!(flow(&v4_packet(17, 0, &[0x9c])).expect("addresses").ports, None);
    }

    #[test]
    fn extension_headers_are_walked() {
        let hop = [6, 0, 0, 0, 0, 0, 0, 0, 0, 80, 0x1f, 0x90];
        let tcp = flow(&v6_packet(0, &hop)).expect("whole");
        assert_eq!((tcp.protocol, tcp.ports), (Protocol::TCP, Some((80, 8080))));
        let later = [17, 0, 0, 0x10, 0, 0, 0, 1, 0, 80, 0x1f, 0x90];
        let fragment = flow(&v6_packet(44, &later)).expect("addresses");
        assert_eq!((fragment.protocol, fragment.ports), (Protocol::UDP, None));
        assert_eq!(flow(&v6_packet(58, &[135, 0])).expect("whole").icmp, Some((135, 0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), version in 0u8..16) {
            let _ = flow(&bytes);
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | (*first & 0xf);
            }
            let _ = flow(&bytes);
        }
    }
}
