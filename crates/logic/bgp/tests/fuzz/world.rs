//! A speaker between a hostile and a good peer, on a virtual clock.
//!
//! Whatever the hostile one does: nothing panics, the good one's session stays, all that either is sent can be read
//! without a fault, the good one holds exactly what the speaker says it told it, the counters agree with the routes, the
//! clock's next turn never lies in the past, and once the hostile one is gone for good nothing of it is left.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tortie_bgp::attribute::Attributes;
use tortie_bgp::attribute::parse::{Context, parse};
use tortie_bgp::message::capability::Capability;
use tortie_bgp::message::notification::Notification;
use tortie_bgp::message::open::Open;
use tortie_bgp::message::update::Update;
use tortie_bgp::message::{Kind, keepalive, split_frame};
use tortie_bgp::policy::tell_everything;
use tortie_bgp::{
    Action, AfiSafi, BfdPacket, ConnId, ConnectError, Families, LocalRoute, PeerConfig, PeerState, PeerStatus, Speaker,
    SpeakerConfig,
};
use tortie_net::{AsNumber, Family, IpNet};

use crate::script::{HOSTILE, Script, Step};

const US: [u8; 4] = [10, 0, 0, 1];
const GOOD: [u8; 4] = [10, 0, 0, 3];
const AS: AsNumber = AsNumber(64512);
/// Turns of the clock in one wait; what is left of the time then passes at once, as if the process had slept.
const MOST_TURNS: usize = 40;
/// Longer than a stale route may live: hold times, restart times, and the 24 bits of long-lived restart.
const LONG: Duration = Duration::from_secs(20_000_000);

/// Bits of `Script::setup`.
mod setup {
    pub const EXTERNAL: u32 = 1;
    pub const RESTARTING: u32 = 2;
    pub const LONG_LIVED: u32 = 4;
    pub const LIMIT: u32 = 8;
    pub const POSES: u32 = 16;
    pub const CLIENT: u32 = 32;
    pub const PASSIVE: u32 = 64;
}

struct World {
    speaker: Speaker,
    now: Instant,
    /// Connections of the hostile peer, oldest first.
    hostile: Vec<ConnId>,
    good: ConnId,
    /// Bytes to the good peer that were not read yet.
    to_good: Vec<u8>,
    /// What the good peer holds.
    holds: BTreeMap<IpNet, Attributes>,
    /// What was to be seen: each event, and each with the one before it.
    events: BTreeSet<u64>,
    last: u64,
}

/// Runs a script; returns numbers that stand for what was to be seen.
pub fn run(script: &Script) -> BTreeSet<u64> {
    let mut world = World::new(script.setup);
    for step in &script.steps {
        world.step(step);
        world.check();
    }
    world.leave();
    world.events
}

impl World {
    fn new(bits: u32) -> World {
        let now = Instant::now();
        let has = |bit| bits & bit != 0;
        let restarting = has(setup::RESTARTING);
        let mut speaker = Speaker::new(SpeakerConfig { restarting, ..SpeakerConfig::new(US.into(), AS) }, now);
        speaker.set_policy(tell_everything());
        let own =
            ["192.168.77.0/26", "fd00:77::/64"].map(|net| (net.parse().expect("a literal"), LocalRoute::default()));
        speaker.set_local_routes(now, own.into());
        let peer = |address: [u8; 4], asn| PeerConfig {
            families: Families::ALL,
            next_hop_v6: Some("fd00::1".parse().expect("a literal")),
            ..PeerConfig::new(address.into(), asn)
        };
        let hostile = PeerConfig {
            long_lived_secs: if has(setup::LONG_LIVED) { 3600 } else { 0 },
            max_prefixes: has(setup::LIMIT).then_some(5),
            local_as: has(setup::POSES).then_some(AsNumber(65_100)),
            reflector_cluster: has(setup::CLIENT).then_some([1, 1, 1, 1].into()),
            passive: has(setup::PASSIVE),
            ..peer(HOSTILE, if has(setup::EXTERNAL) { AsNumber(65_001) } else { AS })
        };
        let good = PeerConfig { reflector_cluster: Some([1, 1, 1, 1].into()), passive: true, ..peer(GOOD, AS) };
        let peers = BTreeMap::from([(IpAddr::from(HOSTILE), hostile), (IpAddr::from(GOOD), good)]);
        speaker.set_peers(now, peers);
        let (_, good) = speaker.handle_accepted(now, GOOD.into(), local()).expect("it is configured");
        let capabilities = Family::ALL.map(|family| Capability::Multiprotocol(AfiSafi::unicast(family)));
        let capabilities = [capabilities.to_vec(), vec![Capability::FourByteAs(AS)]].concat();
        // Without a hold time the good peer may stay silent.
        let open = Open { asn: AS, hold_time_secs: 0, router_id: GOOD.into(), capabilities };
        speaker.handle_bytes(now, good, &[open.encode(), keepalive()].concat());
        let mut world = World {
            speaker,
            now,
            hostile: Vec::new(),
            good,
            to_good: Vec::new(),
            holds: BTreeMap::new(),
            events: BTreeSet::new(),
            last: 0,
        };
        world.act();
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Bytes(bytes) => {
                read_alone(bytes);
                if self.hostile.is_empty() {
                    self.dial();
                }
                // Cut in three, so that messages come in parts.
                let Some(conn) = self.hostile.last().copied() else { return };
                for part in bytes.chunks(bytes.len() / 3 + 1) {
                    self.speaker.handle_bytes(self.now, conn, part);
                }
            }
            Step::Dial => self.dial(),
            Step::Close => {
                if let Some(conn) = self.hostile.pop() {
                    self.speaker.handle_closed(self.now, conn);
                }
            }
            Step::Wait(millis) => self.wait(Duration::from_millis(u64::from(*millis))),
        }
        self.act();
    }

    fn dial(&mut self) {
        if let Some((peer, conn)) = self.speaker.handle_accepted(self.now, HOSTILE.into(), local()) {
            assert_eq!(peer, IpAddr::from(HOSTILE));
            self.hostile.push(conn);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MOST_TURNS {
            self.act();
            let due = self.speaker.poll_timeout().filter(|at| *at < end);
            assert!(due.is_none_or(|at| at >= self.now), "a turn of the clock lies in the past");
            self.turn(due.unwrap_or(end));
            if due.is_none() {
                return;
            }
        }
        self.turn(end);
    }

    fn turn(&mut self, now: Instant) {
        self.now = now;
        self.speaker.handle_timeout(now);
        self.act();
        assert!(self.speaker.poll_timeout().is_none_or(|at| at > now), "a timer that never goes off");
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll_action() {
            match action {
                Action::Connect { peer, conn, .. } => {
                    assert_eq!(peer, IpAddr::from(HOSTILE), "the good peer dials itself");
                    self.speaker.handle_connect_failed(self.now, conn, ConnectError::Refused);
                }
                Action::Send { conn, bytes } => {
                    self.speaker.handle_sent(conn, bytes.len());
                    if conn == self.good {
                        self.to_good.extend(bytes);
                    } else {
                        self.sent_to_hostile(&bytes);
                    }
                }
                Action::Close { conn } => {
                    assert_ne!(conn, self.good, "the good peer's session stays");
                    self.hostile.retain(|other| *other != conn);
                }
            }
        }
        while self.speaker.poll_route_change().is_some() {}
        let bytes = std::mem::take(&mut self.to_good);
        read(&bytes, |update| hold(&mut self.holds, update));
    }

    fn sent_to_hostile(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((frame, used)) = split_frame(rest).expect("what we send has a good header") {
            if frame.kind == Kind::Notification {
                let told = Notification::parse(frame.body).expect("what we send can be read");
                self.event(&told.to_string());
            }
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "whole messages");
        // The hostile peer may be one of two-byte numbers, so only the frames are looked at.
    }

    fn status(&self, address: [u8; 4]) -> PeerStatus {
        let all = self.speaker.peers();
        all.into_iter().find(|peer| peer.address == IpAddr::from(address)).expect("it is configured")
    }

    fn check(&mut self) {
        assert_eq!(self.status(GOOD).state, PeerState::Established);
        let told = self.speaker.told(GOOD.into()).expect("it is configured");
        let names: BTreeSet<IpNet> = told.iter().map(|told| told.prefix).collect();
        assert_eq!(self.holds.keys().copied().collect::<BTreeSet<_>>(), names, "the good peer holds what it was told");
        for told in told {
            if let Some(attributes) = told.attributes {
                assert_eq!(self.holds[&told.prefix], *attributes, "{}", told.prefix);
            }
        }
        let hostile = self.status(HOSTILE);
        let seen = self.speaker.seen(HOSTILE.into()).expect("it is configured");
        assert_eq!(hostile.prefixes_received, seen.len());
        assert_eq!(self.speaker.prefix_count(), 2 + seen.iter().filter(|one| !is_own(one.prefix)).count());
        let session = hostile.negotiated.as_ref().map(|session| {
            let restart = session.graceful_restart.as_ref().map(|restart| (restart.restarted, restart.listed()));
            let more = (session.long_lived_secs != [0; 2], session.hold_time.is_zero());
            (session.families, session.four_byte_as, session.enhanced_refresh, session.route_refresh, restart, more)
        });
        self.event(&format!("{:?} {} {session:?}", hostile.state, hostile.keeps_stale));
        self.event(&hostile.info());
        self.event(&hostile.last_fault.unwrap_or_default());
        let stale = seen.iter().filter(|route| route.stale).count();
        self.event(if seen.is_empty() { "no route" } else { ["fresh routes", "stale routes"][usize::from(stale > 0)] });
    }

    /// Something was to be seen; numbers in it don't count.
    fn event(&mut self, text: &str) {
        let number = |number: (u64, &str)| {
            let mut hasher = DefaultHasher::new();
            number.hash(&mut hasher);
            hasher.finish()
        };
        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let alone = number((0, &text));
        self.events.extend([alone, number((self.last, &text))]);
        self.last = alone;
    }

    /// The hostile peer goes for good.
    fn leave(&mut self) {
        for conn in std::mem::take(&mut self.hostile) {
            self.speaker.handle_closed(self.now, conn);
        }
        self.act();
        // A deadline may follow another.
        for _ in 0..3 {
            self.turn(self.now + LONG);
        }
        assert!(self.speaker.seen(HOSTILE.into()).is_some_and(|seen| seen.is_empty()), "no stale route lives for ever");
        assert_eq!(self.speaker.prefix_count(), 2, "nothing is left of it");
    }
}

fn is_own(prefix: IpNet) -> bool {
    ["192.168.77.0/26", "fd00:77::/64"].iter().any(|own| prefix.to_string() == *own)
}

fn local() -> SocketAddr {
    SocketAddr::from((US, 179))
}

/// The codec by itself, for bytes that no session would let through.
fn read_alone(bytes: &[u8]) {
    let _ = BfdPacket::parse(bytes);
    for body in [bytes, bytes.get(19..).unwrap_or_default()] {
        let _ = Open::parse(body).map(|open| Open::parse(&open.encode()[19..]));
        let _ = Notification::parse(body).map(|notification| notification.to_string());
        let _ = Update::split(body).map(|update| update.withdrawn.count() + update.announced.count());
        for (as4, external) in [(true, false), (false, true)] {
            let _ = parse(body, Context { as4, external });
        }
    }
}

/// Reads messages to the good peer, which must be whole and without a fault.
fn read(mut bytes: &[u8], mut take: impl FnMut(&Update<'_>)) {
    while let Some((frame, used)) = split_frame(bytes).expect("what we send has a good header") {
        match frame.kind {
            Kind::Update => take(&Update::split(frame.body).expect("what we send can be read")),
            Kind::Notification => panic!("the good peer's session ends: {:?}", Notification::parse(frame.body)),
            Kind::Open | Kind::Keepalive | Kind::RouteRefresh => {}
        }
        bytes = &bytes[used..];
    }
    assert!(bytes.is_empty(), "whole messages");
}

fn hold(holds: &mut BTreeMap<IpNet, Attributes>, update: &Update<'_>) {
    for prefix in update.withdrawn {
        holds.remove(&prefix);
    }
    let parsed = parse(update.attributes, Context { as4: true, external: false }).expect("what we send can be read");
    for prefix in parsed.unreach.into_iter().flatten() {
        holds.remove(&prefix);
    }
    if let Some(reach) = parsed.reach {
        assert_eq!(parsed.announce_fault(false), None);
        for prefix in reach.prefixes {
            holds.insert(prefix, Attributes { next_hop: reach.next_hop, ..parsed.attributes.clone() });
        }
    }
    if !update.announced.is_empty() {
        assert_eq!(parsed.announce_fault(true), None);
        let next_hop = IpAddr::V4(parsed.next_hop.expect("no fault"));
        for prefix in update.announced {
            holds.insert(prefix, Attributes { next_hop, ..parsed.attributes.clone() });
        }
    }
}
