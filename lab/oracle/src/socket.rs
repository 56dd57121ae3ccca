//! Raw sockets: frames in and out of an interface, packets that reach the node itself, and an emptied connection
//! table.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, recv, send, sendto, setsockopt, sockopt};
use tortie_net::{Family, Protocol};

/// Room for packets that were not read yet, bytes.
const RECEIVE_BUFFER: usize = 16 << 20;
/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`.
const IGNORE_OUTGOING: libc::c_int = 23;
const ALL_PROTOCOLS: u16 = 3;

fn open(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and a descriptor that it returns belongs to nobody else.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    Errno::result(fd).context("open a raw socket")?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket for whole frames of an interface of the thread's namespace; what it sends it does not hear.
pub(crate) fn frames(interface: u32) -> Result<OwnedFd> {
    let all = libc::c_int::from(ALL_PROTOCOLS.to_be());
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, all)?;
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe a live integer.
    let done = unsafe {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, IGNORE_OUTGOING, (&raw const on).cast(), len)
    };
    Errno::result(done).context("ignore outgoing frames")?;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ALL_PROTOCOLS.to_be();
    address.sll_ifindex = interface.cast_signed();
    // SAFETY: the pointer and length describe a live address of the socket's family.
    let done = unsafe {
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len)
    };
    Errno::result(done).context("bind to the interface")?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    Ok(fd)
}

/// A socket for packets of a protocol that reach the node of the thread's namespace. For IPv6 without their header.
pub(crate) fn local(family: Family, protocol: Protocol) -> Result<OwnedFd> {
    let domain = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
    let fd = open(domain, libc::SOCK_RAW, libc::c_int::from(protocol.0))?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    Ok(fd)
}

/// A socket for packets that the node of the thread's namespace sends itself, from their header on.
pub(crate) fn own(family: Family) -> Result<OwnedFd> {
    let domain = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
    open(domain, libc::SOCK_RAW, libc::IPPROTO_RAW)
}

/// Sends one of the node's own packets. One that the packet filter drops on its way out counts as sent.
pub(crate) fn put_own(fd: &OwnedFd, to: IpAddr, packet: &[u8]) -> Result<()> {
    let to = SockaddrStorage::from(SocketAddr::new(to, 0));
    for _ in 0..1000 {
        match sendto(fd.as_raw_fd(), packet, &to, MsgFlags::empty()) {
            Ok(_) | Err(Errno::EPERM) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOBUFS) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(errno) => return Err(errno).context("send as the node"),
        }
    }
    bail!("the node took no packet for a second")
}

/// The next packet or frame; `None` if there is none now.
pub(crate) fn next<'b>(fd: &OwnedFd, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
    loop {
        match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => return Ok(Some(&buffer[..len])),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(errno) => return Err(errno).context("receive"),
        }
    }
}

/// Sends a frame, waiting for room.
pub(crate) fn put(fd: &OwnedFd, frame: &[u8]) -> Result<()> {
    for _ in 0..1000 {
        match send(fd.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOBUFS) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(errno) => return Err(errno).context("send"),
        }
    }
    bail!("the interface took no frame for a second")
}

/// A socket to the connection tracking of the thread's namespace.
pub(crate) fn conntrack() -> Result<OwnedFd> {
    open(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
}

/// Forgets every connection of the socket's namespace.
pub(crate) fn forget_connections(fd: &OwnedFd) -> Result<()> {
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_ACK: u16 = 1 | 4;
    let mut message = Vec::with_capacity(20);
    message.extend_from_slice(&20u32.to_ne_bytes());
    message.extend_from_slice(&DELETE.to_ne_bytes());
    message.extend_from_slice(&REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    transact(fd, &message).map(drop).context("forget connections")
}

/// Sends netlink messages and reads the answers; an error is the first that the kernel reports.
pub(crate) fn transact(fd: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let _ = setsockopt(fd, sockopt::SndBufForce, &(bytes.len() * 2).max(1 << 20));
    send(fd.as_raw_fd(), bytes, MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    let mut failed = None;
    // The kernel works while it takes the message: its answers are there already.
    while let Some(mut answers) = next(fd, &mut buffer)? {
        while let Some(len) = answers.get(..4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize) {
            if let Some(code) = answers.get(16..20).filter(|_| answers[4] == 2) {
                let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
                failed = failed.or((code != 0).then_some(code));
            }
            answers = answers.get(len.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
    }
    match failed {
        Some(code) => Err(io::Error::from_raw_os_error(-code)).context("the kernel refused"),
        None => Ok(()),
    }
}
