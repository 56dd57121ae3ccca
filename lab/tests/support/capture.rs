//! Every packet that passes a machine's interface, as the wire has it.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use tortie_netlink::Netns;

/// An IP packet's outermost header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// Bytes of the whole packet.
    pub length: usize,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Outer {
    fn parse(packet: &[u8]) -> Option<Outer> {
        let v4 = |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
        let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
        let first = *packet.first()?;
        let (src, dst, protocol, header) = match first >> 4 {
            4 => (v4(12)?, v4(16)?, *packet.get(9)?, usize::from(first & 15) * 4),
            6 => (v6(8)?, v6(24)?, *packet.get(6)?, 40),
            _ => return None,
        };
        Some(Outer { src, dst, protocol, length: packet.len(), payload: packet.get(header..)?.to_vec() })
    }

    /// The packet inside, of IPIP.
    pub fn inner(&self) -> Option<Outer> {
        Outer::parse(&self.payload)
    }

    /// The destination's port, of UDP and TCP.
    pub fn port(&self) -> Option<u16> {
        Some(u16::from_be_bytes([*self.payload.get(2)?, *self.payload.get(3)?]))
    }
}

/// A running capture.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Outer>>,
}

impl Capture {
    /// Begins, on one interface of a namespace. Packets of both directions count.
    pub fn start(netns: &Netns, interface: &str) -> Capture {
        let fd = netns.run(|| open(interface)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut packets = Vec::new();
            let mut buffer = vec![0; 70_000];
            while !told.load(Ordering::Relaxed) {
                // Nothing for a while is nothing to note.
                let Ok(length) = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
                packets.extend(Outer::parse(&buffer[..length]));
            }
            packets
        });
        Capture { stop, thread }
    }

    /// Ends; what passed.
    pub fn stop(self) -> Vec<Outer> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn open(interface: &str) -> OwnedFd {
    let fd = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
    address.sll_ifindex = i32::try_from(index).unwrap();
    let length = u32::try_from(size_of_val(&address)).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50)).unwrap();
    setsockopt(&fd, sockopt::RcvBuf, &8_000_000).unwrap();
    // SAFETY: the descriptor is open, and the pointer and length describe one live address that the kernel only reads.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    fd
}
