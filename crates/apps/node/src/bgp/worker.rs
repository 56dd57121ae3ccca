//! The thread: waits for sockets, timers and commands; hands them to the speaker; does what it answers.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use tortie_bgp::{Action, ConnId, Families, LocalRoute, NextHopMode, PeerConfig, PeerStatus, Speaker, SpeakerConfig};
use tortie_desired::{BgpPeer, BgpSpeaker};
use tortie_net::Family;
use tracing::{info, warn};

use super::connection::{Connection, dial, of_io};
use super::{Command, PeerState, Status, Told, Wanted};

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How long until listening is tried again after it failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

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
    listener: Option<TcpListener>,
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
        commands: Receiver<Command>,
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
            listener: None,
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
                    LISTENER => self.accept(),
                    Token(token) => self.ready(token, event.is_readable() || event.is_read_closed()),
                }
            }
            let now = Instant::now();
            if self.listen_again.is_some_and(|at| at <= now) {
                self.listen();
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
        speaker.into_iter().chain(self.listen_again).min()
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Want(wanted) => self.want(*wanted),
                // Whoever asked may have given up by now.
                Command::Status(reply) => drop(reply.send(self.status())),
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let now = Instant::now();
        let changed = wanted.speaker != self.wanted.speaker;
        self.wanted = wanted;
        if changed {
            self.restart_speaker(now);
        }
        let (Some(speaker), Some(own)) = (&mut self.speaker, &self.wanted.speaker) else { return };
        let peers = self.wanted.peers.iter().map(|(address, peer)| (*address, peer_config(own, *address, peer)));
        speaker.set_local_routes(now, self.wanted.announcements.iter().map(|n| (*n, LocalRoute::default())).collect());
        speaker.set_peers(now, peers.collect());
    }

    /// A new identity ends every session; the routes that were learned go with them.
    fn restart_speaker(&mut self, now: Instant) {
        if let Some(speaker) = &mut self.speaker {
            speaker.set_peers(now, BTreeMap::new());
            self.act();
            self.tell_routes();
        }
        self.connections.clear();
        self.tokens.clear();
        self.listener = None;
        self.listen_again = None;
        self.fault = None;
        let own = self.wanted.speaker.clone();
        self.speaker = own.as_ref().map(|own| {
            let mut config = SpeakerConfig::new(own.router_id, own.asn);
            config.restarting = std::mem::take(&mut self.restarting);
            Speaker::new(config, now)
        });
        if let Some(own) = own {
            info!(router_id = %own.router_id, asn = %own.asn, port = own.listen_port, "BGP speaker started");
            self.listen();
        }
    }

    fn listen(&mut self) {
        self.listen_again = None;
        let Some(own) = &self.wanted.speaker else { return };
        let bind = || {
            let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, own.listen_port)));
            both.or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                // A kernel without IPv6.
                _ => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, own.listen_port))),
            })
        };
        let listener = bind().and_then(|mut listener| {
            self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => {
                self.listener = Some(listener);
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

    fn accept(&mut self) {
        loop {
            let Some(listener) = &self.listener else { return };
            let (stream, remote) = match listener.accept() {
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
            if let Some((_, conn)) = speaker.handle_accepted(Instant::now(), remote.ip().to_canonical(), local) {
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
                Action::Connect { peer, conn, port, local } => match dial(SocketAddr::new(peer, port), local) {
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

    fn tell_routes(&mut self) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut changes = Vec::new();
        while let Some(change) = speaker.poll_route_change() {
            changes.push((change.prefix, change.best.map(|best| best.next_hops)));
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
        Status {
            running: self.speaker.is_some(),
            fault: self.fault.clone(),
            peers: peers.iter().map(peer_state).collect(),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn peer_config(own: &BgpSpeaker, address: IpAddr, peer: &BgpPeer) -> PeerConfig {
    let BgpPeer { asn, port, origin, name: _, keep_next_hop, max_restart_secs } = peer;
    let BgpSpeaker { router_id: _, asn: _, listen_port: _, ipv4, ipv6 } = own;
    let v4 = ipv4.and_then(|addr| if let IpAddr::V4(addr) = addr { Some(addr) } else { None });
    let v6 = ipv6.and_then(|addr| if let IpAddr::V6(addr) = addr { Some(addr) } else { None });
    PeerConfig {
        port: *port,
        local: if address.is_ipv4() { *ipv4 } else { *ipv6 },
        families: Families::only(Family::of(address)),
        next_hop: if *keep_next_hop { NextHopMode::Keep } else { NextHopMode::Auto },
        next_hop_v4: v4,
        next_hop_v6: v6,
        restart_time_secs: Some(*max_restart_secs),
        kind: origin.text().to_owned(),
        ..PeerConfig::new(address, *asn)
    }
}

fn peer_state(peer: &PeerStatus) -> PeerState {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(peer.since.elapsed()).as_secs();
    PeerState {
        address: peer.address,
        kind: peer.kind.clone(),
        state: peer.word().to_owned(),
        since: i64::try_from(since).unwrap_or(i64::MAX),
        info: peer.info(),
        received: peer.prefixes_received,
        sent: peer.prefixes_sent,
    }
}
