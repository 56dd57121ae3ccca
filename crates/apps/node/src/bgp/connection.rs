//! One TCP connection to a peer: dialling from a given address, and writing what the socket does not take at once.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, connect, setsockopt, socket,
    sockopt,
};
use tortie_bgp::{ConnectError, Password, PeerConfig};
use tortie_net::IpNet;

use super::options;

/// A connection with its unwritten bytes.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Whether the dial is still under way.
    pub(super) dialling: bool,
    /// Whether to close once everything is written.
    pub(super) closing: bool,
    unwritten: VecDeque<Vec<u8>>,
    offset: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, dialling: bool) -> Connection {
        // Messages are small and answers are waited for; a failure only makes them slower.
        let _ = stream.set_nodelay(true);
        Connection { stream, dialling, closing: false, unwritten: VecDeque::new(), offset: 0 }
    }

    pub(super) fn queue(&mut self, bytes: Vec<u8>) {
        self.unwritten.push_back(bytes);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Writes what the socket takes; returns how many bytes that were.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while let Some(front) = self.unwritten.front() {
            match self.stream.write(&front[self.offset..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    self.offset += count;
                    if self.offset == front.len() {
                        self.unwritten.pop_front();
                        self.offset = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

/// Sets what a session with this peer needs on a connection, whoever opened it.
pub(super) fn guard(socket: &impl AsRawFd, v4: bool, config: &PeerConfig) -> io::Result<()> {
    if let Some(hops) = config.ttl_hops {
        options::send_far(socket, v4)?;
        options::accept_near(socket, v4, hops)?;
    }
    Ok(())
}

/// Starts a dial that does not block, from `local` if given.
pub(super) fn dial(
    remote: SocketAddr,
    local: Option<IpAddr>,
    config: Option<&PeerConfig>,
) -> Result<TcpStream, ConnectError> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None).map_err(of_errno)?;
    if let Some(local) = local.filter(|local| local.is_ipv4() == remote.is_ipv4()) {
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(of_errno)?;
        with_address(SocketAddr::new(local, 0), |address| bind(fd.as_raw_fd(), address)).map_err(of_errno)?;
    }
    if let Some(config) = config {
        let password = config.password.as_ref().map(|Password(word)| &**word);
        let set = password.map_or(Ok(()), |word| options::set_password(&fd, IpNet::from(remote.ip()), Some(word)));
        set.and_then(|()| guard(&fd, remote.is_ipv4(), config)).map_err(|error| of_io(&error))?;
    }
    match with_address(remote, |address| connect(fd.as_raw_fd(), address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(of_errno(errno)),
    }
    // SAFETY: the descriptor is a TCP socket that this function made and gives away here.
    Ok(TcpStream::from_std(unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) }))
}

fn with_address<T>(address: SocketAddr, call: impl FnOnce(&dyn SockaddrLike) -> T) -> T {
    match address {
        SocketAddr::V4(address) => call(&SockaddrIn::from(address)),
        SocketAddr::V6(address) => call(&SockaddrIn6::from(address)),
    }
}

fn of_errno(errno: Errno) -> ConnectError {
    of_io(&io::Error::from_raw_os_error(errno as i32))
}

/// The reason of a failed dial in the speaker's words.
pub(super) fn of_io(error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ConnectError::NoRoute,
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        _ => ConnectError::Other(error.to_string()),
    }
}
