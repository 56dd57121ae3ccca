//! IPIP in the lab: Always and CrossSubnet, from blocks and by BGP, one mode after the other, and without the device.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/overlay.rs"]
mod overlay;

use std::net::IpAddr;
use std::time::Duration;

use capture::Capture;
use overlay::{START, arrives_whole, everybody_talks, flows, pods, pool, route, started, three_nodes};
use tortie_lab::{Lab, Pod, Probe, wait};
use tortie_netlink::{Error, Handle, Netns, Route, RouteProtocol};

const IPIP: u8 = 4;

fn lab(mode: &str) -> Lab {
    started(three_nodes().env("CALICO_IPV4POOL_IPIP", mode).env("TORTIE_SELF_TEST_SECS", "1").up().unwrap())
}

fn kernel_has_ipip() -> bool {
    overlay::kernel_has("IPIP", |kernel| kernel.create_ipip("tunl0"))
}

fn talk(pods: &[Pod]) {
    everybody_talks(pods, &[Probe::tcp(9000), Probe::icmp(), Probe::udp(9000)]).unwrap();
}

/// The addresses of the device of a node, if it is up.
fn tunl0(lab: &Lab, node: usize) -> Option<Vec<IpAddr>> {
    let mut kernel = lab.node(node).netlink().unwrap();
    let link = kernel.link("tunl0").ok().filter(|link| link.up)?;
    let addresses = kernel.addresses().unwrap().into_iter().filter(|address| address.index == link.index);
    Some(addresses.map(|address| address.net.addr()).filter(IpAddr::is_ipv4).collect())
}

#[test]
#[ignore = "needs root"]
fn always_carries_everything_in_ipip() {
    if !kernel_has_ipip() {
        return;
    }
    let lab = lab("Always");
    let pods = pods(&lab);
    for (from, to) in [(1, 1), (1, 2), (2, 0), (3, 0), (3, 1)] {
        let (route, device) = route(&lab, from, &pods[to], RouteProtocol::CALICO);
        assert_eq!(device, "tunl0", "{route}");
        assert!(route.hops[0].onlink && route.hops[0].via == Some(lab.node(to + 1).ip().into()), "{route}");
    }
    let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
    talk(&pods);

    // A packet that fills the device's MTU passes whole, through the router too.
    let mtu = String::from_utf8(pods[0].exec(&["cat", "/sys/class/net/eth0/mtu"]).unwrap().stdout).unwrap();
    assert_eq!(mtu.trim(), "1480");
    assert_eq!(lab.node(1).netlink().unwrap().link("tunl0").unwrap().mtu, 1480);
    assert!(arrives_whole(&pods[0], &pods[2], pods[2].ip(), 1452));

    // Connection tracking knows the pods' flows, and nothing of the packets around them.
    for node in lab.nodes() {
        assert_eq!(flows(node, |flow| flow.protocol.0 == IPIP), Vec::<String>::new(), "{}", node.name());
        assert_ne!(flows(node, |flow| flow.original.dst_port == 9000), Vec::<String>::new(), "{}", node.name());
    }

    // On the wire the pods' packets are inside of the nodes' own, and nowhere else.
    let packets = capture.stop();
    let nodes: Vec<IpAddr> = lab.nodes().iter().map(|node| node.ip().into()).collect();
    let own: Vec<IpAddr> = pods.iter().map(Pod::ip).collect();
    let outer: Vec<_> = packets.iter().filter(|packet| packet.protocol == IPIP).collect();
    assert!(outer.iter().all(|p| nodes.contains(&p.src) && nodes.contains(&p.dst) && p.length <= 1500), "{outer:?}");
    let inner = |src: IpAddr, dst: IpAddr| {
        outer.iter().any(|p| p.inner().is_some_and(|inner| inner.src == src && inner.dst == dst))
    };
    for other in [0, 1] {
        assert!(inner(own[other], own[2]) && inner(own[2], own[other]), "pods {other} and 2 talked");
    }
    assert!(outer.iter().any(|packet| packet.length == 1500), "the largest packet was seen");
    let bare: Vec<_> = packets.iter().filter(|p| own.contains(&p.src) || own.contains(&p.dst)).collect();
    assert!(bare.is_empty(), "pods' packets without encapsulation: {bare:?}");

    // The test between the nodes goes through the device, too, with small packets and such as fill it.
    let tested = wait(START, || {
        let capture = Capture::start(&lab.node(3).netns().unwrap(), "eth0");
        std::thread::sleep(Duration::from_secs(3));
        let packets = capture.stop();
        let questions = packets.iter().filter_map(|packet| packet.inner().filter(|inner| inner.port() == Some(9097)));
        let lengths: Vec<usize> = questions.map(|inner| inner.length).collect();
        (lengths.contains(&128) && lengths.contains(&1480)).then_some(())
    });
    assert!(tested.is_some(), "the inside of IPIP is tested");
    let output = lab.node(1).command("calicoctl").unwrap().args(["node", "status", "-o", "json"]).output().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&state["selfTest"]["answer"], &state["selfTest"]["faults"]), (&2.into(), &serde_json::json!([])));

    // The node speaks to pods from the device's address, which IPAM gave it and its resource publishes.
    let held = tunl0(&lab, 1).unwrap();
    let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
    assert!(held.len() == 1 && node.contains(&format!("ipv4IPIPTunnelAddr: {}", held[0])), "{held:?} {node}");
    let places = [lab.node(1).place(), pods[2].place()];
    let reaches = tortie_lab::Matrix::measure(&places, &Probe::tcp(9000).within(START)).unwrap();
    assert!(reaches.to_string().contains("node1"), "{reaches}");
}

#[test]
#[ignore = "needs root"]
fn cross_subnet_goes_direct_in_the_subnet_and_in_ipip_beyond() {
    if !kernel_has_ipip() {
        return;
    }
    let lab = lab("CrossSubnet");
    let pods = pods(&lab);
    for (from, to, through) in [(1, 1, "eth0"), (2, 0, "eth0"), (1, 2, "tunl0"), (3, 0, "tunl0")] {
        let (route, device) = route(&lab, from, &pods[to], RouteProtocol::CALICO);
        assert_eq!(device, through, "{route}");
    }
    talk(&pods);
}

#[test]
#[ignore = "needs root"]
fn routes_that_bgp_learns_go_through_the_device_when_they_are_told_to() {
    if !kernel_has_ipip() {
        return;
    }
    let lab = lab("CrossSubnet");
    let pods = pods(&lab);
    lab.apply("apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {programClusterRoutes: Enabled}\n").unwrap();
    lab.apply("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {programClusterRoutes: Disabled}\n").unwrap();
    for (from, to, through) in [(1, 1, "eth0"), (2, 0, "eth0"), (1, 2, "tunl0"), (3, 0, "tunl0")] {
        let (route, device) = route(&lab, from, &pods[to], RouteProtocol::BIRD);
        assert_eq!(device, through, "{route}");
    }
    talk(&pods);
    for node in 1..=3 {
        let routes = lab.node(node).routes().unwrap();
        assert!(!routes.iter().any(|route| route.protocol == RouteProtocol::CALICO), "{routes:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn one_mode_after_the_other_leaves_nothing_of_the_last() {
    if !kernel_has_ipip() {
        return;
    }
    let lab = lab("Never");
    let pods = pods(&lab);
    assert_eq!(tunl0(&lab, 1), None);
    let modes =
        [("ipipMode: Always", Some("tunl0")), ("vxlanMode: Always", Some("vxlan.calico")), ("ipipMode: Never", None)];
    for (modes, wanted) in modes {
        lab.apply(&pool(modes)).unwrap();
        // Without encapsulation a mesh reaches no further than its subnet.
        let reach = if wanted.is_some() { 3 } else { 2 };
        for (from, to) in [(1, reach - 1), (reach, 0)] {
            let through =
                |name: &str| wanted.map_or(!["tunl0", "vxlan.calico"].contains(&name), |wanted| wanted == name);
            let there = || {
                let protocol = if wanted.is_some() { RouteProtocol::CALICO } else { RouteProtocol::BIRD };
                through(&route(&lab, from, &pods[to], protocol).1).then_some(())
            };
            wait(START, there).unwrap_or_else(|| panic!("{modes}: node {from}"));
        }
        talk(&pods[..reach]);
        let left = || {
            let vxlan = lab.node(1).netlink().unwrap().link("vxlan.calico").is_ok();
            let (ipip, cali) = (tunl0(&lab, 1).is_some(), lab.node(1).routes().unwrap());
            let wrong = cali.iter().any(|route| route.protocol == RouteProtocol::CALICO) != wanted.is_some();
            (vxlan == (wanted == Some("vxlan.calico")) && ipip == (wanted == Some("tunl0")) && !wrong).then_some(())
        };
        wait(START, left).unwrap_or_else(|| panic!("{modes}: {}", lab.node(1).ip_route(false).unwrap()));
    }
    let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
    assert!(!node.contains("TunnelAddr"), "{node}");
}

#[test]
#[ignore = "needs root"]
fn a_node_that_no_longer_speaks_bgp_drops_what_it_learned_and_no_more() {
    let lab = started(three_nodes().up().unwrap());
    let pods = pods(&lab);
    route(&lab, 1, &pods[1], RouteProtocol::BIRD);
    let node = lab.node(1);
    node.stop().unwrap();
    // Somebody's own BIRD beside it, outside of the pools.
    let foreign = Route::blackhole("10.99.0.0/24".parse().unwrap(), RouteProtocol::BIRD);
    node.netlink().unwrap().add_route(foreign.clone()).unwrap();
    node.start_with(&["node"], &[("CALICO_NETWORKING_BACKEND", "vxlan")]).unwrap();
    node.wait_in_sync(START).unwrap();
    let left = || node.routes().unwrap().into_iter().filter(|r| r.protocol == RouteProtocol::BIRD).collect::<Vec<_>>();
    wait(START, || (left() == [foreign.clone().normal()]).then_some(())).unwrap_or_else(|| panic!("{:?}", left()));
}

#[test]
#[ignore = "needs root"]
fn without_the_device_the_node_says_so_and_makes_nothing_by_halves() {
    let netns = Netns::unnamed().unwrap();
    if !matches!(Handle::open_in(&netns).unwrap().create_ipip("tunl0"), Err(Error::Unsupported { .. })) {
        println!("skipped: this kernel has IPIP");
        return;
    }
    let lab = lab("Always");
    let pods = pods(&lab);
    let status = || {
        let output = lab.node(1).command("calicoctl").unwrap().args(["node", "status", "-o", "json"]).output().unwrap();
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        state["tunnels"]["tunl0"].as_str().map(str::to_owned)
    };
    let told =
        wait(START, || status().filter(|why| why.contains("create IPIP device tunl0"))).expect("the status names it");
    assert!(told.contains("not supported") || told.contains("Unknown device type"), "{told}");
    assert!(lab.node(1).netlink().unwrap().link("tunl0").is_err());
    let to_other = |r: &Route| r.net.prefix_len() > 16 && r.net.contains(&pods[2].ip());
    assert!(!lab.node(1).routes().unwrap().iter().any(to_other), "a route that leads nowhere");
}
