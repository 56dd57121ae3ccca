//! The packet that is judged, and the way it takes through the node.

use std::net::IpAddr;

use tortie_net::{Family, Protocol};

/// The first packet of a connection. Later packets of an allowed connection pass without being judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// Source address; its family is that of the packet.
    pub src: IpAddr,
    /// Destination address, after any NAT; of the same family as `src`.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Source port; without meaning if the protocol has no ports.
    pub src_port: u16,
    /// Destination port; without meaning if the protocol has no ports.
    pub dst_port: u16,
    /// ICMP type and code; `None` unless the protocol is ICMP or ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

impl Packet {
    /// A TCP packet.
    pub fn tcp(src: IpAddr, src_port: u16, dst: IpAddr, dst_port: u16) -> Packet {
        Packet { src, dst, protocol: Protocol::TCP, src_port, dst_port, icmp: None }
    }

    /// A UDP packet.
    pub fn udp(src: IpAddr, src_port: u16, dst: IpAddr, dst_port: u16) -> Packet {
        Packet { protocol: Protocol::UDP, ..Packet::tcp(src, src_port, dst, dst_port) }
    }

    /// An echo request of the addresses' family.
    pub fn ping(src: IpAddr, dst: IpAddr) -> Packet {
        let (protocol, icmp_type) = match Family::of(src) {
            Family::V4 => (Protocol::ICMP, 8),
            Family::V6 => (Protocol::ICMPV6, 128),
        };
        Packet { src, dst, protocol, src_port: 0, dst_port: 0, icmp: Some((icmp_type, 0)) }
    }

    /// The family of the packet.
    pub fn family(&self) -> Family {
        Family::of(self.src)
    }
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// It arrived on this interface of the node.
    Interface(&'a str),
    /// The node itself sent it.
    Host,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Where the routes say: to a workload of this node, or out of it.
    Routed,
    /// To the node itself.
    Host,
}

/// The whole way of a packet, as far as it matters to rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    /// Where it comes from.
    pub source: Source<'a>,
    /// Where it goes.
    pub target: Target,
    /// The interface that it leaves by, if it leaves the node and that is known. Of an unknown one, only the host
    /// endpoint of all interfaces has a say.
    pub leaves_by: Option<&'a str>,
    /// Its destination as it arrived, before any NAT.
    pub arrived_for: (IpAddr, u16),
}

impl<'a> Way<'a> {
    /// A way without NAT, out of the node by an interface that is not known.
    pub fn new(packet: &Packet, source: Source<'a>, target: Target) -> Way<'a> {
        Way { source, target, leaves_by: None, arrived_for: (packet.dst, packet.dst_port) }
    }
}
