//! Two racks: a ToR router (FRR) in each of two subnets, nodes that peer with their ToR by themselves or through a
//! reflector, routers that accept whoever connects from their subnet, and pods that reach each other unencapsulated.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::net::IpAddr;

use routers::{Make, OPEN, Router, START, tortie_bgp, until};
use tortie_lab::{Lab, Outcome, Pod, Probe, probe};
use tortie_net::IpNet;

/// No mesh. In rack one every node peers with its ToR, through which nodes of its own AS come back; in rack two node 3 does, and reflects to node 4.
const RACKS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-one}
spec: {nodeSelector: rack == 'one', peerIP: 172.17.8.1, asNumber: 65001, ttlSecurity: 1, numAllowedLocalASNumbers: 1}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-two}
spec: {nodeSelector: has(reflector), peerIP: 172.17.9.2, asNumber: 65002}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack-two}
spec: {nodeSelector: rack == 'two' && !has(reflector), peerSelector: has(reflector)}
";

/// A ToR that accepts every node of its subnet, and the other ToR.
fn tor(asn: u32, id: &str, subnet: &str, nodes: u32, other: (&str, u32), ttl: bool) -> String {
    let ttl = if ttl { " neighbor rack ttl-security hops 1\n" } else { "" };
    format!(
        "hostname {id}\nrouter bgp {asn}\n bgp router-id {id}\n no bgp ebgp-requires-policy\n bgp bestpath as-path \
         multipath-relax\n neighbor rack peer-group\n neighbor rack remote-as {nodes}\n{ttl} bgp listen range {subnet} \
         peer-group rack\n neighbor {} remote-as {}\n neighbor {} timers connect 2\n",
        other.0, other.1, other.0
    )
}

fn block(pod: &Pod) -> IpNet {
    IpNet::new(pod.ip(), 26).unwrap().trunc()
}

#[test]
#[ignore = "needs root"]
fn pods_of_two_racks_reach_each_other_through_their_routers() {
    if !Make::Frr.installed() {
        return;
    }
    let lab = Lab::builder().nodes(2).subnet("172.17.8.0/24").subnet("172.17.9.0/24").node_in(1).node_in(1);
    let lab = lab.router("tor1").router("tor2").env("CALICO_IPV4POOL_NAT_OUTGOING", "false");
    let lab = ["node1", "node2"].iter().fold(lab, |lab, node| lab.node_env(node, "AS", "64513"));
    let lab = ["node3", "node4"].iter().fold(lab, |lab, node| lab.node_env(node, "AS", "64514")).up().unwrap();
    lab.start(START).unwrap();
    for (node, rack) in [("node1", "one"), ("node2", "one"), ("node3", "two"), ("node4", "two")] {
        lab.ctl(&["label", "nodes", node, &format!("rack={rack}")], "").unwrap();
    }
    lab.ctl(&["label", "nodes", "node3", "reflector=yes"], "").unwrap();
    lab.ctl(&["patch", "node", "node3", "-p", r#"{"spec":{"bgp":{"routeReflectorClusterID":"10.0.0.3"}}}"#], "")
        .unwrap();
    let one = Router::start(
        &lab,
        "tor1",
        Make::Frr,
        &tor(65001, "172.17.8.1", "172.17.8.0/24", 64513, ("172.17.8.2", 65002), true),
    );
    let two = Router::start(
        &lab,
        "tor2",
        Make::Frr,
        &tor(65002, "172.17.9.2", "172.17.9.0/24", 64514, ("172.17.8.1", 65001), false),
    );
    lab.apply(OPEN).unwrap();
    lab.apply(RACKS).unwrap();
    let pods: Vec<Pod> = (1..=4).map(|n| lab.node(n).add_pod("default", &format!("p{n}"), &[]).unwrap()).collect();
    for (name, router) in [("tor1", &one), ("tor2", &two)] {
        until(&format!("{name} holds every block"), || {
            let held = router.holds();
            let all = pods.iter().all(|pod| held.contains_key(&block(pod).to_string()));
            if all { Ok(()) } else { Err(format!("{held:#?}\n{}", router.ask("show bgp summary"))) }
        });
    }
    // Each node's way to each other pod is a plain route to a router or a neighbour.
    for (at, pod) in pods.iter().enumerate() {
        for number in (1..=4).filter(|number| *number != at + 1) {
            let what = format!("node{number} has a route to {}", pod.name());
            let route =
                lab.node(number).wait_route(START, &what, |route| route.net == block(pod) && !route.hops.is_empty());
            let route = route.unwrap_or_else(|error| panic!("{error:#}\n{}", tortie_bgp(&lab, number, &["peers"])));
            let hops: Vec<IpAddr> = route.hops.iter().filter_map(|hop| hop.via).collect();
            assert!(!hops.is_empty() && hops.iter().all(|hop| hop.to_string().starts_with("172.17.")), "{route:?}");
        }
    }
    for from in &pods {
        for to in pods.iter().filter(|to| to.name() != from.name()) {
            let open = probe::becomes(&from.place(), &to.place(), &Probe::tcp(9000), Outcome::Open, START).unwrap();
            assert!(open, "{} reaches {}", from.name(), to.name());
        }
    }
    for number in 1..=4 {
        let names: Vec<String> =
            lab.node(number).netlink().unwrap().links().unwrap().into_iter().map(|l| l.name).collect();
        assert!(!names.iter().any(|name| name.contains("vxlan") || name.contains("tunl")), "{names:?}");
    }
    // A node that takes whoever connects: node 2 as the neighbour, known to node 1 by its subnet alone.
    lab.apply(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: range, annotations: {bgp.tortie/listen-range: \
         172.17.8.64/26}}\nspec: {node: node1, asNumber: 64513}\n---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\n\
         metadata: {name: dial}\nspec: {node: node2, peerIP: 172.17.8.101, asNumber: 64513, reversePeering: Manual}\n",
    )
    .unwrap();
    until("the dynamic neighbour is up", || {
        let text = tortie_bgp(&lab, 1, &["peers"]);
        let up = text.lines().any(|line| line.starts_with("172.17.8.102 ") && line.contains("Established"));
        if up { Ok(()) } else { Err(text + &tortie_bgp(&lab, 2, &["peers"])) }
    });
}
