//! The thread: waits for sockets, timers and commands; hands them to the speaker; does what it answers.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use tortie_bgp::{Action, BfdState, ConnId, ConnectError, PeerConfig, PeerStatus, Speaker, SpeakerConfig};
use tortie_desired::{BgpPolicy, BgpSpeaker};
use tortie_net::IpNet;
use tracing::{info, warn};

use super::bfd::{Bfd, Watched};
use super::connection::{Connection, dial, guard, of_io};
use super::listen::{Listeners, Place};
use super::reason::{self, Drops};
use super::secrets::Secrets;
use super::status::{self, Routes, Status};
use super::{Command, Told, Wanted, config};
use crate::autodetect::Interface;
use crate::host;

const WAKER: Token = Token(0);
const LISTENER: usize = 1;
const FIRST_CONNECTION: usize = 3;

/// How long until listening is tried again after it failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How often files of passwords and interfaces are looked at, if they matter.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long dropped packets count as the reason of a silence.
const DROPS_AGE: Duration = Duration::from_secs(30);

/// Most bytes read from one connection before the others get their turn.
const READ_TURN: usize = 256 * 1024;

pub(super) struct Worker {
    poll: Poll,
    commands: Receiver<Command>,
    tell: Box<dyn Fn(Told) + Send>,
    restarting: bool,
    recovering: bool,
    wanted: Wanted,
    speaker: Option<Speaker>,
    /// The peers and ranges as the speaker has them.
    configs: BTreeMap<IpAddr, PeerConfig>,
    ranges: BTreeMap<IpNet, PeerConfig>,
    policy: Option<Arc<BgpPolicy>>,
    secrets: Secrets,
    /// By which BFD tells.
    own: Sender<Command>,
    waker: Arc<Waker>,
    bfd: Option<Bfd>,
    bfd_states: BTreeMap<IpAddr, BfdState>,
    /// Peers without the password that they need, and why.
    unusable: BTreeMap<IpNet, String>,
    look_again: Option<Instant>,
    drops: Drops,
    drops_at: Instant,
    listeners: Option<Listeners>,
    listen_again: Option<Instant>,
    fault: Option<String>,
    connections: BTreeMap<usize, (ConnId, Connection)>,
    tokens: BTreeMap<ConnId, usize>,
    next_token: usize,
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        restarting: bool,
        secrets: Option<PathBuf>,
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
            secrets: Secrets::new(secrets),
            own,
            waker: waker.clone(),
            bfd: None,
            bfd_states: BTreeMap::new(),
            unusable: BTreeMap::new(),
            look_again: None,
            drops: Drops::read(),
            drops_at: Instant::now(),
            listeners: None,
            listen_again: None,
            fault: None,
            connections: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
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
        }
        if let Some(mut speaker) = self.speaker.take() {
            speaker.shutdown(Instant::now());
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let speaker = self.speaker.as_ref().and_then(Speaker::poll_timeout);
        speaker.into_iter().chain(self.listen_again).chain(self.look_again).min()
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
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.configure();
    }

    /// Brings the speaker to what is wanted; also when a password or an interface may have changed.
    fn configure(&mut self) {
        let now = Instant::now();
        self.look_again = None;
        let Some(own) = self.wanted.speaker.clone() else { return self.stop_speaking(now) };
        if self.speaker.is_none() {
            let config = SpeakerConfig { restarting: std::mem::take(&mut self.restarting), ..config::speaker(&own) };
            self.speaker = Some(Speaker::new(config, now));
            info!(router_id = %own.router_id, asn = %own.asn, port = own.listen_port, "BGP speaker started");
        }
        let place = Place::of(&own, self.wanted.policy.bind_to_node);
        if self.listeners.as_ref().is_none_or(|listeners| listeners.place != place) {
            self.listen();
        }
        self.read_peers(&own);
        self.watch(&own);
        let direct = self.direct();
        let routes = config::routes(&self.wanted, direct);
        let Some(speaker) = &mut self.speaker else { return };
        let identity = (speaker.config().router_id, speaker.config().local_as);
        if identity != (own.router_id, own.asn) {
            let restarting = speaker.config().restarting;
            info!(router_id = %own.router_id, asn = %own.asn, "BGP speaker has another identity; sessions start anew");
            speaker.set_config(now, SpeakerConfig { restarting, ..config::speaker(&own) });
        }
        if self.policy.as_deref() != Some(&self.wanted.policy) {
            let policy = Arc::new(self.wanted.policy.clone());
            let retell = self.policy.as_ref().is_some_and(|old| old.unprogrammed != policy.unprogrammed);
            self.policy = Some(policy.clone());
            speaker.set_policy(Some(policy));
            if retell {
                speaker.tell_all();
            }
        }
        speaker.set_local_routes(now, routes);
        speaker.set_ranges(now, self.ranges.clone());
        speaker.set_peers(now, self.configs.clone());
    }

    /// Watches the peers that are to be watched.
    fn watch(&mut self, own: &BgpSpeaker) {
        let watched = self.wanted.peers.iter().filter_map(|(address, peer)| {
            let external = peer.asn != peer.local_asn.unwrap_or(own.asn);
            Some((*address, Watched::of(peer, external)?))
        });
        let watched: BTreeMap<IpAddr, Watched> = watched.collect();
        self.bfd_states.retain(|address, _| watched.contains_key(address));
        if self.bfd.is_none() && !watched.is_empty() {
            let (own, waker) = (self.own.clone(), self.waker.clone());
            let tell = move |peer, state| {
                // The worker outlives its BFD thread.
                let _ = own.send(Command::Bfd(peer, state));
                let _ = waker.wake();
            };
            self.bfd = Bfd::start(tell).inspect_err(|error| warn!(%error, "BFD can't start")).ok();
        }
        if let Some(bfd) = &self.bfd {
            bfd.watch(watched);
        }
    }

    fn bfd_told(&mut self, peer: IpAddr, state: BfdState) {
        let before = self.bfd_states.insert(peer, state);
        if before == Some(BfdState::Up)
            && state != BfdState::Up
            && let Some(speaker) = &mut self.speaker
        {
            speaker.handle_bfd_down(Instant::now(), peer);
        }
    }

    fn stop_speaking(&mut self, now: Instant) {
        if let Some(speaker) = &mut self.speaker {
            speaker.set_peers(now, BTreeMap::new());
            speaker.set_ranges(now, BTreeMap::new());
            self.act();
            self.tell_routes();
        }
        self.connections.clear();
        self.tokens.clear();
        self.configs.clear();
        self.ranges.clear();
        self.unusable.clear();
        self.bfd = None;
        (self.speaker, self.listeners, self.listen_again, self.fault) = (None, None, None, None);
    }

    /// Peers and ranges with their passwords. A peer whose password can't be read gets no session.
    fn read_peers(&mut self, own: &BgpSpeaker) {
        let (mut configs, mut ranges) = (BTreeMap::new(), BTreeMap::new());
        let hosts = self.wanted.peers.iter().map(|(address, peer)| (IpNet::from(*address), false, peer));
        let all = hosts.chain(self.wanted.policy.ranges.iter().map(|(net, peer)| (*net, true, peer)));
        let old = std::mem::take(&mut self.unusable);
        for (net, range, peer) in all {
            let password = match peer.password.as_ref().map(|key| self.secrets.read(key)).transpose() {
                Ok(password) => password,
                Err(problem) => {
                    if !old.contains_key(&net) {
                        warn!(peer = %net, problem, "no BGP session without its password");
                    }
                    self.unusable.insert(net, problem);
                    continue;
                }
            };
            let config = config::peer(own, net.addr(), peer, password);
            if range {
                ranges.insert(net, config);
            } else {
                configs.insert(net.addr(), config);
            }
        }
        if self.wanted.peers.values().chain(self.wanted.policy.ranges.values()).any(|peer| peer.password.is_some()) {
            self.look_again = Some(Instant::now() + LOOK_AGAIN);
        }
        (self.configs, self.ranges) = (configs, ranges);
        if let Some(listeners) = &mut self.listeners {
            listeners.expect(&self.configs, &self.ranges);
        }
    }

    /// Subnets of this host's interfaces, if a filter might let them out.
    fn direct(&mut self) -> Vec<(IpNet, String)> {
        if !config::filters_exports(&self.wanted) {
            return Vec::new();
        }
        self.look_again = Some(Instant::now() + LOOK_AGAIN);
        match host::interfaces() {
            Ok(interfaces) => {
                let nets = |i: Interface| i.addresses.into_iter().map(move |net| (net, i.name.clone()));
                interfaces.into_iter().flat_map(nets).collect()
            }
            Err(error) => {
                warn!("interfaces can't be read, so their subnets are not announced: {error:#}");
                Vec::new()
            }
        }
    }

    fn listen(&mut self) {
        self.listen_again = None;
        let Some(own) = &self.wanted.speaker else { return };
        let place = Place::of(own, self.wanted.policy.bind_to_node);
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
                let guarded = self.configs.get(&peer).map_or(Ok(()), |config| guard(&stream, peer.is_ipv4(), config));
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
        let mut buffer = [0; 64 * 1024];
        let mut total = 0;
        loop {
            let Some((_, connection)) = self.connections.get_mut(&token) else { return };
            let Some(speaker) = &mut self.speaker else { return };
            match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    speaker.handle_closed(Instant::now(), conn);
                    return self.forget(token);
                }
                Ok(count) => {
                    total += count;
                    speaker.handle_bytes(Instant::now(), conn, &buffer[..count]);
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

    fn act(&mut self) {
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

    fn tell_routes(&mut self) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut changes = Vec::new();
        while let Some(change) = speaker.poll_route_change() {
            let kept_out = self.wanted.policy.unprogrammed.iter().any(|net| net.contains(&change.prefix));
            changes.push((change.prefix, change.best.filter(|_| !kept_out).map(|best| best.next_hops)));
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

    fn status(&mut self) -> Status {
        let peers = self.speaker.as_ref().map(Speaker::peers).unwrap_or_default();
        let drops = Drops::read();
        let of_late = drops.since(self.drops);
        // Drops of the last half minute count, so that an old fault does not explain a new one.
        if self.drops_at.elapsed() > DROPS_AGE {
            (self.drops, self.drops_at) = (drops, Instant::now());
        }
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
        states.extend(self.unusable.iter().filter_map(|(net, problem)| {
            let peer = self.wanted.peers.get(&net.addr())?;
            Some(status::unusable(net.addr(), peer, problem))
        }));
        states.sort_by_key(|state| state.address);
        Status { running: self.speaker.is_some(), fault: self.fault.clone(), peers: states }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
