//! Reflection, route refresh and long-lived graceful restart with BIRD, FRR and GoBGP, route by route, in both families
//! and both roles.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::collections::{BTreeMap, BTreeSet};

use routers::{Make, Router, START, tortie_bgp, tortie_bgp_json, until};
use serde_json::Value;
use tortie_lab::{Lab, Pod};
use tortie_net::{Family, IpNet};

const CLUSTER: &str = "10.0.0.99";

/// A router of the AS of the nodes: its make, its addresses, and what it announces.
#[derive(Clone, Copy)]
struct Speaks {
    make: Make,
    v4: &'static str,
    v6: &'static str,
    nets: [&'static str; 2],
}

const ALL: [Speaks; 3] = [
    Speaks { make: Make::Bird, v4: "172.17.8.1", v6: "fd00:8::1", nets: ["203.0.113.0/26", "2001:db8:1::/64"] },
    Speaks { make: Make::Frr, v4: "172.17.8.2", v6: "fd00:8::2", nets: ["203.0.113.64/26", "2001:db8:2::/64"] },
    Speaks { make: Make::GoBgp, v4: "172.17.8.3", v6: "fd00:8::3", nets: ["203.0.113.128/26", "2001:db8:3::/64"] },
];

/// A router with its neighbours, IPv4 and IPv6 address of each; `reflects`: they are its clients.
fn config(me: Speaks, neighbours: &[(&str, &str)], reflects: bool, long_lived: bool) -> String {
    let Speaks { make, v4, v6, nets: [net4, net6] } = me;
    let each = |text: &dyn Fn(usize, &str, &str) -> String| -> String {
        neighbours.iter().enumerate().map(|(at, (n4, n6))| text(at, n4, n6)).collect()
    };
    match make {
        Make::Bird => {
            let client = if reflects { format!("rr client; rr cluster id {CLUSTER};") } else { String::new() };
            let long = if long_lived {
                "graceful restart time 2; long lived graceful restart on; long lived stale time 600;"
            } else {
                ""
            };
            let session = |name: String, local: &str, node: &str, family: &str| {
                format!(
                    "protocol bgp {name} {{ local {local} as 64512; neighbor {node} as 64512; {client} graceful restart on; \
                     {long} connect retry time 1; error wait time 1, 2; \
                     {family} {{ import all; export where source = RTS_STATIC || source = RTS_BGP; }}; }}\n"
                )
            };
            format!(
                "router id {v4};\nprotocol device {{}}\nprotocol static s4 {{ ipv4; route {net4} blackhole {{ \
                 bgp_large_community.add((64512,4,{x})); }}; }}\nprotocol static s6 {{ ipv6; route {net6} blackhole; }}\n",
                x = 1
            ) + &each(&|at, n4, n6| {
                session(format!("four{at}"), v4, n4, "ipv4") + &session(format!("six{at}"), v6, n6, "ipv6")
            })
        }
        Make::Frr => {
            let client4 =
                |n: &str| if reflects { format!("  neighbor {n} route-reflector-client\n") } else { String::new() };
            let long = if long_lived {
                " bgp graceful-restart restart-time 2\n bgp long-lived-graceful-restart stale-time 600\n"
            } else {
                ""
            };
            let cluster = if reflects { format!(" bgp cluster-id {CLUSTER}\n") } else { String::new() };
            format!(
                "hostname r\nip route {net4} blackhole\nipv6 route {net6} blackhole\nroute-map tag permit 10\n set \
                 large-community 64512:4:2\nrouter bgp 64512\n bgp router-id {v4}\n no bgp network import-check\n bgp \
                 graceful-restart\n{long}{cluster}"
            ) + &each(&|_, n4, n6| {
                format!(
                    " neighbor {n4} remote-as 64512\n neighbor {n4} timers connect 1\n neighbor {n6} remote-as 64512\n \
                     neighbor {n6} timers connect 1\n"
                )
            }) + &format!(" address-family ipv4 unicast\n  network {net4} route-map tag\n")
                + &each(&|_, n4, n6| format!("  no neighbor {n6} activate\n{}", client4(n4)))
                + &format!(" exit-address-family\n address-family ipv6 unicast\n  network {net6}\n")
                + &each(&|_, _, n6| format!("  neighbor {n6} activate\n{}", client4(n6)))
                + " exit-address-family\n"
        }
        Make::GoBgp => {
            let client = if reflects {
                format!(
                    " [neighbors.route-reflector.config]\n  route-reflector-client = true\n  route-reflector-cluster-id = \
                     \"{CLUSTER}\"\n"
                )
            } else {
                String::new()
            };
            let (restart, long) = if long_lived {
                (
                    " [neighbors.graceful-restart.config]\n  enabled = true\n  restart-time = 2\n  long-lived-enabled = true\n",
                    "  [neighbors.afi-safis.mp-graceful-restart.config]\n   enabled = true\n  \
                     [neighbors.afi-safis.long-lived-graceful-restart.config]\n   enabled = true\n   restart-time = 600\n",
                )
            } else {
                ("", "")
            };
            let neighbour = |address: &str, family: &str| {
                format!(
                    "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{address}\"\n  peer-as = 64512\n{client}{restart} \
                     [neighbors.timers.config]\n  connect-retry = 5\n  idle-hold-time-after-reset = 1\n \
                     [[neighbors.afi-safis]]\n  [neighbors.afi-safis.config]\n   afi-safi-name = \"{family}\"\n{long}"
                )
            };
            format!("[global.config]\n as = 64512\n router-id = \"{v4}\"\n")
                + &each(&|_, n4, n6| neighbour(n4, "ipv4-unicast") + &neighbour(n6, "ipv6-unicast"))
        }
    }
}

/// GoBGP takes its own routes by command.
fn announce(router: &Router<'_>, me: Speaks) {
    let Speaks { make, nets: [net4, net6], .. } = me;
    if make == Make::GoBgp {
        until("GoBGP takes its routes", || {
            let said = router.ask(&format!("global rib add {net4} large-community 64512:4:3"))
                + &router.ask(&format!("global rib add -a ipv6 {net6}"));
            if said.trim().is_empty() { Ok(()) } else { Err(said) }
        });
    }
}

/// Who originated a route, over which clusters it came, and where it leads, as a router holds it.
type Reflected = (String, Vec<String>, String);

fn reflected(router: &Router<'_>, make: Make, prefix: &str) -> Option<Reflected> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match make {
        Make::Bird => {
            let text = router.ask(&format!("show route all {prefix}"));
            let after = |name: &str| {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
                Some(line.trim().to_owned())
            };
            let clusters = after("BGP.cluster_list:")?.split_whitespace().map(str::to_owned).collect();
            let next_hop = after("BGP.next_hop:")?.split_whitespace().next()?.to_owned();
            Some((after("BGP.originator_id:")?, clusters, next_hop))
        }
        Make::Frr => {
            let one: Value =
                serde_json::from_str(&router.ask(&format!("show bgp {family} unicast {prefix} json"))).ok()?;
            let path = one["paths"].as_array()?.iter().find(|path| path["originatorId"].is_string())?;
            let next_hop = path["nexthops"].as_array()?.iter().find(|hop| hop["scope"] != "link-local")?;
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Some((text(&path["originatorId"])?, strings(&path["clusterList"]["list"]), text(&next_hop["ip"])?))
        }
        Make::GoBgp => {
            let all: Value = serde_json::from_str(&router.ask(&format!("global rib -a {family} -j"))).ok()?;
            let attributes = all[prefix][0]["attrs"].as_array()?.clone();
            let of = |kind: u64| attributes.iter().find(|attribute| attribute["type"] == kind);
            let next_hop = of(3).or_else(|| of(14))?["nexthop"].as_str()?.to_owned();
            Some((of(9)?["value"].as_str()?.to_owned(), strings(&of(10)?["value"]), next_hop))
        }
    }
}

fn large_communities(router: &Router<'_>, make: Make, prefix: &str) -> BTreeSet<String> {
    if make != Make::GoBgp {
        return router.holds().get(prefix).map(|held| held.communities.clone()).unwrap_or_default();
    }
    let all: Value = serde_json::from_str(&router.ask("global rib -a ipv4 -j")).unwrap_or_default();
    let attributes = all[prefix][0]["attrs"].as_array().cloned().unwrap_or_default();
    let lists = attributes.iter().filter(|attribute| attribute["type"] == 32);
    let one = |one: &Value| format!("{}:{}:{}", one["ASN"], one["LocalData1"], one["LocalData2"]);
    lists.flat_map(|list| list["value"].as_array().cloned().unwrap_or_default()).map(|value| one(&value)).collect()
}

fn peer(name: &str, address: &str, more: &str, annotations: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}{annotations}}}\nspec: {{peerIP: \
         '{address}', asNumber: 64512{more}}}\n---\n"
    )
}

/// Lets out what routers told, which lies outside the pools.
const PASS: &str = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: pass}\nspec:\n  exportV4:\n  - \
                    {cidr: 203.0.113.0/24, matchOperator: In, action: Accept}\n  exportV6:\n  - {cidr: '2001:db8::/32', \
                    matchOperator: In, action: Accept}\n---\n";

fn installed() -> bool {
    // All are asked, so that each that is not there is named.
    ALL.iter().filter(|one| !one.make.installed()).count() == 0
}

fn up(lab: &Lab, count: usize) {
    until("the sessions are up", || {
        let state = tortie_bgp_json(lab, 1, &["peers"]);
        let all = state["peers"].as_array().cloned().unwrap_or_default();
        let up = all.len() == count && all.iter().all(|one| one["state"] == "up");
        if up { Ok(()) } else { Err(tortie_bgp(lab, 1, &["peers"])) }
    });
}

#[test]
#[ignore = "needs root"]
fn a_node_reflects_between_bird_frr_and_gobgp() {
    if !installed() {
        return;
    }
    let lab = Lab::builder().nodes(1).dual_stack().router("r1").router("r2").router("r3").up().unwrap();
    lab.start(START).unwrap();
    let pod = lab.node(1).add_pod("default", "a", &[]).unwrap();
    let node = [("172.17.8.101", "fd00:8::65")];
    let started: Vec<Router<'_>> = (1..=3)
        .zip(ALL)
        .map(|(n, me)| Router::start(&lab, &format!("r{n}"), me.make, &config(me, &node, false, false)))
        .collect();
    started.iter().zip(ALL).for_each(|(router, me)| announce(router, me));
    let cluster = format!(r#"{{"spec":{{"bgp":{{"routeReflectorClusterID":"{CLUSTER}"}}}}}}"#);
    lab.ctl(&["patch", "node", "node1", "-p", &cluster], "").unwrap();
    let peers: String = (1..=3)
        .zip(ALL)
        .map(|(n, me)| {
            peer(&format!("four{n}"), me.v4, ", filters: [pass]", "")
                + &peer(&format!("six{n}"), me.v6, ", filters: [pass]", "")
        })
        .collect();
    lab.apply(&(PASS.to_owned() + &peers)).unwrap();
    up(&lab, 6);
    for (router, me) in started.iter().zip(ALL) {
        for from in ALL.iter().filter(|from| from.make != me.make) {
            for (net, next_hop) in from.nets.iter().zip([from.v4, from.v6]) {
                let expected: Reflected = (from.v4.to_owned(), vec![CLUSTER.to_owned()], next_hop.to_owned());
                until(&format!("{:?} holds {net} of {:?} as it was told", me.make, from.make), || {
                    match reflected(router, me.make, net) {
                        Some(held) if held == expected => Ok(()),
                        other => Err(format!("{other:?}\n{}", tortie_bgp(&lab, 1, &["routes", me.v4]))),
                    }
                });
            }
        }
        // The node's own block comes without those marks, and large communities pass.
        for block in blocks(&pod) {
            let text = router.ask(&match me.make {
                Make::Bird => format!("show route {block}"),
                Make::Frr if block.addr().is_ipv4() => format!("show bgp ipv4 unicast {block}"),
                Make::Frr => format!("show bgp ipv6 unicast {block}"),
                Make::GoBgp if block.addr().is_ipv4() => "global rib".to_owned(),
                Make::GoBgp => "global rib -a ipv6".to_owned(),
            });
            assert!(text.contains(&block.to_string()), "{:?} holds the node's own {block}: {text}", me.make);
        }
        for (n, from) in (1..).zip(ALL).filter(|(_, from)| from.make != me.make) {
            let large = large_communities(router, me.make, from.nets[0]);
            assert_eq!(large, BTreeSet::from([format!("64512:4:{n}")]), "{:?} from {:?}", me.make, from.make);
        }
    }
    for (router, me) in started.iter().zip(ALL) {
        told_again(&lab, router, me);
    }
}

/// How many UPDATEs a router has had from the node over IPv4.
fn updates(router: &Router<'_>, make: Make) -> u64 {
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap_or_default();
    match make {
        Make::Bird => {
            let text = router.ask("show protocols all four0");
            let line = text.lines().find_map(|line| line.trim().strip_prefix("Import updates:")).unwrap_or_default();
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
        }
        Make::Frr => {
            let all = json(router.ask("show bgp neighbors 172.17.8.101 json"));
            all["172.17.8.101"]["messageStats"]["updatesRecv"].as_u64().unwrap_or_default()
        }
        Make::GoBgp => {
            let all = json(router.ask("neighbor 172.17.8.101 -j"));
            all["state"]["messages"]["received"]["update"].as_u64().unwrap_or_default()
        }
    }
}

/// A router asks for all routes again (RFC 2918, 7313): they come, none goes, and the session stays.
fn told_again(lab: &Lab, router: &Router<'_>, me: Speaks) {
    let since = || tortie_bgp_json(lab, 1, &["explain", me.v4])["since"].clone();
    let (before, session, held) = (updates(router, me.make), since(), router.holds());
    router.ask(match me.make {
        Make::Bird => "reload in four0",
        Make::Frr => "clear bgp ipv4 unicast 172.17.8.101 soft in",
        Make::GoBgp => "neighbor 172.17.8.101 softresetin",
    });
    if me.make == Make::GoBgp {
        // Its soft reset applies policy to what it keeps, and asks nobody.
        assert_eq!((since(), router.holds()), (session, held));
        return;
    }
    until(&format!("{:?} is told all again", me.make), || {
        let now = updates(router, me.make);
        if now > before { Ok(()) } else { Err(format!("{before} then {now}")) }
    });
    until(&format!("{:?} holds the same", me.make), || {
        let now = router.holds();
        if now == held { Ok(()) } else { Err(format!("{held:?}\n{now:?}")) }
    });
    assert_eq!(since(), session, "{:?}: on the same session", me.make);
}

fn blocks(pod: &Pod) -> Vec<IpNet> {
    let addresses = Family::ALL.iter().filter_map(|family| pod.place().ip(*family));
    addresses.map(|addr| IpNet::new(addr, if addr.is_ipv4() { 26 } else { 122 }).unwrap().trunc()).collect()
}

fn nodes_behind(me: Speaks) {
    if !me.make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(2).dual_stack().router("r1").up().unwrap();
    lab.start(START).unwrap();
    let pods = [1, 2].map(|n| lab.node(n).add_pod("default", &format!("p{n}"), &[]).unwrap());
    let me = Speaks { v4: "172.17.8.1", v6: "fd00:8::1", ..me };
    let nodes = [("172.17.8.101", "fd00:8::65"), ("172.17.8.102", "fd00:8::66")];
    let router = Router::start(&lab, "r1", me.make, &config(me, &nodes, true, false));
    announce(&router, me);
    let mesh = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: \
                {nodeToNodeMeshEnabled: false}\n---\n";
    lab.apply(&(mesh.to_owned() + &peer("four", me.v4, "", "") + &peer("six", me.v6, "", ""))).unwrap();
    up(&lab, 2);
    for (at, other, hops) in [(1, 1, nodes[1]), (2, 0, nodes[0])] {
        for net in blocks(&pods[other]) {
            let via: std::net::IpAddr = if net.addr().is_ipv4() { hops.0 } else { hops.1 }.parse().unwrap();
            let straight =
                |route: &tortie_netlink::Route| route.net == net && route.hops.iter().any(|hop| hop.via == Some(via));
            lab.node(at).wait_route(START, "to the other node, straight", straight).unwrap();
        }
        for (net, session) in me.nets.iter().zip([me.v4, me.v6]) {
            until("the node holds the reflector's own route", || {
                let answer = tortie_bgp_json(&lab, at, &["routes", session]);
                let routes = answer[0]["routes"]["received"].as_array().cloned().unwrap_or_default();
                let found = routes.iter().any(|route| route["prefix"] == *net && route["marks"][0] == "best");
                if found { Ok(()) } else { Err(answer.to_string()) }
            });
        }
    }
}

#[test]
#[ignore = "needs root"]
fn nodes_behind_bird_as_reflector_hold_each_others_blocks() {
    nodes_behind(ALL[0]);
}

#[test]
#[ignore = "needs root"]
fn nodes_behind_frr_as_reflector_hold_each_others_blocks() {
    nodes_behind(ALL[1]);
}

#[test]
#[ignore = "needs root"]
fn nodes_behind_gobgp_as_reflector_hold_each_others_blocks() {
    nodes_behind(ALL[2]);
}

/// The router dies and stays away for longer than the restart time; then the node does.
fn outlives(me: Speaks) {
    if !me.make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(1).dual_stack().router("r1").up().unwrap();
    lab.start(START).unwrap();
    let pod = lab.node(1).add_pod("default", "a", &[]).unwrap();
    let me = Speaks { v4: "172.17.8.1", v6: "fd00:8::1", ..me };
    let text = config(me, &[("172.17.8.101", "fd00:8::65")], false, true);
    let router = Router::start(&lab, "r1", me.make, &text);
    announce(&router, me);
    let long = ", annotations: {bgp.tortie/long-lived-secs: '600'}";
    lab.apply(&(peer("four", me.v4, ", maxRestartTime: 2s", long) + &peer("six", me.v6, ", maxRestartTime: 2s", long)))
        .unwrap();
    up(&lab, 2);
    let marks = |net: &str, session: &str| -> Option<(bool, bool)> {
        let answer = tortie_bgp_json(&lab, 1, &["routes", session]);
        let routes = answer[0]["routes"]["received"].as_array().cloned().unwrap_or_default();
        let route = routes.into_iter().find(|route| route["prefix"] == net)?;
        let has = |list: &str, word: &str| route[list].as_array().is_some_and(|all| all.iter().any(|one| one == word));
        Some((has("marks", "stale"), has("communities", "65535:6")))
    };
    let all_are = |wanted: (bool, bool)| {
        let held: BTreeMap<&str, _> = me
            .nets
            .into_iter()
            .zip([me.v4, me.v6].map(Some))
            .map(|(net, session)| (net, marks(net, session.unwrap_or_default())))
            .collect();
        if held.values().all(|one| *one == Some(wanted)) { Ok(()) } else { Err(format!("{held:?}")) }
    };
    until("the node holds fresh routes", || all_are((false, false)));
    drop(router);
    until("past the restart time they are kept as the last choice", || all_are((true, true)));
    let kernel = lab.node(1).routes().unwrap();
    for net in me.nets {
        assert!(kernel.iter().any(|route| route.net.to_string() == net), "{net} is in the kernel still");
    }
    let router = Router::start(&lab, "r1", me.make, &text);
    announce(&router, me);
    up(&lab, 2);
    until("they are fresh again", || all_are((false, false)));

    let nets: Vec<String> = blocks(&pod).iter().map(IpNet::to_string).collect();
    let held = |stale: bool| {
        let held = router.holds();
        let is = |net: &String| held.get(net).is_some_and(|held| held.communities.contains("65535:6") == stale);
        // FRR names it by a word, and counts the family alone in which it was told.
        let named = |net: &String| held.get(net).is_some_and(|held| held.communities.contains("llgr-stale") == stale);
        if nets.iter().all(|net| if me.make == Make::Frr { named(net) } else { is(net) }) {
            Ok(())
        } else {
            Err(format!("{held:?}"))
        }
    };
    until("the router holds the node's blocks", || held(false));
    lab.node(1).kill9().unwrap();
    until("past the restart time it keeps them as the last choice", || held(true));
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    until("they are fresh again at the router", || held(false));
}

#[test]
#[ignore = "needs root"]
fn routes_of_bird_outlive_its_restart_time_and_ours_do_there() {
    outlives(ALL[0]);
}

#[test]
#[ignore = "needs root"]
fn routes_of_frr_outlive_its_restart_time_and_ours_do_there() {
    outlives(ALL[1]);
}

#[test]
#[ignore = "needs root"]
fn routes_of_gobgp_outlive_its_restart_time_and_ours_do_there() {
    outlives(ALL[2]);
}
