//! The typed API against a real kernel, in network namespaces that each test makes and drops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tortie_net::{Family, Mac};
use tortie_netlink::{
    AddressSpec, Error, Event, Groups, Handle, LinkKind, Monitor, NeighbourState, Netns, NextHop, Route, RouteChange,
    RouteFilter, RouteProtocol, Rule, VethPeer, VethSpec, in_netns, sysctl_read, sysctl_write_if_different,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn command(netns: &Netns, line: &str) -> String {
    let mut words = line.split(' ');
    let output = netns.run(|| Command::new(words.next().unwrap()).args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn pair<'a>(name: &'a str, peer: &'a str, netns: Option<&'a Netns>) -> VethSpec<'a> {
    let peer = VethPeer { name: peer, mac: None, netns: netns.map(|n| n.as_fd()) };
    VethSpec { name, mac: Some(Mac::WORKLOAD_HOST_SIDE), mtu: Some(1450), up: true, peer }
}

/// A namespace with `eth0` up, 172.17.8.101/24 and fd00:8::101/64 on it, and the index of `eth0`.
fn node() -> (Netns, Handle, u32) {
    let netns = Netns::unnamed().unwrap();
    let mut handle = Handle::open_in(&netns).unwrap();
    handle.set_loopback_up().unwrap();
    let index = handle.create_veth(&pair("eth0", "far0", None)).unwrap();
    handle.set_link_up("far0", true).unwrap();
    for address in ["172.17.8.101/24", "fd00:8::101/64"] {
        handle.add_address(&AddressSpec::new(index, net(address))).unwrap();
    }
    (netns, handle, index)
}

#[test]
#[ignore = "needs root"]
fn a_veth_pair_is_born_across_namespaces_in_one_step() {
    let (host, container) = (Netns::unnamed().unwrap(), Netns::unnamed().unwrap());
    let mut handle = Handle::open_in(&host).unwrap();
    let index = handle.create_veth(&pair("cali1", "eth0", Some(&container))).unwrap();
    let near = handle.link("cali1").unwrap();
    assert_eq!((near.index, near.mtu, near.up, near.kind.clone()), (index, 1450, true, LinkKind::Veth));
    assert_eq!(near.mac, Some(Mac::WORKLOAD_HOST_SIDE));
    let mut inside = Handle::open_in(&container).unwrap();
    inside.set_link_up("eth0", true).unwrap();
    let far = inside.link("eth0").unwrap();
    assert_eq!((far.mtu, far.up), (1450, true));
    assert_eq!(inside.links().unwrap().iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0"]);
    assert!(handle.create_veth(&pair("cali1", "eth1", Some(&container))).unwrap_err().is_exists());
    assert!(inside.link("eth1").unwrap_err().is_not_found(), "a failed pair leaves nothing");

    inside.set_link_mac("eth0", "02:00:00:00:00:07".parse().unwrap()).unwrap();
    inside.set_link_mtu("eth0", 1400).unwrap();
    inside.set_link_up("eth0", false).unwrap();
    inside.rename_link("eth0", "net0").unwrap();
    let far = inside.link("net0").unwrap();
    assert_eq!((far.mac.unwrap().to_string().as_str(), far.mtu, far.up), ("02:00:00:00:00:07", 1400, false));

    inside.move_link("net0", &host).unwrap();
    assert!(inside.link("net0").unwrap_err().is_not_found());
    assert_eq!(handle.link("net0").unwrap().mtu, 1400);
    handle.delete_link("cali1").unwrap();
    assert!(handle.link("net0").unwrap_err().is_not_found(), "both ends go");
    assert!(handle.delete_link(index).unwrap_err().is_not_found());
}

#[test]
#[ignore = "needs root"]
fn many_links_go_at_once_much_faster_than_one_by_one() {
    let netns = Netns::unnamed().unwrap();
    let mut handle = Handle::open_in(&netns).unwrap();
    let names: Vec<_> = (0..60).map(|n| (format!("cali{n}"), format!("peer{n}"))).collect();
    let create = |handle: &mut Handle| -> Vec<u32> {
        names.iter().map(|(a, b)| handle.create_veth(&pair(a, b, None)).unwrap()).collect()
    };
    let indices = create(&mut handle);
    let start = Instant::now();
    for index in &indices[..10] {
        handle.delete_link(*index).unwrap();
    }
    let each = start.elapsed() / 10;
    let start = Instant::now();
    let results = handle.delete_links(&indices).unwrap();
    let together = start.elapsed();
    println!("one by one {each:?} each; {} at once {together:?}", indices.len() - 10);
    assert!(results[..10].iter().all(|r| r.as_ref().is_err_and(Error::is_not_found)));
    assert!(results[10..].iter().all(Result::is_ok));
    assert_eq!(handle.links().unwrap().len(), 1, "only the loopback is left");

    let index = handle.create_veth(&pair("cali1", "peer1", None)).unwrap();
    let results = handle.delete_links(&[1, index]).unwrap();
    assert!(matches!(results[0], Err(Error::Unsupported { .. })), "the loopback stays: {:?}", results[0]);
    assert!(results[1].is_ok() && handle.links().unwrap().len() == 1);
}

#[test]
#[ignore = "needs root"]
fn a_bridge_joins_links() {
    let netns = Netns::unnamed().unwrap();
    let mut handle = Handle::open_in(&netns).unwrap();
    let bridge = handle.create_bridge("fabric").unwrap();
    handle.create_veth(&pair("port1", "far1", None)).unwrap();
    handle.set_link_controller("port1", Some(bridge)).unwrap();
    assert_eq!(handle.link("port1").unwrap().controller, Some(bridge));
    assert_eq!(handle.link(bridge).unwrap().kind, LinkKind::Bridge);
    handle.set_link_controller("port1", None).unwrap();
    assert_eq!(handle.link("port1").unwrap().controller, None);
}

#[test]
#[ignore = "needs root"]
fn addresses_come_and_go() {
    let (_netns, mut handle, index) = node();
    let has = |handle: &mut Handle, text| handle.addresses().unwrap().into_iter().find(|a| a.net == net(text));
    let v6 = has(&mut handle, "fd00:8::101/64").unwrap();
    assert!(v6.permanent && !v6.tentative && v6.index == index, "{v6:?}");
    assert!(has(&mut handle, "172.17.8.101/24").is_some());
    assert!(handle.add_address(&AddressSpec::new(index, net("172.17.8.101/24"))).unwrap_err().is_exists());
    handle.delete_address(index, net("172.17.8.101/24")).unwrap();
    assert!(has(&mut handle, "172.17.8.101/24").is_none());
    assert!(handle.delete_address(index, net("172.17.8.101/24")).unwrap_err().is_not_found());
}

#[test]
#[ignore = "needs root"]
fn routes_read_as_upstreams_do() {
    let (netns, mut handle, eth0) = node();
    let cali = handle.create_veth(&pair("calic18c1dc57ca", "c0", None)).unwrap();
    handle.set_link_up("c0", true).unwrap();
    let bird = RouteProtocol::BIRD;
    let wanted = [
        Route::blackhole(net("192.168.84.192/26"), bird),
        Route::via(net("192.168.50.64/26"), vec![NextHop::via(ip("172.17.8.102"), eth0)], bird),
        Route::link(net("192.168.84.209/32"), cali, RouteProtocol::BOOT),
        Route::blackhole(net("fd00:84::/122"), bird),
        Route::via(net("fd00:50::/122"), vec![NextHop::via(ip("fd00:8::102"), eth0)], bird),
        Route::link(net("fd00:84::1/128"), cali, RouteProtocol::BOOT),
        Route::via(
            net("10.9.0.0/16"),
            vec![NextHop::via(ip("172.17.8.103"), eth0), NextHop::via(ip("172.17.8.104"), eth0)],
            bird,
        ),
        Route::via(
            net("fd00:9::/64"),
            vec![NextHop::via(ip("fd00:8::103"), eth0), NextHop::via(ip("fd00:8::104"), eth0)],
            bird,
        ),
    ];
    for route in &wanted {
        handle.add_route(route.clone()).unwrap();
    }
    let text = command(&netns, "ip route");
    for line in [
        "blackhole 192.168.84.192/26 proto bird",
        "192.168.50.64/26 via 172.17.8.102 dev eth0 proto bird",
        "192.168.84.209 dev calic18c1dc57ca scope link",
    ] {
        assert!(text.lines().any(|l| l.trim_end() == line), "{line} in\n{text}");
    }
    let seen = handle.routes(&RouteFilter::MAIN).unwrap();
    for route in &wanted {
        assert!(seen.contains(route), "{route} in {seen:#?}");
    }
    let of_bird = RouteFilter { protocol: Some(bird), ..RouteFilter::MAIN };
    assert_eq!(handle.routes(&of_bird).unwrap().len(), 6);
    assert_eq!(handle.routes(&RouteFilter { family: Some(Family::V6), ..of_bird }).unwrap().len(), 3);
    assert!(handle.routes(&RouteFilter { table: Some(4711), ..RouteFilter::default() }).unwrap().is_empty());
    for route in &wanted {
        assert!(handle.add_route(route.clone()).unwrap_err().is_exists(), "{route}");
        handle.replace_route(route.clone()).unwrap();
        handle.delete_route(route.clone()).unwrap();
        assert!(handle.delete_route(route.clone()).unwrap_err().is_not_found(), "{route}");
    }
    assert!(handle.routes(&of_bird).unwrap().is_empty());
}

#[test]
#[ignore = "needs root"]
fn a_gateway_off_link_is_unreachable_unless_onlink_and_the_kernel_says_why() {
    let (_netns, mut handle, eth0) = node();
    let mut hop = NextHop::via(ip("172.99.0.1"), eth0);
    let error = handle.add_route(Route::via(net("10.0.0.0/8"), vec![hop], RouteProtocol::BIRD)).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("Nexthop has invalid gateway"), "{error}");
    hop.onlink = true;
    let route = Route::via(net("10.0.0.0/8"), vec![hop], RouteProtocol::BIRD);
    handle.add_route(route.clone()).unwrap();
    assert!(handle.routes(&RouteFilter::MAIN).unwrap().contains(&route));
}

#[test]
#[ignore = "needs root"]
fn deleting_a_route_spares_the_one_of_another_protocol() {
    let (_netns, mut handle, eth0) = node();
    for text in ["10.0.0.0/8", "fd00:1::/64"] {
        let theirs = Route::link(net(text), eth0, RouteProtocol::STATIC);
        handle.add_route(theirs.clone()).unwrap();
        let ours = Route::link(net(text), eth0, RouteProtocol::BIRD);
        assert!(handle.delete_route(ours).unwrap_err().is_not_found());
        assert!(handle.routes(&RouteFilter::MAIN).unwrap().contains(&theirs));
    }
}

#[test]
#[ignore = "needs root"]
fn ten_thousand_routes_take_little_time() {
    let (_netns, mut handle, eth0) = node();
    let hop = vec![NextHop::via(ip("172.17.8.102"), eth0)];
    let routes: Vec<_> = (0..10_000u32)
        .map(|n| {
            Route::via(
                net(&format!("10.{}.{}.{}/26", n >> 10, n >> 2 & 255, n << 6 & 255)),
                hop.clone(),
                RouteProtocol::BIRD,
            )
        })
        .collect();
    let start = Instant::now();
    let added = handle.change_routes(&routes.iter().cloned().map(RouteChange::Add).collect::<Vec<_>>()).unwrap();
    let add = start.elapsed();
    assert!(added.iter().all(Result::is_ok));
    let start = Instant::now();
    let of_bird = RouteFilter { protocol: Some(RouteProtocol::BIRD), ..RouteFilter::MAIN };
    assert_eq!(handle.routes(&of_bird).unwrap(), routes);
    println!("10000 routes: added in {add:?}, listed in {:?}", start.elapsed());
    let gone = handle.change_routes(&routes.into_iter().map(RouteChange::Delete).collect::<Vec<_>>()).unwrap();
    assert!(gone.iter().all(Result::is_ok));
}

#[test]
#[ignore = "needs root"]
fn each_change_of_many_has_its_own_answer() {
    let (_netns, mut handle, eth0) = node();
    let hop = vec![NextHop::via(ip("172.17.8.102"), eth0)];
    let route =
        |n: usize| Route::via(net(&format!("10.0.{}.{}/32", n >> 8, n & 255)), hop.clone(), RouteProtocol::BIRD);
    // First and last of a send, some in between, and all of one.
    let fails = |n: usize| n.is_multiple_of(7) || n == 255 || n == 999 || (256..512).contains(&n);
    for n in (0..1000).filter(|n| fails(*n)) {
        handle.add_route(route(n)).unwrap();
    }
    let answers = handle.change_routes(&(0..1000).map(|n| RouteChange::Add(route(n))).collect::<Vec<_>>()).unwrap();
    assert_eq!(answers.len(), 1000);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(matches!(answer, Err(Error::Exists { .. })), fails(n), "{n}: {answer:?}");
        assert_eq!(answer.is_ok(), !fails(n), "{n}: {answer:?}");
    }
    assert_eq!(
        handle.routes(&RouteFilter { protocol: Some(RouteProtocol::BIRD), ..RouteFilter::MAIN }).unwrap().len(),
        1000
    );
}

#[test]
#[ignore = "needs root"]
fn neighbours_and_proxy_neighbours_come_and_go() {
    let (_netns, mut handle, index) = node();
    for text in ["169.254.1.1", "fe80::1"] {
        handle.set_neighbour(index, ip(text), Mac::WORKLOAD_HOST_SIDE).unwrap();
        handle.set_neighbour(index, ip(text), Mac::WORKLOAD_HOST_SIDE).unwrap();
        let all = handle.neighbours().unwrap();
        let entry = all.iter().find(|n| n.addr == ip(text)).unwrap();
        assert_eq!((entry.mac, entry.state), (Some(Mac::WORKLOAD_HOST_SIDE), NeighbourState::Permanent));
        handle.delete_neighbour(index, ip(text)).unwrap();
        handle.add_proxy_neighbour(index, ip(text)).unwrap();
        let proxies = handle.proxy_neighbours().unwrap();
        assert!(proxies.iter().any(|n| n.addr == ip(text) && n.proxy && n.index == index), "{proxies:?}");
        handle.delete_proxy_neighbour(index, ip(text)).unwrap();
        assert!(handle.proxy_neighbours().unwrap().is_empty());
    }
}

#[test]
#[ignore = "needs root"]
fn rules_come_and_go() {
    let netns = Netns::unnamed().unwrap();
    let mut handle = Handle::open_in(&netns).unwrap();
    for (family, from) in [(Family::V4, "10.0.0.0/8"), (Family::V6, "fd00::/8")] {
        let before = handle.rules(family).unwrap();
        let rule = Rule {
            family,
            priority: 99,
            table: 1000,
            mark: Some((0x10, 0xf0)),
            inverted: family == Family::V6,
            from: Some(net(from)),
            to: None,
            protocol: RouteProtocol::CALICO,
        };
        handle.add_rule(&rule).unwrap();
        assert!(handle.add_rule(&rule).unwrap_err().is_exists());
        assert!(handle.rules(family).unwrap().contains(&rule));
        handle.delete_rule(&rule).unwrap();
        assert_eq!(handle.rules(family).unwrap(), before);
    }
}

#[test]
#[ignore = "needs root"]
fn a_named_namespace_is_seen_by_iproute2_and_goes_without_trace() {
    let name = format!("tortie-lab-{}", std::process::id());
    let made = Netns::create_named(&name).unwrap();
    let path = format!("/run/netns/{name}");
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let seen = String::from_utf8_lossy(&list.stdout).contains(&name);
    let again = Netns::create_named(&name).unwrap_err();
    let inside = in_netns(&path, || Handle::open().unwrap().links().unwrap().len()).unwrap();
    Netns::delete_named(&name).unwrap();
    assert!(seen && again.is_exists());
    assert_eq!(inside, 1);
    assert!(!std::path::Path::new(&path).exists());
    assert!(Netns::delete_named(&name).unwrap_err().is_not_found());
    assert!(Netns::named(&name).unwrap_err().is_not_found());
    drop(made);
}

#[test]
#[ignore = "needs root"]
fn sysctls_belong_to_the_namespace() {
    let netns = Netns::unnamed().unwrap();
    let outside = sysctl_read(&["ipv4", "ip_forward"]).unwrap();
    let path = ["ipv4", "ip_forward"];
    let (first, second, after) = netns
        .run(|| {
            sysctl_write_if_different(&path, "0").unwrap();
            let first = sysctl_write_if_different(&path, "1").unwrap();
            let second = sysctl_write_if_different(&path, "1").unwrap();
            (first, second, sysctl_read(&path).unwrap())
        })
        .unwrap();
    assert_eq!((first, second, after.as_str()), (true, false, "1"));
    assert_eq!(sysctl_read(&path).unwrap(), outside);
}

#[test]
#[ignore = "needs root"]
fn the_monitor_tells_what_changed_and_when_it_lost_some() {
    let (netns, mut handle, eth0) = node();
    let groups = Groups { links: true, addresses: true, routes: true, neighbours: true };
    let mut monitor = Monitor::open_in(&netns, groups).unwrap();
    // The kernel comes round late to what a new link brings with it. Then nothing changes, and nothing is told.
    let mut told = 0;
    while monitor.wait(Duration::from_millis(200)).unwrap() {
        monitor.drain().unwrap();
        told += 1;
        assert!(told < 100, "the monitor tells of something for ever");
    }
    let route = Route::link(net("10.1.0.0/16"), eth0, RouteProtocol::BIRD);
    handle.add_route(route.clone()).unwrap();
    handle.delete_route(route.clone()).unwrap();
    handle.create_veth(&pair("cali7", "c7", None)).unwrap();
    handle.delete_link("cali7").unwrap();
    assert!(monitor.wait(Duration::from_secs(60)).unwrap());
    let events = monitor.drain().unwrap();
    assert!(events.contains(&Event::RouteSet(route.clone())) && events.contains(&Event::RouteGone(route)));
    assert!(events.iter().any(|e| matches!(e, Event::LinkSet(l) if l.name == "cali7")));
    assert!(events.iter().any(|e| matches!(e, Event::LinkGone(l) if l.name == "cali7")));

    let changes: Vec<_> = (0..60_000u32)
        .map(|n| {
            RouteChange::Add(Route::blackhole(net(&format!("10.{}.{}.0/24", n >> 8, n & 255)), RouteProtocol::BIRD))
        })
        .collect();
    handle.change_routes(&changes).unwrap();
    let events = monitor.drain().unwrap();
    assert_eq!(events.iter().filter(|e| **e == Event::Resync).count(), 1, "of {} events", events.len());
}
