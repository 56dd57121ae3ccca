//! The lab with the real binary: processes start, end and start again, pods come by CNI, the demo does what it says.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::process::Command;
use std::time::Duration;

use support::Traces;
use tortie_lab::cni::CniFailure;
use tortie_lab::{Lab, Matrix, Probe, Prober, binary};
use tortie_net::Family;

const START: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root"]
fn a_killed_node_starts_again_and_loses_no_packet_of_its_pods() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(2).up().unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    let a = lab.node(1).add_pod("default", "a", &[("app", "a")]).unwrap();
    let b = lab.node(2).add_pod("default", "b", &[]).unwrap();
    lab.wait_routes(START).unwrap();
    let prober = Prober::start(&a.place(), &b.place(), Family::V4, 9000, 1000).unwrap();
    assert!(prober.wait_received(200, Duration::from_secs(20)));
    let flowing = prober.mark();
    let first = lab.node(2).process().unwrap();
    lab.node(2).kill9().unwrap();
    assert!(lab.node(2).process().is_none() && !lab.node(2).ready());
    prober.wait_sent(200);
    lab.node(2).start().unwrap();
    assert!(lab.node(2).start().is_err(), "it runs already");
    lab.node(2).wait_in_sync(START).unwrap();
    assert_ne!(lab.node(2).process().unwrap(), first);
    prober.wait_sent(200);
    let report = prober.stop();
    report.expect_all(flowing..report.sent).unwrap();
    assert!(report.rate() >= 900.0, "{} packets/s", report.rate());
    drop(lab);
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn pods_come_and_go_by_cni() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    let node = lab.node(1);
    let down = node.add_pod("default", "early", &[]).unwrap_err();
    assert!(down.downcast_ref::<CniFailure>().is_some_and(|f| f.code == 11), "no node runs yet: {down:#}");
    assert!(lab.pods().unwrap().is_empty(), "a pod that was not added leaves nothing behind");
    lab.start(START).unwrap();
    let mut pod = node.add_pod("default", "web-1", &[("role", "net1")]).unwrap();
    assert_eq!(pod.endpoint_name(), "node1-k8s-web--1-eth0");
    let link = node.netlink().unwrap().link(pod.host_interface()).unwrap();
    assert!(link.up && link.name.starts_with("cali"));
    let links = String::from_utf8(pod.exec(&["ls", "/sys/class/net"]).unwrap().stdout).unwrap();
    assert_eq!(links, "eth0\nlo\n");
    assert!(pod.cni("CHECK").unwrap().is_ok());
    let taken = pod.cni_add().unwrap().unwrap_err();
    assert!(taken.to_string().contains("eth0"), "{taken}");
    let mut attached = Lab::attach(Some(lab.id())).unwrap().pod("web-1").unwrap();
    assert_eq!((attached.ip(), attached.labels()["role"].as_str()), (pod.ip(), "net1"));
    attached = pod.clone();
    pod.delete().unwrap();
    assert!(attached.cni("DEL").unwrap().is_ok(), "DEL of a container that is gone is no error");
    assert!(lab.pods().unwrap().is_empty());
}

#[test]
#[ignore = "needs root"]
fn a_dual_stack_lab_has_both_families_everywhere() {
    let lab = Lab::builder().nodes(2).dual_stack().up().unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    let a = lab.node(1).add_pod("default", "a", &[]).unwrap();
    let b = lab.node(2).add_pod("default", "b", &[]).unwrap();
    assert_eq!((a.ips().len(), b.ips().len()), (2, 2));
    lab.wait_routes(START).unwrap();
    let places = [a.place(), b.place()];
    for probe in [Probe::tcp(9000), Probe::tcp(9000).v6(), Probe::icmp().v6(), Probe::udp(9000).v6()] {
        Matrix::measure(&places, &probe.within(Duration::from_secs(20))).unwrap().expect(|_, _| true).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn the_demo_needs_no_other_program_and_leaves_nothing_behind() {
    let before = Traces::now();
    // With nothing on the path, no ip, nft, iptables, BIRD or etcd can be found.
    let output = Command::new(binary::find().unwrap()).arg("demo").env("PATH", "/nonexistent").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "proto bird",
        "blackhole 192.168.",
        "scope link",
        "Established",
        "0 of 30 paths are open",
        "30 of 30 paths are open",
        "29 of 30 paths are open",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing:\n{text}");
    }
    assert_eq!(Traces::now(), before);
}
