//! A pod that names another node as its source gets nothing through that node's tunnel.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/drops.rs"]
mod drops;
mod support;

use std::net::UdpSocket;
use std::time::Duration;

use drops::{Sent, records};
use serde_json::{Value, json};
use support::Traces;
use tortie_lab::{Lab, Place, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
/// How long nothing may arrive before a packet counts as dropped.
const QUIET: Duration = Duration::from_millis(300);
const PORT: u16 = 9001;

/// Whether a frame to the victim, said to be another node's pod's, gets out of the tunnel.
fn arrives(victim: &UdpSocket, sent: &Sent, from: &Place, tries: usize) -> bool {
    victim.set_nonblocking(true).unwrap();
    while victim.recv(&mut [0; 16]).is_ok() {}
    victim.set_nonblocking(false).unwrap();
    victim.set_read_timeout(Some(QUIET)).unwrap();
    (0..tries).any(|_| {
        sent.send(from);
        victim.recv(&mut [0; 16]).is_ok()
    })
}

#[test]
#[ignore = "needs root"]
fn a_pod_with_the_source_of_a_node_gets_nothing_out_of_the_tunnel() {
    let before = Traces::now();
    let lab = Lab::builder()
        .nodes(2)
        .dual_stack()
        .env("CALICO_IPV4POOL_VXLAN", "Always")
        .env("CALICO_IPV6POOL_VXLAN", "Always")
        .env("FELIX_WORKLOADSOURCESPOOFING", "Any")
        .up()
        .unwrap();
    lab.start(START).unwrap();
    let (node, far_node) = (lab.node(1), lab.node(2));
    lab.open_network().unwrap();
    let [hostile, victim] = ["hostile", "victim"].map(|name| node.add_pod("default", name, &[]).unwrap());
    let far = far_node.add_pod("default", "far", &[]).unwrap();
    node.wait_route(START, "to the other node", |route| route.net.contains(&far.ip())).unwrap();
    // The kernel's own check of IPv4 sources is off for a pod that may use more of them.
    hostile.change(&json!({ "spec": { "allowSpoofedSourcePrefixes": ["10.99.0.0/16"] } })).unwrap();
    let check = format!("/proc/sys/net/ipv4/conf/{}/rp_filter", hostile.record().host_interface.as_ref().unwrap());
    let is_off = || (node.place().run(|| Ok(std::fs::read_to_string(&check)?)).ok()?.trim() == "0").then_some(());
    wait(SOON, is_off).expect("the kernel's check goes off");

    let mut into = Vec::new();
    for (family, device) in [(Family::V4, "vxlan.calico"), (Family::V6, "vxlan-v6.calico")] {
        let mac = node.netlink().unwrap().link(device).unwrap().mac.unwrap().0;
        let [here, there] = [node, far_node].map(|node| node.place().ip(family).unwrap());
        let [to, claimed] = [&victim, &far].map(|pod| pod.place().ip(family).unwrap());
        let socket = victim.place().run(|| Ok(UdpSocket::bind((to, PORT))?)).unwrap();
        let sent = Sent::vxlan(there, here, mac, Sent::udp_from(claimed, to, PORT));
        assert!(arrives(&socket, &sent, &far_node.place(), 20), "{device}: what the node itself sends is right");
        if arrives(&socket, &sent, &hostile.place(), 3) {
            into.push(device);
            continue;
        }
        let told = |r: &Value| r["source"] == json!(there) && r["cause"] == "foreign-tunnel";
        wait(SOON, || records(node, &[]).iter().any(told).then_some(())).expect("a record says why");
    }
    assert!(into.is_empty(), "a pod's packets got into {into:?}");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
