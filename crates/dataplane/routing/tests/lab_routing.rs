//! Route programming against a real kernel: network namespaces as nodes and pods, made and dropped by each test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{command, ip, net};
use tortie_dataplane::Cause;
use tortie_dataplane::testing::{Rig, converges};
use tortie_desired::{BgpSpeaker, Route as Desired, RouteTarget, Tables};
use tortie_net::{AsNumber, Family, Mac, host_net};
use tortie_netlink::{
    AddressSpec, Event, Groups, Handle, Monitor, Netns, NextHop, Route, RouteFilter, RouteProtocol, VethPeer, VethSpec,
    sysctl_read,
};
use tortie_routing::{
    Learned, Options, RouteKey, RouteTable, Routing, configure_workload_interface, enable_forwarding,
};

/// A node: a namespace with `eth0`, its addresses, and forwarding.
struct Node {
    netns: Netns,
    handle: Handle,
    eth0: u32,
}

impl Node {
    fn open(netns: Netns, number: u8) -> Node {
        let mut handle = Handle::open_in(&netns).unwrap();
        handle.set_loopback_up().unwrap();
        handle.set_link_up("eth0", true).unwrap();
        let eth0 = handle.link("eth0").unwrap().index;
        for address in [format!("172.17.8.{number}/24"), format!("fd00:8::{number}/64")] {
            handle.add_address(&AddressSpec::new(eth0, net(&address))).unwrap();
        }
        let gateway = vec![NextHop::via(ip("172.17.8.1"), eth0)];
        handle.add_route(Route::via(net("0.0.0.0/0"), gateway, RouteProtocol::STATIC)).unwrap();
        netns.run(|| enable_forwarding(&Family::ALL).unwrap()).unwrap();
        Node { netns, handle, eth0 }
    }

    /// Two nodes on one wire.
    fn two() -> [Node; 2] {
        let (a, b) = (Netns::unnamed().unwrap(), Netns::unnamed().unwrap());
        let peer = VethPeer { name: "eth0", mac: None, netns: Some(b.as_fd()) };
        let spec = VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer };
        Handle::open_in(&a).unwrap().create_veth(&spec).unwrap();
        [Node::open(a, 101), Node::open(b, 102)]
    }

    /// A pod as the CNI plugin makes it, without its host routes.
    fn pod(&mut self, interface: &str, addresses: [&str; 2]) -> Netns {
        let pod = Netns::unnamed().unwrap();
        let peer = VethPeer { name: "eth0", mac: None, netns: Some(pod.as_fd()) };
        let spec = VethSpec { name: interface, mac: Some(Mac::WORKLOAD_HOST_SIDE), mtu: None, up: true, peer };
        self.handle.create_veth(&spec).unwrap();
        let mut inside = Handle::open_in(&pod).unwrap();
        inside.set_link_up("eth0", true).unwrap();
        let eth0 = inside.link("eth0").unwrap().index;
        for address in addresses {
            inside.add_address(&AddressSpec::new(eth0, host_net(ip(address)))).unwrap();
        }
        for (gateway, default) in [("169.254.1.1", "0.0.0.0/0"), ("fe80::ecee:eeff:feee:eeee", "::/0")] {
            inside.add_route(Route::link(host_net(ip(gateway)), eth0, RouteProtocol::BOOT)).unwrap();
            let hop = vec![NextHop::via(ip(gateway), eth0)];
            inside.add_route(Route::via(net(default), hop, RouteProtocol::BOOT)).unwrap();
        }
        assert!(self.netns.run(|| configure_workload_interface(interface, &Family::ALL).unwrap()).unwrap());
        pod
    }

    fn routing(&self) -> Routing<Handle> {
        Routing::new(Handle::open_in(&self.netns).unwrap(), Options::default())
    }
}

fn tables(routes: &[(&str, RouteTarget)]) -> Tables {
    let speaker = BgpSpeaker {
        router_id: [172, 17, 8, 101].into(),
        asn: AsNumber(64512),
        listen_port: 179,
        ipv4: None,
        ipv6: None,
    };
    Tables {
        routes: routes.iter().map(|(n, t)| (net(n), Desired { target: t.clone() })).collect(),
        bgp_speaker: Some(speaker),
        ..Tables::default()
    }
}

fn workload(interface: &str) -> RouteTarget {
    RouteTarget::Workload { interface: Arc::from(interface) }
}

fn learned(hop: &str) -> Option<Learned> {
    Some(Learned { next_hops: vec![ip(hop)], ..Learned::default() })
}

/// Connects from one namespace to an address in another and brings four bytes there and back.
fn talks(from: &Netns, to: &Netns, address: IpAddr) {
    // An IPv6 link is usable once its link-local address has passed duplicate address detection.
    let deadline = Instant::now() + Duration::from_secs(60);
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(address, 7)).unwrap()).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let target = SocketAddr::new(address, 7);
    let echoed = from.run(|| {
        loop {
            match TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
                Ok(mut stream) => {
                    stream.write_all(b"meow").unwrap();
                    let mut bytes = [0; 4];
                    stream.read_exact(&mut bytes).unwrap();
                    return bytes;
                }
                Err(e) => assert!(Instant::now() < deadline, "{target}: {e}"),
            }
        }
    });
    assert_eq!(&echoed.unwrap(), b"meow");
    server.join().unwrap();
}

#[test]
#[ignore = "needs root"]
fn pods_of_two_nodes_talk_over_routes_that_read_as_upstreams() {
    let [mut a, mut b] = Node::two();
    let pod1 = a.pod("calic18c1dc57ca", ["192.168.84.209", "fd00:84::d1"]);
    let pod2 = a.pod("cali0000000000b", ["192.168.84.210", "fd00:84::d2"]);
    let pod3 = b.pod("cali445d36d1804", ["192.168.50.65", "fd00:50::41"]);
    let now = Instant::now();
    let mut routing_a = a.routing();
    routing_a.set_desired(&tables(&[
        ("192.168.84.192/26", RouteTarget::Blackhole),
        ("fd00:84::c0/122", RouteTarget::Blackhole),
        ("192.168.84.209/32", workload("calic18c1dc57ca")),
        ("fd00:84::d1/128", workload("calic18c1dc57ca")),
        ("192.168.84.210/32", workload("cali0000000000b")),
        ("fd00:84::d2/128", workload("cali0000000000b")),
    ]));
    routing_a.set_learned(net("192.168.50.64/26"), learned("172.17.8.102"));
    routing_a.set_learned(net("fd00:50::40/122"), learned("fd00:8::102"));
    let mut routing_b = b.routing();
    routing_b.set_desired(&tables(&[
        ("192.168.50.64/26", RouteTarget::Blackhole),
        ("fd00:50::40/122", RouteTarget::Blackhole),
        ("192.168.50.65/32", workload("cali445d36d1804")),
        ("fd00:50::41/128", workload("cali445d36d1804")),
    ]));
    routing_b.set_learned(net("192.168.84.192/26"), learned("172.17.8.101"));
    routing_b.set_learned(net("fd00:84::c0/122"), learned("fd00:8::101"));
    for routing in [&mut routing_a, &mut routing_b] {
        let report = routing.apply(now);
        assert!(report.routes.is_clean() && report.waiting.is_empty(), "{report}");
        routing.resync();
        let second = routing.apply(now);
        assert!(!second.routes.wrote(), "{second}");
    }
    let text = command(&a.netns, "ip route");
    for line in [
        "192.168.50.64/26 via 172.17.8.102 dev eth0 proto bird",
        "blackhole 192.168.84.192/26 proto bird",
        "192.168.84.209 dev calic18c1dc57ca scope link",
    ] {
        assert!(text.lines().any(|l| l.trim_end() == line), "{line} in\n{text}");
    }
    println!("{text}{}", command(&a.netns, "ip -6 route"));
    for (from, to, address) in [
        (&pod1, &pod2, "192.168.84.210"),
        (&pod1, &pod2, "fd00:84::d2"),
        (&pod1, &pod3, "192.168.50.65"),
        (&pod3, &pod2, "192.168.84.210"),
        (&pod2, &pod3, "fd00:50::41"),
        (&a.netns, &pod1, "192.168.84.209"),
    ] {
        talks(from, to, ip(address));
    }
}

#[test]
#[ignore = "needs root"]
fn what_ip_takes_away_comes_back_on_the_event_and_restart_keeps_what_was_learned() {
    let [mut a, _b] = Node::two();
    let _pod = a.pod("cali1", ["10.0.0.5", "fd00:84::5"]);
    let mut monitor = Monitor::open_in(&a.netns, Groups { links: true, routes: true, ..Groups::default() }).unwrap();
    let wanted = tables(&[
        ("10.0.0.0/26", RouteTarget::Blackhole),
        ("10.0.0.5/32", workload("cali1")),
        ("fd00:84::5/128", workload("cali1")),
    ]);
    let mut routing = a.routing();
    routing.set_desired(&wanted);
    routing.set_learned(net("10.1.0.0/26"), learned("172.17.8.102"));
    routing.set_learned(net("fd00:50::/122"), learned("fd00:8::102"));
    assert!(routing.apply(Instant::now()).routes.is_clean());
    let right = a.handle.routes(&RouteFilter::MAIN).unwrap();
    let run = |routing: &mut Routing<Handle>, monitor: &mut Monitor, done: &mut dyn FnMut(&Routing<Handle>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(routing) {
            assert!(Instant::now() < deadline, "not put right in time");
            let now = Instant::now();
            let wake = routing.wake_at(now).map_or(Duration::from_millis(20), |at| at.saturating_duration_since(now));
            monitor.wait(wake).unwrap();
            monitor.drain().unwrap().iter().for_each(|event| routing.on_event(event));
            routing.apply(Instant::now());
        }
    };
    for line in [
        "ip route del 10.0.0.5/32",
        "ip route del blackhole 10.0.0.0/26",
        "ip -6 route del fd00:84::5/128",
        "ip -6 route del fd00:50::/122",
        "ip route replace 10.1.0.0/26 via 172.17.8.77 proto bird",
        "ip route flush proto bird",
        "ip link set cali1 down",
    ] {
        let start = Instant::now();
        command(&a.netns, line);
        if line.ends_with("down") {
            command(&a.netns, "ip link set cali1 up");
        }
        let handle = &mut a.handle;
        let mut whole = |_: &Routing<Handle>| {
            right
                .iter()
                .filter(|r| r.protocol != RouteProtocol::KERNEL)
                .all(|r| handle.routes(&RouteFilter::MAIN).unwrap().contains(r))
        };
        run(&mut routing, &mut monitor, &mut whole);
        println!("{line}: put right in {:?}", start.elapsed());
    }
    drop(routing);

    let mut restarted = a.routing();
    restarted.hold_learned(true);
    restarted.set_desired(&wanted);
    let report = restarted.apply(Instant::now());
    assert_eq!((report.held, report.routes.wrote()), (2, false), "{report}");
    restarted.set_learned(net("10.1.0.0/26"), learned("172.17.8.102"));
    assert!(!restarted.apply(Instant::now()).routes.wrote());
    restarted.sweep_learned();
    let report = restarted.apply(Instant::now());
    assert_eq!((report.held, report.routes.removed), (0, 1), "{report}");
    a.handle.delete_link("cali1").unwrap();
    run(&mut restarted, &mut monitor, &mut |routing| !routing.programmed(&net("10.0.0.5/32")));
    assert!(restarted.apply(Instant::now()).routes.is_clean(), "a missing interface is no failure");
}

#[test]
#[ignore = "needs root"]
fn a_workload_interface_is_set_up_as_upstreams() {
    let [mut a, _b] = Node::two();
    let _pod = a.pod("cali1", ["10.0.0.5", "fd00:84::5"]);
    let wanted = [
        (["ipv4", "conf", "cali1", "proxy_arp"], "1"),
        (["ipv4", "conf", "cali1", "forwarding"], "1"),
        (["ipv4", "conf", "cali1", "rp_filter"], "1"),
        (["ipv4", "conf", "cali1", "route_localnet"], "1"),
        (["ipv4", "neigh", "cali1", "proxy_delay"], "0"),
        (["ipv6", "conf", "cali1", "accept_ra"], "0"),
        (["ipv6", "conf", "cali1", "proxy_ndp"], "1"),
        (["ipv6", "conf", "cali1", "forwarding"], "1"),
    ];
    a.netns
        .run(|| {
            for (path, value) in wanted {
                assert_eq!(sysctl_read(&path).unwrap(), value, "{path:?}");
            }
            assert!(!configure_workload_interface("cali1", &Family::ALL).unwrap(), "the second time writes nothing");
            assert!(configure_workload_interface("cali2", &[Family::V4]).unwrap_err().is_not_found());
            assert!(!enable_forwarding(&Family::ALL).unwrap());
        })
        .unwrap();
}

#[test]
#[ignore = "needs root"]
fn others_routes_hold_their_place_but_not_a_workloads() {
    let [mut a, _b] = Node::two();
    let _pod = a.pod("cali1", ["10.0.0.5", "fd00:84::5"]);
    let mut theirs = Vec::new();
    for (prefix, pod, via) in
        [("10.1.0.0/26", "10.0.0.5/32", "172.17.8.102"), ("fd00:50::/122", "fd00:84::5/128", "fd00:8::102")]
    {
        for prefix in [prefix, pod] {
            let hop = vec![NextHop::via(ip(via), a.eth0)];
            theirs.push(Route::via(net(prefix), hop, RouteProtocol::STATIC));
        }
    }
    for route in &theirs {
        a.handle.add_route(route.clone()).unwrap();
    }
    let mut routing = a.routing();
    routing.set_desired(&tables(&[("10.0.0.5/32", workload("cali1")), ("fd00:84::5/128", workload("cali1"))]));
    routing.set_learned(net("10.1.0.0/26"), learned("172.17.8.109"));
    routing.set_learned(net("fd00:50::/122"), learned("fd00:8::109"));
    let now = Instant::now();
    let report = routing.apply(now);
    let keys: Vec<_> = report.routes.failures.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["10.1.0.0/26", "fd00:50::/122"], "{report}");
    assert!(report.routes.failures.values().all(|c| matches!(c, Cause::Conflict(_))), "{report}");
    assert!(routing.programmed(&net("10.0.0.5/32")) && routing.programmed(&net("fd00:84::5/128")));
    let all = a.handle.routes(&RouteFilter::MAIN).unwrap();
    let kept: Vec<_> = theirs.iter().filter(|r| all.contains(r)).map(|r| r.net.to_string()).collect();
    assert_eq!(kept, ["10.1.0.0/26", "fd00:50::/122"]);
    assert!(routing.programmed(&net("10.0.0.5/32")));
    for route in theirs.into_iter().filter(|r| all.contains(r)) {
        a.handle.delete_route(route.clone()).unwrap();
        routing.on_event(&Event::RouteGone(route));
    }
    let report = routing.apply(now);
    assert!(report.routes.is_clean(), "{report}");
}

struct LabRig(Node);

impl Rig for LabRig {
    type Target = RouteTable<Handle>;

    fn target(&mut self) -> Self::Target {
        RouteTable::new(Handle::open_in(&self.0.netns).unwrap(), &Options::default())
    }

    fn foreign(&mut self) -> String {
        let ours = [RouteProtocol::BOOT, RouteProtocol::BIRD, RouteProtocol::CALICO];
        let all = self.0.handle.routes(&RouteFilter::default()).unwrap();
        format!("{:#?}", all.iter().filter(|r| !ours.contains(&r.protocol)).collect::<Vec<_>>())
    }

    fn steal(&mut self, key: &RouteKey) -> bool {
        let all = self.0.handle.routes(&RouteFilter::MAIN).unwrap();
        let route = all.into_iter().find(|r| RouteKey::of_route(r) == *key).unwrap();
        self.0.handle.delete_route(route).is_ok()
    }
}

#[test]
#[ignore = "needs root"]
fn the_real_main_table_converges() {
    let [mut a, _b] = Node::two();
    let pods = [a.pod("cali1", ["10.0.0.5", "fd00:84::5"]), a.pod("cali2", ["10.0.0.6", "fd00:84::6"])];
    // Duplicate address detection of link-local addresses adds routes of the kernel's own: let it finish first.
    let deadline = Instant::now() + Duration::from_secs(60);
    while a.handle.addresses().unwrap().iter().any(|address| address.tentative) {
        assert!(Instant::now() < deadline, "addresses stay tentative");
        thread::sleep(Duration::from_millis(50));
    }
    let links: Vec<u32> = ["cali1", "cali2"].iter().map(|n| a.handle.link(*n).unwrap().index).collect();
    let eth0 = a.eth0;
    let v4 = (0u8..6).prop_map(|n| (net(&format!("10.0.0.{n}/32")), ["172.17.8.102", "172.17.8.103"]));
    let v6 = (0u8..6).prop_map(|n| (net(&format!("fd00:84::{n:x}/128")), ["fd00:8::102", "fd00:8::103"]));
    let route = (prop_oneof![v4, v6], 0u8..4, 0usize..2).prop_map(move |((net, vias), class, other)| match class {
        0 => Route::link(net, links[other], RouteProtocol::BOOT),
        1 => Route::blackhole(net, [RouteProtocol::BIRD, RouteProtocol::CALICO][other]),
        2 => Route::via(net, vec![NextHop::via(ip(vias[other]), eth0)], RouteProtocol::BIRD),
        _ => Route::via(net, vias.map(|via| NextHop::via(ip(via), eth0)).to_vec(), RouteProtocol::BIRD),
    });
    let states = proptest::collection::vec(proptest::collection::vec(route, 0..12), 1..8);
    let rig = std::cell::RefCell::new(LabRig(a));
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&states, |states| {
        let states: Vec<BTreeMap<_, _>> = states
            .into_iter()
            .map(|s| s.into_iter().map(|r| (RouteKey::of_route(&r), Arc::new(r))).collect())
            .collect();
        converges(&mut *rig.borrow_mut(), &states);
        Ok(())
    });
    outcome.unwrap();
    drop(pods);
}

#[test]
#[ignore = "needs root"]
fn ten_thousand_learned_routes_take_little_time() {
    let [a, _b] = Node::two();
    let mut routing = a.routing();
    for n in 0..10_000u32 {
        let prefix = net(&format!("10.{}.{}.{}/26", n >> 10, n >> 2 & 255, n << 6 & 255));
        routing.set_learned(prefix, learned("172.17.8.102"));
    }
    let start = Instant::now();
    let report = routing.apply(start);
    let first = start.elapsed();
    assert_eq!((report.routes.written, report.routes.is_clean()), (10_000, true));
    let start = Instant::now();
    routing.set_learned(net("10.200.0.0/26"), learned("172.17.8.102"));
    assert_eq!(routing.apply(Instant::now()).routes.written, 1);
    let one = start.elapsed();
    let start = Instant::now();
    routing.resync();
    assert!(!routing.apply(Instant::now()).routes.wrote());
    println!("10000 learned routes: written in {first:?}; one more in {one:?}; resync in {:?}", start.elapsed());
}
