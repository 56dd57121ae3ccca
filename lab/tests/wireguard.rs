//! WireGuard in the lab: pods of both families talk, the wire shows nothing of it, keys change, nodes come and go. Where
//! the kernel has no such devices, they are in user space.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/overlay.rs"]
mod overlay;

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use capture::{Capture, Outer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlay::{START, arrives_whole, everybody_talks, flows, pods, started, three_nodes};
use serde_json::Value;
use tortie_lab::{Lab, LabBuilder, Outcome, Place, Pod, Probe, Prober, Store, probe, wait};
use tortie_net::Family;
use tortie_netlink::{AddressSpec, Error, Handle, Netns, RouteFilter};

const PORTS: [u16; 2] = [51820, 51821];

fn kernel_has_wireguard() -> bool {
    overlay::kernel_has("WireGuard", |kernel| kernel.create_wireguard("wg0"))
}

/// Whether there can be devices here at all; says so if not.
fn there_is_wireguard() -> bool {
    let tun = Path::new("/dev/net/tun").exists();
    tun || kernel_has_wireguard()
}

/// Processes of a node that are devices in user space.
fn device_processes(lab: &Lab, node: usize) -> Vec<i32> {
    let inode = |path: String| std::fs::metadata(path).map(|meta| meta.ino()).ok();
    let own = inode(format!("/run/netns/{}", lab.node(node).netns_name()));
    assert!(own.is_some());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_device = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"wireguard-device")
            && inode(format!("/proc/{pid}/ns/net")) == own
    };
    pids.filter(is_device).collect()
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
    if !there_is_wireguard() {
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

    // Connection tracking knows the pods' flows, and nothing of the packets around them.
    for node in lab.nodes() {
        let outer = flows(node, |flow| PORTS.contains(&flow.original.dst_port));
        assert_eq!(outer, Vec::<String>::new(), "{}", node.name());
        assert_ne!(flows(node, |flow| flow.original.dst_port == 9000), Vec::<String>::new(), "{}", node.name());
    }

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
    let place = if kernel_has_wireguard() { "kernel" } else { "user space" };
    assert_eq!(state["wireguard.cali"]["device"], place);
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
    if !there_is_wireguard() {
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
    for node in 1..=3 {
        wait(START, || device_processes(&lab, node).is_empty().then_some(())).expect("no process is left");
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
fn a_node_whose_address_is_away_keeps_its_key_and_nobody_sends_to_it_in_the_clear() {
    if !there_is_wireguard() {
        return;
    }
    // A store that the node reaches without its address.
    let lab = started(dual().store(Store::Sqlite).up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods[..2]);
    let published = || {
        let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
        let keys = node.lines().filter(|line| line.contains("wireguardPublicKey"));
        keys.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let keys = published();
    assert_eq!(keys.len(), 2, "{keys:?}");

    let capture = Capture::start(&lab.node(2).netns().unwrap(), "eth0");
    let stream = Prober::start(&pods[1].place(), &pods[0].place(), Family::V4, 9000, 100).unwrap();
    assert!(stream.wait_received(20, START), "it flows");
    let mut kernel = lab.node(1).netlink().unwrap();
    let eth0 = kernel.link("eth0").unwrap().index;
    let own = kernel.addresses().unwrap().into_iter().find(|held| held.net.addr() == IpAddr::from(lab.node(1).ip()));
    let own = own.unwrap().net;
    kernel.delete_address(eth0, own).unwrap();
    let fault = || state(&lab, 1)["wireguard.cali"]["fault"].as_str().map(str::to_owned);
    let told = wait(START, fault).expect("the status names it");
    assert!(told.contains("no interface of this host has the address"), "{told}");
    stream.wait_sent(200);
    assert_eq!(published(), keys, "{}", lab.node(1).log());

    kernel.add_address(&AddressSpec::new(eth0, own)).unwrap();
    settled(&lab, &[1, 2], 2);
    stream.stop();
    talk(&lab, &pods[..2]);
    assert_eq!(published(), keys);
    let clear = capture.stop();
    assert!(in_the_clear(&clear, &pods).is_empty(), "{:?}", in_the_clear(&clear, &pods));
}

#[test]
#[ignore = "needs root"]
fn devices_of_another_name_take_the_place_of_the_old_ones() {
    if !there_is_wireguard() {
        return;
    }
    let lab = started(dual().up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods);
    let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
    let stream = Prober::start(&pods[0].place(), &pods[2].place(), Family::V4, 9000, 100).unwrap();
    assert!(stream.wait_received(20, START), "it flows");
    let spec = "{wireguardInterfaceName: wg-other}";
    let kind = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration";
    lab.apply(&format!("{kind}\nmetadata: {{name: default}}\nspec: {spec}\n")).unwrap();
    for node in 1..=3 {
        let done = || {
            let device = &state(&lab, node)["wg-other"];
            let peers = device["peers"].as_array()?.iter().filter(|peer| peer["programmed"] == true).count();
            (peers == 2 && device["fault"].is_null() && device["publicKey"].is_string()).then_some(())
        };
        wait(START, done).unwrap_or_else(|| panic!("node{node}: {:#}", state(&lab, node)));
        let old = lab.node(node).netlink().unwrap().link("wireguard.cali");
        assert!(matches!(old, Err(Error::NotFound { .. })), "{old:?}");
    }
    stream.stop();
    talk(&lab, &pods);
    let clear = capture.stop();
    assert!(in_the_clear(&clear, &pods).is_empty(), "{:?}", in_the_clear(&clear, &pods));
}

#[test]
#[ignore = "needs root"]
fn with_host_encryption_nodes_talk_encrypted_too() {
    if !there_is_wireguard() {
        return;
    }
    let threaded = ("FELIX_WIREGUARDTHREADINGENABLED", "true");
    let lab = dual().env("FELIX_WIREGUARDHOSTENCRYPTIONENABLED", "true").env(threaded.0, threaded.1);
    let lab = started(lab.up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    if kernel_has_wireguard() {
        let file = "/sys/class/net/wireguard.cali/threaded";
        let output = lab.node(1).command("cat").unwrap().arg(file).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1");
    }
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
    let lab = started(dual().env("TORTIE_WIREGUARD_DEVICE", "kernel").up().unwrap());
    let pods = pods(&lab);
    let fault = || state(&lab, 1)["wireguard.cali"]["fault"].as_str().map(str::to_owned);
    let fault = wait(START, fault).expect("the status names it");
    assert!(fault.contains("create WireGuard device wireguard.cali"), "{fault}");
    assert!(lab.node(1).netlink().unwrap().rules(Family::V4).unwrap().iter().all(|rule| rule.priority != 99));
    // Without encapsulation a mesh reaches no further than its subnet.
    everybody_talks(&pods[..2], &[Probe::tcp(9000)]).unwrap();
}

#[test]
#[ignore = "needs root"]
fn in_user_space_a_device_outlives_its_node_and_nothing_passes_without_it() {
    if !Path::new("/dev/net/tun").exists() || kernel_has_wireguard() {
        println!("skipped: there are no TUN devices here, or those of the kernel are tested");
        return;
    }
    let lab = started(dual().env("TORTIE_WIREGUARD_DEVICE", "user").up().unwrap());
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods);
    assert_eq!(state(&lab, 1)["wg-v6.cali"]["device"], "user space");

    // Nobody misses the node.
    let before = device_processes(&lab, 1);
    assert_eq!(before.len(), 2);
    let stream = Prober::start(&pods[0].place(), &pods[2].place(), Family::V4, 9000, 100).unwrap();
    assert!(stream.wait_received(20, START), "it flows");
    let first = stream.mark();
    lab.node(1).kill9().unwrap();
    stream.wait_sent(50);
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    settled(&lab, &[1], 2);
    stream.wait_sent(50);
    assert_eq!(device_processes(&lab, 1), before);
    let report = stream.stop();
    report.expect_all(first..report.sent).unwrap();

    // The processes die: what pods send goes nowhere until there are others, with other keys.
    lab.node(1).kill9().unwrap();
    let key = public_key(&lab, 3, "wireguard.cali");
    let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
    let stream = Prober::start(&pods[0].place(), &pods[2].place(), Family::V4, 9000, 100).unwrap();
    assert!(stream.wait_received(20, START), "it flows");
    for pid in &before {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    stream.wait_sent(100);
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    settled(&lab, &[1, 2, 3], 2);
    stream.stop();
    talk(&lab, &pods);
    let clear = capture.stop();
    assert!(in_the_clear(&clear, &pods).is_empty(), "{:?}", in_the_clear(&clear, &pods));
    assert_eq!(public_key(&lab, 3, "wireguard.cali"), key, "only the first node has another key");

    // While the node lives it sees at once that one is gone.
    kill(Pid::from_raw(device_processes(&lab, 1)[0]), Signal::SIGKILL).unwrap();
    wait(START, || (device_processes(&lab, 1).len() == 2).then_some(())).expect("another process");
    settled(&lab, &[1, 2, 3], 2);
    talk(&lab, &pods);

    // Cleaned, the host has none of it.
    lab.node(1).stop().unwrap();
    let cleaned = lab.node(1).command("tortie").unwrap().args(["node", "clean"]).output().unwrap();
    let text = String::from_utf8_lossy(&cleaned.stdout);
    assert!(cleaned.status.success() && text.contains("gone: interface wg-v6.cali"), "{text}");
    wait(START, || device_processes(&lab, 1).is_empty().then_some(())).expect("no process is left");
}

#[test]
#[ignore = "needs root"]
fn a_device_of_the_kernel_and_one_in_user_space_understand_each_other() {
    if !kernel_has_wireguard() {
        return;
    }
    let lab = dual().up().unwrap();
    lab.node(1).start_with(&["node"], &[("TORTIE_WIREGUARD_DEVICE", "user")]).unwrap();
    let lab = started(lab);
    let pods = pods(&lab);
    settled(&lab, &[1, 2, 3], 2);
    let places = [1, 2].map(|node| state(&lab, node)["wireguard.cali"]["device"].clone());
    assert_eq!(places, ["user space", "kernel"]);
    talk(&lab, &pods);
}
