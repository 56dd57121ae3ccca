//! Packets of all kinds, made by hand where no socket would send them, and what a node recorded of those it ended.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};
use serde_json::Value;
use tortie_lab::{Node, Place};

/// What `tortie drops` tells on a node, one record a line.
pub fn records(node: &Node, args: &[&str]) -> Vec<Value> {
    let output = node.command("tortie").unwrap().args(["drops", "--output", "json"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Something to send.
#[derive(Clone, Debug)]
pub enum Sent {
    /// A datagram, so many times.
    Udp { to: SocketAddr, times: usize },
    /// A whole IP packet.
    Raw { to: IpAddr, packet: Vec<u8> },
    /// Connections that are open at the same time.
    Connections { to: SocketAddr, listener: Place, count: usize },
}

impl Sent {
    pub fn udp(to: IpAddr, port: u16) -> Sent {
        Sent::Udp { to: SocketAddr::new(to, port), times: 1 }
    }

    pub fn flood(to: IpAddr, port: u16, times: usize) -> Sent {
        Sent::Udp { to: SocketAddr::new(to, port), times }
    }

    /// A datagram with a source that need not be the sender's.
    pub fn udp_from(from: IpAddr, to: IpAddr, port: u16) -> Sent {
        let mut udp = [40000u16, port, 8, 0].map(u16::to_be_bytes).concat();
        sum(from, to, 17, &mut udp, 6);
        Sent::raw(from, to, 17, &udp)
    }

    /// An echo request.
    pub fn ping(from: IpAddr, to: IpAddr) -> Sent {
        let (protocol, kind) = if from.is_ipv4() { (1, 8) } else { (58, 128) };
        let mut echo = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        sum(from, to, protocol, &mut echo, 2);
        Sent::raw(from, to, protocol, &echo)
    }

    /// A router advertisement (RFC 4861) that names the sender as default router.
    pub fn router_advertisement(from: IpAddr, to: IpAddr) -> Sent {
        let mut advertisement = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        sum(from, to, 58, &mut advertisement, 2);
        Sent::raw(from, to, 58, &advertisement)
    }

    /// TCP with flags that make no sense together.
    pub fn bogus_tcp(from: IpAddr, to: IpAddr, port: u16) -> Sent {
        let mut tcp = [40000u16.to_be_bytes(), port.to_be_bytes()].concat();
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x03, 0x20, 0, 0, 0, 0, 0]);
        sum(from, to, 6, &mut tcp, 16);
        Sent::raw(from, to, 6, &tcp)
    }

    /// A packet inside a packet.
    pub fn ipip(from: IpAddr, to: IpAddr) -> Sent {
        let Sent::Raw { to: _, packet: inner } = Sent::udp_from(from, to, 9) else { unreachable!("made so above") };
        Sent::raw(from, to, 4, &inner)
    }

    /// A datagram inside a frame inside VXLAN (RFC 7348) of VNI 4096, from a tunnel's end to another.
    pub fn vxlan(from: IpAddr, to: IpAddr, mac: [u8; 6], inner: Sent) -> Sent {
        let Sent::Raw { to: _, packet: mut inner } = inner else { unreachable!("only whole packets travel in frames") };
        let kind: u16 = if inner[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        if kind == 0x0800 {
            // No kernel fills this one in; its header has no pseudo header, like ICMP.
            let (header, _) = inner.split_at_mut(20);
            let len = u16::try_from(header.len()).unwrap() + 8;
            header[2..4].copy_from_slice(&len.to_be_bytes());
            sum(from, to, 1, header, 10);
        }
        let frame = [&mac[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes(), &inner].concat();
        let vxlan = [&[8, 0, 0, 0, 0, 0x10, 0, 0][..], &frame].concat();
        let len = u16::try_from(vxlan.len() + 8).unwrap();
        let mut udp = [&[40000u16, 4789, len, 0].map(u16::to_be_bytes).concat()[..], &vxlan].concat();
        sum(from, to, 17, &mut udp, 6);
        Sent::raw(from, to, 17, &udp)
    }

    /// The packet with the header that it needs; the kernel fills in what it counts itself.
    fn raw(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Sent {
        let len = u16::try_from(payload.len()).unwrap();
        let mut packet = match from {
            IpAddr::V4(_) => [&[0x45, 0][..], &(len + 20).to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0]].concat(),
            IpAddr::V6(_) => [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[protocol, 64]].concat(),
        };
        packet.extend(octets(from));
        packet.extend(octets(to));
        packet.extend(payload);
        Sent::Raw { to, packet }
    }

    /// Sends it from a place. What the sender's own node refuses is sent, as far as this is concerned.
    pub fn send(&self, from: &Place) {
        match self {
            Sent::Udp { to, times } => from
                .run(|| {
                    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
                    let socket = UdpSocket::bind((any, 0))?;
                    for _ in 0..*times {
                        refused_is_fine(socket.send_to(b"drop me", to))?;
                    }
                    Ok(())
                })
                .unwrap(),
            Sent::Raw { to, packet } => from.run(|| send_raw(*to, packet)).unwrap(),
            Sent::Connections { to, listener, count } => {
                let listening = listener.run(|| Ok(TcpListener::bind(to)?)).unwrap();
                let connect = || Ok(TcpStream::connect_timeout(to, Duration::from_millis(500)));
                let open: Vec<_> = (0..*count).map(|_| from.run(connect).unwrap()).collect();
                drop((listening, open));
            }
        }
    }
}

fn refused_is_fine(sent: std::io::Result<usize>) -> std::io::Result<()> {
    match sent {
        Err(error) if [ErrorKind::PermissionDenied, ErrorKind::ConnectionRefused].contains(&error.kind()) => Ok(()),
        other => other.map(drop),
    }
}

fn send_raw(to: IpAddr, packet: &[u8]) -> anyhow::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    match to {
        IpAddr::V4(ip) => {
            let to = SockaddrIn::from(SocketAddrV4::new(ip, 0));
            sendto(fd.as_raw_fd(), packet, &to, MsgFlags::empty())?
        }
        IpAddr::V6(ip) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0));
            sendto(fd.as_raw_fd(), packet, &to, MsgFlags::empty())?
        }
    };
    Ok(())
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Puts the length (UDP) and the checksum (RFC 1071) into a transport header. ICMP of IPv4 has no pseudo header.
fn sum(from: IpAddr, to: IpAddr, protocol: u8, payload: &mut [u8], at: usize) {
    let mut bytes = Vec::new();
    if protocol != 1 {
        bytes.extend(octets(from));
        bytes.extend(octets(to));
        bytes.extend([0, protocol]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    bytes.extend(&*payload);
    let mut total: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let [high, low] = (!u16::try_from(total).unwrap()).to_be_bytes();
    payload[at..at + 2].copy_from_slice(&[high, low]);
}
