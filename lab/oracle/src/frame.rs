//! Packets as bytes: right lengths and checksums, so that the kernel finds no fault with them but by policy.

use std::net::IpAddr;

use tortie_net::Protocol;
use tortie_verdict::Packet;

/// Marks packets of this program, at the end of each.
const MAGIC: u64 = 0x746f_7274_6965_6f72;
/// Length of the mark: the magic, the number of the batch, and that of the packet in it.
pub(crate) const MARK_LEN: usize = 16;
const HOPS: u8 = 64;

/// Which packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) batch: u32,
    pub(crate) index: u32,
}

impl Mark {
    fn bytes(self) -> [u8; MARK_LEN] {
        let Mark { batch, index } = self;
        let mut out = [0; MARK_LEN];
        out[..8].copy_from_slice(&MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&batch.to_be_bytes());
        out[12..].copy_from_slice(&index.to_be_bytes());
        out
    }

    /// The mark at the end of a packet, if it is one of ours.
    pub(crate) fn read(packet: &[u8]) -> Option<Mark> {
        let tail = packet.get(packet.len().checked_sub(MARK_LEN)?..)?;
        let word = |at: usize| u32::from_be_bytes(tail[at..at + 4].try_into().expect("four bytes"));
        let ours = tail[..8] == MAGIC.to_be_bytes();
        ours.then(|| Mark { batch: word(8), index: word(12) })
    }
}

/// The packet from its IP header on.
pub(crate) fn encode(packet: &Packet, mark: Mark) -> Vec<u8> {
    let payload = transport(packet, mark);
    let len = u16::try_from(payload.len()).expect("a hundred bytes at most");
    let Protocol(protocol) = packet.protocol;
    let mut out = Vec::with_capacity(payload.len() + 40);
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&(len + 20).to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            let sum = checksum(&[&out]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[protocol, HOPS]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("a packet has one family"),
    }
    out.extend_from_slice(&payload);
    out
}

/// The payload of an IP packet.
pub(crate) fn payload(packet: &[u8]) -> &[u8] {
    let header = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 20 } else { 40 };
    packet.get(header..).unwrap_or_default()
}

/// The same packet without what a router changes; `None` if it is no whole IP packet.
pub(crate) fn settled(packet: &[u8]) -> Option<Vec<u8>> {
    let be16 = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let (len, changing) = match packet.first()? >> 4 {
        4 => (be16(2)?, &[8, 10, 11][..]),
        6 => (be16(4)? + 40, &[7][..]),
        _ => return None,
    };
    let mut out = packet.get(..len)?.to_vec();
    for at in changing {
        *out.get_mut(*at)? = 0;
    }
    Some(out)
}

fn transport(packet: &Packet, mark: Mark) -> Vec<u8> {
    let Packet { src: _, dst: _, protocol, src_port, dst_port, icmp } = *packet;
    let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    let Mark { batch, index } = mark;
    let mark = mark.bytes();
    // The identifier by which connection tracking tells one echo from another.
    let [.., high, low] = (batch << 7 | index & 0x7f).to_be_bytes();
    match (protocol, icmp) {
        (Protocol::TCP, _) => {
            // Sequence number 1, SYN.
            let head = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0], &mark].concat();
            summed(packet, head, 16)
        }
        (Protocol::UDP | Protocol::UDPLITE, _) => {
            // The length for UDP; for UDP-Lite how much the checksum covers, which is as much.
            let head = [&ports[..], &[0, 8 + MARK_LEN as u8, 0, 0], &mark].concat();
            summed(packet, head, 6)
        }
        (Protocol::SCTP, _) => {
            // INIT with a parameter that holds the mark.
            let len = 20 + 4 + MARK_LEN as u8;
            let init = [1, 0, 0, len, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1];
            let parameter = [0x80, 0x7f, 0, 4 + MARK_LEN as u8];
            let mut out = [&ports[..], &[0; 8], &init, &parameter, &mark].concat();
            let sum = crc32c(&out);
            out[8..12].copy_from_slice(&sum.to_le_bytes());
            out
        }
        (Protocol::ICMP | Protocol::ICMPV6, Some((icmp_type, code))) => {
            summed(packet, [&[icmp_type, code, 0, 0, high, low, 0, 1], &mark[..]].concat(), 2)
        }
        _ => [&[0, 0, 8, 0, 0, 0, 0, 0], &mark[..]].concat(),
    }
}

/// Fills in the checksum at an offset.
fn summed(packet: &Packet, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("a hundred bytes at most").to_be_bytes();
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let pseudo = [octets(packet.src), octets(packet.dst), len.to_vec(), vec![0, 0, 0, packet.protocol.0]].concat();
    let parts: &[&[u8]] = if packet.protocol == Protocol::ICMP { &[&bytes] } else { &[&pseudo, &bytes] };
    let sum = match checksum(parts) {
        0 if packet.protocol != Protocol::ICMP => 0xffff,
        sum => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071) of parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | w.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// CRC-32C (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn a_mark_is_read_back_and_hops_do_not_count() {
        let packet = Packet::udp([10, 0, 0, 1].into(), 1, [10, 0, 0, 2].into(), 2);
        let mark = Mark { batch: 3, index: 9 };
        let sent = encode(&packet, mark);
        assert_eq!(Mark::read(&sent), Some(mark));
        let mut routed = sent.clone();
        routed[8] -= 1;
        assert_eq!(settled(&routed), settled(&sent));
        routed[19] += 1;
        assert_ne!(settled(&routed), settled(&sent));
    }
}
