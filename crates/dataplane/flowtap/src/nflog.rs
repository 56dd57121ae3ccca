//! NFLOG's messages (`linux/netfilter/nfnetlink_log.h`).

use tortie_flow::{Flow, Hook};
use tortie_nfnetlink::{Attributes, Head, Message, flag, messages};

use crate::packet;

const SUBSYSTEM: u16 = 4 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIG: u16 = SUBSYSTEM | 1;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_BUFFER: u16 = 3;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
const CONFIG_FLAGS: u16 = 6;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FLAG_SEQUENCE: u16 = 1;

const PACKET_HEADER: u16 = 1;
const INPUT: u16 = 4;
const OUTPUT: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const SEQUENCE: u16 = 12;

/// How much of a packet is wanted, bytes: its headers.
const SNAPLEN: u32 = 128;
/// The kernel hands over what it holds after this, hundredths of a second.
const TIMEOUT: u32 = 10;
/// Or once it holds so many packets.
const THRESHOLD: u32 = 32;
/// How much the kernel holds for one message, bytes.
const BUFFER: u32 = 16 << 10;

/// What the kernel tells of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The group.
    pub group: u16,
    /// Number within the group, one more for each packet; `None` if the kernel does not count.
    pub sequence: Option<u32>,
    /// The text of the rule.
    pub prefix: String,
    /// Where the packet was.
    pub hook: Hook,
    /// Number of the interface that it came in by.
    pub input: Option<u32>,
    /// Number of the interface that it was to leave by.
    pub output: Option<u32>,
    /// Its headers; `None`: they can't be read.
    pub flow: Option<Flow>,
}

fn request(group: u16, seq: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let head = Head { kind: CONFIG, flags: flag::REQUEST | flag::ACK, seq, family: 0, resource: group };
    tortie_nfnetlink::message(head, attributes)
}

/// The request to become the listener of a group, then how it is to be told; each is answered.
pub(crate) fn bind(group: u16, seq: u32) -> Vec<u8> {
    request(group, seq, &[(CONFIG_COMMAND, &[BIND])])
}

/// See [`bind`].
pub(crate) fn configure(group: u16, seq: u32) -> Vec<u8> {
    let [a, b, c, d] = SNAPLEN.to_be_bytes();
    let attributes: [(u16, &[u8]); 5] = [
        (CONFIG_MODE, &[a, b, c, d, COPY_PACKET, 0]),
        (CONFIG_BUFFER, &BUFFER.to_be_bytes()),
        (CONFIG_TIMEOUT, &TIMEOUT.to_be_bytes()),
        (CONFIG_THRESHOLD, &THRESHOLD.to_be_bytes()),
        (CONFIG_FLAGS, &FLAG_SEQUENCE.to_be_bytes()),
    ];
    request(group, seq, &attributes)
}

/// The packets that a datagram tells of; other messages are skipped.
pub fn parse(datagram: &[u8]) -> impl Iterator<Item = Told> {
    messages(datagram).filter(|message| message.kind == PACKET).filter_map(|message| told(&message))
}

fn told(message: &Message<'_>) -> Option<Told> {
    let attributes = message.attributes();
    Some(Told {
        group: message.resource()?,
        sequence: attributes.be32(SEQUENCE),
        prefix: text(attributes, PREFIX),
        hook: Hook::from_number(*attributes.get(PACKET_HEADER)?.get(2)?)?,
        input: attributes.be32(INPUT),
        output: attributes.be32(OUTPUT),
        flow: attributes.get(PAYLOAD).and_then(packet::flow),
    })
}

/// A text up to its NUL; what is no UTF-8 is replaced.
fn text(attributes: Attributes<'_>, kind: u16) -> String {
    let bytes = attributes.get(kind).unwrap_or_default();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use tortie_net::Protocol;

    fn message(prefix: &[u8]) -> Vec<u8> {
        let packet = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 8, 0, 0];
        let attributes: [(u16, &[u8]); 5] = [
            (PACKET_HEADER, &[8, 0, 2, 0]),
            (OUTPUT, &7u32.to_be_bytes()),
            (PREFIX, prefix),
            (SEQUENCE, &3u32.to_be_bytes()),
            (PAYLOAD, &packet),
        ];
        let head = Head { kind: PACKET, flags: flag::REQUEST | flag::ACK, seq: 0, family: 2, resource: 1 };
        tortie_nfnetlink::message(head, &attributes)
    }

    #[test]
    fn a_packet_is_told_with_its_text_place_and_headers() {
        let datagram = [message(b"DPI|default\0"), message(b"x\0")].concat();
        let all: Vec<Told> = parse(&datagram).collect();
        assert_eq!(all.len(), 2);
        let Told { group, sequence, prefix, hook, input, output, flow } = all[0].clone();
        assert_eq!((group, sequence, prefix.as_str(), hook), (1, Some(3), "DPI|default", Hook::Forward));
        assert_eq!((input, output), (None, Some(7)));
        let (source, destination) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let wanted = Flow { source, destination, protocol: Protocol::UDP, ports: Some((7, 9)), icmp: None };
        assert_eq!(flow, Some(wanted));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes).count();
        }

        #[test]
        fn a_spoilt_message_is_read_without_a_panic(at in 0usize..150, byte: u8, cut in 0usize..150) {
            let mut bytes = message(b"DPI|default\0");
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let cut = cut.min(bytes.len());
            let _ = (parse(&bytes).count(), parse(&bytes[..cut]).count());
        }
    }
}
