//! The thread: waits for sockets, timers and commands; hands them to the speaker; does what it answers.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use tortie_bgp::{Action, BfdState, ConnId, ConnectError, PeerConfig, PeerStatus, Speaker};
use tortie_desired::BgpPolicy;
use tortie_net::IpNet;
use tracing::warn;

use super::bfd::Bfd;
use super::connection::{Connection, dial, guard, of_io};
use super::listen::{Listeners, Place};
use super::reason::{self, Drops};
use super::secrets::{Missing, SecretSource, Secrets};
use super::status::{self, Routes, Status};
use super::{Command, Told, Wanted, config};
use crate::memory::Burst;

const WAKER: Token = Token(0);
const LISTENER: usize = 1;
/// Far behind the listening sockets: there is one for each address of the node and for workloads that are peers.
const FIRST_CONNECTION: usize = 1 << 16;

/// How long until listening is tried again after it failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long dropped packets count as the reason of a silence, up to twice that.
const DROPS_AGE: Duration = Duration::from_secs(30);

/// Bytes read at once, at first and at most.
const FIRST_READ: usize = 4 * 1024;
const MOST_READ: usize = 64 * 1024;

/// Most bytes read from one connection before the others get their turn.
const READ_TURN: usize = 256 * 1024;

pub(super) struct Worker {
    pub(super) poll: Poll,
    pub(super) commands: Receiver<Command>,
    pub(super) tell: Box<dyn Fn(Told) + Send>,
    pub(super) restarting: bool,
    pub(super) recovering: bool,
    pub(super) wanted: Wanted,
    pub(super) speaker: Option<Speaker>,
    /// The peers and ranges as the speaker has them.
    pub(super) configs: BTreeMap<IpAddr, PeerConfig>,
    pub(super) ranges: BTreeMap<IpNet, PeerConfig>,
    pub(super) policy: Option<Arc<BgpPolicy>>,
    pub(super) secrets: Secrets,
    /// By which BFD tells.
    pub(super) own: Sender<Command>,
    pub(super) waker: Arc<Waker>,
    pub(super) bfd: Option<Bfd>,
    pub(super) bfd_states: BTreeMap<IpAddr, BfdState>,
    /// Peers without the password that they need, and why.
    pub(super) unusable: BTreeMap<IpNet, Missing>,
    pub(super) look_again: Option<Instant>,
    /// Counters of half a minute to a minute ago, and the last ones.
    pub(super) drops: (Drops, Drops),
    pub(super) drops_at: Instant,
    pub(super) listeners: Option<Listeners>,
    pub(super) listen_again: Option<Instant>,
    pub(super) fault: Option<String>,
    pub(super) connections: BTreeMap<usize, (ConnId, Connection)>,
    pub(super) tokens: BTreeMap<ConnId, usize>,
    pub(super) next_token: usize,
    pub(super) burst: Burst,
    /// What is being read.
    pub(super) buffer: Vec<u8>,
    /// Seconds since 1970: when this began, and when what is wanted changed last.
    pub(super) started: i64,
    pub(super) reconfigured: i64,
    pub(super) stopping: bool,
}

impl Worker {
    pub(super) fn new(
        restarting: bool,
        secrets: SecretSource,
        (own, commands): (Sender<Command>, Receiver<Command>),
        tell: Box<dyn Fn(Told) + Send>,
    ) -> io::Result<(Worker, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let worker = Worker {
            poll,
            commands,
            tell,
            restarting,
            recovering: restarting,
            wanted: Wanted::default(),
            speaker: None,
            configs: BTreeMap::new(),
            ranges: BTreeMap::new(),
            policy: None,
            secrets: Secrets::new(secrets, own.clone(), waker.clone()),
            own,
            waker: waker.clone(),
            bfd: None,
            bfd_states: BTreeMap::new(),
            unusable: BTreeMap::new(),
            look_again: None,
            drops: (Drops::read(), Drops::read()),
            drops_at: Instant::now(),
            listeners: None,
            listen_again: None,
            fault: None,
            connections: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
            burst: Burst::default(),
            buffer: vec![0; FIRST_READ],
            started: status::now(),
            reconfigured: status::now(),
            stopping: false,
        };
        Ok((worker, waker))
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stopping {
            let timeout = self.next_wake().map(|at| at.saturating_duration_since(Instant::now()));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "waiting for BGP sockets failed");
                std::thread::sleep(Duration::from_millis(100));
            }
            self.take_commands();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if token < FIRST_CONNECTION => self.accept(token - LISTENER),
                    Token(token) => self.ready(token, event.is_readable() || event.is_read_closed()),
                }
            }
            let now = Instant::now();
            if self.listen_again.is_some_and(|at| at <= now) {
                self.listen();
            }
            if self.look_again.is_some_and(|at| at <= now) {
                self.configure();
            }
            if let Some(speaker) = &mut self.speaker
                && speaker.poll_timeout().is_some_and(|at| at <= now)
            {
                speaker.handle_timeout(now);
            }
            self.act();
            self.tell_routes();
            self.burst.end_if_due(Instant::now());
            // An old fault does not explain a new one.
            if self.drops_at.elapsed() > DROPS_AGE {
                (self.drops, self.drops_at) = ((self.drops.1, Drops::read()), Instant::now());
            }
        }
        if let Some(mut speaker) = self.speaker.take() {
            speaker.shutdown(Instant::now());
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let speaker = self.speaker.as_ref().and_then(Speaker::poll_timeout);
        speaker.into_iter().chain(self.listen_again).chain(self.look_again).chain(self.burst.over_at()).min()
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Want(wanted) => self.want(*wanted),
                // Whoever asked may have given up by now.
                Command::Status(reply) => drop(reply.send(self.status())),
                Command::Routes(peer, reply) => {
                    let routes = self.speaker.as_ref().and_then(|speaker| Routes::of(speaker, peer));
                    drop(reply.send(routes));
                }
                Command::Bfd(peer, state) => self.bfd_told(peer, state),
                Command::Secrets => self.configure(),
                Command::Stop => self.stopping = true,
            }
        }
    }

    pub(super) fn listen(&mut self) {
        self.listen_again = None;
        let Some(own) = &self.wanted.speaker else { return };
        let place = Place::of(own, &self.wanted.policy);
        // The old sockets may hold the port.
        self.listeners = None;
        match Listeners::open(place, self.poll.registry(), LISTENER) {
            Ok(mut listeners) => {
                listeners.expect(&self.configs, &self.ranges);
                self.listeners = Some(listeners);
                self.fault = None;
            }
            Err(error) => {
                let fault = format!("can't listen on TCP port {}: {error}", own.listen_port);
                if self.fault.as_ref() != Some(&fault) {
                    warn!("{fault}; is another BGP speaker running on this host?");
                }
                self.fault = Some(fault);
                self.listen_again = Some(Instant::now() + LISTEN_AGAIN);
            }
        }
    }

    fn accept(&mut self, at: usize) {
        loop {
            let Some(listeners) = &self.listeners else { return };
            let (stream, remote) = match listeners.accept(at) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    warn!(%error, "a BGP connection can't be accepted");
                    return;
                }
            };
            let local = stream.local_addr().map(canonical);
            let (Ok(local), Some(speaker)) = (local, &mut self.speaker) else { continue };
            // Who is no peer gets no answer: the connection closes here.
            let peer = remote.ip().to_canonical();
            if let Some((_, conn)) = speaker.handle_accepted(Instant::now(), peer, local) {
                let ranges = self.ranges.iter().filter(|(net, _)| net.contains(&peer));
                let range = ranges.max_by_key(|(net, _)| net.prefix_len()).map(|(_, config)| config);
                let config = self.configs.get(&peer).or(range);
                let guarded = config.map_or(Ok(()), |config| guard(&stream, peer.is_ipv4(), config));
                if let Err(error) = guarded {
                    warn!(%peer, %error, "TTL security can't be set on a BGP connection");
                    speaker.handle_closed(Instant::now(), conn);
                    continue;
                }
                self.add(conn, Connection::new(stream, false));
                self.act();
            }
        }
    }

    fn add(&mut self, conn: ConnId, mut connection: Connection) {
        let token = self.next_token;
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut connection.stream, Token(token), interest) {
            warn!(%error, "a BGP connection can't be watched");
            if let Some(speaker) = &mut self.speaker {
                speaker.handle_closed(Instant::now(), conn);
            }
            return;
        }
        self.tokens.insert(conn, token);
        self.connections.insert(token, (conn, connection));
    }

    fn ready(&mut self, token: usize, readable: bool) {
        let Some((conn, connection)) = self.connections.get_mut(&token) else { return };
        let conn = *conn;
        if connection.dialling && !self.dialled(token, conn) {
            return;
        }
        self.write(token);
        if readable {
            self.read(token, conn);
        }
    }

    /// Finishes a dial. Returns whether the connection is there.
    fn dialled(&mut self, token: usize, conn: ConnId) -> bool {
        let (Some((_, connection)), Some(speaker)) = (self.connections.get_mut(&token), &mut self.speaker) else {
            return false;
        };
        let now = Instant::now();
        let outcome = match connection.stream.take_error() {
            Ok(None) => connection.stream.peer_addr().and_then(|_| connection.stream.local_addr()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            Ok(local) => {
                connection.dialling = false;
                speaker.handle_connected(now, conn, canonical(local));
                self.act();
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => false,
            Err(error) => {
                speaker.handle_connect_failed(now, conn, of_io(&error));
                self.forget(token);
                false
            }
        }
    }

    fn read(&mut self, token: usize, conn: ConnId) {
        let mut total = 0;
        loop {
            let Some((_, connection)) = self.connections.get_mut(&token) else { return };
            let Some(speaker) = &mut self.speaker else { return };
            let buffer = &mut self.buffer;
            match connection.stream.read(buffer) {
                Ok(0) => {
                    speaker.handle_closed(Instant::now(), conn);
                    return self.forget(token);
                }
                Ok(count) => {
                    total += count;
                    self.burst.add(count);
                    speaker.handle_bytes(Instant::now(), conn, &buffer[..count]);
                    // Few peers ever have so much to say at once.
                    if count == buffer.len() && count < MOST_READ {
                        buffer.resize(MOST_READ, 0);
                    }
                    if total >= READ_TURN {
                        // Edge-triggered: what is left makes no further event, so ask for one.
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        let _ = self.poll.registry().reregister(&mut connection.stream, Token(token), interest);
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    speaker.handle_closed(Instant::now(), conn);
                    return self.forget(token);
                }
            }
        }
    }

    fn write(&mut self, token: usize) {
        let Some((conn, connection)) = self.connections.get_mut(&token) else { return };
        let conn = *conn;
        match connection.flush() {
            Ok(written) => {
                let done = connection.closing && connection.is_idle();
                if let Some(speaker) = self.speaker.as_mut().filter(|_| written > 0) {
                    speaker.handle_sent(conn, written);
                }
                if done {
                    self.forget(token);
                }
            }
            Err(_) => {
                if let Some(speaker) = &mut self.speaker {
                    speaker.handle_closed(Instant::now(), conn);
                }
                self.forget(token);
            }
        }
    }

    fn forget(&mut self, token: usize) {
        if let Some((conn, mut connection)) = self.connections.remove(&token) {
            self.tokens.remove(&conn);
            let _ = self.poll.registry().deregister(&mut connection.stream);
        }
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.speaker.as_mut().and_then(Speaker::poll_action) {
            match action {
                Action::Connect { peer, conn, port, local } => match self.dial(SocketAddr::new(peer, port), local) {
                    Ok(stream) => self.add(conn, Connection::new(stream, true)),
                    Err(error) => {
                        if let Some(speaker) = &mut self.speaker {
                            speaker.handle_connect_failed(Instant::now(), conn, error);
                        }
                    }
                },
                Action::Send { conn, bytes } => {
                    if let Some(token) = self.tokens.get(&conn).copied() {
                        if let Some((_, connection)) = self.connections.get_mut(&token) {
                            self.burst.add(bytes.len());
                            connection.queue(bytes);
                        }
                        self.write(token);
                    }
                }
                Action::Close { conn } => {
                    if let Some(token) = self.tokens.get(&conn).copied() {
                        if let Some((_, connection)) = self.connections.get_mut(&token) {
                            connection.closing = true;
                        }
                        self.write(token);
                        // What the socket did not take by now is not worth waiting for.
                        self.forget(token);
                    }
                }
            }
        }
    }

    fn dial(&self, remote: SocketAddr, local: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
        dial(remote, local, self.configs.get(&remote.ip()))
    }

    pub(super) fn tell_routes(&mut self) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut changes = Vec::new();
        while let Some(change) = speaker.poll_route_change() {
            let kept_out = self.wanted.policy.unprogrammed.iter().any(|net| net.contains(&change.prefix));
            let best = change.best.filter(|_| !kept_out);
            changes.push((change.prefix, best.map(|best| config::learned(&self.wanted.policy, change.prefix, best))));
        }
        let recovered = self.recovering && speaker.initial_sync_done();
        if !changes.is_empty() {
            (self.tell)(Told::Routes(changes));
        }
        if recovered {
            self.recovering = false;
            (self.tell)(Told::Recovered);
        }
    }

    fn status(&self) -> Status {
        let peers = self.speaker.as_ref().map(Speaker::peers).unwrap_or_default();
        let of_late = Drops::read().since(self.drops.0);
        let name = |address: &IpAddr| self.wanted.peers.get(address).map_or("", |peer| &*peer.name);
        let state = |peer: &PeerStatus| {
            let config = self.configs.get(&peer.address);
            let watched = self.wanted.peers.get(&peer.address).is_some_and(|peer| peer.bfd.is_some());
            let bfd = self.bfd_states.get(&peer.address).copied().unwrap_or(BfdState::Down);
            let bfd = watched.then(|| bfd.name().to_owned());
            let reason = reason::reason(peer, config, of_late);
            status::PeerState { bfd, ..status::peer_state(peer, name(&peer.address), reason) }
        };
        let mut states: Vec<status::PeerState> = peers.iter().map(state).collect();
        states.extend(self.unusable.iter().filter_map(|(net, missing)| {
            let peer = self.wanted.peers.get(&net.addr())?;
            Some(status::unusable(net.addr(), peer, &missing.problem))
        }));
        states.sort_by_key(|state| state.address);
        let own = self.wanted.speaker.as_ref();
        Status {
            running: self.speaker.is_some(),
            fault: self.fault.clone(),
            router_id: own.map(|own| own.router_id),
            families: own.map_or([false; 2], |own| [own.ipv4.is_some(), own.ipv6.is_some()]),
            started: self.started,
            reconfigured: self.reconfigured,
            peers: states,
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
