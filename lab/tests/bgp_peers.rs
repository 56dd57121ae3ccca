//! Sessions with real routers: BIRD 2 and GoBGP hold a node's block, and pods answer from the router's namespace.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/programs.rs"]
mod programs;
#[path = "support/routers.rs"]
mod routers;

use programs::installed;
use routers::{OPEN, START};
use tortie_lab::{Lab, Outcome, Pod, Probe, probe, wait};
use tortie_net::IpNet;
use tortie_netlink::{NextHop, Route, RouteProtocol};

fn peer(asn: u32) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: router}}
spec: {{peerIP: 172.17.8.1, asNumber: {asn}}}
"
    )
}

/// Two nodes with a pod each, and a router at 172.17.8.1.
fn lab_with_router() -> (Lab, Pod, Pod) {
    let lab = Lab::builder().nodes(2).router("router").env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap();
    lab.start(START).unwrap();
    lab.apply(OPEN).unwrap();
    let a = lab.node(1).add_pod("default", "a", &[]).unwrap();
    let b = lab.node(2).add_pod("default", "b", &[]).unwrap();
    (lab, a, b)
}

fn block(pod: &Pod) -> IpNet {
    IpNet::new(pod.ip(), 26).unwrap().trunc()
}

fn output(lab: &Lab, program: &str, args: &[&str]) -> String {
    let output = lab.view("router").unwrap().command(program, false).unwrap().args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn until(what: &str, mut test: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    let done = wait(START, || test().map_err(|why| last = why).ok());
    assert!(done.is_some(), "{what}: {last}");
}

#[test]
#[ignore = "needs root"]
fn bird_holds_the_blocks_and_pods_answer_from_the_router() {
    if !installed(&["bird"]) {
        return;
    }
    let (lab, a, b) = lab_with_router();
    let folder = lab.folder("router").unwrap();
    let (config, socket) = (folder.join("bird.conf"), folder.join("bird.ctl"));
    let neighbours: String = (1..=2)
        .map(|n| {
            format!(
                "protocol bgp node{n} {{ local 172.17.8.1 as 65001; neighbor 172.17.8.10{n} as 64512; \
                 graceful restart on; connect retry time 2; ipv4 {{ import all; export none; }}; }}\n"
            )
        })
        .collect();
    let text = format!(
        "router id 172.17.8.1;\nprotocol device {{}}\nprotocol kernel {{ ipv4 {{ export all; }}; }}\n{neighbours}"
    );
    std::fs::write(&config, text).unwrap();
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let _bird = lab.spawn("router", "bird", &["-f", "-c", config, "-s", socket]).unwrap();
    lab.apply(&peer(65001)).unwrap();
    until("both sessions are established", || {
        let text = output(&lab, "birdc", &["-s", socket, "show", "protocols"]);
        if text.matches("Established").count() == 2 { Ok(()) } else { Err(text) }
    });
    until("BIRD holds both blocks", || {
        let text = output(&lab, "birdc", &["-s", socket, "show", "route"]);
        let holds = |pod: &Pod| text.contains(&block(pod).to_string());
        if holds(&a) && holds(&b) { Ok(()) } else { Err(text) }
    });
    let router = lab.place("router").unwrap();
    for pod in [&a, &b] {
        for probe in [Probe::icmp(), Probe::tcp(9000)] {
            let open = probe::becomes(&router, &pod.place(), &probe, Outcome::Open, START).unwrap();
            assert!(open, "the router reaches {} by {probe:?}", pod.name());
        }
    }
    // A node that dies takes nothing from the router; one that comes back changes nothing there.
    let before = output(&lab, "birdc", &["-s", socket, "show", "route"]);
    lab.node(1).kill9().unwrap();
    assert!(probe::can(&router, &a.place(), &Probe::icmp().within(START)).unwrap());
    let dead = output(&lab, "birdc", &["-s", socket, "show", "route"]);
    assert!(dead.contains(&block(&a).to_string()), "before:\n{before}\nwith the node dead:\n{dead}");
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    until("the session is back", || {
        let text = output(&lab, "birdc", &["-s", socket, "show", "protocols"]);
        if text.matches("Established").count() == 2 { Ok(()) } else { Err(text) }
    });
    assert!(probe::can(&router, &a.place(), &Probe::icmp().within(START)).unwrap());
}

#[test]
#[ignore = "needs root"]
fn a_router_that_speaks_from_its_loopback_is_the_gateway_by_the_way_to_it() {
    if !installed(&["bird"]) {
        return;
    }
    let lab = Lab::builder().nodes(1).router("router").up().unwrap();
    lab.start(START).unwrap();
    let router = lab.view("router").unwrap();
    let set = router.command("ip", false).unwrap().args(["address", "add", "10.9.9.9/32", "dev", "lo"]).status();
    assert!(set.unwrap().success());
    let folder = lab.folder("router").unwrap();
    let (config, socket) = (folder.join("bird.conf"), folder.join("bird.ctl"));
    let text = "router id 10.9.9.9;\nprotocol device {}\nprotocol static { ipv4; route 203.0.113.0/24 blackhole; }\n\
                protocol bgp node1 { local 10.9.9.9 as 65001; neighbor 172.17.8.101 as 64512; multihop; \
                connect retry time 2; ipv4 { import all; export where source = RTS_STATIC; }; }\n";
    std::fs::write(&config, text).unwrap();
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let _bird = lab.spawn("router", "bird", &["-f", "-c", config, "-s", socket]).unwrap();
    let peer = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: router}
spec: {peerIP: 10.9.9.9, asNumber: 65001, reachableBy: 172.17.8.1}
";
    lab.apply(peer).unwrap();
    let told: IpNet = "203.0.113.0/24".parse().unwrap();
    let route =
        lab.node(1).wait_route(START, "what the router told", |route| route.net == told).unwrap_or_else(|error| {
            panic!(
                "{error}\n{}\n{}",
                output(&lab, "birdc", &["-s", socket, "show", "protocols", "all"]),
                lab.node(1).log()
            )
        });
    assert_eq!((route.protocol, route.hops[0].via), (RouteProtocol::BIRD, Some("172.17.8.1".parse().unwrap())));
}

#[test]
#[ignore = "needs root"]
fn gobgp_holds_the_blocks_and_pods_answer_from_its_namespace() {
    if !installed(&["gobgpd", "gobgp"]) {
        return;
    }
    let (lab, a, b) = lab_with_router();
    let folder = lab.folder("router").unwrap();
    let config = folder.join("gobgpd.conf");
    let mut text = "[global.config]\n as = 65002\n router-id = \"172.17.8.1\"\n".to_owned();
    for n in 1..=2 {
        text.push_str(&format!(
            "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"172.17.8.10{n}\"\n  peer-as = 64512\n \
             [neighbors.timers.config]\n  connect-retry = 5\n  idle-hold-time-after-reset = 1\n"
        ));
    }
    std::fs::write(&config, text).unwrap();
    let _gobgpd =
        lab.spawn("router", "gobgpd", &["-f", config.to_str().unwrap(), "--api-hosts", "127.0.0.1:50051"]).unwrap();
    lab.apply(&peer(65002)).unwrap();
    until("GoBGP holds both blocks", || {
        let text = output(&lab, "gobgp", &["global", "rib"]);
        let holds = |pod: &Pod| text.contains(&block(pod).to_string());
        if holds(&a) && holds(&b) { Ok(()) } else { Err(text + &output(&lab, "gobgp", &["neighbor"])) }
    });
    // GoBGP writes no kernel routes by itself: the test does, by the next hops that GoBGP tells.
    let rib = output(&lab, "gobgp", &["global", "rib"]);
    let router = lab.place("router").unwrap();
    let mut kernel = router.run(|| Ok(tortie_netlink::Handle::open()?)).unwrap();
    let link = kernel.addresses().unwrap().iter().find(|held| held.net.addr() == router.ips()[0]).unwrap().index;
    for pod in [&a, &b] {
        let line = rib.lines().find(|line| line.contains(&block(pod).to_string())).unwrap();
        let hop = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        kernel.add_route(Route::via(block(pod), vec![NextHop::via(hop, link)], RouteProtocol::STATIC)).unwrap();
        let open = probe::becomes(&router, &pod.place(), &Probe::icmp(), Outcome::Open, START).unwrap();
        assert!(open, "GoBGP's namespace reaches {}", pod.name());
    }
}
