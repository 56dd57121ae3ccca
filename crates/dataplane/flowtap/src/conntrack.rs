//! Connections as the kernel tracks them (ctnetlink): listing, marking and deleting them.
//!
//! Only the default zone, and only bits of the mark that the caller names. What is gone meanwhile is no error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tortie_flow::{Connection, Ends};
use tortie_net::{Family, Protocol};
use tortie_nfnetlink::{Attributes, DONE, ERROR, Head, Message, flag, message, messages};

use crate::socket::Socket;

/// How long the kernel may be silent in an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const RECEIVE_BUFFER: usize = 1 << 20;

/// Types and attributes of ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`).
mod ct {
    const SUBSYSTEM: u16 = 1 << 8;
    pub(super) const NEW: u16 = SUBSYSTEM;
    pub(super) const GET: u16 = SUBSYSTEM | 1;
    pub(super) const DELETE: u16 = SUBSYSTEM | 2;
    pub(super) const NESTED: u16 = 1 << 15;
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOINFO: u16 = 4;
    pub(super) const MARK: u16 = 8;
    pub(super) const ZONE: u16 = 18;
    pub(super) const MARK_MASK: u16 = 21;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const V4: [u16; 2] = [1, 2];
    pub(super) const V6: [u16; 2] = [3, 4];
    pub(super) const PROTO_NUMBER: u16 = 1;
    pub(super) const PORTS: [u16; 2] = [2, 3];
    pub(super) const ICMP: [u16; 2] = [5, 6];
    pub(super) const ICMPV6: [u16; 2] = [8, 9];
    /// The flow was expected by another one, whose standing it shares (`IPS_EXPECTED`).
    pub(super) const EXPECTED: u32 = 1;
    pub(super) const PROTOINFO_TCP: u16 = 1;
    /// What the kernel knows of the TCP of who sent the first packet: flags, and a mask that says nothing here.
    pub(super) const TCP_FLAGS_ORIGINAL: u16 = 4;
    /// The kernel takes any sequence number (`IP_CT_TCP_FLAG_BE_LIBERAL`): it saw no SYN, and began in the middle.
    pub(super) const BE_LIBERAL: u8 = 8;
}

/// Why connections can't be read or marked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel tells of no connections.
    #[error("this kernel tells of no connections (nf_conntrack_netlink): {0}")]
    Unsupported(Errno),
    /// The kernel did not answer in time. Try again.
    #[error("the kernel did not answer a request about connections within {} s", PATIENCE.as_secs())]
    Silent,
    /// The list is not whole. Try again.
    #[error("netlink to conntrack: {0}")]
    Unavailable(#[from] Errno),
}

/// A flow that the kernel tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Who speaks to whom.
    pub connection: Connection,
    /// Its mark.
    pub mark: u32,
    /// Whether another flow announced it, as FTP does: it lives and ends with that one.
    pub expected: bool,
    /// Whether the kernel met a TCP connection in the middle: which side opened it nobody knows.
    pub picked_up: bool,
    family: Family,
    /// The first packet's tuple as the kernel wrote it, by which it finds the flow again.
    key: Vec<u8>,
}

/// The connections of the network namespace of the thread that opened this.
#[derive(Debug)]
pub struct Connections {
    socket: Socket,
    sequence: u32,
}

impl Connections {
    /// Opens a socket, and looks whether the kernel tells of connections.
    pub fn open() -> Result<Connections, ConntrackError> {
        let socket = Socket::open(RECEIVE_BUFFER).map_err(ConntrackError::Unsupported)??;
        let mut connections = Connections { socket, sequence: 0 };
        connections.list(|_| {}).map_err(|error| match error {
            ConntrackError::Unavailable(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                ConntrackError::Unsupported(errno)
            }
            other => other,
        })?;
        Ok(connections)
    }

    /// Hands over every flow. One that comes or goes meanwhile may be left out.
    pub fn list(&mut self, mut found: impl FnMut(Tracked)) -> Result<(), ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = flag::REQUEST | flag::DUMP;
        let head = Head { kind: ct::GET, flags, seq: self.sequence, family: 0, resource: 0 };
        self.ask(&message(head, &[]), |message| {
            if message.kind == ct::NEW {
                parse(&message).into_iter().for_each(&mut found);
            }
        })
    }

    /// Sets or clears these bits of a flow's mark; whether the flow is still there.
    pub fn mark(&mut self, tracked: &Tracked, bits: u32, on: bool) -> Result<bool, ConntrackError> {
        let value = if on { bits } else { 0 };
        self.change(ct::NEW, tracked, &[(ct::MARK, &value.to_be_bytes()), (ct::MARK_MASK, &bits.to_be_bytes())])
    }

    /// Deletes the kernel's entry of a flow; whether it was still there. The next packet of either side begins it anew.
    pub fn delete(&mut self, tracked: &Tracked) -> Result<bool, ConntrackError> {
        self.change(ct::DELETE, tracked, &[])
    }

    /// Asks for a change of one flow; whether it is still there.
    fn change(&mut self, kind: u16, tracked: &Tracked, how: &[(u16, &[u8])]) -> Result<bool, ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let family = match tracked.family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let family = u8::try_from(family).expect("families are small");
        // Without a flow the kernel would take it for all of them; every list has the key of each.
        let attributes = [&[(ct::ORIGINAL | ct::NESTED, &*tracked.key)], how].concat();
        let flags = flag::REQUEST | flag::ACK;
        let head = Head { kind, flags, seq: self.sequence, family, resource: 0 };
        match self.ask(&message(head, &attributes), |_| {}) {
            Ok(()) => Ok(true),
            Err(ConntrackError::Unavailable(Errno::ENOENT)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and hands over what comes until its end.
    fn ask(&mut self, request: &[u8], mut take: impl FnMut(Message<'_>)) -> Result<(), ConntrackError> {
        self.socket.send(request)?;
        let mut until = Instant::now() + PATIENCE;
        loop {
            if !self.socket.readable(until.saturating_duration_since(Instant::now()))? {
                if Instant::now() >= until {
                    return Err(ConntrackError::Silent);
                }
                continue;
            }
            let datagram = match self.socket.receive() {
                Ok(datagram) => datagram,
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(errno) => return Err(errno.into()),
            };
            until = Instant::now() + PATIENCE;
            // What is left of a request that was given up has another number.
            for message in messages(datagram).filter(|message| message.seq == self.sequence) {
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => match message.errno() {
                        Some(0) => return Ok(()),
                        Some(errno) => return Err(Errno::from_raw(errno).into()),
                        None => return Err(Errno::EBADMSG.into()),
                    },
                    _ => take(message),
                }
            }
        }
    }
}

/// Reads a flow; `None`: it is of another zone, or none that rules could be about.
fn parse(message: &Message<'_>) -> Option<Tracked> {
    let attributes = message.attributes();
    if attributes.get(ct::ZONE).is_some() {
        return None;
    }
    let key = attributes.get(ct::ORIGINAL)?;
    let (protocol, original, icmp) = tuple(key)?;
    let (_, reply, _) = tuple(attributes.get(ct::REPLY)?)?;
    Some(Tracked {
        connection: Connection { protocol, original, reply, icmp },
        mark: attributes.be32(ct::MARK).unwrap_or(0),
        expected: attributes.be32(ct::STATUS).unwrap_or(0) & ct::EXPECTED != 0,
        picked_up: attributes.get(ct::PROTOINFO).is_some_and(began_in_the_middle),
        family: Family::of(original.src),
        key: key.to_vec(),
    })
}

fn began_in_the_middle(protocol: &[u8]) -> bool {
    let flags = Attributes(protocol).get(ct::PROTOINFO_TCP).and_then(|tcp| Attributes(tcp).get(ct::TCP_FLAGS_ORIGINAL));
    flags.and_then(|flags| flags.first()).is_some_and(|flags| flags & ct::BE_LIBERAL != 0)
}

fn tuple(bytes: &[u8]) -> Option<(Protocol, Ends, Option<(u8, u8)>)> {
    let (ip, proto) = (Attributes(bytes).get(ct::TUPLE_IP)?, Attributes(bytes).get(ct::TUPLE_PROTO)?);
    let [src, dst] = addresses(ip)?;
    let proto = Attributes(proto);
    let byte = |kind| proto.get(kind).and_then(|value| value.first()).copied();
    let port = |kind| proto.get(kind).and_then(|value| value.try_into().ok()).map_or(0, u16::from_be_bytes);
    let pair = |kinds: [u16; 2]| Some((byte(kinds[0])?, byte(kinds[1])?));
    let protocol = Protocol(byte(ct::PROTO_NUMBER)?);
    let [src_port, dst_port] = ct::PORTS.map(port);
    Some((protocol, Ends { src, dst, src_port, dst_port }, pair(ct::ICMP).or_else(|| pair(ct::ICMPV6))))
}

fn addresses(bytes: &[u8]) -> Option<[IpAddr; 2]> {
    let get = |kind| Attributes(bytes).get(kind);
    let v4 = |kind| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(get(kind)?).ok()?)));
    let v6 = |kind| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(get(kind)?).ok()?)));
    match (v4(ct::V4[0]), v4(ct::V4[1])) {
        (Some(src), Some(dst)) => Some([src, dst]),
        _ => Some([v6(ct::V6[0])?, v6(ct::V6[1])?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tortie_nfnetlink::Writer;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put(kind, value);
        writer.bytes
    }

    fn tuple_of(src: [u8; 4], dst: [u8; 4], protocol: u8, ports: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let ip = [attribute(1, &src), attribute(2, &dst)].concat();
        let mut proto = attribute(1, &[protocol]);
        ports.iter().for_each(|(kind, value)| proto.extend(attribute(*kind, value)));
        [attribute(ct::TUPLE_IP | ct::NESTED, &ip), attribute(ct::TUPLE_PROTO | ct::NESTED, &proto)].concat()
    }

    fn payload(attributes: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0][..], attributes].concat()
    }

    fn read(payload: &[u8]) -> Option<Tracked> {
        parse(&Message { kind: ct::NEW, flags: 0, seq: 1, port: 0, payload })
    }

    fn translated() -> Vec<u8> {
        let ports = |src: u16, dst: u16| [(2, src.to_be_bytes().to_vec()), (3, dst.to_be_bytes().to_vec())];
        let original = tuple_of([10, 0, 0, 1], [10, 96, 0, 1], 6, &ports(4000, 80));
        let reply = tuple_of([10, 0, 0, 2], [10, 0, 0, 1], 6, &ports(8080, 4000));
        payload(
            &[
                attribute(ct::ORIGINAL | ct::NESTED, &original),
                attribute(ct::REPLY | ct::NESTED, &reply),
                attribute(ct::STATUS, &0x1au32.to_be_bytes()),
                attribute(ct::MARK, &0x40001u32.to_be_bytes()),
            ]
            .concat(),
        )
    }

    #[test]
    fn a_flow_is_read_with_both_its_directions_and_its_mark() {
        let Tracked { connection, mark, expected, picked_up, family, key: _ } = read(&translated()).expect("a flow");
        assert_eq!((mark, expected, picked_up, family), (0x40001, false, false, Family::V4));
        let Connection { protocol, original, reply, icmp } = connection;
        assert_eq!((protocol, icmp), (Protocol::TCP, None));
        assert_eq!((original.dst.to_string().as_str(), original.dst_port), ("10.96.0.1", 80));
        assert_eq!((reply.src.to_string().as_str(), reply.src_port), ("10.0.0.2", 8080));
        let echo = tuple_of([10, 0, 0, 1], [10, 0, 0, 2], 1, &[(4, vec![0, 7]), (5, vec![8]), (6, vec![0])]);
        let both = [attribute(ct::ORIGINAL, &echo), attribute(ct::REPLY, &echo)].concat();
        assert_eq!(read(&payload(&both)).map(|t| t.connection.icmp), Some(Some((8, 0))));
        let zoned = [both, attribute(ct::ZONE, &[0, 5])].concat();
        assert_eq!(read(&payload(&zoned)), None, "other zones are others'");
    }

    #[test]
    fn a_connection_without_a_syn_is_told_apart() {
        let with = |flags: u8| {
            let tcp = [attribute(1, &[3]), attribute(ct::TCP_FLAGS_ORIGINAL, &[flags, 0])].concat();
            let info = attribute(ct::PROTOINFO_TCP | ct::NESTED, &tcp);
            read(&[translated(), attribute(ct::PROTOINFO | ct::NESTED, &info)].concat()).expect("a flow").picked_up
        };
        // Window scaling and selective acknowledgements, as a SYN tells them; what the kernel assumes without one.
        assert!(!with(0x03) && with(0x0a));
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_read_without_a_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = read(&noise);
            let mut mutated = translated();
            let at = at.index(mutated.len());
            mutated[at] = byte;
            let _ = read(&mutated);
            let _ = read(&mutated[..at]);
        }
    }
}
