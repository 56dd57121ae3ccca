//! Which address a node takes on a host with several, what it says of the others, and what follows when it changes.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/run.rs"]
mod run;

use std::net::IpAddr;
use std::time::Duration;

use run::run;
use serde_json::Value;
use tortie_lab::probe::becomes;
use tortie_lab::{Lab, Node, Outcome, Pod, Probe, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(60);
/// A datastore that is spoken to from the old address is first missed.
const FOLLOWED: Duration = Duration::from_secs(120);

fn ip(node: &Node, args: &str) {
    let output = node.command("ip").unwrap().args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A second network card's name and address, a container engine's bridge, and one of virtual machines.
fn furnish(node: &Node) {
    for (bridge, address) in [("docker0", "172.30.0.1/16"), ("vms", "10.99.0.1/24")] {
        ip(node, &format!("link add {bridge} type bridge"));
        ip(node, &format!("link set {bridge} up"));
        ip(node, &format!("address add {address} dev {bridge}"));
    }
    ip(node, "link add far0 type veth peer name far1");
    ip(node, "link set far0 up");
    ip(node, "address add 198.51.100.7/24 dev far0");
}

fn chosen(node: &Node, env: &[(&str, &str)]) -> Result<(String, Vec<Value>), String> {
    let env = [&[("IP", "autodetect")][..], env].concat();
    let ended = run(node, "tortie", &["node", "addresses", "--output", "json"], &env);
    let from = ended.text.find('[').ok_or_else(|| ended.text.clone())?;
    let all: Value = serde_json::from_str(&ended.text[from..]).map_err(|_| ended.text.clone())?;
    let candidates = all[0]["candidates"].as_array().cloned().unwrap_or_default();
    match all[0]["address"].as_str() {
        Some(address) => Ok((address.to_owned(), candidates)),
        None => Err(format!("{:?} {}", ended.code, ended.text)),
    }
}

#[test]
#[ignore = "needs root"]
fn a_host_of_many_addresses_takes_the_one_towards_its_peers() {
    let lab = Lab::builder().nodes(2).up().unwrap();
    lab.node(2).start().unwrap();
    lab.node(2).wait_in_sync(START).unwrap();
    let node = lab.node(1);
    furnish(node);
    let own = format!("{}/24", node.ip());
    let (address, candidates) = chosen(node, &[]).unwrap();
    assert_eq!(address, own);
    let reason = |interface: &str| {
        let found = candidates.iter().find(|one| one["interface"] == interface);
        found.unwrap_or_else(|| panic!("{interface} in {candidates:?}"))["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("eth0").contains("packets to 1 of 1 reachable peers"), "{}", reason("eth0"));
    assert!(reason("docker0").contains("^docker.*"), "{}", reason("docker0"));
    assert!(reason("vms").contains("a bridge to containers"), "{}", reason("vms"));
    assert!(reason("far0").contains("is preferred"), "{}", reason("far0"));
    for (method, expected) in [
        ("first-found", "198.51.100.7/24"),
        ("interface=docker.*", "172.30.0.1/16"),
        ("skip-interface=far.*", own.as_str()),
        ("can-reach=198.51.100.9", "198.51.100.7/24"),
        ("cidr=172.17.8.0/24", own.as_str()),
    ] {
        let (address, _) = chosen(node, &[("IP_AUTODETECTION_METHOD", method)]).unwrap();
        assert_eq!(address, expected, "{method}");
    }
    let none = chosen(node, &[("IP_AUTODETECTION_METHOD", "cidr=192.0.2.0/24")]).unwrap_err();
    assert!(none.contains("Some(1)") && none.contains("outside the given prefixes"), "{none}");
    let wrong = run(node, "tortie", &["node", "addresses"], &[("IP_AUTODETECTION_METHOD", "interfaces=eth0")]);
    assert!(wrong.code == Some(1) && wrong.text.contains("did you mean \"interface=\""), "{wrong:?}");
    let text = run(node, "tortie", &["node", "addresses"], &[("IP", "autodetect")]).text;
    assert!(text.lines().any(|line| line.contains("* eth0") && line.contains(&own)), "{text}");

    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    let log = node.log();
    for interface in ["eth0", "docker0", "vms", "far0", "lo"] {
        assert!(log.lines().any(|l| l.contains("looked at") && l.contains(interface)), "{interface} in\n{log}");
    }
}

#[test]
#[ignore = "needs root"]
fn of_two_nodes_with_one_address_that_start_in_one_moment_one_is_refused() {
    for round in 0..3 {
        let lab = Lab::builder().nodes(2).env("IP", "172.17.8.77/24").up().unwrap();
        lab.nodes().iter().for_each(|node| node.start().unwrap());
        let refused = wait(START, || {
            let gone: Vec<&Node> = lab.nodes().iter().filter(|node| node.process().is_none()).collect();
            let [one] = gone[..] else { return None };
            Some(one.name().to_owned())
        });
        let refused = refused.unwrap_or_else(|| panic!("round {round}: one ends"));
        let (lost, won) = (lab.node_named(&refused).unwrap(), if refused == "node1" { 2 } else { 1 });
        assert!(lost.log().contains("two nodes can't share one"), "{}", lost.log());
        lab.node(won).wait_in_sync(START).unwrap();
        assert!(lab.node(won).process().is_some(), "round {round}: the other stays");
    }
}

/// The field of a node's BGP specification as it is stored.
fn stored(lab: &Lab, node: &Node, field: &str) -> String {
    let text = lab.ctl(&["get", "node", node.name(), "-o", "json"], "").unwrap();
    let node: Value = serde_json::from_str(&text).unwrap();
    node["spec"]["bgp"][field].as_str().unwrap_or_default().to_owned()
}

/// Whether a node has a session with an address that is up.
fn peers(node: &Node, address: IpAddr) -> bool {
    let output = node.command("tortie").unwrap().args(["bgp", "peers", "--output", "json"]).output().unwrap();
    let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let all = state["peers"].as_array().cloned().unwrap_or_default();
    all.iter().any(|peer| peer["address"] == address.to_string() && peer["state"] == "up")
}

/// Gives the first node another address in place of its own, and waits until everything follows that.
fn renumber(lab: &Lab, pods: &[Pod; 2], family: Family, old: &str, new: &str) {
    let (node, other) = (lab.node(1), lab.node(2));
    let field = if family == Family::V4 { "ipv4Address" } else { "ipv6Address" };
    assert_eq!(stored(lab, node, field), old);
    ip(node, &format!("address del {old} dev eth0"));
    ip(node, &format!("address add {new} dev eth0"));
    let followed = wait(FOLLOWED, || (stored(lab, node, field) == new).then_some(()));
    assert!(followed.is_some(), "{new} is not in the Node resource:\n{}", node.log());
    let address: IpAddr = new.split('/').next().unwrap().parse().unwrap();
    let peered = wait(START, || peers(other, address).then_some(()));
    assert!(peered.is_some(), "no session with {address}:\n{}\n{}", node.log(), other.log());
    let through_vxlan = family == Family::V4 && lab.topology().env.contains_key("CALICO_IPV4POOL_VXLAN");
    if !through_vxlan {
        let pod = pods[0].place().ip(family).unwrap();
        let led = other.wait_route(START, "the route to the node's pods", |route| {
            route.net.contains(&pod) && route.hops.iter().any(|hop| hop.via == Some(address))
        });
        led.unwrap_or_else(|error| panic!("{error:#}\n{}", other.ip_route(family == Family::V6).unwrap()));
    }
    let probe = if family == Family::V4 { Probe::icmp() } else { Probe::icmp().v6() };
    for (from, to) in [(0, 1), (1, 0)] {
        let reached = becomes(&pods[from].place(), &pods[to].place(), &probe, Outcome::Open, START).unwrap();
        assert!(reached, "pod {from} does not reach pod {to}");
    }
}

fn two_nodes_with_pods(env: &[(&str, &str)]) -> (Lab, [Pod; 2]) {
    let builder =
        env.iter().fold(Lab::builder().nodes(2).dual_stack(), |builder, (name, value)| builder.env(name, value));
    let lab = builder.up().unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    let pods = [1, 2].map(|node| lab.node(node).add_pod("default", &format!("pod{node}"), &[]).unwrap());
    (lab, pods)
}

#[test]
#[ignore = "needs root"]
fn everything_follows_a_host_that_changes_its_address() {
    let (lab, pods) = two_nodes_with_pods(&[]);
    let node = lab.node(1);
    // What comes beside the address changes nothing.
    ip(node, "address add 198.51.100.7/24 dev eth0");
    ip(node, "link add far0 type veth peer name far1");
    ip(node, "link set far0 up");
    ip(node, "address add 203.0.113.7/24 dev far0");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(stored(&lab, node, "ipv4Address"), "172.17.8.101/24");
    ip(node, "link del far0");
    ip(node, "address del 198.51.100.7/24 dev eth0");
    renumber(&lab, &pods, Family::V4, "172.17.8.101/24", "172.17.8.111/24");
}

#[test]
#[ignore = "needs root"]
fn tunnels_follow_an_address_too_and_sessions_where_the_identifier_stays() {
    let env = [("CALICO_IPV4POOL_VXLAN", "Always"), ("CALICO_ROUTER_ID", "hash")];
    let (lab, pods) = two_nodes_with_pods(&env);
    renumber(&lab, &pods, Family::V6, "fd00:8::65/64", "fd00:8::6f/64");
    renumber(&lab, &pods, Family::V4, "172.17.8.101/24", "172.17.8.111/24");
}
