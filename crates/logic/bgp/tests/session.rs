//! One speaker against a scripted peer: the session table, RFC 7606, back-pressure, refresh, collision.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tortie_bgp::attribute::Attributes;
use tortie_bgp::message::capability::{Capability, GracefulRestart};
use tortie_bgp::message::notification::Notification;
use tortie_bgp::message::open::Open;
use tortie_bgp::message::update::{Update, encode_announcements, end_of_rib};
use tortie_bgp::message::{Kind, keepalive, route_refresh, split_frame};
use tortie_bgp::policy::tell_everything;
use tortie_bgp::{
    Action, AfiSafi, ConnId, ConnectError, Families, LocalRoute, PeerConfig, PeerState, Speaker, SpeakerConfig,
};
use tortie_net::{AsNumber, Family, IpNet};

const US: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];

struct Bench {
    speaker: Speaker,
    now: Instant,
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn open(router_id: [u8; 4]) -> Open {
    let v4 = AfiSafi::unicast(Family::V4);
    let restart = GracefulRestart { restarted: false, restart_time_secs: 60, families: vec![(v4, true)] };
    Open {
        asn: AsNumber(64512),
        hold_time_secs: 90,
        router_id: router_id.into(),
        capabilities: vec![
            Capability::Multiprotocol(v4),
            Capability::RouteRefresh,
            Capability::GracefulRestart(restart),
            Capability::FourByteAs(AsNumber(64512)),
        ],
    }
}

impl Bench {
    fn new(routes: usize) -> Bench {
        let now = Instant::now();
        let mut speaker = Speaker::new(SpeakerConfig::new(US.into(), AsNumber(64512)), now);
        speaker.set_policy(tell_everything());
        let block = |at: usize| net(&format!("10.{}.{}.0/24", 64 + (at >> 8), at & 255));
        speaker.set_local_routes(now, (0..routes).map(|at| (block(at), LocalRoute::default())).collect());
        let config = PeerConfig::new(PEER.into(), AsNumber(64512));
        speaker.set_peers(now, BTreeMap::from([(IpAddr::from(PEER), config)]));
        Bench { speaker, now }
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.speaker.poll_action()).collect()
    }

    /// What was sent on a connection, as kinds of messages; reported as written.
    fn sent(&mut self, conn: ConnId) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while let Some(action) = self.speaker.poll_action() {
            if let Action::Send { conn: to, bytes } = action {
                self.speaker.handle_sent(to, bytes.len());
                if to == conn {
                    kinds.extend(frames(&bytes).into_iter().map(|(kind, _)| kind));
                }
            }
        }
        kinds
    }

    fn local() -> SocketAddr {
        SocketAddr::from((US, 179))
    }

    fn accept(&mut self) -> ConnId {
        self.speaker.handle_accepted(self.now, PEER.into(), Bench::local()).expect("a known peer").1
    }

    fn dialled(&mut self) -> ConnId {
        let conn = self.actions().into_iter().find_map(|action| match action {
            Action::Connect { conn, .. } => Some(conn),
            Action::Send { .. } | Action::Close { .. } => None,
        });
        conn.expect("a dial")
    }

    fn bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.speaker.handle_bytes(self.now, conn, bytes);
    }

    fn up(&mut self) -> ConnId {
        let conn = self.accept();
        self.bytes(conn, &[open(PEER).encode(), keepalive()].concat());
        assert_eq!(self.state(), PeerState::Established);
        conn
    }

    fn state(&self) -> PeerState {
        self.speaker.peers()[0].state
    }

    fn info(&self) -> String {
        self.speaker.peers()[0].info()
    }

    fn received(&self) -> usize {
        self.speaker.peers()[0].prefixes_received
    }
}

fn frames(mut bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((frame, used)) = split_frame(bytes).expect("valid") {
        all.push((frame.kind, frame.body.to_vec()));
        bytes = &bytes[used..];
    }
    all
}

fn announce(prefixes: &[IpNet]) -> Vec<u8> {
    let attributes = Attributes { next_hop: PEER.into(), local_pref: Some(100), ..Attributes::default() };
    let mut bytes = Vec::new();
    assert!(encode_announcements(Family::V4, &attributes, prefixes, true, &mut bytes));
    bytes
}

#[test]
fn open_goes_out_at_once_and_routes_follow_the_keepalive() {
    let mut bench = Bench::new(2);
    let dial = bench.dialled();
    bench.speaker.handle_connected(bench.now, dial, Bench::local());
    assert_eq!(bench.sent(dial), [Kind::Open]);
    bench.bytes(dial, &open(PEER).encode());
    assert_eq!(bench.sent(dial), [Kind::Keepalive]);
    bench.bytes(dial, &keepalive());
    assert_eq!(bench.sent(dial), [Kind::Update, Kind::Update], "one UPDATE for both prefixes, then End-of-RIB");
    assert_eq!(bench.info(), "Established");
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let mut bench = Bench::new(0);
    let conn = bench.accept();
    let stream = [open(PEER).encode(), keepalive(), announce(&[net("192.168.0.0/24"), net("192.168.1.0/24")])].concat();
    for byte in stream {
        bench.bytes(conn, &[byte]);
    }
    assert_eq!(bench.received(), 2);
}

#[test]
fn each_state_refuses_what_does_not_belong() {
    let table = [
        (vec![keepalive()], Notification::UNEXPECTED_IN_OPEN_SENT),
        (vec![announce(&[net("10.0.0.0/8")])], Notification::UNEXPECTED_IN_OPEN_SENT),
        (vec![open(PEER).encode(), open(PEER).encode()], Notification::UNEXPECTED_IN_OPEN_CONFIRM),
        (vec![open(PEER).encode(), announce(&[net("10.0.0.0/8")])], Notification::UNEXPECTED_IN_OPEN_CONFIRM),
        (vec![open(PEER).encode(), keepalive(), open(PEER).encode()], Notification::UNEXPECTED_IN_ESTABLISHED),
        (vec![vec![0; 19]], Notification::CONNECTION_NOT_SYNCHRONIZED),
        (vec![Open { asn: AsNumber(1), capabilities: vec![], ..open(PEER) }.encode()], Notification::BAD_PEER_AS),
        (vec![open(US).encode()], Notification::BAD_BGP_IDENTIFIER),
    ];
    for (stream, expected) in table {
        let mut bench = Bench::new(0);
        let conn = bench.accept();
        bench.actions();
        bench.bytes(conn, &stream.concat());
        let actions = bench.actions();
        let sent = actions.iter().rev().find_map(|action| match action {
            Action::Send { bytes, .. } => Some(bytes.clone()),
            Action::Connect { .. } | Action::Close { .. } => None,
        });
        assert_eq!(sent, Some(expected.encode()), "{expected}");
        assert_eq!(actions.last(), Some(&Action::Close { conn }));
        let info = bench.info();
        assert!(info.ends_with(&format!(" BGP Error: {expected}")), "{info}");
    }
}

#[test]
fn a_failed_dial_is_told_in_birds_words() {
    let table = [
        (ConnectError::Refused, "Active Socket: Connection refused"),
        (ConnectError::NoRoute, "Active Socket: No route to host"),
        (ConnectError::Other("Permission denied".to_owned()), "Active Socket: Permission denied"),
    ];
    for (error, expected) in table {
        let mut bench = Bench::new(0);
        let dial = bench.dialled();
        bench.speaker.handle_connect_failed(bench.now, dial, error);
        assert_eq!(bench.info(), expected);
        assert_eq!(bench.speaker.peers()[0].word(), "start");
        let retry = bench.speaker.poll_timeout().expect("a retry") - bench.now;
        assert!((Duration::from_millis(100)..=Duration::from_millis(200)).contains(&retry), "{retry:?}");
    }
}

/// RFC 7606: the session stays, the routes of the broken UPDATE go.
#[test]
fn a_broken_attribute_withdraws_and_keeps_the_session() {
    let mut bench = Bench::new(0);
    let conn = bench.up();
    let prefixes = [net("192.168.0.0/24"), net("192.168.1.0/24")];
    let good = announce(&prefixes);
    bench.bytes(conn, &good);
    assert_eq!(bench.received(), 2);
    for byte in 0..good.len() {
        let (frame, _) = split_frame(&good).expect("valid").expect("whole");
        let update = Update::split(frame.body).expect("parts");
        let first = 19 + 4;
        if !(first..first + update.attributes.len()).contains(&byte) {
            continue;
        }
        for value in [0, 1, 2, 13, 32, 77, 200, 255] {
            let mut bad = good.clone();
            bad[byte] = value;
            bench.bytes(conn, &bad);
            assert_eq!(bench.state(), PeerState::Established, "byte {byte} = {value}");
            bench.bytes(conn, &good);
            assert_eq!(bench.received(), 2);
        }
    }
    let status = bench.speaker.peers().remove(0);
    assert!(status.faulty_updates > 10, "{}", status.faulty_updates);
    assert!(status.last_fault.is_some_and(|fault| fault.contains("RFC 7606")));
    // Prefixes that cannot be told apart do end the session.
    bench.bytes(conn, &[&[0xff; 16][..], &[0, 24, 2, 0, 9, 0, 0, 0][..]].concat());
    assert!(bench.info().ends_with("BGP Error: Malformed attribute list"), "{}", bench.info());
}

/// RFC 7606 section 3: routes in an attribute with wrong flags count as withdrawn; if they can't be read, that is the end.
#[test]
fn routes_in_an_attribute_with_wrong_flags_are_withdrawn() {
    let update = |flags: u8, code: u8, head: &[u8], prefix: &[u8]| {
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
        attributes.extend([flags, code, (head.len() + prefix.len()) as u8]);
        attributes.extend([head, prefix].concat());
        let body = [&[0, 0, 0, attributes.len() as u8][..], &attributes].concat();
        [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2], &body].concat()
    };
    let next_hop = "fd00::2".parse::<std::net::Ipv6Addr>().expect("a literal").octets();
    let reach = [&[0, 2, 1, 16][..], &next_hop, &[0]].concat();
    let prefix = [32, 0x20, 0x01, 0x0d, 0xb8];
    for (code, head) in [(14, &reach[..]), (15, &[0, 2, 1][..])] {
        for flags in [0x00, 0x40, 0xc0] {
            let mut bench = Bench::new(0);
            let config = PeerConfig { families: Families::ALL, ..PeerConfig::new(PEER.into(), AsNumber(64512)) };
            bench.speaker.set_peers(bench.now, BTreeMap::from([(IpAddr::from(PEER), config)]));
            let conn = bench.accept();
            let mut both = open(PEER);
            both.capabilities.push(Capability::Multiprotocol(AfiSafi::unicast(Family::V6)));
            bench.bytes(conn, &[both.encode(), keepalive()].concat());
            bench.bytes(conn, &update(0x80, 14, &reach, &prefix));
            assert_eq!(bench.received(), 1);
            bench.bytes(conn, &update(flags, code, head, &prefix));
            assert_eq!((bench.received(), bench.state()), (0, PeerState::Established), "{code} {flags:x}");
            bench.bytes(conn, &update(flags, code, head, &[129]));
            assert!(bench.info().ends_with("BGP Error: Optional attribute error"), "{}", bench.info());
        }
    }
}

#[test]
fn a_slow_peer_holds_back_updates_not_memory() {
    let mut bench = Bench::new(40_000);
    bench.up();
    let taken: usize = bench
        .actions()
        .iter()
        .map(|action| if let Action::Send { bytes, .. } = action { bytes.len() } else { 0 })
        .sum();
    assert!(taken < 40_000 * 5, "40,000 routes take little more than four bytes each: {taken}");
    let mut bench = Bench::new(40_000);
    let config = PeerConfig {
        families: Families::ALL,
        next_hop_v6: Some("fd00::1".parse().expect("literal")),
        ..PeerConfig::new(PEER.into(), AsNumber(64512))
    };
    bench.speaker.set_peers(bench.now, BTreeMap::from([(IpAddr::from(PEER), config)]));
    let routes: Vec<IpNet> = (0..60_000_u128)
        .map(|at| IpNet::new(IpAddr::V6((0xfd01 << 112 | at << 48).into()), 80).expect("valid"))
        .collect();
    bench.speaker.set_local_routes(bench.now, routes.iter().map(|prefix| (*prefix, LocalRoute::default())).collect());
    let conn = bench.accept();
    let mut both = open(PEER);
    both.capabilities.push(Capability::Multiprotocol(AfiSafi::unicast(Family::V6)));
    bench.bytes(conn, &[both.encode(), keepalive()].concat());
    let mut unwritten: usize = 0;
    let mut total = 0;
    for _ in 0..1000 {
        for action in bench.actions() {
            if let Action::Send { bytes, .. } = action {
                unwritten += bytes.len();
                total += bytes.len();
            }
        }
        assert!(unwritten <= 400_000, "{unwritten} bytes wait");
        bench.speaker.handle_sent(conn, unwritten.min(5000));
        unwritten -= unwritten.min(5000);
    }
    assert!(total > 60_000 * 11, "in the end all are sent: {total}");
}

#[test]
fn a_refresh_repeats_all_routes() {
    let mut bench = Bench::new(3);
    let conn = bench.up();
    bench.sent(conn);
    bench.bytes(conn, &route_refresh::encode(AfiSafi::unicast(Family::V6)));
    assert_eq!(bench.sent(conn), [], "a family that was not negotiated");
    bench.bytes(conn, &route_refresh::encode(AfiSafi::unicast(Family::V4)));
    assert_eq!(bench.sent(conn), [Kind::Update]);
}

/// RFC 4271 section 6.8: the connection dialled by the router with the higher id stays.
#[test]
fn of_two_connections_the_higher_ids_stays() {
    for (remote_id, inbound_stays) in [([10, 0, 0, 9], true), ([9, 0, 0, 9], false)] {
        for inbound_first in [true, false] {
            let mut bench = Bench::new(0);
            let outbound = bench.dialled();
            let inbound = bench.accept();
            bench.speaker.handle_connected(bench.now, outbound, Bench::local());
            let order = if inbound_first { [inbound, outbound] } else { [outbound, inbound] };
            for conn in order {
                bench.bytes(conn, &open(remote_id).encode());
            }
            let (winner, loser) = if inbound_stays { (inbound, outbound) } else { (outbound, inbound) };
            let actions = bench.actions();
            assert!(actions.contains(&Action::Send { conn: loser, bytes: Notification::COLLISION.encode() }));
            assert!(actions.contains(&Action::Close { conn: loser }));
            assert!(actions.contains(&Action::Send { conn: winner, bytes: keepalive() }));
            bench.bytes(winner, &keepalive());
            assert_eq!(bench.state(), PeerState::Established);
        }
    }
}

/// The peer died and is back before we noticed: its new connection replaces the old one, its routes stay.
#[test]
fn a_confirmed_new_connection_replaces_an_established_one() {
    let mut bench = Bench::new(1);
    let old = bench.up();
    bench.bytes(old, &announce(&[net("192.168.0.0/24")]));
    bench.sent(old);
    let new = bench.accept();
    bench.bytes(new, &open(PEER).encode());
    assert_eq!(bench.sent(new), [Kind::Open], "held: not confirmed by us");
    assert_eq!(bench.state(), PeerState::Established);
    bench.bytes(new, &keepalive());
    let status = bench.speaker.peers().remove(0);
    assert!(status.state == PeerState::Established && status.keeps_stale && status.prefixes_received == 1);
    let actions = bench.actions();
    assert!(actions.contains(&Action::Close { conn: old }));
    assert!(actions.contains(&Action::Send { conn: new, bytes: keepalive() }));
    let mut marker = Vec::new();
    end_of_rib(Family::V4, &mut marker);
    bench.bytes(new, &marker);
    assert_eq!(bench.received(), 0, "not repeated before End-of-RIB: gone");
}

#[test]
fn a_held_connection_goes_on_when_the_old_one_is_closed() {
    let mut bench = Bench::new(0);
    let old = bench.up();
    let new = bench.accept();
    bench.bytes(new, &open(PEER).encode());
    bench.actions();
    bench.speaker.handle_closed(bench.now, old);
    assert_eq!(bench.sent(new), [Kind::Keepalive]);
    bench.bytes(new, &keepalive());
    assert_eq!(bench.state(), PeerState::Established);
}

#[test]
fn looped_and_own_routes_are_refused() {
    let mut bench = Bench::new(0);
    let conn = bench.up();
    let ours = Attributes { next_hop: US.into(), ..Attributes::default() };
    let originated = Attributes { next_hop: PEER.into(), originator_id: Some(Ipv4Addr::from(US)), ..ours.clone() };
    let path = tortie_bgp::attribute::AsPath::sequence(&[AsNumber(7), AsNumber(64512)]);
    let looped = Attributes { next_hop: PEER.into(), as_path: path, ..ours.clone() };
    for attributes in [ours, originated, looped] {
        bench.bytes(conn, &announce(&[net("10.9.0.0/16")]));
        assert_eq!(bench.received(), 1);
        let mut bytes = Vec::new();
        encode_announcements(Family::V4, &attributes, &[net("10.9.0.0/16")], true, &mut bytes);
        bench.bytes(conn, &bytes);
        assert_eq!(bench.received(), 0, "{attributes:?}");
    }
}

/// What counts as a loop changes, and the peer tells the same again.
#[test]
fn a_list_that_was_fine_once_may_be_a_loop_now() {
    let mut bench = Bench::new(0);
    let config = PeerConfig { allowed_local_as: 1, ..PeerConfig::new(PEER.into(), AsNumber(64512)) };
    let before = BTreeMap::from([(IpAddr::from(PEER), config.clone())]);
    bench.speaker.set_peers(bench.now, before.clone());
    let conn = bench.up();
    let path = tortie_bgp::attribute::AsPath::sequence(&[AsNumber(7), AsNumber(64512)]);
    let attributes = Attributes { next_hop: PEER.into(), local_pref: Some(100), ..Attributes::default() };
    let other = IpAddr::from([10, 0, 0, 3]);
    let client = PeerConfig { reflector_cluster: Some([1, 1, 1, 1].into()), ..PeerConfig::new(other, AsNumber(64512)) };
    let less = PeerConfig { allowed_local_as: 0, ..config };
    for (attributes, peers) in [
        (Attributes { as_path: path, ..attributes.clone() }, BTreeMap::from([(IpAddr::from(PEER), less)])),
        (
            Attributes { cluster_list: [0x0101_0101].into(), ..attributes },
            before.clone().into_iter().chain([(other, client)]).collect(),
        ),
    ] {
        let mut bytes = Vec::new();
        encode_announcements(Family::V4, &attributes, &[net("10.9.0.0/16")], true, &mut bytes);
        bench.bytes(conn, &bytes);
        assert_eq!(bench.received(), 1);
        bench.speaker.set_peers(bench.now, peers);
        bench.bytes(conn, &bytes);
        assert_eq!((bench.received(), bench.state()), (0, PeerState::Established), "{attributes:?}");
        bench.speaker.set_peers(bench.now, before.clone());
    }
}

#[test]
fn since_counts_from_up_or_down_not_from_attempts() {
    let mut bench = Bench::new(0);
    let start = bench.now;
    bench.now += Duration::from_secs(3);
    let dial = bench.dialled();
    bench.speaker.handle_connect_failed(bench.now, dial, ConnectError::Refused);
    assert_eq!(bench.speaker.peers()[0].since, start);
    let conn = bench.up();
    assert_eq!(bench.speaker.peers()[0].since, bench.now);
    bench.now += Duration::from_secs(3);
    bench.speaker.handle_closed(bench.now, conn);
    assert_eq!(bench.speaker.peers()[0].since, bench.now);
}
