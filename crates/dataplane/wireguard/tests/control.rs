//! The text that a device's process is asked in: what is said is what is read, and nothing that is read breaks it.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use proptest::prelude::*;
use tortie_net::PublicKey;
use tortie_netlink::{PrivateKey, WireguardChange, WireguardPeer, WireguardPeerState, WireguardState};
use tortie_wireguard::{Asked, asked, parse_state, print_change, print_state};

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = (addr(), 0_u8..=32).prop_map(|(addr, length)| IpNet::new(addr, length).unwrap());
    prop::collection::vec(net, 0..5)
}

fn peer() -> impl Strategy<Value = WireguardPeer> {
    (addr(), any::<u16>(), nets(), any::<u16>()).prop_map(|(addr, port, nets, keepalive_secs)| WireguardPeer {
        endpoint: SocketAddr::new(addr, port),
        allowed: nets.into_iter().collect(),
        keepalive_secs,
    })
}

fn change() -> impl Strategy<Value = WireguardChange> {
    let peers = prop::collection::btree_map(any::<[u8; 32]>().prop_map(PublicKey), prop::option::of(peer()), 0..4);
    let own = (any::<Option<[u8; 32]>>(), any::<Option<u16>>(), any::<Option<u32>>());
    (own, peers).prop_map(|((key, port, mark), peers)| WireguardChange {
        private_key: key.map(PrivateKey::from_bytes),
        port,
        mark,
        peers,
    })
}

fn state() -> impl Strategy<Value = WireguardState> {
    let at = prop::option::of((0_u64..1 << 40, 0_u32..1_000_000_000));
    let peer = (peer(), at, any::<u64>(), any::<u64>()).prop_map(|(peer, at, rx_bytes, tx_bytes)| WireguardPeerState {
        endpoint: Some(peer.endpoint),
        allowed: peer.allowed,
        keepalive_secs: peer.keepalive_secs,
        last_handshake: at.map(|(secs, nanos)| SystemTime::UNIX_EPOCH + Duration::new(secs, nanos)),
        rx_bytes,
        tx_bytes,
    });
    let peers = prop::collection::btree_map(any::<[u8; 32]>().prop_map(PublicKey), peer, 0..4);
    (any::<Option<[u8; 32]>>(), any::<u16>(), any::<u32>(), peers).prop_map(|(key, port, mark, peers)| WireguardState {
        public_key: key.map(PublicKey),
        port,
        mark,
        peers,
    })
}

proptest! {
    #[test]
    fn a_change_arrives_as_it_was_said(change in change()) {
        let Ok(Asked::Change(read)) = asked(&print_change(&change)) else { panic!("no change") };
        prop_assert_eq!(read.private_key.map(|key| *key.bytes()), change.private_key.map(|key| *key.bytes()));
        prop_assert_eq!((read.port, read.mark, read.peers), (change.port, change.mark, change.peers));
    }

    #[test]
    fn a_state_arrives_as_it_is(state in state()) {
        prop_assert_eq!(parse_state(&print_state(&state)), Ok(state));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", change in change(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let _ = (asked(&text), parse_state(&text));
        let mut chars: Vec<char> = print_change(&change).chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        let text: String = chars.into_iter().collect();
        let _ = (asked(&text), parse_state(&text));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name_and_no_value_is_shown() {
    let key = "ab".repeat(32);
    for (text, named) in [
        ("set=1\nlisten_prot=5\n\n".to_owned(), "listen_prot"),
        ("set=1\nlisten_port=70000\n\n".to_owned(), "listen_port"),
        (format!("set=1\nprivate_key={key}00\n\n"), "private_key"),
        (format!("set=1\npublic_key={key}\nallowed_ip=10.0.0.0/33\n\n"), "allowed_ip"),
        (format!("set=1\npublic_key={key}\nendpoint=10.0.0.1:5\n\n"), "replace_allowed_ips"),
        ("got=1\n\n".to_owned(), "get=1"),
    ] {
        let error = asked(&text).unwrap_err();
        assert!(error.contains(named) && !error.contains(&key), "{error}");
    }
    assert_eq!(parse_state("errno=98\n\n"), Err(98));
    assert!(parse_state("listen_port=5\n").is_err(), "an answer that is cut off");
}
