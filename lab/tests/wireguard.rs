//! WireGuard in the lab: pods of both families talk, the wire shows nothing of it, keys change, nodes come and go.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/overlay.rs"]
mod overlay;

use std::net::IpAddr;

use capture::{Capture, Outer};
use overlay::{START, arrives_whole, everybody_talks, pods, started, three_nodes};
use serde_json::Value;
use tortie_lab::{Lab, LabBuilder, Outcome, Place, Pod, Probe, probe, wait};
use tortie_net::Family;
use tortie_netlink::{Error, Handle, Netns, RouteFilter};

const PORTS: [u16; 2] = [51820, 51821];

fn kernel_has_wireguard() -> bool {
    overlay::kernel_has("WireGuard", |kernel| kernel.create_wireguard("wg0"))
}

fn dual() -> LabBuilder {
    three_nodes()
        .subnet6("fd00:8::/64")
        .subnet6("fd00:9::/64")
        .pool("fd00:192:168::/48")
        .env("FELIX_WIREGUARDENABLED", "true")
        .env("FELIX_WIREGUARDENABLEDV6", "true")
}

/// What a node says of its devices.
fn state(lab: &Lab, node: usize) -> Value {
    let output = lab.node(node).command("calicoctl").unwrap().args(["node", "status", "-o", "json"]).output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["wireguard"].take()
}

fn public_key(lab: &Lab, node: usize, device: &str) -> Option<String> {
    state(lab, node)[device]["publicKey"].as_str().map(str::to_owned)
}

/// Waits until every node has so many peers on both devices, none of whose prefixes goes in the clear but its own.
fn settled(lab: &Lab, nodes: &[usize], peers: usize) {
    for node in nodes {
        let done = || {
            let state = state(lab, *node);
            let full = |device: &str| {
                let device = &state[device];
                let programmed = |list: &Vec<Value>| list.iter().filter(|peer| peer["programmed"] == true).count();
                device["fault"].is_null() && device["peers"].as_array().map(programmed) == Some(peers)
            };
            (full("wireguard.cali") && full("wg-v6.cali")).then_some(())
        };
        wait(START, done).unwrap_or_else(|| panic!("node{node}: {:#}", state(lab, *node)));
    }
}

/// Makes the sessions between all nodes, each from one side. The kernel takes neither of two handshakes that cross, and
/// tries again after five seconds, on both sides at the same time: on an emulated machine they cross again and again.
fn shake_hands(pods: &[Pod]) -> anyhow::Result<()> {
    let places: Vec<Place> = pods.iter().map(Pod::place).collect();
    let pairs: Vec<_> =
        places.iter().enumerate().flat_map(|(at, a)| places[at + 1..].iter().map(move |b| (a, b))).collect();
    for ping in [Probe::icmp(), Probe::icmp().v6()] {
        let outcomes = probe::ask_all(&pairs, &ping.within(START))?;
        anyhow::ensure!(outcomes.iter().all(|outcome| *outcome == Outcome::Open), "handshakes: {outcomes:?}");
    }
    Ok(())
}

/// Everybody talks; if not, the panic says what the nodes know of it.
fn talk(lab: &Lab, pods: &[Pod]) {
    let probes = [Probe::tcp(9000), Probe::icmp(), Probe::udp(9000), Probe::tcp(9000).v6(), Probe::icmp().v6()];
    if let Err(error) = shake_hands(pods).and_then(|()| everybody_talks(pods, &probes)) {
        for node in 1..=pods.len() {
            let drops = lab.node(node).command("tortie").unwrap().args(["drops"]).output().unwrap();
            println!("node{node}: {:#}\n{}", state(lab, node), String::from_utf8_lossy(&drops.stdout));
        }
        panic!("{error:#}");
    }
}

/// Packets of pods that were seen as they are.
fn in_the_clear<'a>(packets: &'a [Outer], pods: &[Pod]) -> Vec<&'a Outer> {
    let own: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.ips().to_vec()).collect();
    packets.iter().filter(|packet| own.contains(&packet.src) || own.contains(&packet.dst)).collect()
}

#[test]
#[ignore = "needs root"]
fn pods_talk_and_the_wire_shows_wireguard_alone() {
    if !kernel_has_wireguard() {
        return;
    }
    let lab = started(dual().up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
    talk(&lab, &pods);

    // A packet that fills the device's MTU passes whole; what the families leave, pods get the smaller of.
    let mtu = String::from_utf8(pods[0].exec(&["cat", "/sys/class/net/eth0/mtu"]).unwrap().stdout).unwrap();
    assert_eq!(mtu.trim(), "1420");
    for (device, mtu) in [("wireguard.cali", 1440), ("wg-v6.cali", 1420)] {
        assert_eq!(lab.node(1).netlink().unwrap().link(device).unwrap().mtu, mtu);
    }
    assert!(arrives_whole(&pods[0], &pods[2], pods[2].ips()[0], 1392));
    assert!(arrives_whole(&pods[0], &pods[2], pods[2].ips()[1], 1372));

    let packets = capture.stop();
    assert!(in_the_clear(&packets, &pods).is_empty(), "{:?}", in_the_clear(&packets, &pods));
    for (family, port) in Family::ALL.into_iter().zip(PORTS) {
        let encrypted = |p: &&Outer| p.protocol == 17 && p.port() == Some(port) && Family::of(p.dst) == family;
        let encrypted: Vec<_> = packets.iter().filter(encrypted).collect();
        assert!(encrypted.len() > 10, "{family}: {}", encrypted.len());
        // The first byte is the kind of message: handshake, answer, cookie, data.
        assert!(encrypted.iter().all(|p| (1..=4).contains(&p.payload[8]) && p.length <= 1500));
        assert!(encrypted.iter().any(|p| p.payload[8] == 4), "data");
    }

    // Keys and addresses are published, handshakes have an age, and the rule has its place.
    let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
    for part in [
        "wireguardPublicKey: ",
        "wireguardPublicKeyV6: ",
        "interfaceIPv4Address: 192.168.",
        "interfaceIPv6Address: fd00:192:168:",
    ] {
        assert!(node.contains(part), "{part}: {node}");
    }
    let state = state(&lab, 1);
    let ages =
        state["wireguard.cali"]["peers"].as_array().unwrap().iter().map(|peer| peer["handshakeSecsAgo"].as_u64());
    assert!(ages.clone().all(|age| age.is_some_and(|age| age < 600)), "{state:#}");
    for (family, table) in [(Family::V4, 1), (Family::V6, 2)] {
        let rules = lab.node(1).netlink().unwrap().rules(family).unwrap();
        assert!(rules.iter().any(|rule| rule.priority == 99 && rule.table == table && rule.inverted), "{rules:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_lost_key_is_made_anew_and_nodes_come_and_go() {
    if !kernel_has_wireguard() {
        return;
    }
    let lab = dual().up().unwrap();
    for node in [1, 2] {
        lab.node(node).start().unwrap();
        lab.node(node).wait_in_sync(START).unwrap();
    }
    settled(&lab, &[1, 2], 1);
    // A third node joins.
    let lab = started(lab);
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods);

    // The device is lost with its key: another is made, and the others follow.
    let before = public_key(&lab, 1, "wireguard.cali").unwrap();
    lab.node(1).netlink().unwrap().delete_link("wireguard.cali").unwrap();
    let other = || public_key(&lab, 1, "wireguard.cali").filter(|key| *key != before);
    wait(START, other).expect("another key");
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods);

    // A restart keeps the key.
    let before = [public_key(&lab, 2, "wireguard.cali"), public_key(&lab, 2, "wg-v6.cali")];
    lab.node(2).kill9().unwrap();
    lab.node(2).start().unwrap();
    lab.node(2).wait_in_sync(START).unwrap();
    settled(&lab, &[1, 2, 3], 2);
    assert_eq!([public_key(&lab, 2, "wireguard.cali"), public_key(&lab, 2, "wg-v6.cali")], before);

    // Turned off, nothing is left of it, and pods talk in the clear.
    for node in lab.nodes() {
        node.stop().unwrap();
        node.start_with(&["node"], &[("FELIX_WIREGUARDENABLED", "false"), ("FELIX_WIREGUARDENABLEDV6", "false")])
            .unwrap();
        node.wait_in_sync(START).unwrap();
    }
    for node in lab.nodes() {
        let mut kernel = node.netlink().unwrap();
        for (family, device, table) in [(Family::V4, "wireguard.cali", 1), (Family::V6, "wg-v6.cali", 2)] {
            assert!(matches!(kernel.link(device), Err(Error::NotFound { .. })));
            assert!(kernel.rules(family).unwrap().iter().all(|rule| rule.table != table));
            let filter = RouteFilter { family: Some(family), table: Some(table), protocol: None };
            assert_eq!(kernel.routes(&filter).unwrap(), []);
        }
    }
    talk(&lab, &pods[..2]);
    let gone = || {
        let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
        (!node.contains("ireguard")).then_some(())
    };
    wait(START, gone).expect("nothing is published");
}

#[test]
#[ignore = "needs root"]
fn with_host_encryption_nodes_talk_encrypted_too() {
    if !kernel_has_wireguard() {
        return;
    }
    let lab = started(dual().env("FELIX_WIREGUARDHOSTENCRYPTIONENABLED", "true").up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
    talk(&lab, &pods);
    let places = [lab.node(1).place(), lab.node(3).place()];
    let measured = tortie_lab::Matrix::measure(&places, &Probe::icmp().within(START)).unwrap();
    measured.expect(|_, _| true).unwrap();
    let packets = capture.stop();
    let nodes: Vec<IpAddr> = vec![lab.node(1).ip().into(), lab.node(3).ip().into()];
    let icmp = |p: &&Outer| p.protocol == 1 && nodes.contains(&p.src) && nodes.contains(&p.dst);
    assert_eq!(packets.iter().filter(icmp).count(), 0, "pings of nodes in the clear");
}

#[test]
#[ignore = "needs root"]
fn without_the_device_the_node_says_so_and_goes_on() {
    let netns = Netns::unnamed().unwrap();
    if !matches!(Handle::open_in(&netns).unwrap().create_wireguard("wg0"), Err(Error::Unsupported { .. })) {
        println!("skipped: this kernel has WireGuard");
        return;
    }
    let lab = started(dual().up().unwrap());
    let pods = pods(&lab);
    let fault = || state(&lab, 1)["wireguard.cali"]["fault"].as_str().map(str::to_owned);
    let fault = wait(START, fault).expect("the status names it");
    assert!(fault.contains("create WireGuard device wireguard.cali"), "{fault}");
    assert!(lab.node(1).netlink().unwrap().rules(Family::V4).unwrap().iter().all(|rule| rule.priority != 99));
    // Without encapsulation a mesh reaches no further than its subnet.
    everybody_talks(&pods[..2], &[Probe::tcp(9000)]).unwrap();
}
