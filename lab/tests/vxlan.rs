//! VXLAN in the lab: two nodes in one subnet and one behind a router, with and without BGP, both families, and a kill.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use support::Traces;
use tortie_lab::{Lab, Matrix, Pod, Probe, Prober, wait};
use tortie_net::Family;
use tortie_netlink::{Route, RouteProtocol};

const START: Duration = Duration::from_secs(20);

/// Nodes 1 and 2 in one subnet, node 3 in another, a router between; both families.
fn lab(mode: &str, backend: &str) -> Lab {
    lab_with(mode, backend, "CalicoIPAM")
}

fn lab_with(mode: &str, backend: &str, route_source: &str) -> Lab {
    let lab = Lab::builder()
        .env("FELIX_ROUTESOURCE", route_source)
        .nodes(2)
        .subnet("172.17.8.0/24")
        .subnet("172.17.9.0/24")
        .subnet6("fd00:8::/64")
        .subnet6("fd00:9::/64")
        .pool("fd00:192:168::/48")
        .node_in(1)
        .router("router")
        .env("CALICO_IPV4POOL_VXLAN", mode)
        .env("CALICO_IPV6POOL_VXLAN", mode)
        .env("CALICO_NETWORKING_BACKEND", backend)
        .up()
        .unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    lab
}

fn pods(lab: &Lab) -> Vec<Pod> {
    let names = ["a", "b", "c"];
    lab.nodes().iter().zip(names).map(|(node, name)| node.add_pod("default", name, &[]).unwrap()).collect()
}

/// The route of a node to a pod of another node, once it is there.
fn route(lab: &Lab, from: usize, to: &Pod, family: Family) -> Route {
    let addr = *to.ips().iter().find(|ip| Family::of(**ip) == family).unwrap();
    let leads =
        |r: &Route| r.net.prefix_len() > 8 && r.net.contains(&addr) && r.hops.iter().any(|hop| hop.via.is_some());
    lab.node(from).wait_route(START, &format!("to {addr}"), leads).unwrap()
}

fn everybody_talks(pods: &[Pod]) {
    let places: Vec<_> = pods.iter().map(Pod::place).collect();
    let within = Duration::from_secs(5);
    for probe in [Probe::tcp(9000), Probe::icmp(), Probe::udp(9000), Probe::tcp(9000).v6(), Probe::icmp().v6()] {
        Matrix::measure(&places, &probe.within(within)).unwrap().expect(|_, _| true).unwrap();
    }
}

fn device(lab: &Lab, node: usize, route: &Route) -> String {
    lab.node(node).netlink().unwrap().link(route.hops[0].interface).unwrap().name
}

/// Whether a datagram of so many bytes arrives, which must not be cut in pieces on the way.
fn arrives_whole(from: &Pod, to: &Pod, target: IpAddr, payload: usize) -> bool {
    let receiver = to.place().run(|| Ok(UdpSocket::bind((target, 0))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = from.place().run(|| Ok(UdpSocket::bind((any, 0))?)).unwrap();
    // What is no more than the device's MTU leaves in one piece, in IPv4 with DF set: Linux does so by itself.
    if target.is_ipv6() {
        setsockopt(&sender, sockopt::Ipv6DontFrag, &true).unwrap();
    }
    let sent = sender.send_to(&vec![7; payload], receiver.local_addr().unwrap());
    sent.is_ok() && receiver.recv(&mut vec![0; 2 * payload]).is_ok_and(|length| length == payload)
}

#[test]
#[ignore = "needs root"]
fn always_carries_everything_in_vxlan_without_bgp() {
    let before = Traces::now();
    let lab = lab("Always", "vxlan");
    let pods = pods(&lab);
    for (from, to) in [(1, 1), (1, 2), (2, 0), (3, 0), (3, 1)] {
        for (family, name) in [(Family::V4, "vxlan.calico"), (Family::V6, "vxlan-v6.calico")] {
            let route = route(&lab, from, &pods[to], family);
            assert_eq!(route.protocol, RouteProtocol::CALICO, "{route}");
            assert!(route.hops[0].onlink, "{route}");
            assert_eq!(device(&lab, from, &route), name);
        }
    }
    everybody_talks(&pods);

    // The smaller of what both families leave; a packet of that size passes whole, through the router too.
    let mtu = String::from_utf8(pods[0].exec(&["cat", "/sys/class/net/eth0/mtu"]).unwrap().stdout).unwrap();
    assert_eq!(mtu.trim(), "1430");
    for (node, name, mtu) in [(1, "vxlan.calico", 1450), (3, "vxlan-v6.calico", 1430)] {
        assert_eq!(lab.node(node).netlink().unwrap().link(name).unwrap().mtu, mtu);
    }
    for (target, payload) in [(pods[2].ips()[0], 1402), (pods[2].ips()[1], 1382)] {
        assert!(arrives_whole(&pods[0], &pods[2], target, payload), "{payload} bytes to {target}");
    }
    assert!(!arrives_whole(&pods[0], &pods[2], pods[2].ips()[1], 1383), "more than the MTU is not sent");

    // The node itself speaks to pods from its tunnel address, which IPAM gave it and its resource publishes.
    let node = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
    let held = lab.node(1).netlink().unwrap();
    let mut held = held;
    let index = held.link("vxlan.calico").unwrap().index;
    let own = held.addresses().unwrap().into_iter().find(|a| a.index == index && a.net.addr().is_ipv4()).unwrap();
    assert!(node.contains(&format!("ipv4VXLANTunnelAddr: {}", own.net.addr())), "{node}");
    assert!(node.contains("ipv6VXLANTunnelAddr: fd00:192:168:"), "{node}");
    drop(lab);
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn cross_subnet_goes_direct_in_the_subnet_and_in_vxlan_beyond() {
    let lab = lab("CrossSubnet", "bird");
    let pods = pods(&lab);
    for (from, to, tunnelled) in [(1, 1, false), (2, 0, false), (1, 2, true), (3, 0, true)] {
        for (family, name) in [(Family::V4, "vxlan.calico"), (Family::V6, "vxlan-v6.calico")] {
            let route = route(&lab, from, &pods[to], family);
            assert_eq!(route.protocol, RouteProtocol::CALICO, "{route}");
            assert_eq!(device(&lab, from, &route), if tunnelled { name } else { "eth0" }, "{route}");
        }
    }
    everybody_talks(&pods);
}

#[test]
#[ignore = "needs root"]
fn routes_lead_to_workloads_alone_if_they_are_the_source() {
    let lab = lab_with("CrossSubnet", "vxlan", "WorkloadIPs");
    let mut pods = pods(&lab);
    for (from, to, v4) in [(1, 1, "eth0"), (1, 2, "vxlan.calico"), (3, 0, "vxlan.calico")] {
        for family in Family::ALL {
            let route = route(&lab, from, &pods[to], family);
            assert_eq!(route.net.prefix_len(), family.bits(), "{route}");
            assert!(family == Family::V6 || device(&lab, from, &route) == v4, "{route}");
        }
    }
    everybody_talks(&pods);
    let gone = pods[2].ips()[0];
    pods.pop().unwrap().delete().unwrap();
    let left = |r: &Route| r.net.contains(&gone) && r.net.prefix_len() == 32;
    let away = wait(START, || (!lab.node(1).routes().ok()?.iter().any(left)).then_some(()));
    assert!(away.is_some(), "{}", lab.node(1).ip_route(false).unwrap());
}

#[test]
#[ignore = "needs root"]
fn kill_9_of_both_nodes_loses_no_packet_in_vxlan() {
    let lab = lab("Always", "vxlan");
    let pods = pods(&lab);
    route(&lab, 1, &pods[2], Family::V4);
    route(&lab, 3, &pods[0], Family::V6);
    let streams: Vec<Prober> = Family::ALL
        .into_iter()
        .map(|family| Prober::start(&pods[0].place(), &pods[2].place(), family, 9000, 1000).unwrap())
        .collect();
    assert!(streams.iter().all(|stream| stream.wait_received(100, START)), "both streams flow");
    let first: Vec<u64> = streams.iter().map(Prober::mark).collect();
    for round in 0..6_u64 {
        let node = lab.node(if round % 2 == 0 { 1 } else { 3 });
        node.kill9().unwrap();
        streams[0].wait_sent(50 + 40 * round);
        node.start().unwrap();
        node.wait_in_sync(START).unwrap();
        streams[0].wait_sent(200);
    }
    for (stream, first) in streams.into_iter().zip(first) {
        let report = stream.stop();
        assert!(report.rate() >= 900.0, "{} packets/s", report.rate());
        report.expect_all(first..report.sent).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_pool_turns_to_vxlan_and_back_while_the_node_runs() {
    let lab = lab("Never", "bird");
    let pods = pods(&lab);
    assert!(lab.node(1).netlink().unwrap().link("vxlan.calico").is_err());
    let pool = |mode: &str| {
        let cidr = "192.168.0.0/16";
        format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: default-ipv4-ippool}}\n\
             spec: {{cidr: {cidr}, vxlanMode: {mode}, natOutgoing: true, nodeSelector: all()}}\n"
        )
    };
    lab.apply(&pool("Always")).unwrap();
    let is_tunnel = |r: &Route| r.protocol == RouteProtocol::CALICO && r.net.contains(&pods[2].ip());
    lab.node(1).wait_route(START, "through VXLAN", is_tunnel).unwrap();
    lab.node(3)
        .wait_route(START, "through VXLAN", |r| r.protocol == RouteProtocol::CALICO && r.net.contains(&pods[0].ip()))
        .unwrap();
    let places = [pods[0].place(), pods[2].place()];
    Matrix::measure(&places, &Probe::tcp(9000).within(START)).unwrap().expect(|_, _| true).unwrap();
    lab.apply(&pool("Never")).unwrap();
    let gone = || lab.node(1).netlink().unwrap().link("vxlan.calico").is_err().then_some(());
    tortie_lab::wait(START, gone).expect("the device goes");
    let routes = lab.node(1).routes().unwrap();
    assert!(!routes.iter().any(|r| r.protocol == RouteProtocol::CALICO), "{routes:?}");
}
