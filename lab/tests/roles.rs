//! What a node is beside the common case: of two families, of the role `felix`, watched by its health pages.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/streams.rs"]
mod streams;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use streams::{START, Streams};
use tortie_lab::{Lab, Outcome, Probe, Prober, Store, probe, wait};
use tortie_net::Family;
use tortie_netlink::{NextHop, Route, RouteProtocol};

#[test]
#[ignore = "needs root"]
fn policy_and_learned_routes_hold_for_both_families() {
    let streams = Streams::start(Lab::builder().nodes(2).dual_stack().up().unwrap());
    let lab = &streams.lab;
    let (a, b) = (lab.pod("a").unwrap(), lab.pod("b").unwrap());
    lab.wait_routes(START).unwrap();
    let v6 = b.ips().iter().copied().find(IpAddr::is_ipv6).unwrap();
    let learned = |r: &Route| r.protocol == RouteProtocol::BIRD && r.net.contains(&v6) && !r.hops.is_empty();
    let route = lab.node(1).wait_route(START, "to the other pod over IPv6", learned).unwrap();
    assert_eq!(route.net.prefix_len(), 122, "{route}");
    let shown = lab.node(1).ip_route(true).unwrap();
    assert!(shown.lines().any(|line| line.contains("proto bird") && line.contains("via fd00:8::")), "{shown}");
    let allowed = Prober::start(&a.place(), &b.place(), Family::V6, 9000, 1000).unwrap();
    assert!(allowed.wait_received(100, START));
    let first = allowed.mark();
    let forbidden = Prober::start(&a.place(), &b.place(), Family::V6, 9001, 1000).unwrap();
    lab.node(2).kill9().unwrap();
    allowed.wait_sent(100);
    lab.node(2).start().unwrap();
    lab.node(2).wait_in_sync(START).unwrap();
    allowed.wait_sent(200);
    let (allowed, forbidden) = (allowed.stop(), forbidden.stop());
    forbidden.expect_silence().unwrap();
    allowed.expect_all(first..allowed.sent).unwrap();
    for probe in [Probe::udp(9002), Probe::udp(9002).v6(), Probe::tcp(9000), Probe::tcp(9000).v6(), Probe::icmp().v6()]
    {
        assert_eq!(probe::ask(&a.place(), &b.place(), &probe).unwrap(), Outcome::Dropped, "{probe}");
    }
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn the_felix_role_has_policy_and_local_routes_and_nothing_else() {
    let lab = Lab::builder().nodes(2).up().unwrap();
    // The first node makes the cluster's defaults; the second never starts as a node.
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    lab.node(1).stop().unwrap();
    let node = lab.node(1);
    let mut kernel = node.netlink().unwrap();
    let foreign = "10.200.0.0/24".parse().unwrap();
    let link = kernel.link("eth0").unwrap().index;
    let hop = NextHop::via("172.17.8.102".parse().unwrap(), link);
    kernel.add_route(Route::via(foreign, vec![hop], RouteProtocol::BIRD)).unwrap();
    let before = lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap();
    for node in lab.nodes() {
        node.start_with(&["felix"], &[]).unwrap();
        node.wait_in_sync(START).unwrap();
    }
    assert_eq!(lab.ctl(&["get", "node", "node1", "-o", "yaml"], "").unwrap(), before, "no start-up");
    match lab.store() {
        Store::Sqlite | Store::Etcd => {
            assert!(lab.ctl(&["get", "node", "node2"], "").is_err(), "no node was registered");
        }
        Store::Kubernetes => {
            let object = lab.kubectl(&["get", "node", "node2", "-o", "yaml"], "").unwrap();
            assert!(!object.contains("projectcalico.org/"), "no node was registered: {object}");
        }
    }
    let bgp = SocketAddr::from((node.ip(), 179));
    let refused = node.place().run(|| Ok(TcpStream::connect_timeout(&bgp, Duration::from_secs(1)).is_err())).unwrap();
    assert!(refused, "nothing speaks BGP");
    lab.apply(
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {selector: app == 'b', \
         ingress: [{action: Allow, protocol: UDP, destination: {ports: [9000]}}]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: q}, spec: {selector: app == 'a', \
         types: [Egress], egress: [{action: Allow}]}}\n",
    )
    .unwrap();
    let a = node.add_pod("default", "a", &[("app", "a")]).unwrap();
    let b = node.add_pod("default", "b", &[("app", "b")]).unwrap();
    let open = probe::becomes(&a.place(), &b.place(), &Probe::udp(9000), Outcome::Open, START).unwrap();
    assert!(open, "policy lets it pass");
    assert_eq!(probe::ask(&a.place(), &b.place(), &Probe::udp(9001)).unwrap(), Outcome::Dropped);
    let routes = node.routes().unwrap();
    for pod in [&a, &b] {
        assert!(routes.iter().any(|r| r.net.prefix_len() == 32 && r.net.contains(&pod.ip())), "{routes:#?}");
    }
    let birds: Vec<_> = routes.iter().filter(|r| r.protocol == RouteProtocol::BIRD).map(|r| r.net).collect();
    assert_eq!(birds, [foreign], "another program's routes stay, and none is ours");
}

#[test]
#[ignore = "needs root"]
fn health_and_metrics_tell_how_the_node_is() {
    let lab = Lab::builder()
        .nodes(1)
        .env("FELIX_HEALTHPORT", "9199")
        .env("FELIX_PROMETHEUSMETRICSENABLED", "true")
        .up()
        .unwrap();
    let node = lab.node(1);
    assert!(node.http_get(9199, "readiness").is_err(), "nothing answers before the start");
    lab.start(START).unwrap();
    let ready = wait(START, || node.http_get(9199, "readiness").ok().filter(|(status, _)| *status == 200));
    assert!(ready.is_some());
    assert_eq!(node.http_get(9199, "liveness").unwrap().0, 200);
    assert_eq!(node.http_get(9199, "nonsense").unwrap().0, 404);
    let number = |name: &str| {
        let (status, text) = node.http_get(9091, "metrics").unwrap();
        assert_eq!(status, 200);
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((number("felix_active_local_endpoints"), number("felix_resync_state")), (0.0, 3.0));
    let pod = node.add_pod("default", "p", &[]).unwrap();
    assert_eq!(number("felix_active_local_endpoints"), 1.0);
    assert!(number("felix_int_dataplane_apply_time_seconds_count") >= 1.0);
    pod.delete().unwrap();
    assert_eq!(number("felix_active_local_endpoints"), 0.0);
    node.stop().unwrap();
    assert!(node.http_get(9199, "liveness").is_err() && node.http_get(9091, "metrics").is_err());
}
