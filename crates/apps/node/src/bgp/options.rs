//! Socket options of BGP: passwords (RFC 2385) and TTL security (RFC 5082).

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike};
use tortie_net::IpNet;

/// Longest password that the kernel takes, bytes.
pub(super) const MAX_PASSWORD: usize = 80;

const TCP_MD5SIG: libc::c_int = 14;
const TCP_MD5SIG_EXT: libc::c_int = 32;
/// The address is a prefix.
const FLAG_PREFIX: u8 = 1;
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// `struct tcp_md5sig` of the kernel's `linux/tcp.h`.
#[repr(C)]
struct Md5Key {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; MAX_PASSWORD],
}

/// Sets the password of segments from and to a host, or to all hosts of a prefix; `None` takes it away.
pub(super) fn set_password(socket: &impl AsRawFd, peer: IpNet, password: Option<&str>) -> io::Result<()> {
    let password = password.unwrap_or_default().as_bytes();
    if password.len() > MAX_PASSWORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a password of more than {MAX_PASSWORD} bytes"),
        ));
    }
    let host = peer.prefix_len() == peer.max_prefix_len();
    let mut key = Md5Key {
        // SAFETY: a socket address of zero bytes is valid: it has no family.
        address: unsafe { std::mem::zeroed() },
        flags: if host { 0 } else { FLAG_PREFIX },
        prefix_len: if host { 0 } else { peer.prefix_len() },
        key_len: password.len() as u16,
        interface: 0,
        key: [0; MAX_PASSWORD],
    };
    key.key[..password.len()].copy_from_slice(password);
    let address = SocketAddr::new(peer.addr(), 0);
    let copy = |from: &dyn SockaddrLike, to: &mut libc::sockaddr_storage| {
        // SAFETY: `from` is a socket address of that many bytes, and `sockaddr_storage` has room for every one.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.as_ptr().cast::<u8>(),
                std::ptr::from_mut(to).cast(),
                from.len() as usize,
            );
        }
    };
    match address {
        SocketAddr::V4(v4) => copy(&SockaddrIn::from(v4), &mut key.address),
        SocketAddr::V6(v6) => copy(&SockaddrIn6::from(v6), &mut key.address),
    }
    let option = if host { TCP_MD5SIG } else { TCP_MD5SIG_EXT };
    set(socket.as_raw_fd(), libc::IPPROTO_TCP, option, &key)
}

/// Sends with the greatest TTL.
pub(super) fn send_far(socket: &impl AsRawFd, v4: bool) -> io::Result<()> {
    let (level, option) =
        if v4 { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) };
    set(socket.as_raw_fd(), level, option, &255_i32)
}

/// Drops what passed more than `hops` routers, counting the sender as one.
pub(super) fn accept_near(socket: &impl AsRawFd, v4: bool, hops: u8) -> io::Result<()> {
    let (level, option) = if v4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) };
    set(socket.as_raw_fd(), level, option, &(256 - i32::from(hops)))
}

/// A listening TCP socket that does not block. One for IPv6 takes no IPv4, whatever the system's default is.
pub(super) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, setsockopt, socket, sockopt};
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    // The address may come later than the socket, as that of workloads' peering does.
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    match address {
        SocketAddr::V4(v4) => bind(fd.as_raw_fd(), &SockaddrIn::from(v4))?,
        SocketAddr::V6(v6) => bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?,
    }
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd.into())
}

/// All addresses of a family.
pub(super) fn any(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn set<T>(socket: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is live during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(socket, level, option, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
