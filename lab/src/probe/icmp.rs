//! Echo requests and replies as bytes (RFC 792, RFC 4443).

use tortie_net::Family;

/// An echo request; the kernel fills in the checksum for IPv6.
pub(crate) fn request(family: Family, id: u16, sequence: u16, token: &[u8]) -> Vec<u8> {
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(token);
    if family == Family::V4 {
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// Identifier, sequence and token of an echo reply, from what a raw socket received; `None` for anything else.
pub(crate) fn reply(family: Family, received: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (packet, kind) = match family {
        // Raw IPv4 sockets give the IP header too.
        Family::V4 => (received.get(usize::from(received.first()? & 0x0f) * 4..)?, 0),
        Family::V6 => (received, 129),
    };
    if packet.len() < 8 || packet[0] != kind {
        return None;
    }
    Some((u16::from_be_bytes([packet[4], packet[5]]), u16::from_be_bytes([packet[6], packet[7]]), &packet[8..]))
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero_and_its_reply_is_read() {
        let mut packet = request(Family::V4, 7, 9, b"token");
        assert_eq!(checksum(&packet), 0);
        packet[0] = 0;
        let mut received = vec![0x45; 20];
        received.extend(&packet);
        assert_eq!(reply(Family::V4, &received), Some((7, 9, &b"token"[..])));
        assert_eq!(reply(Family::V4, &received[..27]), None);
        assert_eq!(reply(Family::V4, &[]), None);
    }
}
