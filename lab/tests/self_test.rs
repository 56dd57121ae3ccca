//! The test between the nodes: an MTU in the middle that is too small, and an interface that spoils the checksums of
//! encapsulated packets, are named and mended; and the MTU for pods follows that of the interface.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/spoiler.rs"]
mod spoiler;
mod support;

use std::time::Duration;

use serde_json::Value;
use spoiler::Spoiler;
use support::Traces;

use tortie_lab::{Lab, Matrix, Pod, Probe, Store, cni, wait};
use tortie_netlink::{Handle, Netns};

const START: Duration = Duration::from_secs(20);
/// Some rounds, and the search for the largest packet that passes.
const FOUND: Duration = Duration::from_secs(60);

/// Two nodes whose pods talk in VXLAN, testing the way between them every second. Their store is no machine, whose
/// packets would meet the same faults.
fn lab() -> Lab {
    Lab::builder()
        .nodes(2)
        .store(Store::Sqlite)
        .env("CALICO_IPV4POOL_VXLAN", "Always")
        .env("CALICO_NETWORKING_BACKEND", "vxlan")
        .env("TORTIE_SELF_TEST_SECS", "1")
        .env("FELIX_PROMETHEUSMETRICSENABLED", "true")
        .up()
        .unwrap()
}

fn start(lab: &Lab) {
    lab.start(START).unwrap();
    for node in lab.nodes() {
        let mut conflist = cni::default_conflist(false);
        conflist["plugins"][0].as_object_mut().unwrap().remove("policy");
        node.set_conflist(&conflist).unwrap();
    }
}

fn fabric(lab: &Lab) -> Netns {
    Netns::named(&format!("tl-{}-fabric", lab.id())).unwrap()
}

fn state(lab: &Lab, node: usize) -> Value {
    let output = lab.node(node).command("calicoctl").unwrap().args(["node", "status", "-o", "json"]).output().unwrap();
    let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    state["selfTest"].clone()
}

/// Waits until both nodes' tests say so.
fn both(lab: &Lab, what: &str, holds: impl Fn(&Value) -> bool) {
    for node in [1, 2] {
        let mut last = Value::Null;
        let found = wait(FOUND, || {
            last = state(lab, node);
            holds(&last).then_some(())
        });
        assert!(found.is_some(), "{what}, node{node}: {last}\n{}", lab.node(node).log());
    }
}

fn fault(state: &Value, text: &str) -> bool {
    let faults = state["faults"].as_array().cloned().unwrap_or_default();
    faults.iter().any(|fault| fault["fault"].as_str().is_some_and(|fault| fault.contains(text)))
}

fn pod_mtu(pod: &Pod) -> u32 {
    let text = String::from_utf8(pod.exec(&["cat", "/sys/class/net/eth0/mtu"]).unwrap().stdout).unwrap();
    text.trim().parse().unwrap()
}

fn tunnel_mtu(lab: &Lab, node: usize) -> u32 {
    lab.node(node).netlink().unwrap().link("vxlan.calico").unwrap().mtu
}

#[test]
#[ignore = "needs root"]
fn a_smaller_mtu_in_the_middle_is_named_and_mended_and_that_of_the_interface_followed() {
    let before = Traces::now();
    let lab = lab();
    start(&lab);
    both(&lab, "the other node answers", |state| state["answer"] == 1 && state["faults"] == Value::Array(Vec::new()));
    let large = lab.node(1).add_pod("default", "large", &[]).unwrap();
    assert_eq!((pod_mtu(&large), tunnel_mtu(&lab, 1)), (1450, 1450));

    // Bridges drop what is too large for a port without a word.
    let mut wires = Handle::open_in(&fabric(&lab)).unwrap();
    wires.set_link_mtu("node2.0", 1400).unwrap();
    both(&lab, "the small path is named", |state| {
        fault(state, "packets of more than 1400 bytes are lost on the way, 1500 are sent here")
    });
    for node in [1, 2] {
        let mended = wait(FOUND, || (tunnel_mtu(&lab, node) == 1350).then_some(()));
        assert!(mended.is_some(), "{}\n{}", tunnel_mtu(&lab, node), lab.node(node).log());
    }
    let metrics = || lab.node(1).http_get(9091, "metrics").unwrap().1;
    let counted = wait(FOUND, || metrics().contains("\ntortie_self_test_faults 1\n").then_some(()));
    assert!(counted.is_some(), "{}", metrics());
    let small = wait(FOUND, || {
        let pod = lab.node(1).add_pod("default", "small", &[]).unwrap();
        if pod_mtu(&pod) == 1350 {
            return Some(pod);
        }
        pod.delete().unwrap();
        None
    });
    assert!(small.is_some(), "{}", lab.node(1).log());
    let other = lab.node(2).add_pod("default", "other", &[]).unwrap();
    // A pod of before hears from its own node that its packets are too large now.
    let whole = |from: &Pod| from.exec(&["ping", "-c", "1", "-W", "2", "-s", "1322", &other.ip().to_string()]).unwrap();
    let passes = wait(FOUND, || whole(&large).status.success().then_some(()));
    assert!(passes.is_some(), "{}", String::from_utf8_lossy(&whole(&large).stdout));

    wires.set_link_mtu("node2.0", 1500).unwrap();
    both(&lab, "it is over", |state| state["faults"] == Value::Array(Vec::new()));
    let back = wait(FOUND, || (tunnel_mtu(&lab, 1) == 1450).then_some(()));
    assert!(back.is_some(), "{}", tunnel_mtu(&lab, 1));

    // The interface itself: tunnels and pods follow at once.
    lab.node(1).netlink().unwrap().set_link_mtu("eth0", 1450).unwrap();
    let followed = wait(FOUND, || {
        let pod = lab.node(1).add_pod("default", "follower", &[]).unwrap();
        let mtu = pod_mtu(&pod);
        pod.delete().unwrap();
        (mtu == 1400 && tunnel_mtu(&lab, 1) == 1400).then_some(())
    });
    assert!(followed.is_some(), "{}", lab.node(1).log());
    drop(lab);
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn spoilt_checksums_are_made_here_instead() {
    let lab = lab();
    let spoiler = Spoiler::start(&fabric(&lab), "node1.0", "node2.0");
    start(&lab);
    both(&lab, "the checksums are named", |state| fault(state, "no longer leaves checksums to the interface below"));
    assert!(spoiler.spoilt() > 0);
    // Who is to blame is proved by another try with them, which the other node may make yet.
    let open = |state: &Value| fault(state, "no longer leaves checksums") && !fault(state, "none through");
    both(&lab, "both have made theirs", open);
    let pods: Vec<Pod> =
        [1, 2].iter().map(|node| lab.node(*node).add_pod("default", &format!("p{node}"), &[]).unwrap()).collect();
    let places: Vec<_> = pods.iter().map(Pod::place).collect();
    for probe in [Probe::tcp(9000), Probe::udp(9000)] {
        let seen = Matrix::measure(&places, &probe.within(Duration::from_secs(5))).unwrap();
        seen.expect(|_, _| true).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn an_outage_of_the_tunnel_leaves_checksums_as_they_were_and_no_fault() {
    let lab = lab();
    start(&lab);
    both(&lab, "the other node answers", |state| state["answer"] == 1 && state["faults"] == Value::Array(Vec::new()));
    // What the log says last of where checksums are made, such as `true`.
    let left_below = |node: usize| {
        let log = lab.node(node).log();
        let at = log.rfind("left_below=")? + "left_below=".len();
        log[at..].split_whitespace().next().map(str::to_owned)
    };
    assert_eq!([left_below(1), left_below(2)], [None, None]);
    let nft = |words: &str| {
        let done = lab.node(2).command("nft").unwrap().args(words.split(' ')).output().unwrap();
        assert!(done.status.success(), "nft {words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    nft("add table inet firewall");
    nft("add chain inet firewall input { type filter hook input priority -500 ; }");
    nft("add rule inet firewall input udp dport 4789 drop");
    both(&lab, "the tunnel is named", |state| fault(state, "none through vxlan.calico"));
    for node in [1, 2] {
        let tried = wait(FOUND, || (left_below(node).as_deref() == Some("false")).then_some(()));
        assert!(tried.is_some(), "{}", lab.node(node).log());
    }
    nft("delete table inet firewall");
    for node in [1, 2] {
        let back = wait(FOUND, || (left_below(node).as_deref() == Some("true")).then_some(()));
        assert!(back.is_some(), "{}", lab.node(node).log());
    }
    // Whatever is said of it in these rounds is over after some more.
    std::thread::sleep(Duration::from_secs(5));
    both(&lab, "it is over", |state| state["answer"] == 1 && state["faults"] == Value::Array(Vec::new()));
    assert_eq!([left_below(1), left_below(2)].map(Option::unwrap), ["true", "true"]);
    for node in [1, 2] {
        let log = lab.node(node).log();
        assert!(!log.contains("no longer leaves checksums to the interface below"), "{log}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_smaller_mtu_in_the_middle_is_named_and_mended_for_ipv6_too() {
    let lab = Lab::builder()
        .nodes(2)
        .store(Store::Sqlite)
        .dual_stack()
        .env("CALICO_IPV4POOL_VXLAN", "Always")
        .env("CALICO_IPV6POOL_VXLAN", "Always")
        .env("CALICO_NETWORKING_BACKEND", "vxlan")
        .env("TORTIE_SELF_TEST_SECS", "1")
        .up()
        .unwrap();
    start(&lab);
    both(&lab, "the other node answers in both families", |state| {
        state["answer"] == 2 && state["faults"] == Value::Array(Vec::new())
    });
    let mut wires = Handle::open_in(&fabric(&lab)).unwrap();
    wires.set_link_mtu("node2.0", 1400).unwrap();
    both(&lab, "the small path is named and known", |state| {
        let named = fault(state, "packets of more than 1400 bytes are lost on the way, 1500 are sent here");
        named && state["pathMtu"] == serde_json::json!({"IPv4": 1400, "IPv6": 1400})
    });
    for (node, device, mtu) in [(1, "vxlan.calico", 1350), (1, "vxlan-v6.calico", 1330), (2, "vxlan-v6.calico", 1330)] {
        let is = || lab.node(node).netlink().unwrap().link(device).unwrap().mtu;
        assert!(wait(FOUND, || (is() == mtu).then_some(())).is_some(), "{device}: {}", is());
    }
    wires.set_link_mtu("node2.0", 1500).unwrap();
    both(&lab, "it is over", |state| state["faults"] == Value::Array(Vec::new()));
}

#[test]
#[ignore = "needs root"]
fn what_drops_wireguard_between_the_nodes_is_named() {
    let lab = Lab::builder()
        .nodes(2)
        .store(Store::Sqlite)
        .dual_stack()
        .env("FELIX_WIREGUARDENABLED", "true")
        .env("FELIX_WIREGUARDENABLEDV6", "true")
        .env("TORTIE_SELF_TEST_SECS", "1")
        .up()
        .unwrap();
    start(&lab);
    let inside = |node: usize| {
        let device = lab.node(node).netlink().unwrap().link("wireguard.cali").unwrap();
        let statistics = format!("/sys/class/net/{}/statistics/rx_packets", device.name);
        let read = lab.node(node).command("cat").unwrap().arg(statistics).output().unwrap();
        String::from_utf8_lossy(&read.stdout).trim().parse::<u64>().unwrap()
    };
    both(&lab, "the other node answers", |state| state["answer"] == 2 && state["faults"] == Value::Array(Vec::new()));
    // Nothing else sends packets there: they are the test's.
    assert!(wait(FOUND, || (inside(1) > 4 && inside(2) > 4).then_some(())).is_some(), "{} {}", inside(1), inside(2));

    let nft = |words: &str| {
        let done = lab.node(2).command("nft").unwrap().args(words.split(' ')).output().unwrap();
        assert!(done.status.success(), "nft {words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    nft("add table inet firewall");
    nft("add chain inet firewall input { type filter hook input priority -500 ; }");
    nft("add rule inet firewall input udp dport 51820 drop");
    both(&lab, "the device is named", |state| fault(state, "none through wireguard.cali"));
    assert!(!fault(&state(&lab, 1), "wg-v6.cali"), "the other family's is open");
    nft("delete table inet firewall");
    both(&lab, "it is over", |state| state["faults"] == Value::Array(Vec::new()));
}
