//! Route programming on a kernel in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use tortie_dataplane::Cause;
use tortie_dataplane::testing::{Rig, converges};
use tortie_desired::{Batch, BgpSpeaker, Pool, Route as Desired, RouteTarget, Tables};
use tortie_net::AsNumber;
use tortie_netlink::{Event, FakeKernel, NextHop, Route, RouteKernel, RouteProtocol};
use tortie_routing::{Learned, Options, RouteKey, RouteTable, Routing, Waiting};

const ETH0: u32 = 2;
const CALI1: u32 = 11;
const CALI2: u32 = 12;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn kernel() -> FakeKernel {
    let kernel = FakeKernel::new();
    kernel.put_link(ETH0, "eth0");
    kernel.put_link(CALI1, "cali1");
    kernel.put_link(CALI2, "cali2");
    for text in ["172.17.8.0/24", "fd00:8::/64"] {
        kernel.put_route(Route::link(net(text), ETH0, RouteProtocol::KERNEL));
    }
    kernel.put_route(Route::via(net("0.0.0.0/0"), vec![NextHop::via(ip("172.17.8.1"), ETH0)], RouteProtocol(16)));
    kernel
}

fn workload(interface: &str) -> Desired {
    Desired { target: RouteTarget::Workload { interface: Arc::from(interface) } }
}

fn blackhole() -> Desired {
    Desired { target: RouteTarget::Blackhole }
}

fn node(via: &str) -> Desired {
    Desired { target: RouteTarget::Node { node: Arc::from("n2"), via: ip(via) } }
}

fn learned(hops: &[&str]) -> Option<Learned> {
    Some(Learned { next_hops: hops.iter().map(|t| ip(t)).collect(), ..Learned::default() })
}

fn tables(routes: &[(&str, Desired)]) -> Tables {
    let speaker = BgpSpeaker {
        router_id: [172, 17, 8, 101].into(),
        asn: AsNumber(64512),
        listen_port: 179,
        ipv4: None,
        ipv6: None,
    };
    Tables {
        routes: routes.iter().map(|(n, r)| (net(n), r.clone())).collect(),
        bgp_speaker: Some(speaker),
        ..Tables::default()
    }
}

fn routing(kernel: &FakeKernel) -> Routing<FakeKernel> {
    Routing::new(kernel.clone(), Options::default())
}

fn ours(kernel: &FakeKernel) -> Vec<String> {
    let foreign = [RouteProtocol::KERNEL, RouteProtocol(16), RouteProtocol::STATIC];
    kernel.all_routes().iter().filter(|r| !foreign.contains(&r.protocol)).map(ToString::to_string).collect()
}

#[test]
fn the_four_classes_read_as_upstreams_and_a_second_pass_writes_nothing() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    routing.set_desired(&tables(&[
        ("192.168.84.192/26", blackhole()),
        ("192.168.84.209/32", workload("cali1")),
        ("fd00:84::1/128", workload("cali1")),
        ("192.168.60.0/26", node("172.17.8.103")),
    ]));
    routing.set_learned(net("192.168.50.64/26"), learned(&["172.17.8.102"]));
    routing.set_learned(net("10.9.0.0/16"), learned(&["172.17.8.103", "172.17.8.102", "172.17.8.103"]));
    assert!(!routing.programmed(&net("192.168.84.209/32")));
    let now = Instant::now();
    let report = routing.apply(now);
    assert!(report.routes.is_clean() && report.waiting.is_empty(), "{report}");
    assert_eq!(
        ours(&kernel),
        [
            "10.9.0.0/16 nexthop weight 1 via 172.17.8.102 dev #2 nexthop weight 1 via 172.17.8.103 dev #2 proto bird",
            "192.168.50.64/26 via 172.17.8.102 dev #2 proto bird",
            "192.168.60.0/26 via 172.17.8.103 dev #2 proto 80",
            "blackhole 192.168.84.192/26 proto bird",
            "192.168.84.209/32 dev #11 proto boot",
            "fd00:84::1/128 dev #11 proto boot metric 1024",
        ]
    );
    assert!(routing.programmed(&net("192.168.84.209/32")) && routing.programmed(&net("192.168.50.64/26")));
    assert!(!routing.programmed(&net("10.0.0.0/8")));
    let writes = kernel.writes();
    routing.resync();
    assert!(!routing.apply(now).routes.wrote());
    assert_eq!((kernel.writes(), routing.wake_at(now)), (writes, None));
}

#[test]
fn without_bgp_the_blackhole_is_felixes() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let mut wanted = tables(&[("10.0.0.0/26", blackhole())]);
    wanted.bgp_speaker = None;
    routing.set_desired(&wanted);
    let now = Instant::now();
    routing.apply(now);
    assert_eq!(ours(&kernel), ["blackhole 10.0.0.0/26 proto 80"]);
    let speaker = tables(&[]).bgp_speaker;
    routing.change_desired(&Batch { bgp_speaker: Some(speaker), ..Batch::default() });
    routing.apply(now);
    assert_eq!(ours(&kernel), ["blackhole 10.0.0.0/26 proto bird"]);
}

#[test]
fn a_workload_route_waits_quietly_for_its_interface_and_follows_it() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let pod = net("10.0.0.5/32");
    routing.set_desired(&tables(&[("10.0.0.5/32", workload("cali9"))]));
    let now = Instant::now();
    let report = routing.apply(now);
    assert!(report.routes.is_clean());
    assert_eq!(report.waiting[&pod], Waiting::Interface(Arc::from("cali9")));
    assert_eq!(routing.wake_at(now), None, "no polling");
    for index in [30, 31] {
        kernel.put_link(index, "cali9");
        let link = kernel.clone().links().unwrap().into_iter().find(|l| l.index == index).unwrap();
        routing.on_event(&Event::LinkSet(link.clone()));
        assert_eq!(routing.wake_at(now), Some(now));
        assert!(routing.apply(now).waiting.is_empty());
        assert_eq!(ours(&kernel), [format!("10.0.0.5/32 dev #{index} proto boot")]);
        assert!(routing.programmed(&pod));
        kernel.remove_link(index);
        routing.on_event(&Event::LinkGone(link));
        assert!(!routing.programmed(&pod));
        assert!(routing.apply(now).routes.is_clean());
    }
}

#[test]
fn a_workload_wins_over_a_blackhole_and_that_over_what_was_learned() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let now = Instant::now();
    let prefix = net("10.0.0.5/32");
    routing.set_learned(prefix, learned(&["172.17.8.102"]));
    let steps = [
        (Some(blackhole()), "blackhole 10.0.0.5/32 proto bird"),
        (Some(workload("cali1")), "10.0.0.5/32 dev #11 proto boot"),
        (Some(workload("cali2")), "10.0.0.5/32 dev #12 proto boot"),
        (None, "10.0.0.5/32 via 172.17.8.102 dev #2 proto bird"),
    ];
    routing.set_desired(&tables(&[]));
    for (route, text) in steps {
        routing.change_desired(&Batch { routes: BTreeMap::from([(prefix, route)]), ..Batch::default() });
        assert!(routing.apply(now).routes.is_clean());
        assert_eq!(ours(&kernel), [text]);
    }
}

#[test]
fn a_learned_route_has_its_metric_and_wins_over_a_workload_only_if_it_may() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let now = Instant::now();
    let with = |hop: &str, metric, over_workloads| Some(Learned { next_hops: vec![ip(hop)], metric, over_workloads });
    let [v4, v6] = [net("10.0.0.5/32"), net("fd00:84::5/128")];
    let expect = |routing: &mut Routing<FakeKernel>, first: &str, second: &str| {
        assert!(routing.apply(now).routes.is_clean());
        assert_eq!(ours(&kernel), [first, second]);
        assert!(routing.programmed(&v4) && routing.programmed(&v6));
        routing.resync();
        assert!(!routing.apply(now + Duration::from_secs(1)).routes.wrote(), "a second pass writes nothing");
    };
    let learn = |routing: &mut Routing<FakeKernel>, hops: [&str; 2], metric, over| {
        routing.set_learned(v4, with(hops[0], metric, over));
        routing.set_learned(v6, with(hops[1], metric, over));
    };
    let other = ["172.17.8.102", "fd00:8::102"];
    routing.set_desired(&tables(&[]));
    for metric in [1024, 700, 2_147_483_547] {
        learn(&mut routing, other, metric, false);
        let tail = format!("dev #2 proto bird metric {metric}");
        let text = [format!("{v4} via {} {tail}", other[0]), format!("{v6} via {} {tail}", other[1])];
        expect(&mut routing, &text[0], &text[1]);
    }
    let local = ["10.0.0.5/32 dev #11 proto boot", "fd00:84::5/128 dev #11 proto boot metric 1024"];
    routing.set_desired(&tables(&[("10.0.0.5/32", workload("cali1")), ("fd00:84::5/128", workload("cali1"))]));
    expect(&mut routing, local[0], local[1]);
    learn(&mut routing, other, 512, true);
    expect(
        &mut routing,
        "10.0.0.5/32 via 172.17.8.102 dev #2 proto bird metric 512",
        "fd00:84::5/128 via fd00:8::102 dev #2 proto bird metric 512",
    );
    // A workload that is a router does not get what is for another one.
    let router = [("10.0.0.9/32", workload("cali2")), ("fd00:84::9/128", workload("cali2"))];
    let pods = [("10.0.0.5/32", workload("cali1")), ("fd00:84::5/128", workload("cali1"))];
    routing.set_desired(&tables(&[pods, router].concat()));
    learn(&mut routing, ["10.0.0.9", "fd00:84::9"], 512, true);
    assert!(routing.apply(now).routes.is_clean());
    for text in local {
        assert!(ours(&kernel).iter().any(|route| route == text), "{text} in {:?}", ours(&kernel));
    }
}

#[test]
fn an_earlier_lifes_route_of_another_metric_gives_way_to_the_new_one() {
    let kernel = kernel();
    let now = Instant::now();
    let mut before = routing(&kernel);
    before.set_learned(net("10.1.0.0/26"), learned(&["172.17.8.102"]));
    before.set_learned(net("10.2.0.0/26"), learned(&["172.17.8.102"]));
    before.apply(now);
    drop(before);
    let mut after = routing(&kernel);
    after.hold_learned(true);
    after.set_desired(&tables(&[]));
    assert_eq!(after.apply(now).held, 2);
    let learned = Learned { next_hops: vec![ip("172.17.8.103")], metric: 1024, over_workloads: false };
    after.set_learned(net("10.1.0.0/26"), Some(learned));
    after.set_learned(net("10.2.0.0/26"), None);
    let report = after.apply(now);
    assert_eq!((report.held, report.routes.written, report.routes.removed), (0, 1, 2), "{report}");
    assert_eq!(ours(&kernel), ["10.1.0.0/26 via 172.17.8.103 dev #2 proto bird metric 1024"]);
}

#[test]
fn a_gateway_off_link_is_reported_and_comes_with_its_connected_route() {
    let kernel = kernel();
    kernel.remove_routes(net("0.0.0.0/0"));
    let mut routing = routing(&kernel);
    let now = Instant::now();
    routing.set_learned(net("10.1.0.0/26"), learned(&["172.18.0.9", "172.17.8.102"]));
    routing.set_learned(net("10.2.0.0/26"), learned(&["172.18.0.9"]));
    let report = routing.apply(now);
    let off_link = Waiting::OffLink(vec![ip("172.18.0.9")]);
    assert_eq!(report.waiting, [(net("10.1.0.0/26"), off_link.clone()), (net("10.2.0.0/26"), off_link)].into());
    assert!(!routing.programmed(&net("10.2.0.0/26")));
    assert_eq!(ours(&kernel), ["10.1.0.0/26 via 172.17.8.102 dev #2 proto bird"], "the reachable one serves");
    let connected = Route::link(net("172.18.0.0/16"), ETH0, RouteProtocol::KERNEL);
    kernel.put_route(connected.clone());
    routing.on_event(&Event::RouteSet(connected));
    let wake = routing.wake_at(now).unwrap();
    let report = routing.apply(wake);
    assert!(report.waiting.is_empty(), "{report}");
    assert_eq!(ours(&kernel).len(), 2);
    assert!(routing.programmed(&net("10.2.0.0/26")));
}

#[test]
fn a_restart_withdraws_no_learned_route_until_swept() {
    let kernel = kernel();
    let now = Instant::now();
    let mut before = routing(&kernel);
    before.set_desired(&tables(&[("10.0.0.0/26", blackhole()), ("10.0.0.64/26", blackhole())]));
    for text in ["10.1.0.0/26", "10.2.0.0/26", "10.3.0.0/26"] {
        before.set_learned(net(text), learned(&["172.17.8.102"]));
    }
    before.apply(now);
    drop(before);

    let mut after = routing(&kernel);
    after.hold_learned(true);
    after.set_desired(&tables(&[("10.0.0.0/26", blackhole())]));
    let report = after.apply(now);
    assert_eq!((report.held, report.routes.removed), (3, 1), "the lost block goes, the learned routes stay: {report}");
    after.set_learned(net("10.1.0.0/26"), learned(&["172.17.8.102"]));
    after.set_learned(net("10.2.0.0/26"), None);
    let report = after.apply(now);
    assert_eq!((report.held, report.routes.written, report.routes.removed), (1, 0, 1), "{report}");
    after.resync();
    assert_eq!(after.apply(now).held, 1);
    after.sweep_learned();
    let report = after.apply(now);
    assert_eq!((report.held, report.routes.removed), (0, 1));
    assert_eq!(ours(&kernel), ["blackhole 10.0.0.0/26 proto bird", "10.1.0.0/26 via 172.17.8.102 dev #2 proto bird"]);
}

#[test]
fn what_somebody_takes_away_or_changes_is_put_right_on_the_event() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let mut now = Instant::now();
    routing.set_desired(&tables(&[("10.0.0.0/26", blackhole()), ("10.0.0.5/32", workload("cali1"))]));
    routing.apply(now);
    let right = kernel.all_routes();
    for route in right.iter().filter(|r| ours(&kernel).contains(&r.to_string())) {
        // Echoes of our own writes cause nothing.
        routing.on_event(&Event::RouteSet(route.clone()));
        assert_eq!(routing.wake_at(now), None, "{route}");
        kernel.remove_routes(route.net);
        routing.on_event(&Event::RouteGone(route.clone()));
        now = routing.wake_at(now).unwrap();
        assert_eq!(routing.apply(now).routes.written, 1);
        assert_eq!(kernel.all_routes(), right);
    }
    let intruder = Route::link(net("10.0.0.5/32"), CALI2, RouteProtocol::STATIC);
    kernel.put_route(intruder.clone());
    routing.on_event(&Event::RouteSet(intruder));
    now = routing.wake_at(now).unwrap();
    routing.apply(now);
    assert_eq!(kernel.all_routes(), right);
}

#[test]
fn a_route_of_others_holds_its_place_and_ours_comes_when_it_goes() {
    let kernel = kernel();
    let theirs = Route::link(net("10.1.0.0/26"), ETH0, RouteProtocol::STATIC);
    kernel.put_route(theirs.clone());
    let mut routing = routing(&kernel);
    routing.set_learned(net("10.1.0.0/26"), learned(&["172.17.8.102"]));
    let mut now = Instant::now();
    let key = RouteKey::of_net(net("10.1.0.0/26"));
    for _ in 0..5 {
        let report = routing.apply(now);
        assert!(matches!(report.routes.failures[&key], Cause::Conflict(_)), "{report}");
        now = routing.wake_at(now).unwrap();
    }
    assert!(kernel.all_routes().contains(&theirs));
    let writes = kernel.writes();
    assert!(writes <= 5, "a conflict is not fought over: {writes} writes");
    kernel.remove_routes(theirs.net);
    routing.on_event(&Event::RouteGone(theirs));
    assert!(routing.apply(now).routes.is_clean());
    assert!(routing.programmed(&net("10.1.0.0/26")));
}

#[test]
fn others_routes_on_workload_interfaces_go_unless_they_may_stay() {
    for remove_external in [true, false] {
        let kernel = kernel();
        let external = Route::link(net("10.77.0.0/24"), CALI1, RouteProtocol::STATIC);
        let stray = Route::link(net("10.0.0.7/32"), CALI1, RouteProtocol::BOOT);
        let kernels = Route::link(net("fe80::/64"), CALI1, RouteProtocol::KERNEL);
        let elsewhere = Route::link(net("10.0.0.8/32"), ETH0, RouteProtocol::BOOT);
        for route in [&external, &stray, &kernels, &elsewhere] {
            kernel.put_route(route.clone());
        }
        let mut routing = Routing::new(kernel.clone(), Options { remove_external, ..Options::default() });
        routing.apply(Instant::now());
        let all = kernel.all_routes();
        assert_eq!(all.contains(&external), !remove_external);
        assert!(!all.contains(&stray), "a workload route of an earlier life");
        assert!(all.contains(&kernels) && all.contains(&elsewhere), "neither the kernel's nor those of other links");
    }
}

#[test]
fn a_failed_route_is_retried_with_back_off_and_harms_no_other() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    routing.set_desired(&tables(&[("10.0.0.0/26", blackhole()), ("10.0.0.64/26", blackhole())]));
    kernel.fail(net("10.0.0.0/26"), true);
    let now = Instant::now();
    let report = routing.apply(now);
    let key = RouteKey::of_net(net("10.0.0.0/26"));
    assert!(matches!(report.routes.failures[&key], Cause::Failed(_)));
    assert!(routing.programmed(&net("10.0.0.64/26")) && !routing.programmed(&net("10.0.0.0/26")));
    kernel.fail(net("10.0.0.0/26"), false);
    assert_eq!(routing.wake_at(now), Some(now + Duration::from_millis(100)));
    assert!(routing.apply(now + Duration::from_millis(100)).routes.is_clean());
}

struct FakeRig(FakeKernel);

impl Rig for FakeRig {
    type Target = RouteTable<FakeKernel>;

    fn target(&mut self) -> Self::Target {
        RouteTable::new(self.0.clone(), &Options::default())
    }

    fn foreign(&mut self) -> String {
        let foreign =
            |r: &&Route| [RouteProtocol::KERNEL, RouteProtocol(16), RouteProtocol::STATIC].contains(&r.protocol);
        format!("{:?}", self.0.all_routes().iter().filter(foreign).collect::<Vec<_>>())
    }

    fn set_failing(&mut self, key: &RouteKey, failing: bool) -> bool {
        self.0.fail(key.net, failing);
        true
    }

    fn steal(&mut self, key: &RouteKey) -> bool {
        self.0.remove_routes(key.net);
        true
    }
}

fn route() -> impl Strategy<Value = Route> {
    let v4 = (0u8..8).prop_map(|n| (net(&format!("10.0.0.{n}/32")), ["172.17.8.102", "172.17.8.103"]));
    let v6 = (0u8..8).prop_map(|n| (net(&format!("fd00:84::{n:x}/128")), ["fd00:8::102", "fd00:8::103"]));
    (prop_oneof![v4, v6], 0u8..4, any::<bool>()).prop_map(|((net, vias), class, other)| match class {
        0 => Route::link(net, if other { CALI1 } else { CALI2 }, RouteProtocol::BOOT),
        1 => Route::blackhole(net, if other { RouteProtocol::BIRD } else { RouteProtocol::CALICO }),
        2 => Route::via(net, vec![NextHop::via(ip(vias[usize::from(other)]), ETH0)], RouteProtocol::BIRD),
        _ => Route::via(net, vias.map(|via| NextHop::via(ip(via), ETH0)).to_vec(), RouteProtocol::BIRD),
    })
}

proptest! {
    #[test]
    fn the_target_converges(
        states in proptest::collection::vec(proptest::collection::vec(route(), 0..10), 1..6),
    ) {
        let states: Vec<BTreeMap<_, _>> =
            states.into_iter().map(|s| s.into_iter().map(|r| (RouteKey::of_route(&r), Arc::new(r))).collect()).collect();
        converges(&mut FakeRig(kernel()), &states);
    }
}

#[test]
fn a_gateway_off_link_is_reached_through_the_router_that_others_routes_name() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let now = Instant::now();
    let router = |text: &str, via: &str, metric| {
        let hop = NextHop::via(ip(via), ETH0);
        Route { metric, ..Route::via(net(text), vec![hop], RouteProtocol::STATIC) }
    };
    kernel.put_route(router("0.0.0.0/0", "172.17.8.2", 200));
    routing.set_learned(net("10.1.0.0/26"), learned(&["172.18.0.9"]));
    routing.set_learned(net("10.2.0.0/26"), learned(&["172.18.0.9", "172.18.0.10", "172.17.8.102"]));
    let report = routing.apply(now);
    assert!(report.waiting.is_empty(), "{report}");
    let both = "10.2.0.0/26 nexthop weight 1 via 172.17.8.1 dev #2 nexthop weight 1 via 172.17.8.102 dev #2 proto bird";
    assert_eq!(ours(&kernel), ["10.1.0.0/26 via 172.17.8.1 dev #2 proto bird", both]);

    // A longer prefix leads elsewhere.
    let more = router("172.18.0.8/29", "172.17.8.7", 0);
    kernel.put_route(more.clone());
    routing.on_event(&Event::RouteSet(more.clone()));
    routing.apply(routing.wake_at(now).unwrap());
    assert_eq!(ours(&kernel)[0], "10.1.0.0/26 via 172.17.8.7 dev #2 proto bird");

    // One that no gateway depends on is not worth a reading, but counts for the gateway that does later.
    let other = router("172.19.0.0/16", "172.17.8.8", 0);
    kernel.put_route(other.clone());
    routing.on_event(&Event::RouteSet(other));
    assert_eq!(routing.wake_at(now), None);
    routing.set_learned(net("10.3.0.0/26"), learned(&["172.19.0.1"]));
    routing.apply(now);
    routing.apply(routing.wake_at(now).unwrap());
    assert_eq!(ours(&kernel)[2], "10.3.0.0/26 via 172.17.8.8 dev #2 proto bird");

    // With nothing that leads there it goes, and says so.
    let routers = kernel.all_routes().into_iter().filter(|route| route.protocol != RouteProtocol::BIRD);
    for route in routers.filter(|route| route.hops.iter().any(|hop| hop.via.is_some())).collect::<Vec<_>>() {
        kernel.remove_routes(route.net);
        routing.on_event(&Event::RouteGone(route));
    }
    let report = routing.apply(routing.wake_at(now).unwrap());
    assert_eq!(report.waiting.len(), 3, "{report}");
    assert_eq!(ours(&kernel), ["10.2.0.0/26 via 172.17.8.102 dev #2 proto bird"]);
}

#[test]
fn a_gateway_in_a_pool_is_not_looked_for_outside_the_network() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let pools = BTreeMap::from([(net("10.0.0.0/16"), Some(Pool { nat_outgoing: false }))]);
    routing.change_desired(&Batch { pools, ..Batch::default() });
    routing.set_learned(net("10.1.0.0/26"), learned(&["10.0.0.5"]));
    let report = routing.apply(Instant::now());
    assert_eq!(report.waiting, [(net("10.1.0.0/26"), Waiting::OffLink(vec![ip("10.0.0.5")]))].into());
    assert_eq!(ours(&kernel), [""; 0]);
}

#[test]
fn a_peer_behind_its_own_route_is_a_gateway() {
    let kernel = kernel();
    let mut routing = routing(&kernel);
    let now = Instant::now();
    routing.set_desired(&tables(&[("10.9.9.9/32", node("172.17.8.7"))]));
    routing.set_learned(net("10.1.0.0/26"), learned(&["10.9.9.9"]));
    routing.apply(now);
    let event = kernel.all_routes().into_iter().find(|route| route.net == net("10.9.9.9/32")).unwrap();
    routing.on_event(&Event::RouteSet(event));
    routing.apply(routing.wake_at(now).unwrap());
    assert!(ours(&kernel).contains(&"10.1.0.0/26 via 172.17.8.7 dev #2 proto bird".to_owned()), "{:?}", ours(&kernel));
}
