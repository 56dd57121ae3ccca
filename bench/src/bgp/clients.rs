//! Many speakers in one thread, clients of a reflector: the pure speaker of each with one socket.
//!
//! What they cost is not measured; what the reflector does for them is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use tortie_bgp::policy::tell_everything;
use tortie_bgp::{Action, ConnId, ConnectError, LocalRoute, PeerConfig, Speaker, SpeakerConfig};
use tortie_net::AsNumber;

use super::{AS, block};

/// A client's address.
pub fn address(client: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a51_0001 + u32::try_from(client).expect("few clients"))
}

struct Client {
    speaker: Speaker,
    blocks: BTreeSet<IpNet>,
    stream: Option<(ConnId, TcpStream)>,
    unwritten: Vec<u8>,
}

/// The clients, each with a block of its own.
pub struct Clients {
    members: Vec<Client>,
    reflector: Ipv4Addr,
}

impl Clients {
    /// So many clients of a reflector; to be called, and used, in the namespace that has their addresses.
    pub fn new(reflector: Ipv4Addr, count: usize) -> Clients {
        let now = Instant::now();
        let member = |client: usize| {
            let own = address(client);
            let mut speaker = Speaker::new(SpeakerConfig::new(own, AsNumber(AS)), now);
            speaker.set_policy(tell_everything());
            let peer = PeerConfig::new(reflector.into(), AsNumber(AS));
            speaker.set_peers(now, BTreeMap::from([(reflector.into(), peer)]));
            let mut client =
                Client { speaker, blocks: BTreeSet::from([block(client, 0)]), stream: None, unwritten: Vec::new() };
            client.announce(now);
            client
        };
        Clients { members: (0..count).map(member).collect(), reflector }
    }

    /// Lets everything go on until each client has what `has` looks for; returns how long that took.
    pub fn until(&mut self, patience: Duration, has: impl Fn(usize, &Speaker) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        let mut waiting: BTreeSet<usize> = (0..self.members.len()).collect();
        for client in 0..self.members.len() {
            self.act(client)?;
        }
        waiting.retain(|client| !has(*client, &self.members[*client].speaker));
        while !waiting.is_empty() {
            if begun.elapsed() > patience {
                bail!("{} clients lack it after {} s", waiting.len(), patience.as_secs());
            }
            for client in self.ready()? {
                self.read(client);
                self.act(client)?;
                if has(client, &self.members[client].speaker) {
                    waiting.remove(&client);
                }
            }
        }
        Ok(begun.elapsed())
    }

    /// One client gives a block up, another one takes it.
    pub fn move_block(&mut self, block: IpNet, from: usize, to: usize) {
        let now = Instant::now();
        self.members[from].blocks.remove(&block);
        self.members[to].blocks.insert(block);
        for client in [from, to] {
            self.members[client].announce(now);
        }
    }

    /// Clients whose socket has something, or whose timer is due.
    fn ready(&self) -> Result<Vec<usize>> {
        let now = Instant::now();
        let due = self.members.iter().filter_map(|client| client.speaker.poll_timeout()).min();
        let wait = due.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
        let wait = PollTimeout::try_from(wait.min(Duration::from_secs(1)) + Duration::from_millis(1))?;
        let open = self.members.iter().enumerate();
        let open: Vec<_> = open.filter_map(|(at, client)| Some((at, &client.stream.as_ref()?.1))).collect();
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        for (at, stream) in &open {
            let unwritten = !self.members[*at].unwritten.is_empty();
            let writable = if unwritten { PollFlags::POLLOUT } else { PollFlags::empty() };
            polled.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN | writable));
        }
        poll(&mut polled, wait)?;
        let woken = open.iter().zip(&polled).filter(|(_, fd)| fd.any().unwrap_or(true)).map(|((at, _), _)| *at);
        let mut ready: BTreeSet<usize> = woken.collect();
        let now = Instant::now();
        let due = |client: &Client| client.speaker.poll_timeout().is_some_and(|at| at <= now);
        ready.extend((0..self.members.len()).filter(|at| due(&self.members[*at])));
        Ok(ready.into_iter().collect())
    }

    fn read(&mut self, client: usize) {
        let Client { speaker, stream, .. } = &mut self.members[client];
        let mut buffer = [0; 64 * 1024];
        while let Some((conn, socket)) = stream {
            match socket.read(&mut buffer) {
                Ok(0) => {
                    speaker.handle_closed(Instant::now(), *conn);
                    *stream = None;
                }
                Ok(count) => speaker.handle_bytes(Instant::now(), *conn, &buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    speaker.handle_closed(Instant::now(), *conn);
                    *stream = None;
                }
            }
        }
        speaker.handle_timeout(Instant::now());
    }

    fn act(&mut self, at: usize) -> Result<()> {
        let client = &mut self.members[at];
        client.flush();
        while let Some(action) = client.speaker.poll_action() {
            match action {
                Action::Connect { conn, port, .. } => {
                    match dial(address(at), SocketAddrV4::new(self.reflector, port)) {
                        Ok(stream) => {
                            let local = stream.local_addr()?;
                            client.stream = Some((conn, stream));
                            client.speaker.handle_connected(Instant::now(), conn, local);
                        }
                        Err(_) => client.speaker.handle_connect_failed(Instant::now(), conn, ConnectError::Refused),
                    }
                }
                Action::Send { bytes, .. } => {
                    client.unwritten.extend(bytes);
                    client.flush();
                }
                Action::Close { .. } => client.stream = None,
            }
        }
        while client.speaker.poll_route_change().is_some() {}
        Ok(())
    }
}

impl Client {
    fn announce(&mut self, now: Instant) {
        let routes = self.blocks.iter().map(|block| (*block, LocalRoute::default()));
        self.speaker.set_local_routes(now, routes.collect());
    }

    fn flush(&mut self) {
        let Some((conn, stream)) = &mut self.stream else { return self.unwritten.clear() };
        if let Ok(written) = stream.write(&self.unwritten) {
            self.unwritten.drain(..written);
            self.speaker.handle_sent(*conn, written);
        }
    }
}

/// Where a client's routes lead.
pub fn next_hop(speaker: &Speaker, block: IpNet) -> Option<IpAddr> {
    speaker.learned(block).map(|learned| learned.next_hop)
}

fn dial(own: Ipv4Addr, to: SocketAddrV4) -> Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(own, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
