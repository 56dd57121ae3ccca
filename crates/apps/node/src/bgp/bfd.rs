//! BFD's sockets: a thread of its own, so that no flood of routes makes a live neighbour look dead.
//!
//! One hop (RFC 5881) towards neighbours of other ASes, where packets that passed a router are dropped; several
//! (RFC 5883) within the AS, or where TTL security allows more. BIRD and FRR choose alike.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use tortie_bgp::{BfdConfig, BfdPacket, BfdSession, BfdState};
use tortie_desired::BgpPeer;
use tracing::{info, warn};

use super::options;

const ONE_HOP: u16 = 3784;
const MANY_HOPS: u16 = 4784;
/// Source ports of sessions (RFC 5881 section 4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
const WAKER: Token = Token(0);
/// How long until a socket that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A neighbour to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    config: BfdConfig,
    source: Option<IpAddr>,
    one_hop: bool,
}

impl Watched {
    /// `None`: not to be watched.
    pub(super) fn of(peer: &BgpPeer, external: bool) -> Option<Watched> {
        let bfd = peer.bfd?;
        Some(Watched {
            config: BfdConfig {
                interval: Duration::from_millis(u64::from(bfd.interval_ms)),
                multiplier: bfd.multiplier.max(1),
            },
            source: peer.source,
            one_hop: external && peer.ttl_hops.is_none_or(|hops| hops == 1),
        })
    }
}

impl Watched {
    /// Whether the session of `other` can become this one.
    fn same_session(&self, other: &Watched) -> bool {
        let Watched { config: _, source, one_hop } = self;
        (source, one_hop) == (&other.source, &other.one_hop)
    }
}

enum Command {
    Watch(BTreeMap<IpAddr, Watched>),
    Stop,
}

/// The running thread.
pub(super) struct Bfd {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// `tell` hears each change of a neighbour's state; of one that is watched no longer, or anew, that it is
    /// `AdminDown`.
    pub(super) fn start(tell: impl Fn(IpAddr, BfdState) + Send + 'static) -> io::Result<Bfd> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (commands, received) = channel();
        let worker = Worker {
            poll,
            commands: received,
            tell: Box::new(tell),
            receivers: Vec::new(),
            sessions: BTreeMap::new(),
            next_name: std::process::id().max(1),
            receive_again: None,
        };
        let thread = std::thread::Builder::new().name("bfd".to_owned()).spawn(move || worker.run())?;
        Ok(Bfd { commands, waker, thread: Some(thread) })
    }

    /// Watches exactly these.
    pub(super) fn watch(&self, neighbours: BTreeMap<IpAddr, Watched>) {
        self.send(Command::Watch(neighbours));
    }

    fn send(&self, command: Command) {
        // The thread only ends after `Stop`, so neither can fail before that.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Neighbour {
    watched: Watched,
    session: BfdSession,
    socket: Option<UdpSocket>,
    socket_at: Instant,
    told: BfdState,
}

struct Worker {
    poll: Poll,
    commands: Receiver<Command>,
    tell: Box<dyn Fn(IpAddr, BfdState) + Send>,
    receivers: Vec<(u16, UdpSocket)>,
    sessions: BTreeMap<IpAddr, Neighbour>,
    next_name: u32,
    receive_again: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let wake = self.sessions.values().map(|one| one.session.poll_timeout()).chain(self.receive_again).min();
            let timeout = wake.map(|at| at.saturating_duration_since(Instant::now()));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "waiting for BFD packets failed");
                std::thread::sleep(Duration::from_millis(100));
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Watch(neighbours) => self.watch(neighbours),
                    Command::Stop => return self.watch(BTreeMap::new()),
                }
            }
            if self.receive_again.is_some_and(|at| at <= Instant::now()) {
                self.listen();
            }
            // Before timers: a packet that waits in a socket proves that its sender lives.
            self.receive();
            self.run_timers();
        }
    }

    fn watch(&mut self, neighbours: BTreeMap<IpAddr, Watched>) {
        let now = Instant::now();
        self.sessions.retain(|address, one| {
            if let Some(new) = neighbours.get(address).filter(|new| new.same_session(&one.watched)) {
                one.session.set_config(now, new.config);
                one.watched = *new;
                return true;
            }
            if let Some(socket) = &one.socket {
                // Silence would look like a dead path. If this is lost, it does.
                let _ = socket.send(&one.session.withdraw().encode());
            }
            (self.tell)(*address, BfdState::AdminDown);
            false
        });
        for (address, watched) in neighbours {
            let name = self.next_name;
            self.sessions.entry(address).or_insert_with(|| {
                let session = BfdSession::new(now, watched.config, name);
                Neighbour { watched, session, socket: None, socket_at: now, told: BfdState::Down }
            });
            self.next_name = name.checked_add(1).unwrap_or(1);
        }
        if self.receivers.is_empty() && !self.sessions.is_empty() {
            self.listen();
        }
    }

    fn listen(&mut self) {
        self.receive_again = None;
        for (port, v4) in [(ONE_HOP, true), (MANY_HOPS, true), (ONE_HOP, false), (MANY_HOPS, false)] {
            match receiver(port, v4) {
                Ok(socket) => {
                    let token = Token(1 + self.receivers.len());
                    let fd = socket.as_raw_fd();
                    if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                        warn!(%error, "a BFD socket can't be watched");
                    }
                    self.receivers.push((port, socket));
                }
                // A kernel without IPv6.
                Err(_) if !v4 => {}
                Err(error) => {
                    warn!(port, %error, "can't receive BFD packets; is another BFD daemon running on this host?");
                    self.receivers.clear();
                    self.receive_again = Some(Instant::now() + AGAIN);
                    return;
                }
            }
        }
    }

    fn receive(&mut self) {
        for (port, socket) in &self.receivers {
            while let Some((from, ttl, packet)) = read(socket) {
                let near = *port != ONE_HOP || ttl == Some(255);
                let Some(packet) = packet.filter(|_| near) else { continue };
                let Some(one) = self.sessions.get_mut(&from) else { continue };
                if one.watched.one_hop == (*port == ONE_HOP) {
                    one.session.handle_packet(Instant::now(), &packet);
                }
            }
        }
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        for (address, one) in &mut self.sessions {
            one.session.handle_timeout(now);
            while let Some(packet) = one.session.poll_transmit(now) {
                if one.socket.is_none() && one.socket_at <= now {
                    one.socket_at = now + AGAIN;
                    one.socket = sender(*address, &one.watched, one.session.name())
                        .inspect_err(|error| warn!(peer = %address, %error, "can't send BFD packets"))
                        .ok();
                }
                // A packet that can't be sent is a packet lost, which is what BFD is about.
                let _ = one.socket.as_ref().map(|socket| socket.send(&packet.encode()));
            }
            let state = one.session.reported();
            if state != one.told {
                one.told = state;
                info!(peer = %address, state = state.name(), "BFD");
                (self.tell)(*address, state);
            }
        }
    }
}

fn receiver(port: u16, v4: bool) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, socket};
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if v4 {
        setsockopt(&fd, sockopt::Ipv4RecvTtl, &true)?;
    } else {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)?;
    }
    match SocketAddr::new(options::any(v4), port) {
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?,
    }
    Ok(fd.into())
}

/// The next packet, its sender and its TTL; no packet if it is malformed.
fn read(socket: &UdpSocket) -> Option<(IpAddr, Option<i32>, Option<BfdPacket>)> {
    let mut bytes = [0; 128];
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT).ok()?;
    let ttl = message.cmsgs().ok()?.find_map(|item| match item {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
        _ => None,
    });
    let (address, length) = (message.address?, message.bytes);
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    let from = v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
    Some((from, ttl, BfdPacket::parse(&bytes[..length])))
}

fn sender(peer: IpAddr, watched: &Watched, name: u32) -> io::Result<UdpSocket> {
    let any = options::any(peer.is_ipv4());
    let source = watched.source.filter(|source| source.is_ipv4() == peer.is_ipv4()).unwrap_or(any);
    let (first, count) = (*SOURCE_PORTS.start(), SOURCE_PORTS.len() as u32);
    let mut socket = Err(io::ErrorKind::AddrInUse.into());
    for at in 0..64 {
        let port = first + ((name + at) % count) as u16;
        socket = UdpSocket::bind(SocketAddr::new(source, port));
        if !matches!(&socket, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    let socket = socket?;
    options::send_far(&socket, peer.is_ipv4())?;
    socket.set_nonblocking(true)?;
    socket.connect(SocketAddr::new(peer, if watched.one_hop { ONE_HOP } else { MANY_HOPS }))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_changed_or_replaced_never_looks_failed() {
        let (tell, told) = channel();
        let mut worker = Worker {
            poll: Poll::new().expect("a poll"),
            commands: channel().1,
            tell: Box::new(move |_, state| tell.send(state).expect("heard")),
            // Another socket keeps it from taking the ports of BFD.
            receivers: vec![(0, UdpSocket::bind(("127.0.0.1", 0)).expect("a socket"))],
            sessions: BTreeMap::new(),
            next_name: 1,
            receive_again: None,
        };
        let peer = IpAddr::from([127, 0, 0, 2]);
        let config = BfdConfig { interval: Duration::from_millis(50), multiplier: 3 };
        let watched = Watched { config, source: None, one_hop: true };
        let faster = Watched { config: BfdConfig { multiplier: 5, ..config }, ..watched };
        let elsewhere = Watched { source: Some([127, 0, 0, 1].into()), ..faster };
        let mut watch = |watched: Option<Watched>| {
            worker.watch(watched.map(|watched| (peer, watched)).into_iter().collect());
            let name = worker.sessions.get(&peer).map(|one| (one.session.name(), one.watched));
            (name, told.try_iter().collect::<Vec<_>>())
        };
        assert_eq!(watch(Some(watched)), (Some((1, watched)), vec![]));
        assert_eq!(watch(Some(faster)), (Some((1, faster)), vec![]), "the session stays");
        let (replaced, told) = watch(Some(elsewhere));
        assert!(replaced.is_some_and(|(name, _)| name != 1) && told == [BfdState::AdminDown]);
        assert_eq!(watch(None), (None, vec![BfdState::AdminDown]));
    }
}
