//! `kill -9` and start of nodes, one or both, also while they start: no route goes at a neighbour, whether that is a node,
//! BIRD, FRR or GoBGP, in either family, and no packet of a thousand a second is lost. `TORTIE_FULL` asks for 200 kills
//! beside BIRD. GoBGP
//! puts nothing into a kernel: there its own table is followed, and packets flow between the nodes alone.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use routers::{Make, OPEN, Router, START, until};
use tortie_lab::{Lab, Node, Pod, Prober};
use tortie_net::{Family, IpNet};
use tortie_netlink::{Event, Groups, Monitor, Route};

const RATE: u32 = 1000;
const KILLS: u32 = 8;
const FEW: u32 = 4;
const FULL: u32 = 200;

/// How a family is named, and the router's and the nodes' addresses of it.
struct Ends {
    family: Family,
    name: &'static str,
    router: &'static str,
    nodes: [&'static str; 2],
}

const V4: Ends =
    Ends { family: Family::V4, name: "ipv4", router: "172.17.8.1", nodes: ["172.17.8.101", "172.17.8.102"] };
const V6: Ends = Ends { family: Family::V6, name: "ipv6", router: "fd00:8::1", nodes: ["fd00:8::65", "fd00:8::66"] };

fn peer(router: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: router}}\nspec: {{peerIP: '{router}', \
         asNumber: 65001}}\n"
    )
}

fn config(make: Make, ends: &Ends) -> String {
    let Ends { family: _, name, router, nodes } = ends;
    let each = |one: &dyn Fn(&str) -> String| nodes.iter().map(|node| one(node)).collect::<String>();
    match make {
        Make::Bird => {
            format!("router id 172.17.8.1;\nprotocol device {{}}\nprotocol kernel {{ {name} {{ export all; }}; }}\n")
                + &each(&|node| {
                    format!(
                        "protocol bgp {{ local {router} as 65001; neighbor {node} as 64512; graceful restart on; connect \
                         retry time 1; error wait time 1, 2; {name} {{ import all; export none; }}; }}\n"
                    )
                })
        }
        Make::Frr => {
            "hostname r\nrouter bgp 65001\n bgp router-id 172.17.8.1\n no bgp ebgp-requires-policy\n bgp \
             graceful-restart\n"
                .to_owned()
                + &each(&|node| {
                    format!(
                        " neighbor {node} remote-as 64512\n neighbor {node} timers connect 1\n neighbor {node} \
                         advertisement-interval 0\n"
                    )
                })
                + &format!(" address-family {name} unicast\n")
                + &each(&|node| format!("  neighbor {node} activate\n"))
                + " exit-address-family\n"
        }
        Make::GoBgp => {
            "[global.config]\n as = 65001\n router-id = \"172.17.8.1\"\n".to_owned()
                + &each(&|node| {
                    format!(
                        "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{node}\"\n  peer-as = 64512\n \
                         [neighbors.graceful-restart.config]\n  enabled = true\n  restart-time = 120\n \
                         [neighbors.timers.config]\n  connect-retry = 5\n  idle-hold-time-after-reset = 1\n \
                         [[neighbors.afi-safis]]\n  [neighbors.afi-safis.config]\n   afi-safi-name = \"{name}-unicast\"\n  \
                         [neighbors.afi-safis.mp-graceful-restart.config]\n   enabled = true\n"
                    )
                })
        }
    }
}

fn block(pod: &Pod, family: Family) -> IpNet {
    let length = if family == Family::V4 { 26 } else { 122 };
    IpNet::new(pod.place().ip(family).unwrap(), length).unwrap().trunc()
}

/// Starts the node until it stays, as its supervisor would.
fn revive(node: &Node) {
    let begun = Instant::now();
    loop {
        node.start().unwrap();
        match node.wait_in_sync(START) {
            Ok(()) => return,
            Err(error) => assert!(node.process().is_none() && begun.elapsed() < START, "{error:#}"),
        }
    }
}

/// Kills one node or both, by turns, every third time again while they start; how many kills that were.
fn kill(lab: &Lab, round: u64) -> u32 {
    let nodes: &[usize] = [&[1][..], &[2], &[1, 2]][round as usize % 3];
    let pause = |most: u64| std::thread::sleep(Duration::from_millis(round * 37 % most));
    let mut killed = 0;
    let mut end = |node: usize| killed += u32::from(lab.node(node).kill9().is_ok());
    nodes.iter().for_each(|node| end(*node));
    pause(300);
    if round / 3 % 2 == 1 {
        for node in nodes {
            lab.node(*node).start().unwrap();
            pause(250);
            end(*node);
        }
    }
    nodes.iter().for_each(|node| revive(lab.node(*node)));
    // Not always until the sessions are up again.
    pause(2500);
    killed
}

/// Follows the kernel of a machine; what went of these prefixes.
fn watch(lab: &Lab, machine: &str, nets: &[IpNet], stop: &AtomicBool) -> Vec<Route> {
    let groups = Groups { links: false, addresses: false, routes: true, neighbours: false };
    let place = lab.place(machine).unwrap();
    let mut monitor = place.run(|| Ok(Monitor::open(groups)?)).unwrap();
    let mut gone = Vec::new();
    while !stop.load(Ordering::Acquire) {
        if !monitor.wait(Duration::from_millis(100)).unwrap() {
            continue;
        }
        for event in monitor.drain().unwrap() {
            match event {
                Event::RouteGone(route) if nets.contains(&route.net) => gone.push(route),
                Event::Resync => panic!("events of {machine} were lost"),
                _ => {}
            }
        }
    }
    gone
}

/// Follows GoBGP's own table.
struct Followed(Child);

impl Followed {
    fn start(lab: &Lab, family: &str) -> Followed {
        let mut command = lab.view("router").unwrap().command("gobgp", false).unwrap();
        Followed(
            command
                .args(["monitor", "global", "rib", "-a", family, "--current"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// The lines that say that a route went; it was told of each of these before.
    fn gone(mut self, nets: &[IpNet]) -> Vec<String> {
        self.0.kill().unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        assert!(nets.iter().all(|net| text.contains(&format!("[ROUTE] {net} "))), "{text}");
        text.lines().filter(|line| line.contains("DELROUTE")).map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs root"]
fn killed_nodes_withdraw_no_route_and_lose_no_packet() {
    let full = std::env::var_os("TORTIE_FULL").is_some();
    killed_nodes_are_not_missed(Make::Bird, &V4, if full { FULL } else { KILLS });
}

#[test]
#[ignore = "needs root"]
fn bird_misses_no_killed_node_over_ipv6() {
    killed_nodes_are_not_missed(Make::Bird, &V6, FEW);
}

#[test]
#[ignore = "needs root"]
fn frr_misses_no_killed_node() {
    killed_nodes_are_not_missed(Make::Frr, &V4, FEW);
}

#[test]
#[ignore = "needs root"]
fn frr_misses_no_killed_node_over_ipv6() {
    killed_nodes_are_not_missed(Make::Frr, &V6, FEW);
}

#[test]
#[ignore = "needs root"]
fn gobgp_misses_no_killed_node() {
    killed_nodes_are_not_missed(Make::GoBgp, &V4, FEW);
}

#[test]
#[ignore = "needs root"]
fn gobgp_misses_no_killed_node_over_ipv6() {
    killed_nodes_are_not_missed(Make::GoBgp, &V6, FEW);
}

fn killed_nodes_are_not_missed(make: Make, ends: &Ends, kills: u32) {
    if !make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(2).dual_stack().router("router");
    let lab = lab.env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap();
    lab.start(START).unwrap();
    lab.apply(&format!("{OPEN}{}", peer(ends.router))).unwrap();
    let a = lab.node(1).add_pod("default", "a", &[]).unwrap();
    let b = lab.node(2).add_pod("default", "b", &[]).unwrap();
    let router = Router::start(&lab, "router", make, &config(make, ends));
    let nets = [block(&a, ends.family), block(&b, ends.family)];
    until("the routes are everywhere", || {
        let held = router.holds();
        let at = |node: usize, net: IpNet| lab.node(node).routes().unwrap().iter().any(|route| route.net == net);
        let all = nets.iter().all(|net| held.contains_key(&net.to_string())) && at(1, nets[1]) && at(2, nets[0]);
        if all { Ok(()) } else { Err(format!("{held:?}")) }
    });
    let from_router = lab.place("router").unwrap();
    let stream =
        |from: &tortie_lab::Place, to: &Pod| Prober::start(from, &to.place(), ends.family, 9000, RATE).unwrap();
    let forwards = make != Make::GoBgp;
    let mut streams = vec![stream(&a.place(), &b)];
    streams.extend(forwards.then(|| stream(&from_router, &a)));
    for stream in &streams {
        assert!(stream.wait_received(100, START), "the stream flows");
    }
    let flowing: Vec<_> = streams.iter().map(Prober::mark).collect();
    let followed = (!forwards).then(|| Followed::start(&lab, ends.name));

    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let mut killed = 0;
    let gone = std::thread::scope(|scope| {
        // FRR changes a route of IPv6, even to the same, by taking it away first; what that costs, packets tell.
        let frr6 = make == Make::Frr && ends.family == Family::V6;
        let at_router = if frr6 { &[][..] } else { &nets[..] };
        let machines = [("router", at_router), ("node1", &nets[1..]), ("node2", &nets[..1])];
        let watches = machines.map(|(machine, nets)| (machine, scope.spawn(|| watch(&lab, machine, nets, &stop))));
        let stops = Stops(&stop);
        for round in 0.. {
            if killed >= kills {
                break;
            }
            killed += kill(&lab, round);
        }
        std::thread::sleep(Duration::from_secs(5));
        drop(stops);
        watches.map(|(machine, watch)| (machine, watch.join().unwrap()))
    });
    let took = begun.elapsed().as_secs_f64();
    let reports: Vec<_> = streams.into_iter().map(Prober::stop).collect();
    let lost: Vec<_> = reports.iter().map(|report| report.sent - report.received).collect();
    let sent: Vec<_> = reports.iter().map(|report| report.sent).collect();
    println!("{killed} kills in {took:.0} s: of {sent:?} packets {lost:?} were lost; routes that went: {gone:?}");
    let withdrawn = followed.map(|followed| followed.gone(&nets)).unwrap_or_default();
    assert!(withdrawn.is_empty(), "routes went in {make:?}: {withdrawn:?}");
    for (machine, gone) in gone {
        assert!(gone.is_empty(), "routes went at {machine}: {gone:?}");
    }
    for (report, flowing) in reports.iter().zip(flowing) {
        assert!(report.rate() >= 900.0, "{} packets/s", report.rate());
        report.expect_all(flowing..report.sent).unwrap();
    }
}

/// Tells the threads of the test to stop, also when it fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
