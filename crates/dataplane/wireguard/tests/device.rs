//! Devices without files: what one seals the other opens, and nobody else's packets get in.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;
use tortie_net::PublicKey;
use tortie_netlink::{PrivateKey, WireguardChange, WireguardPeer};
use tortie_wireguard::{Device, Output};

/// What a device sent.
#[derive(Default)]
struct Sent {
    network: Vec<(SocketAddr, Vec<u8>)>,
    tunnel: Vec<Vec<u8>>,
}

impl Output for Sent {
    fn network(&mut self, to: SocketAddr, packet: &[u8]) {
        self.network.push((to, packet.to_vec()));
    }

    fn tunnel(&mut self, packet: &[u8]) {
        self.tunnel.push(packet.to_vec());
    }
}

struct Node {
    device: Device,
    place: SocketAddr,
    key: PublicKey,
}

impl Node {
    fn new(number: u8) -> Node {
        let mut device = Device::new(u32::from(number) * 7);
        let private_key = Some(PrivateKey::generate().unwrap());
        let change = WireguardChange { private_key, port: Some(51820), mark: Some(5), ..WireguardChange::default() };
        device.change(&change);
        let key = device.state().public_key.unwrap();
        Node { device, place: SocketAddr::from(([10, 0, 0, number], 51820)), key }
    }

    fn knows(&mut self, other: &Node, net: &str) {
        let allowed = [net.parse::<IpNet>().unwrap()].into();
        let peer = WireguardPeer { endpoint: other.place, allowed, keepalive_secs: 0 };
        let peers = [(other.key, Some(peer))].into();
        self.device.change(&WireguardChange { peers, ..WireguardChange::default() });
    }
}

/// An IPv4 packet.
fn packet(from: &str, to: &str, text: &[u8]) -> Vec<u8> {
    let octets = |addr: &str| match addr.parse::<IpAddr>().unwrap() {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("IPv4"),
    };
    let length = u16::try_from(20 + text.len()).unwrap().to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0];
    [&head[..], &octets(from), &octets(to), text].concat()
}

/// Carries packets between nodes until nobody has any; what came out of each one's tunnel, and everything that was on
/// the way.
fn carry(nodes: &mut [Node], mut out: Vec<Sent>) -> (Vec<Vec<Vec<u8>>>, Vec<(SocketAddr, Vec<u8>)>) {
    let mut arrived = vec![Vec::new(); nodes.len()];
    let mut wire = Vec::new();
    while out.iter().any(|sent| !sent.network.is_empty() || !sent.tunnel.is_empty()) {
        let mut next: Vec<Sent> = nodes.iter().map(|_| Sent::default()).collect();
        for (at, sent) in out.into_iter().enumerate() {
            arrived[at].extend(sent.tunnel);
            let from = nodes[at].place;
            for (to, bytes) in sent.network {
                wire.push((from, bytes.clone()));
                if let Some(receiver) = nodes.iter().position(|node| node.place == to) {
                    nodes[receiver].device.from_network(from, &bytes, &mut next[receiver]);
                }
            }
        }
        out = next;
    }
    (arrived, wire)
}

fn send(nodes: &mut [Node], from: usize, packets: &[Vec<u8>]) -> (Vec<Vec<Vec<u8>>>, Vec<(SocketAddr, Vec<u8>)>) {
    let mut out: Vec<Sent> = nodes.iter().map(|_| Sent::default()).collect();
    packets.iter().for_each(|packet| nodes[from].device.from_tunnel(packet, &mut out[from]));
    carry(nodes, out)
}

/// Two nodes with a prefix each.
fn pair() -> Vec<Node> {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.knows(&b, "192.168.2.0/24");
    b.knows(&a, "192.168.1.0/24");
    vec![a, b]
}

#[test]
fn packets_that_wait_for_the_handshake_arrive_and_answers_too() {
    let mut nodes = pair();
    let there: Vec<_> = (0..5).map(|n| packet("192.168.1.1", "192.168.2.1", &[n; 100])).collect();
    let (arrived, wire) = send(&mut nodes, 0, &there);
    assert_eq!(arrived[1], there);
    assert!(wire.iter().all(|(_, bytes)| (1..=4).contains(&bytes[0]) && !bytes.windows(100).any(|w| w == [3; 100])));
    let back = packet("192.168.2.1", "192.168.1.1", b"back");
    assert_eq!(send(&mut nodes, 1, std::slice::from_ref(&back)).0[0], [back]);
    // Before the clock is looked at again, too.
    for (node, other) in [(0, 1), (1, 0)] {
        let state = nodes[node].device.state();
        let peer = &state.peers[&nodes[other].key];
        assert!(peer.last_handshake.is_some() && peer.rx_bytes > 0 && peer.tx_bytes > 0, "{peer:?}");
        assert_eq!((state.port, state.mark), (51820, 5));
    }
}

#[test]
fn handshakes_that_cross_end_in_a_session() {
    let mut nodes = pair();
    let mut out = vec![Sent::default(), Sent::default()];
    let (there, back) = (packet("192.168.1.1", "192.168.2.1", b"there"), packet("192.168.2.1", "192.168.1.1", b"back"));
    nodes[0].device.from_tunnel(&there, &mut out[0]);
    nodes[1].device.from_tunnel(&back, &mut out[1]);
    let (mut arrived, _) = carry(&mut nodes, out);
    // What did not arrive at once does with the next packet.
    for (from, packet) in [(0, &there), (1, &back)] {
        let more = send(&mut nodes, from, std::slice::from_ref(packet)).0;
        arrived.iter_mut().zip(more).for_each(|(all, more)| all.extend(more));
    }
    assert!(arrived[1].contains(&there) && arrived[0].contains(&back), "{arrived:?}");
}

#[test]
fn what_belongs_to_nobody_or_claims_anothers_source_is_dropped() {
    let mut nodes = pair();
    let mut third = Node::new(3);
    third.knows(&nodes[0], "192.168.1.0/24");
    nodes[0].knows(&third, "192.168.3.0/24");
    nodes.push(third);
    assert_eq!(send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.9.1", b"nobody")]).1, []);
    // The third node has the key of its own prefix, and says that it is the second.
    let (arrived, wire) = send(&mut nodes, 2, &[packet("192.168.2.1", "192.168.1.1", b"not mine")]);
    assert!(arrived.iter().all(Vec::is_empty) && wire.iter().any(|(_, bytes)| bytes[0] == 4));
    let own = packet("192.168.3.1", "192.168.1.1", b"mine");
    assert_eq!(send(&mut nodes, 2, std::slice::from_ref(&own)).0[0], [own]);
}

#[test]
fn a_prefix_is_the_last_ones_and_goes_with_its_peer() {
    let mut nodes = pair();
    let third = Node::new(3);
    nodes[0].knows(&third, "192.168.2.0/24");
    nodes.push(third);
    let state = nodes[0].device.state();
    assert!(state.peers[&nodes[1].key].allowed.is_empty() && state.peers[&nodes[2].key].allowed.len() == 1);
    let (_, wire) = send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"whose")]);
    assert_eq!(wire.len(), 1, "an unanswered handshake");
    let peers = [(nodes[2].key, None)].into();
    nodes[0].device.change(&WireguardChange { peers, ..WireguardChange::default() });
    assert_eq!(send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"whose")]).1, []);
    assert_eq!(nodes[0].device.state().peers.len(), 1);
}

#[test]
fn a_packet_that_is_repeated_or_changed_on_the_way_is_dropped() {
    let mut nodes = pair();
    send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"first")]);
    let mut out = Sent::default();
    nodes[0].device.from_tunnel(&packet("192.168.1.1", "192.168.2.1", b"second"), &mut out);
    let (_, sealed) = out.network.pop().unwrap();
    let from = nodes[0].place;
    let mut arrive = |bytes: &[u8]| {
        let mut sent = Sent::default();
        nodes[1].device.from_network(from, bytes, &mut sent);
        sent.tunnel.len()
    };
    let mut spoilt = sealed.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    assert_eq!([arrive(&spoilt), arrive(&sealed), arrive(&sealed)], [0, 1, 0]);
}

#[test]
fn a_node_that_moves_is_followed_and_one_that_has_another_key_is_nobody() {
    let mut nodes = pair();
    send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"first")]);
    nodes[0].place = SocketAddr::from(([10, 0, 0, 77], 4000));
    let moved = packet("192.168.1.1", "192.168.2.1", b"moved");
    assert_eq!(send(&mut nodes, 0, std::slice::from_ref(&moved)).0[1], [moved]);
    assert_eq!(nodes[1].device.state().peers[&nodes[0].key].endpoint, Some(nodes[0].place));
    let stranger = Node::new(9);
    let private_key = Some(PrivateKey::generate().unwrap());
    nodes[0].device.change(&WireguardChange { private_key, ..WireguardChange::default() });
    assert_ne!(nodes[0].device.state().public_key, Some(stranger.key));
    let (arrived, _) = send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"who")]);
    assert!(arrived[1].is_empty());
}

proptest! {
    #[test]
    fn whatever_comes_nothing_breaks_and_nothing_gets_in(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
        kinds in prop::collection::vec((1_u8..5, 0_usize..400), 0..10),
        spoils in prop::collection::vec((0_usize..4, 0_usize..200, any::<u8>()), 0..10),
    ) {
        let mut nodes = pair();
        let (_, wire) = send(&mut nodes, 0, &[packet("192.168.1.1", "192.168.2.1", b"first")]);
        let from = nodes[0].place;
        let shaped = kinds.into_iter().map(|(kind, length)| {
            let mut bytes = vec![7; length.max(4)];
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            bytes
        });
        let spoilt = spoils.into_iter().map(|(which, at, bits)| {
            let mut bytes = wire[which % wire.len()].1.clone();
            let at = at % bytes.len();
            bytes[at] ^= bits | 1;
            bytes
        });
        let mut sent = Sent::default();
        for bytes in noise.iter().cloned().chain(shaped).chain(spoilt) {
            nodes[1].device.from_network(from, &bytes, &mut sent);
            nodes[1].device.from_tunnel(&bytes, &mut sent);
        }
        prop_assert!(sent.tunnel.is_empty());
        let good = packet("192.168.1.1", "192.168.2.1", b"good");
        prop_assert_eq!(&send(&mut nodes, 0, std::slice::from_ref(&good)).0[1], &[good]);
    }
}
