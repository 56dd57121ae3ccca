//! A network of speakers in memory, on a virtual clock, with seeded delays and faults.
//!
//! Invariant: bytes of one direction of a connection arrive in order; everything else may interleave as the seed has it.

#![allow(dead_code, reason = "each test binary uses its own part of the simulator")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_bgp::message::capability::Capability;
use tortie_bgp::message::open::Open;
use tortie_bgp::message::{Kind, split_frame};
use tortie_bgp::policy::tell_everything;
use tortie_bgp::{Action, ConnId, ConnectError, Learned, LocalRoute, PeerConfig, PeerState, Speaker, SpeakerConfig};
use tortie_desired::BgpPolicy;
use tortie_net::{AsNumber, IpNet};

/// A small generator of numbers (xorshift), so that a seed replays.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

type End = (usize, ConnId);

enum Event {
    Dial { from: usize, conn: ConnId, to: IpAddr },
    Bytes { to: End, bytes: Vec<u8> },
    Closed { to: End },
}

pub struct Node {
    pub config: SpeakerConfig,
    pub peers: BTreeMap<IpAddr, PeerConfig>,
    pub ranges: BTreeMap<IpNet, PeerConfig>,
    /// Peers are left out when it starts, and come later.
    pub awaits: bool,
    pub routes: BTreeMap<IpNet, LocalRoute>,
    /// At first one that tells everything.
    pub policy: Arc<BgpPolicy>,
    pub speaker: Option<Speaker>,
    /// What the kernel would hold: every route change applied.
    pub table: BTreeMap<IpNet, Learned>,
    /// Prefixes that ever left `table`.
    pub withdrawn: BTreeSet<IpNet>,
    /// Prefixes that this life of the node has learned; the others of `table` go when its initial sync is done.
    fresh: BTreeSet<IpNet>,
    swept: bool,
}

pub struct Net {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub dice: Dice,
    pub max_delay_ms: u64,
    events: BTreeMap<(Instant, u64), Event>,
    seq: u64,
    links: BTreeMap<End, End>,
    last_arrival: BTreeMap<End, Instant>,
    /// Whether what is sent at once also arrives at once: half the events, for large networks.
    pub whole: bool,
    /// When each node's timers are due.
    wake: Vec<Option<Instant>>,
    /// The same by time.
    due: BTreeSet<(Instant, usize)>,
    /// Nodes that are cut off from all others.
    island: BTreeSet<usize>,
    /// Nodes whose OPENs lose the capability of graceful restart on the way; only with `whole`.
    pub without_restart: BTreeSet<usize>,
    /// All bytes sent by anyone.
    pub bytes_sent: usize,
}

/// An OPEN without the capability of graceful restart; any other message as it is.
fn strip_restart(bytes: &[u8]) -> Vec<u8> {
    let Ok(Some((frame, _))) = split_frame(bytes) else { return bytes.to_vec() };
    if frame.kind != Kind::Open {
        return bytes.to_vec();
    }
    let mut open = Open::parse(frame.body).expect("it was just written");
    open.capabilities.retain(|capability| !matches!(capability, Capability::GracefulRestart(_)));
    open.encode()
}

pub fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + node as u32))
}

fn node_of(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { unreachable!("addresses are IPv4") };
    (u32::from(address) - 0x0a00_0001) as usize
}

pub fn block(node: usize, block: usize) -> IpNet {
    let address = Ipv4Addr::from(0x6440_0000 + (node * 256 + block * 64) as u32);
    IpNet::new(address.into(), 26).expect("26 bits fit")
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net {
            now: Instant::now(),
            nodes: Vec::new(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            max_delay_ms: 20,
            events: BTreeMap::new(),
            seq: 0,
            links: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            whole: false,
            wake: Vec::new(),
            due: BTreeSet::new(),
            island: BTreeSet::new(),
            without_restart: BTreeSet::new(),
            bytes_sent: 0,
        }
    }

    pub fn add(&mut self, asn: u32, routes: &[IpNet]) -> usize {
        let at = self.nodes.len();
        let IpAddr::V4(router_id) = address(at) else { unreachable!("addresses are IPv4") };
        let config = SpeakerConfig::new(router_id, AsNumber(asn));
        let routes = routes.iter().map(|prefix| (*prefix, LocalRoute::default())).collect();
        self.nodes.push(Node {
            config,
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            awaits: false,
            routes,
            policy: tell_everything(),
            speaker: None,
            table: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            fresh: BTreeSet::new(),
            swept: false,
        });
        self.wake.push(None);
        at
    }

    pub fn peer(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            let config = PeerConfig::new(address(other), self.nodes[other].config.local_as);
            self.nodes[one].peers.insert(address(other), config);
        }
    }

    pub fn mesh(seed: u64, count: usize) -> Net {
        let mut net = Net::new(seed);
        for node in 0..count {
            net.add(64512, &[block(node, 0), block(node, 1)]);
        }
        for a in 0..count {
            for b in a + 1..count {
                net.peer(a, b);
            }
        }
        net
    }

    pub fn start(&mut self, node: usize) {
        let Node { config, peers, ranges, awaits, routes, policy, speaker, fresh, swept, .. } = &mut self.nodes[node];
        fresh.clear();
        *swept = !config.restarting;
        let mut new = Speaker::new(config.clone(), self.now);
        new.set_policy(policy.clone());
        new.set_local_routes(self.now, routes.clone());
        new.await_more(*awaits);
        new.set_ranges(self.now, ranges.clone());
        new.set_peers(self.now, peers.clone());
        *speaker = Some(new);
        self.drain(node);
    }

    pub fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    /// The process dies; the kernel closes its connections and keeps its routes.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.set_wake(node, None);
        // A new process counts its connections anew, so nothing may still be under way to the old one.
        self.events.retain(|_, event| match event {
            Event::Dial { from, .. } => *from != node,
            Event::Bytes { to, .. } | Event::Closed { to } => to.0 != node,
        });
        let ends: Vec<End> = self.links.keys().filter(|end| end.0 == node).copied().collect();
        ends.into_iter().for_each(|end| self.close(end));
    }

    /// Cuts these nodes off: nothing passes between them and the others, and nobody is told.
    pub fn part(&mut self, island: BTreeSet<usize>) {
        self.island = island;
    }

    /// Ends the partition. Connections across it have lost bytes, so they end too.
    pub fn heal(&mut self) {
        let crossing: Vec<End> = self.links.iter().filter(|(a, b)| self.parted(a.0, b.0)).map(|(a, _)| *a).collect();
        self.island.clear();
        for end in crossing {
            if self.links.contains_key(&end) {
                self.close(end);
                self.post(Event::Closed { to: end }, end);
            }
        }
    }

    fn parted(&self, a: usize, b: usize) -> bool {
        self.island.contains(&a) != self.island.contains(&b)
    }

    /// Breaks one connection: both ends see it closed.
    pub fn cut_any(&mut self) {
        let count = self.links.len() as u64;
        if count > 0 {
            let at = self.dice.below(count) as usize;
            let end = *self.links.keys().nth(at).expect("in range");
            self.close(end);
            self.post(Event::Closed { to: end }, end);
        }
    }

    fn close(&mut self, end: End) {
        if let Some(other) = self.links.remove(&end) {
            if self.parted(end.0, other.0) {
                return;
            }
            self.links.remove(&other);
            self.post(Event::Closed { to: other }, other);
        }
    }

    fn post(&mut self, event: Event, to: End) {
        let delay = Duration::from_micros(self.dice.below(self.max_delay_ms * 1000) + 1);
        let at = (self.now + delay).max(self.last_arrival.get(&to).copied().unwrap_or(self.now));
        self.last_arrival.insert(to, at);
        self.seq += 1;
        self.events.insert((at, self.seq), event);
    }

    pub fn with<R>(&mut self, node: usize, f: impl FnOnce(&mut Speaker, Instant) -> R) -> Option<R> {
        let result = self.nodes[node].speaker.as_mut().map(|speaker| f(speaker, self.now));
        self.drain(node);
        result
    }

    fn drain(&mut self, node: usize) {
        self.do_actions(node);
        let wake = self.nodes[node].speaker.as_ref().and_then(Speaker::poll_timeout);
        self.set_wake(node, wake);
    }

    fn set_wake(&mut self, node: usize, wake: Option<Instant>) {
        if let Some(old) = std::mem::replace(&mut self.wake[node], wake) {
            self.due.remove(&(old, node));
        }
        self.due.extend(wake.map(|at| (at, node)));
    }

    fn do_actions(&mut self, node: usize) {
        loop {
            let Some(speaker) = &mut self.nodes[node].speaker else { return };
            let Some(action) = speaker.poll_action() else { break };
            match action {
                Action::Connect { peer, conn, .. } => {
                    self.post(Event::Dial { from: node, conn, to: peer }, (node, conn));
                }
                Action::Send { conn, bytes } => {
                    speaker.handle_sent(conn, bytes.len());
                    self.bytes_sent += bytes.len();
                    if let Some(to) = self.links.get(&(node, conn)).copied().filter(|to| !self.parted(node, to.0)) {
                        if self.whole {
                            let bytes =
                                if self.without_restart.contains(&node) { strip_restart(&bytes) } else { bytes };
                            self.post(Event::Bytes { to, bytes }, to);
                            continue;
                        }
                        let cut = self.dice.below(bytes.len() as u64 + 1) as usize;
                        let (head, tail) = bytes.split_at(cut);
                        self.post(Event::Bytes { to, bytes: head.to_vec() }, to);
                        self.post(Event::Bytes { to, bytes: tail.to_vec() }, to);
                    }
                }
                Action::Close { conn } => self.close((node, conn)),
            }
        }
        let Node { speaker: Some(speaker), table, withdrawn, fresh, swept, .. } = &mut self.nodes[node] else { return };
        while let Some(change) = speaker.poll_route_change() {
            match change.best {
                Some(best) => {
                    fresh.insert(change.prefix);
                    table.insert(change.prefix, best);
                }
                None => {
                    if table.remove(&change.prefix).is_some() {
                        withdrawn.insert(change.prefix);
                    }
                }
            }
        }
        if !*swept && speaker.initial_sync_done() {
            *swept = true;
            let old: Vec<IpNet> = table.keys().filter(|prefix| !fresh.contains(prefix)).copied().collect();
            for prefix in old {
                table.remove(&prefix);
                withdrawn.insert(prefix);
            }
        }
    }

    /// Runs until `until`.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self.due.first().copied();
            let next = [event, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= next) {
                let (_, event) = self.events.pop_first().expect("seen above");
                self.deliver(event);
            } else if let Some((_, node)) = timer {
                self.with(node, |speaker, now| speaker.handle_timeout(now));
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Dial { from, conn, to } => self.dial(from, conn, to),
            Event::Bytes { to, bytes } => {
                self.with(to.0, |speaker, now| speaker.handle_bytes(now, to.1, &bytes));
            }
            Event::Closed { to } => {
                self.with(to.0, |speaker, now| speaker.handle_closed(now, to.1));
            }
        }
    }

    fn dial(&mut self, from: usize, conn: ConnId, to: IpAddr) {
        if self.nodes[from].speaker.is_none() {
            return;
        }
        let node = node_of(to);
        if self.parted(from, node) {
            self.with(from, |speaker, now| speaker.handle_connect_failed(now, conn, ConnectError::TimedOut));
            return;
        }
        let accepted = self.nodes[node]
            .speaker
            .as_mut()
            .map(|speaker| speaker.handle_accepted(self.now, address(from), SocketAddr::new(to, 179)));
        match accepted {
            None => {
                self.with(from, |speaker, now| speaker.handle_connect_failed(now, conn, ConnectError::Refused));
            }
            Some(accepted) => {
                if let Some((_, theirs)) = accepted {
                    self.links.insert((from, conn), (node, theirs));
                    self.links.insert((node, theirs), (from, conn));
                }
                let local = SocketAddr::new(address(from), 40000);
                self.with(from, |speaker, now| speaker.handle_connected(now, conn, local));
                if accepted.is_none() {
                    self.post(Event::Closed { to: (from, conn) }, (from, conn));
                }
                self.drain(node);
            }
        }
    }

    pub fn all_established(&self) -> bool {
        self.nodes.iter().all(|node| {
            let peers = node.speaker.as_ref().map(Speaker::peers).unwrap_or_default();
            peers.len() == node.peers.len() && peers.iter().all(|peer| peer.state == PeerState::Established)
        })
    }

    /// Next hop of each learned prefix.
    pub fn next_hops(&self, node: usize) -> BTreeMap<IpNet, IpAddr> {
        self.nodes[node].table.iter().map(|(prefix, best)| (*prefix, best.next_hop)).collect()
    }

    /// What each node of a full mesh must hold: all blocks of all others.
    pub fn check_mesh(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let mut expected = BTreeMap::new();
            for (other, from) in self.nodes.iter().enumerate().filter(|(other, _)| *other != at) {
                expected.extend(from.routes.keys().map(|prefix| (*prefix, address(other))));
            }
            assert_eq!(self.next_hops(at), expected, "node {at}");
            let peers = node.speaker.as_ref().expect("runs").peers();
            for peer in peers {
                assert_eq!((peer.prefixes_received, peer.prefixes_sent), (2, 2), "node {at}, {peer:?}");
            }
        }
    }
}
