//! Whatever happens to links and routes, and however late the events come: in the end the kernel holds what a node
//! that starts then would write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use tortie_desired::{Batch, Route as Desired, RouteTarget};
use tortie_netlink::{Event, FakeKernel, Link, NextHop, Route, RouteKernel, RouteProtocol};
use tortie_routing::{Learned, Options, Routing};

const ETH0: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Desire(usize, Option<u8>),
    Learn(usize, Option<u8>),
    LinkUp(usize, bool),
    Recreate(usize),
    Remove(usize),
    Uplink(bool),
    Router(bool),
    Steal(usize),
    Intrude(usize, bool),
    Deliver(usize),
    LoseEvents,
    Apply,
}

fn nets() -> [IpNet; 4] {
    ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "fd00::2/128"].map(|t| t.parse().unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    let net = 0usize..4;
    let link = 0usize..2;
    prop_oneof![
        4 => (net.clone(), proptest::option::of(0u8..4)).prop_map(|(n, t)| Step::Desire(n, t)),
        2 => (net.clone(), proptest::option::of(0u8..5)).prop_map(|(n, t)| Step::Learn(n, t)),
        2 => (link.clone(), any::<bool>()).prop_map(|(l, up)| Step::LinkUp(l, up)),
        1 => link.clone().prop_map(Step::Recreate),
        1 => link.prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Uplink),
        1 => any::<bool>().prop_map(Step::Router),
        1 => net.clone().prop_map(Step::Steal),
        1 => (net, any::<bool>()).prop_map(|(n, s)| Step::Intrude(n, s)),
        4 => (1usize..6).prop_map(Step::Deliver),
        1 => Just(Step::LoseEvents),
        5 => Just(Step::Apply),
    ]
}

/// A kernel with a queue of the events that it sent and nobody has read yet.
struct World {
    kernel: FakeKernel,
    events: VecDeque<Event>,
    links: BTreeMap<u32, Link>,
    routes: Vec<Route>,
    next_index: u32,
    cali: [u32; 2],
}

impl World {
    fn new() -> World {
        let kernel = FakeKernel::new();
        for (index, name) in [(ETH0, "eth0"), (11, "cali1"), (12, "cali2")] {
            kernel.put_link(index, name);
        }
        let mut world = World {
            kernel,
            events: VecDeque::new(),
            links: BTreeMap::new(),
            routes: Vec::new(),
            next_index: 20,
            cali: [11, 12],
        };
        world.connect();
        world.emit(true);
        world.events.clear();
        world
    }

    fn connect(&self) {
        for text in ["172.17.8.0/24", "fd00:8::/64"] {
            self.kernel.put_route(Route::link(text.parse().unwrap(), ETH0, RouteProtocol::KERNEL));
        }
    }

    /// Queues events for what changed since the last call. IPv4 says nothing of routes that go with their link.
    fn emit(&mut self, routes_too: bool) {
        let links: BTreeMap<u32, Link> =
            self.kernel.links().unwrap().into_iter().map(|link| (link.index, link)).collect();
        let routes = self.kernel.all_routes();
        for (index, link) in &self.links {
            if !links.contains_key(index) {
                self.events.push_back(Event::LinkGone(link.clone()));
            }
        }
        for (index, link) in &links {
            if self.links.get(index) != Some(link) {
                self.events.push_back(Event::LinkSet(link.clone()));
            }
        }
        if routes_too {
            let key = |r: &Route| (r.net, r.metric);
            let replaced = |old: &Route| routes.iter().any(|new| key(new) == key(old));
            let gone = self.routes.iter().filter(|r| !replaced(r)).cloned().map(Event::RouteGone);
            let set = routes.iter().filter(|r| !self.routes.contains(r)).cloned().map(Event::RouteSet);
            self.events.extend(gone.chain(set));
        }
        (self.links, self.routes) = (links, routes);
    }

    fn step(&mut self, routing: &mut Routing<FakeKernel>, now: &mut Instant, step: &Step) {
        match step {
            Step::Desire(..) | Step::Learn(..) => want(routing, step),
            Step::LinkUp(link, up) => {
                if self.links.contains_key(&self.cali[*link]) {
                    self.kernel.set_link_up(self.cali[*link], *up);
                }
                self.emit(false);
            }
            Step::Recreate(link) => {
                self.kernel.remove_link(self.cali[*link]);
                self.next_index += 1;
                self.cali[*link] = self.next_index;
                self.kernel.put_link(self.next_index, ["cali1", "cali2"][*link]);
                self.emit(false);
            }
            Step::Remove(link) => {
                self.kernel.remove_link(self.cali[*link]);
                self.emit(false);
            }
            Step::Uplink(up) => {
                self.kernel.set_link_up(ETH0, *up);
                self.emit(false);
                if *up {
                    self.connect();
                }
                self.emit(true);
            }
            Step::Router(there) => {
                let net = "172.18.0.0/16".parse().unwrap();
                if *there && self.links[&ETH0].up {
                    let router = NextHop::via("172.17.8.1".parse().unwrap(), ETH0);
                    self.kernel.put_route(Route::via(net, vec![router], RouteProtocol::STATIC));
                } else {
                    self.kernel.remove_routes(net);
                }
                self.emit(true);
            }
            Step::Steal(net) => {
                self.kernel.remove_routes(nets()[*net]);
                self.emit(true);
            }
            Step::Intrude(net, same_shape) => {
                let protocol = if *same_shape { RouteProtocol::BIRD } else { RouteProtocol::STATIC };
                self.kernel.put_route(Route::blackhole(nets()[*net], protocol));
                self.emit(true);
            }
            Step::Deliver(count) => {
                for event in self.events.drain(..(*count).min(self.events.len())) {
                    routing.on_event(&event);
                }
            }
            Step::LoseEvents => {
                self.events.clear();
                self.events.push_back(Event::Resync);
            }
            Step::Apply => {
                *now += Duration::from_millis(7);
                routing.apply(*now);
                self.emit(true);
            }
        }
    }
}

/// Tells a routing what a step wants.
fn want(routing: &mut Routing<FakeKernel>, step: &Step) {
    match step {
        Step::Desire(net, target) => {
            let workload = |name: &str| RouteTarget::Workload { interface: Arc::from(name) };
            let target = target.map(|n| match n {
                0 => RouteTarget::Blackhole,
                1 => RouteTarget::Node { node: Arc::from("n2"), via: "172.17.8.102".parse().unwrap() },
                2 => workload("cali1"),
                _ => workload("cali2"),
            });
            let route = target.map(|target| Desired { target });
            routing.change_desired(&Batch { routes: BTreeMap::from([(nets()[*net], route)]), ..Batch::default() });
        }
        Step::Learn(net, hops) => {
            let text: &[&str] = match hops {
                None => &[],
                Some(0) => &["172.17.8.102"],
                Some(1) => &["172.17.8.102", "172.17.8.103"],
                Some(2) => &["fd00:8::102"],
                Some(3) => &["172.18.0.9", "172.17.8.102"],
                // Behind a route of the node's own, or a workload.
                Some(_) => &["10.0.0.1"],
            };
            let next_hops: Vec<_> = text.iter().map(|t| t.parse().unwrap()).collect();
            routing.set_learned(
                nets()[*net],
                hops.map(|_| Learned {
                    next_hops,
                    metric: u32::from(*hops == Some(1)) * 1024,
                    over_workloads: *hops == Some(2),
                }),
            );
        }
        _ => {}
    }
}

/// Runs the steps, lets the events come through, and compares with a node that starts then.
fn ends_as_a_fresh_start(steps: &[Step]) {
    let mut world = World::new();
    let mut now = Instant::now();
    let mut routing = Routing::new(world.kernel.clone(), Options::default());
    for step in steps {
        world.step(&mut routing, &mut now, step);
    }
    // Events come through at last; conflicts with others' routes may go on, so passes are counted.
    for _ in 0..12 {
        while !world.events.is_empty() {
            world.step(&mut routing, &mut now, &Step::Deliver(usize::MAX));
            world.step(&mut routing, &mut now, &Step::Apply);
        }
        now = routing.wake_at(now).unwrap_or(now).max(now);
        world.step(&mut routing, &mut now, &Step::Apply);
    }
    let before = world.kernel.all_routes();
    let mut fresh = Routing::new(world.kernel.clone(), Options::default());
    steps.iter().for_each(|step| want(&mut fresh, step));
    let report = fresh.apply(now);
    assert!(!report.routes.wrote(), "a node that starts now would change something: {report}\n{before:#?}");
    for net in nets() {
        assert_eq!(routing.programmed(&net), fresh.programmed(&net), "{}", net);
    }
    let via = |r: &Route| r.hops.iter().map(|h: &NextHop| h.interface).collect::<Vec<_>>();
    let dead: Vec<_> = before.iter().filter(|r| via(r).iter().any(|i| !world.links.contains_key(i))).collect();
    assert!(dead.is_empty(), "routes through links that are gone: {dead:?}");
}

#[test]
fn late_events_of_older_links_of_a_name_do_not_hide_the_newest() {
    let steps = [Step::Recreate(1), Step::Recreate(1), Step::Desire(0, Some(3)), Step::Apply, Step::Deliver(3)];
    ends_as_a_fresh_start(&[&steps[..], &[Step::Apply]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_end_depends_on_the_end_alone(steps in proptest::collection::vec(step(), 0..60)) {
        ends_as_a_fresh_start(&steps);
    }
}
