//! The asking side: non-blocking sockets of many places, driven from one thread.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, getsockopt, recv, send,
    socket, sockopt,
};
use tortie_net::Family;

use super::{Outcome, Transport, icmp};
use crate::place::Place;

/// How often a datagram is sent again while no answer came.
const AGAIN: Duration = Duration::from_millis(50);

/// One question on its way.
pub(super) struct Client {
    socket: OwnedFd,
    transport: Transport,
    family: Family,
    token: u64,
    tries: u16,
    connected: bool,
    outcome: Option<Outcome>,
}

impl Client {
    /// Opens the socket at the place and, for TCP, begins to connect.
    pub(super) fn open(from: &Place, target: SocketAddr, transport: Transport) -> Result<Client> {
        static TOKEN: AtomicU64 = AtomicU64::new(1);
        // The process id tells two programs apart that probe the same place.
        let token = u64::from(std::process::id()) << 32 | TOKEN.fetch_add(1, Ordering::Relaxed);
        let family = Family::of(target.ip());
        let socket = from.run(|| Ok(open_socket(family, transport)?))?;
        let begun = connect(socket.as_raw_fd(), &SockaddrStorage::from(target));
        let mut client = Client { socket, transport, family, token, tries: 0, connected: false, outcome: None };
        match begun {
            Ok(()) => client.connected = true,
            Err(Errno::EINPROGRESS) => {}
            Err(errno) => client.outcome = Some(refusal(errno)),
        }
        Ok(client)
    }

    /// The answer; silence when none came.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.unwrap_or(Outcome::Dropped)
    }

    fn interest(&self) -> PollFlags {
        if self.connected { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Sends the question: datagrams again and again, TCP's bytes once.
    fn tick(&mut self) {
        if !self.connected || self.outcome.is_some() || self.transport == Transport::Tcp && self.tries > 0 {
            return;
        }
        self.tries += 1;
        let token = self.token.to_be_bytes();
        let packet = match self.transport {
            Transport::Icmp => icmp::request(self.family, self.token as u16, self.tries, &token),
            Transport::Udp | Transport::Tcp => token.to_vec(),
        };
        match send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => self.outcome = Some(refusal(errno)),
        }
    }

    fn ready(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        if !self.connected {
            match getsockopt(&self.socket, sockopt::SocketError) {
                Ok(0) => {
                    self.connected = true;
                    self.tick();
                }
                Ok(errno) => self.outcome = Some(refusal(Errno::from_raw(errno))),
                Err(errno) => self.outcome = Some(refusal(errno)),
            }
            return;
        }
        let mut buffer = [0; 2048];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) if self.transport == Transport::Tcp => self.outcome = Some(Outcome::Refused),
                Ok(length) if self.is_answer(&buffer[..length]) => self.outcome = Some(Outcome::Open),
                Ok(_) => continue,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => self.outcome = Some(refusal(errno)),
            }
            return;
        }
    }

    fn is_answer(&self, received: &[u8]) -> bool {
        let token = self.token.to_be_bytes();
        match self.transport {
            Transport::Udp | Transport::Tcp => received == token,
            Transport::Icmp => {
                icmp::reply(self.family, received).is_some_and(|(id, _, body)| id == self.token as u16 && body == token)
            }
        }
    }
}

fn open_socket(family: Family, transport: Transport) -> nix::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let (kind, protocol) = match (transport, family) {
        (Transport::Udp, _) => (SockType::Datagram, None),
        (Transport::Tcp, _) => (SockType::Stream, None),
        (Transport::Icmp, Family::V4) => (SockType::Raw, Some(SockProtocol::Icmp)),
        (Transport::Icmp, Family::V6) => (SockType::Raw, Some(SockProtocol::IcmpV6)),
    };
    socket(domain, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
}

/// What an error of a socket says about the path.
fn refusal(errno: Errno) -> Outcome {
    match errno {
        Errno::ECONNREFUSED | Errno::ECONNRESET => Outcome::Refused,
        // The sender's own policy drops with this error.
        Errno::EPERM | Errno::ETIMEDOUT => Outcome::Dropped,
        Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::EINVAL => Outcome::Unsendable,
        _ => Outcome::Refused,
    }
}

/// Drives all questions until each is answered or the time is over.
pub(super) fn run(clients: &mut [Option<Client>], timeout: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut next_tick = begun;
    loop {
        let now = Instant::now();
        if now >= next_tick {
            clients.iter_mut().flatten().for_each(Client::tick);
            next_tick = now + AGAIN;
        }
        let waiting: Vec<usize> = (0..clients.len())
            .filter(|at| clients[*at].as_ref().is_some_and(|client| client.outcome.is_none()))
            .collect();
        let left = timeout.saturating_sub(begun.elapsed());
        if waiting.is_empty() || left.is_zero() {
            return Ok(());
        }
        let ready = {
            let client = |at: &usize| clients[*at].as_ref();
            let mut fds: Vec<PollFd<'_>> =
                waiting.iter().filter_map(client).map(|c| PollFd::new(c.socket.as_fd(), c.interest())).collect();
            let pause = left.min(next_tick.saturating_duration_since(now)).as_millis().max(1);
            match poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for answers"),
            }
            fds.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>()
        };
        for (at, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            clients[at].iter_mut().for_each(Client::ready);
        }
    }
}
