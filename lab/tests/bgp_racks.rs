//! Two racks, in both families: a ToR router (FRR) in each of two subnets, nodes that peer with their ToR by themselves or
//! through a reflector, routers that accept whoever connects from their subnet, and pods that reach each other
//! unencapsulated. Then
//! BIRD, FRR and GoBGP, each of which accepts the nodes of a range, in both families, and what is told twice is shared.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::net::IpAddr;

use routers::{Make, OPEN, Router, START, tortie_bgp, until};
use serde_json::Value;
use tortie_lab::{Lab, Outcome, Pod, Probe, probe};
use tortie_net::IpNet;

/// No mesh. In rack one every node peers with its ToR, through which nodes of its own AS come back; in rack two node 3 does,
/// as another AS than its own, and reflects to node 4.
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
metadata: {name: tor-one-six}
spec: {nodeSelector: rack == 'one', peerIP: 'fd00:8::1', asNumber: 65001, ttlSecurity: 1, numAllowedLocalASNumbers: 1}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-two}
spec: {nodeSelector: has(reflector), peerIP: 172.17.9.2, asNumber: 65002, localASNumber: 64600}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-two-six}
spec: {nodeSelector: has(reflector), peerIP: 'fd00:9::2', asNumber: 65002, localASNumber: 64600}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack-two}
spec: {nodeSelector: rack == 'two' && !has(reflector), peerSelector: has(reflector)}
";

/// A ToR that accepts every node of its subnets, and the other ToR; each family in sessions of its own.
fn tor(asn: u32, id: &str, subnets: [&str; 2], nodes: u32, other: ([&str; 2], u32), ttl: bool) -> String {
    let mut text = format!(
        "hostname {id}\nrouter bgp {asn}\n bgp router-id {id}\n no bgp ebgp-requires-policy\n bgp bestpath as-path \
         multipath-relax\n"
    );
    let (others, other_as) = other;
    for (group, (subnet, other)) in ["rack", "rack6"].iter().zip(subnets.iter().zip(others)) {
        text += &format!(" neighbor {group} peer-group\n neighbor {group} remote-as {nodes}\n");
        if ttl {
            text += &format!(" neighbor {group} ttl-security hops 1\n");
        }
        text += &format!(
            " bgp listen range {subnet} peer-group {group}\n neighbor {other} remote-as {other_as}\n neighbor {other} timers \
             connect 2\n"
        );
    }
    text + &format!(
        " address-family ipv4 unicast\n  no neighbor rack6 activate\n  no neighbor {0} activate\n exit-address-family\n \
         address-family ipv6 unicast\n  neighbor rack6 activate\n  neighbor {0} activate\n exit-address-family\n",
        others[1]
    )
}

fn block(addr: IpAddr) -> IpNet {
    IpNet::new(addr, if addr.is_ipv4() { 26 } else { 122 }).unwrap().trunc()
}

#[test]
#[ignore = "needs root"]
fn pods_of_two_racks_reach_each_other_through_their_routers() {
    if !Make::Frr.installed() {
        return;
    }
    let lab = Lab::builder().nodes(2).subnet("172.17.8.0/24").subnet("172.17.9.0/24").node_in(1).node_in(1);
    let lab = lab.dual_stack().subnet6("fd00:9::/64");
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
        &tor(65001, "172.17.8.1", ["172.17.8.0/24", "fd00:8::/64"], 64513, (["172.17.8.2", "fd00:8::2"], 65002), true),
    );
    let two = Router::start(
        &lab,
        "tor2",
        Make::Frr,
        &tor(65002, "172.17.9.2", ["172.17.9.0/24", "fd00:9::/64"], 64600, (["172.17.8.1", "fd00:8::1"], 65001), false),
    );
    lab.apply(OPEN).unwrap();
    lab.apply(RACKS).unwrap();
    let pods: Vec<Pod> = (1..=4).map(|n| lab.node(n).add_pod("default", &format!("p{n}"), &[]).unwrap()).collect();
    for (name, router) in [("tor1", &one), ("tor2", &two)] {
        until(&format!("{name} holds every block"), || {
            let held = router.holds();
            let addresses = pods.iter().flat_map(Pod::ips);
            let missing: Vec<IpNet> =
                addresses.map(|addr| block(*addr)).filter(|block| !held.contains_key(&block.to_string())).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}\n{}", router.ask("show bgp summary"))) }
        });
    }
    // Rack two's nodes are seen as the AS that their peering names, and theirs is behind it.
    let held = one.holds();
    for addr in pods[2..].iter().flat_map(Pod::ips) {
        let path = &held[&block(*addr).to_string()].as_path;
        assert!(path.starts_with(&[65002, 64600]), "{addr}: {path:?}");
    }
    // Each node's way to each other pod is a plain route to a router or a neighbour.
    for (at, pod) in pods.iter().enumerate() {
        for (number, addr) in
            (1..=4).filter(|number| *number != at + 1).flat_map(|n| pod.ips().iter().map(move |a| (n, *a)))
        {
            let what = format!("node{number} has a route to {addr}");
            let route =
                lab.node(number).wait_route(START, &what, |route| route.net == block(addr) && !route.hops.is_empty());
            let route = route.unwrap_or_else(|error| panic!("{error:#}\n{}", tortie_bgp(&lab, number, &["peers"])));
            let hops: Vec<String> = route.hops.iter().filter_map(|hop| hop.via).map(|via| via.to_string()).collect();
            let prefix = if addr.is_ipv4() { "172.17." } else { "fd00:" };
            assert!(!hops.is_empty() && hops.iter().all(|hop| hop.starts_with(prefix)), "{route:?}");
        }
    }
    for from in &pods {
        for to in pods.iter().filter(|to| to.name() != from.name()) {
            for probe in [Probe::tcp(9000), Probe::tcp(9000).v6()] {
                let open = probe::becomes(&from.place(), &to.place(), &probe, Outcome::Open, START).unwrap();
                assert!(open, "{} reaches {} by {probe}", from.name(), to.name());
            }
        }
    }
    for number in 1..=4 {
        let names: Vec<String> =
            lab.node(number).netlink().unwrap().links().unwrap().into_iter().map(|l| l.name).collect();
        assert!(!names.iter().any(|name| name.contains("vxlan") || name.contains("tunl")), "{names:?}");
    }
    // A node that takes whoever connects: node 2 as the neighbour, known to node 1 by its subnet alone.
    for (range, own, neighbour) in
        [("172.17.8.64/26", "172.17.8.101", "172.17.8.102"), ("fd00:8::60/123", "fd00:8::65", "fd00:8::66")]
    {
        let family = if range.contains(':') { "six" } else { "four" };
        lab.apply(&format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: range-{family}, annotations: \
             {{bgp.tortie/listen-range: '{range}'}}}}\nspec: {{node: node1, asNumber: 64513}}\n---\napiVersion: \
             projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: dial-{family}}}\nspec: {{node: node2, peerIP: '{own}', \
             asNumber: 64513, reversePeering: Manual}}\n",
        ))
        .unwrap();
        until(&format!("the dynamic neighbour {neighbour} is up"), || {
            let text = tortie_bgp(&lab, 1, &["peers"]);
            let is = |line: &str| line.starts_with(&format!("{neighbour} ")) && line.contains("Established");
            if text.lines().any(is) { Ok(()) } else { Err(text + &tortie_bgp(&lab, 2, &["peers"])) }
        });
    }
}

const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
const OUTSIDE: [&str; 2] = ["203.0.113.0/24", "2001:db8:f::/48"];

/// Two routers that accept whoever connects, and what they and the nodes announce twice.
const TWICE: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: 'fd00:96::/112'}]}
";

/// A router that takes connections from where the nodes are, each family by itself, and shares traffic among equals.
fn accepts(make: Make, v4: &str, v6: &str) -> String {
    let [net4, net6] = OUTSIDE;
    match make {
        Make::Bird => {
            let session = |name: &str, local: &str, range: &str, family: &str| {
                format!(
                    "protocol bgp {name} {{ local {local} as 65001; neighbor range {range} as 64512; dynamic name \"{name}\"; \
                     {family} {{ import all; export where source = RTS_STATIC; }}; }}\n"
                )
            };
            format!(
                "router id {v4};\nprotocol device {{}}\nprotocol kernel {{ merge paths on; ipv4 {{ export where source = \
                 RTS_BGP; }}; }}\nprotocol kernel {{ merge paths on; ipv6 {{ export where source = RTS_BGP; }}; }}\n\
                 protocol static {{ ipv4; route {net4} blackhole; }}\nprotocol static {{ ipv6; route {net6} blackhole; }}\n"
            ) + &session("four", v4, "172.17.8.64/26", "ipv4")
                + &session("six", v6, "fd00:8::60/124", "ipv6")
        }
        Make::Frr => format!(
            "hostname r\nip route {net4} blackhole\nipv6 route {net6} blackhole\nrouter bgp 65001\n bgp router-id {v4}\n no \
             bgp ebgp-requires-policy\n no bgp network import-check\n neighbor four peer-group\n neighbor four remote-as \
             64512\n neighbor six peer-group\n neighbor six remote-as 64512\n bgp listen range 172.17.8.64/26 peer-group \
             four\n bgp listen range fd00:8::60/124 peer-group six\n address-family ipv4 unicast\n  network {net4}\n  no \
             neighbor six activate\n exit-address-family\n address-family ipv6 unicast\n  network {net6}\n  neighbor six \
             activate\n exit-address-family\n"
        ),
        Make::GoBgp => {
            let group = |name: &str, range: &str, family: &str| {
                format!(
                    "[[peer-groups]]\n [peer-groups.config]\n  peer-group-name = \"{name}\"\n  peer-as = 64512\n \
                     [[peer-groups.afi-safis]]\n  [peer-groups.afi-safis.config]\n   afi-safi-name = \"{family}\"\n\
                     [[dynamic-neighbors]]\n [dynamic-neighbors.config]\n  prefix = \"{range}\"\n  peer-group = \"{name}\"\n"
                )
            };
            format!(
                "[global.config]\n as = 65001\n router-id = \"{v4}\"\n[global.use-multiple-paths.config]\n enabled = true\n"
            ) + &group("four", "172.17.8.64/26", "ipv4-unicast")
                + &group("six", "fd00:8::60/124", "ipv6-unicast")
        }
    }
}

/// Both nodes connect to both routers; each side holds what two others announce, and shares the traffic.
fn equals_share(make: Make) {
    if !make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(2).dual_stack().router("r1").router("r2").up().unwrap();
    lab.start(START).unwrap();
    let pods = [1, 2].map(|n| lab.node(n).add_pod("default", &format!("p{n}"), &[]).unwrap());
    let places = [("r1", "172.17.8.1", "fd00:8::1"), ("r2", "172.17.8.2", "fd00:8::2")];
    let routers = places.map(|(name, v4, v6)| Router::start(&lab, name, make, &accepts(make, v4, v6)));
    if make == Make::GoBgp {
        for router in &routers {
            until("GoBGP takes its routes", || {
                let said = router.ask(&format!("global rib add {}", OUTSIDE[0]))
                    + &router.ask(&format!("global rib add -a ipv6 {}", OUTSIDE[1]));
                if said.trim().is_empty() { Ok(()) } else { Err(said) }
            });
        }
    }
    let peer = |name: String, address: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{peerIP: '{address}', \
             asNumber: 65001}}\n---\n"
        )
    };
    let peers = places.map(|(name, v4, v6)| peer(format!("{name}-four"), v4) + &peer(format!("{name}-six"), v6));
    lab.apply(&(peers.concat() + TWICE)).unwrap();
    let hops = |at: usize| places.map(|(_, v4, v6)| [v4, v6][at].parse::<IpAddr>().unwrap());
    for node in [1, 2] {
        for (at, net) in OUTSIDE.iter().enumerate() {
            until(&format!("node{node} shares {net} between the routers"), || {
                let routes = lab.node(node).routes().unwrap();
                let found = routes.iter().find(|route| route.net.to_string() == *net);
                let mut via: Vec<IpAddr> = found.iter().flat_map(|r| &r.hops).filter_map(|hop| hop.via).collect();
                via.sort_unstable();
                if via == hops(at) { Ok(()) } else { Err(format!("{found:?}\n{}", tortie_bgp(&lab, node, &["peers"]))) }
            });
        }
    }
    let nodes = [["172.17.8.101", "172.17.8.102"], ["fd00:8::65", "fd00:8::66"]];
    for ((name, ..), router) in places.iter().zip(&routers) {
        for (family, net) in SERVICES.iter().enumerate() {
            until(&format!("{name} holds {net} of both nodes"), || {
                let mut held = gateways(router, make, net);
                held.sort_unstable();
                if held == nodes[family] { Ok(()) } else { Err(format!("{held:?}")) }
            });
            if make != Make::GoBgp {
                until(&format!("{name} shares {net} between the nodes"), || {
                    let kernel = lab
                        .place(name)
                        .unwrap()
                        .run(|| Ok(tortie_netlink::Handle::open()?.routes(&tortie_netlink::RouteFilter::MAIN)?));
                    let kernel = kernel.unwrap();
                    let found = kernel.iter().find(|route| route.net.to_string() == *net);
                    let hops = found.map_or(0, |route| route.hops.len());
                    if hops == 2 { Ok(()) } else { Err(format!("{found:?}")) }
                });
            }
        }
        // Blocks have one way each, in both families.
        for (node, pod) in pods.iter().enumerate() {
            for (family, addr) in pod.ips().iter().enumerate() {
                let block = IpNet::new(*addr, if addr.is_ipv4() { 26 } else { 122 }).unwrap().trunc().to_string();
                until(&format!("{name} holds {block}"), || {
                    let held = router.holds();
                    let right = held.get(&block).is_some_and(|held| held.next_hop == nodes[family][node]);
                    if right { Ok(()) } else { Err(format!("{held:?}")) }
                });
            }
        }
    }
}

/// The next hops that a router holds for a prefix.
fn gateways(router: &Router<'_>, make: Make, net: &str) -> Vec<String> {
    let family = if net.contains(':') { "ipv6" } else { "ipv4" };
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match make {
        Make::Bird => {
            let text = router.ask(&format!("show route all {net}"));
            let hops = text.lines().filter_map(|line| line.trim().strip_prefix("BGP.next_hop:"));
            hops.filter_map(|hop| hop.split_whitespace().next().map(str::to_owned)).collect()
        }
        Make::Frr => {
            let paths = list(&json(router.ask(&format!("show bgp {family} unicast {net} json")))["paths"]);
            let global =
                |path: &Value| text(&list(&path["nexthops"]).iter().find(|h| h["scope"] != "link-local")?["ip"]);
            paths.iter().filter(|path| path["multipath"] == true).filter_map(global).collect()
        }
        Make::GoBgp => {
            let paths = list(&json(router.ask(&format!("global rib -a {family} -j")))[net]);
            let of = |path: &Value| {
                let attributes = list(&path["attrs"]);
                let hop = attributes.iter().find(|one| one["type"] == 3 || one["type"] == 14)?;
                text(&hop["nexthop"])
            };
            paths.iter().filter_map(of).collect()
        }
    }
}

#[test]
#[ignore = "needs root"]
fn bird_accepts_nodes_of_a_range_and_equals_share() {
    equals_share(Make::Bird);
}

#[test]
#[ignore = "needs root"]
fn frr_accepts_nodes_of_a_range_and_equals_share() {
    equals_share(Make::Frr);
}

#[test]
#[ignore = "needs root"]
fn gobgp_accepts_nodes_of_a_range_and_equals_share() {
    equals_share(Make::GoBgp);
}
