//! The sockets that encrypted packets go through: one for each family, marked as the device's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};

use nix::sys::socket::sockopt::{Ipv6V6Only, Mark, RcvBufForce, SndBufForce};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket};
use tortie_net::Family;

/// What a burst may take while the process is busy.
const BUFFER_BYTES: usize = 4 << 20;

/// A device's sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) v4: Option<UdpSocket>,
    pub(crate) v6: Option<UdpSocket>,
}

impl Sockets {
    /// Opens both on a port; a host without IPv6 has the one alone. 0: none.
    pub(crate) fn open(port: u16, mark: u32) -> io::Result<Sockets> {
        if port == 0 {
            return Ok(Sockets::default());
        }
        let v4 = Some(open(Family::V4, port, mark)?);
        let v6 = match open(Family::V6, port, mark) {
            Ok(socket) => Some(socket),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => None,
            Err(error) => return Err(error),
        };
        Ok(Sockets { v4, v6 })
    }

    /// Marks what is sent from now on.
    pub(crate) fn mark(&self, mark: u32) -> io::Result<()> {
        [&self.v4, &self.v6].into_iter().flatten().try_for_each(|socket| Ok(setsockopt(socket, Mark, &mark)?))
    }

    /// Sends a packet; what can't be sent is lost, as any packet may be.
    pub(crate) fn send(&self, to: SocketAddr, packet: &[u8]) {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket {
            let _ = socket.send_to(packet, to);
        }
    }
}

fn open(family: Family, port: u16, mark: u32) -> io::Result<UdpSocket> {
    let (domain, any) = match family {
        Family::V4 => (AddressFamily::Inet, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => (AddressFamily::Inet6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    let fd = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if family == Family::V6 {
        setsockopt(&fd, Ipv6V6Only, &true)?;
    }
    setsockopt(&fd, Mark, &mark)?;
    // Larger buffers are a help and no need.
    let _ = setsockopt(&fd, RcvBufForce, &BUFFER_BYTES).and_then(|()| setsockopt(&fd, SndBufForce, &BUFFER_BYTES));
    let (level, option) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    // As the kernel's device: what is too large for the way is cut in pieces on it, and does not disappear.
    let never: libc::c_int = libc::IP_PMTUDISC_DONT;
    let length = libc::socklen_t::try_from(size_of_val(&never)).expect("four bytes");
    // SAFETY: the descriptor is open, and the pointer and length describe one live c_int that the kernel only reads.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const never).cast(), length) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    // SAFETY: the descriptor is an open UDP socket, and nobody else has it.
    Ok(unsafe { UdpSocket::from_raw_fd(fd.into_raw_fd()) })
}
