//! Every packet that a node ends becomes a record that names the right cause: a table of causes, on real packets.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/drops.rs"]
mod drops;
mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use drops::{Sent, records};
use serde_json::{Value, json};
use support::Traces;
use tortie_lab::{Lab, Node, Place, Pod, Store, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

/// The ports tell the rows of the table apart. Whatever is not named here passes.
const POLICIES: &str = include_str!("support/drops.yaml");

/// What lets pods talk that no policy is about.
const PROFILE: &str = "
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.default}
spec:
  ingress:
  - {action: Deny, protocol: UDP, destination: {ports: [20008]}}
  - {action: Allow, protocol: UDP, destination: {notPorts: [20009]}}
  - {action: Allow, notProtocol: UDP}
  egress:
  - {action: Deny, protocol: UDP, destination: {ports: [20010]}}
  - {action: Allow, protocol: UDP, destination: {notPorts: [20011]}}
  - {action: Allow, notProtocol: UDP}
";

/// A Kubernetes API has no such profile: those of namespaces allow everything. There a policy is about that pod.
const INSTEAD: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: plain, namespace: default}
spec:
  podSelector: {matchLabels: {app: plain}}
  policyTypes: [Ingress, Egress]
  ingress:
  - ports: [{port: 1, endPort: 65535}, {protocol: UDP, port: 1, endPort: 20008}, {protocol: UDP, port: 20010, endPort: 65535}]
  egress:
  - ports: [{port: 1, endPort: 65535}, {protocol: UDP, port: 1, endPort: 20010}, {protocol: UDP, port: 20012, endPort: 65535}]
";

/// What is sent, how its record is found, and what the record must say.
struct Row {
    name: &'static str,
    from: Place,
    sent: Sent,
    /// What tells its record from others.
    found_by: Value,
    says: Value,
}

fn udp(name: &'static str, from: &Place, to: IpAddr, port: u16, says: Value) -> Row {
    let found_by = json!({ "protocol": "UDP", "destinationPort": port });
    Row { name, from: from.clone(), sent: Sent::udp(to, port), found_by, says }
}

fn raw(name: &'static str, from: &Place, sent: Sent, found_by: Value, says: Value) -> Row {
    Row { name, from: from.clone(), sent, found_by, says }
}

fn matches(record: &Value, wanted: &Value) -> bool {
    wanted.as_object().unwrap().iter().all(|(field, value)| record[field] == *value)
}

/// Sends until the record is there and right: policies take a moment to arrive. What is sent once more each time has
/// to be recorded with the next try.
fn check(node: &Node, row: &Row) -> Result<(), String> {
    let mut last = Vec::new();
    let done = wait(SOON, || {
        let mark = records(node, &[]).last().and_then(|r| r["number"].as_u64()).unwrap_or(0);
        row.sent.send(&row.from);
        let own = |r: &Value| r["number"].as_u64() > Some(mark) && matches(r, &row.found_by);
        last = wait(Duration::from_secs(1), || {
            let own: Vec<Value> = records(node, &[]).into_iter().filter(own).collect();
            (!own.is_empty()).then_some(own)
        })
        .unwrap_or_default();
        (!last.is_empty() && last.iter().all(|record| matches(record, &row.says))).then_some(())
    });
    done.ok_or_else(|| format!("{}: wanted {}, got {last:#?}", row.name, row.says))
}

fn name(pod: &Pod) -> String {
    format!("default/{}", pod.endpoint_name())
}

fn ip6(pod: &Pod) -> IpAddr {
    pod.place().ip(Family::V6).unwrap()
}

#[test]
#[ignore = "needs root"]
fn each_of_many_causes_is_named_by_its_record() {
    let before = Traces::now();
    let lab = Lab::builder()
        .nodes(2)
        .dual_stack()
        .env("CALICO_IPV4POOL_VXLAN", "CrossSubnet")
        .env("FELIX_WORKLOADSOURCESPOOFING", "Any")
        .env("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Drop")
        .up()
        .unwrap();
    lab.start(START).unwrap();
    let (node, far_node) = (lab.node(1), lab.node(2));
    let pod = |node: &Node, name: &str| node.add_pod("default", name, &[("app", name)]).unwrap();
    let [a, b, plain, limited] = ["a", "b", "plain", "limited"].map(|name| pod(node, name));
    let stranger = node.prepare_pod("default", "stranger", &[]).unwrap();
    let far = pod(far_node, "far");
    node.wait_route(START, "to the other node", |route| route.net.contains(&far.ip())).unwrap();
    lab.apply(POLICIES).unwrap();
    match lab.store() {
        Store::Sqlite | Store::Etcd => lab.apply(PROFILE).unwrap(),
        Store::Kubernetes => lab.kubectl(&["apply", "-f", "-"], INSTEAD).unwrap(),
    };
    for (pod, patch) in [
        (&plain, json!({ "spec": { "allowSpoofedSourcePrefixes": ["10.99.0.0/16"] } })),
        (&limited, json!({ "spec": { "qosControls": { "egressPacketRate": 1, "egressPacketBurst": 1 } } })),
        (&b, json!({ "spec": { "qosControls": { "egressMaxConnections": 1 } } })),
    ] {
        pod.change(&patch).unwrap();
    }
    // To a service that nobody translates; and to a workload's interface that belongs to no endpoint.
    let route = |args: &[&str]| {
        let output = node.command("ip").unwrap().args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    route(&["route", "add", "10.96.0.0/16", "via", &far_node.ip().to_string()]);
    stray(node, &stranger, &[b.ip(), IpAddr::V4(node.ip())]);

    let mut rows =
        rows(&Scene { node, far_node, a: &a, b: &b, plain: &plain, limited: &limited, stranger: &stranger, far: &far });
    rows.extend(match lab.store() {
        Store::Sqlite | Store::Etcd => of_profile(&a, &b, &plain),
        Store::Kubernetes => of_kubernetes(&a, &b, &plain),
    });
    assert!(rows.len() >= 36, "{} rows", rows.len());
    let wrong: Vec<String> = rows.iter().filter_map(|row| check(node, row).err()).collect();
    let recorded = records(node, &[]);
    println!("{} causes, {} records", rows.len(), recorded.len());
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    a_flood_is_counted(node, &b, &a);
    let causes: std::collections::BTreeSet<&str> = recorded.iter().filter_map(|r| r["cause"].as_str()).collect();
    assert!(!causes.contains(""), "{causes:?}");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}

/// An address behind an interface that has a workload's name and belongs to none.
const STRAY: &str = "10.97.0.1";

/// Wires a namespace to the node as a workload would be, without telling anybody.
fn stray(node: &Node, behind: &Pod, reaches: &[IpAddr]) {
    const MAC: &str = "02:00:00:00:09:01";
    let netns = behind.record().netns.clone();
    let on_node = [
        format!("link add calistray address {MAC} type veth peer name stray0 netns {netns}"),
        "link set calistray up".to_owned(),
        // A route of the kernel's own: others on such an interface the node takes away.
        "addr add 10.97.0.254/24 dev calistray".to_owned(),
    ];
    let inside = ["link set stray0 up".to_owned(), format!("addr add {STRAY}/32 dev stray0")];
    let to = |ip: &IpAddr| {
        [format!("route add {ip}/32 dev stray0"), format!("neigh add {ip} lladdr {MAC} dev stray0 nud permanent")]
    };
    let inside = inside.into_iter().chain(reaches.iter().flat_map(to)).map(|line| format!("-n {netns} {line}"));
    for line in on_node.into_iter().chain(inside) {
        let output = node.command("ip").unwrap().args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What is not recorded of a flood is counted, to the packet.
fn a_flood_is_counted(node: &Node, from: &Pod, to: &Pod) {
    const FLOOD: usize = 3000;
    let suppressed = || {
        let output = node.command("tortie").unwrap().arg("drops").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_suffix(" of DPI|default")?.rsplit(' ').next()?.parse().ok());
        line.unwrap_or(0usize)
    };
    let before = suppressed();
    Sent::flood(to.ip(), 20060, FLOOD).send(&from.place());
    let mut seen = (0, 0);
    let all = wait(SOON, || {
        let recorded = records(node, &[]).iter().filter(|record| record["destinationPort"] == 20060).count();
        seen = (recorded, suppressed() - before);
        (seen.0 + seen.1 == FLOOD).then_some(())
    });
    assert!(all.is_some(), "{seen:?} of {FLOOD} recorded and counted");
    assert!(seen.0 < FLOOD / 2, "{} records of one flood", seen.0);
}

struct Scene<'a> {
    node: &'a Node,
    far_node: &'a Node,
    a: &'a Pod,
    b: &'a Pod,
    plain: &'a Pod,
    limited: &'a Pod,
    stranger: &'a Pod,
    far: &'a Pod,
}

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let mut rows = of_policies(scene);
    rows.extend(of_hosts(scene));
    rows.extend(beside(scene));
    rows
}

fn of_policies(scene: &Scene<'_>) -> Vec<Row> {
    let Scene { a, b, plain, far, .. } = scene;
    let (a_at, b_at, plain_at) = (a.place(), b.place(), plain.place());
    let rule = |pod: &Pod, way: &str, tier: &str, policy: &str, rule: usize| {
        json!({ "cause": "rule", "endpoint": name(pod), "direction": way, "tier": tier, "policy": policy,
            "rule": rule, "hook": "forward" })
    };
    let end = |pod: &Pod, way: &str, tier: &str, asked: &[&str]| json!({ "cause": "end-of-tier", "endpoint": name(pod), "direction": way, "tier": tier, "asked": asked });
    let both: [&str; 2] = ["gnp/guard", "np/default/inner"];
    let ping = json!({ "protocol": "ICMP", "icmpType": 8, "icmpCode": 0, "destination": a.ip() });
    let ping6 = json!({ "protocol": "ICMPv6", "icmpType": 128, "destination": ip6(a) });
    vec![
        udp("rule, ingress", &b_at, a.ip(), 20001, rule(a, "ingress", "default", "gnp/guard", 1)),
        udp("rule, egress", &a_at, b.ip(), 20002, rule(a, "egress", "default", "np/default/inner", 0)),
        udp("end of tier, ingress", &plain_at, a.ip(), 20003, end(a, "ingress", "default", &both)),
        udp("end of tier, egress", &a_at, b.ip(), 20004, end(a, "egress", "default", &both)),
        udp("rule of a tier", &plain_at, b.ip(), 20005, rule(b, "ingress", "security", "gnp/security.block", 1)),
        udp("end of a tier", &plain_at, b.ip(), 20006, end(b, "ingress", "security", &["gnp/security.block"])),
        udp("from another node", &far.place(), a.ip(), 20001, rule(a, "ingress", "default", "gnp/guard", 1)),
        udp("over IPv6", &b_at, ip6(a), 20001, rule(a, "ingress", "default", "gnp/guard", 1)),
        raw("ICMP", &b_at, Sent::ping(b.ip(), a.ip()), ping, rule(a, "ingress", "default", "gnp/guard", 2)),
        raw("ICMPv6", &b_at, Sent::ping(ip6(b), ip6(a)), ping6, rule(a, "ingress", "default", "gnp/guard", 3)),
    ]
}

fn of_profile(a: &Pod, b: &Pod, plain: &Pod) -> Vec<Row> {
    let profile = |way: &str, rule: usize| json!({ "cause": "rule", "endpoint": name(plain), "direction": way, "profile": "kns.default", "rule": rule });
    let nothing = |way: &str| json!({ "cause": "nothing-matched", "endpoint": name(plain), "direction": way, "asked": ["pro/kns.default"] });
    let (a_at, plain_at) = (a.place(), plain.place());
    vec![
        udp("profile, ingress", &a_at, plain.ip(), 20008, profile("ingress", 0)),
        udp("nothing matched, ingress", &a_at, plain.ip(), 20009, nothing("ingress")),
        udp("profile, egress", &plain_at, b.ip(), 20010, profile("egress", 0)),
        udp("nothing matched, egress", &plain_at, b.ip(), 20011, nothing("egress")),
    ]
}

fn of_kubernetes(a: &Pod, b: &Pod, plain: &Pod) -> Vec<Row> {
    let end = |way: &str| json!({ "cause": "end-of-tier", "endpoint": name(plain), "direction": way, "tier": "default", "asked": ["knp/default/plain"] });
    vec![
        udp("Kubernetes' policy, ingress", &a.place(), plain.ip(), 20009, end("ingress")),
        udp("Kubernetes' policy, egress", &plain.place(), b.ip(), 20011, end("egress")),
    ]
}

fn of_hosts(scene: &Scene<'_>) -> Vec<Row> {
    let Scene { node, far_node, b, far, .. } = scene;
    let (here, there) = (node.place(), far_node.place());
    let (ip, far_ip) = (IpAddr::V4(node.ip()), IpAddr::V4(far_node.ip()));
    let rule = |way: &str, policy: &str, rule: usize, hook: &str| {
        json!({ "cause": "rule", "endpoint": "outside", "hostEndpoint": true, "direction": way, "tier": "default",
            "policy": policy, "rule": rule, "hook": hook })
    };
    let end = |way: &str, hook: &str, asked: &[&str]| {
        json!({ "cause": "end-of-tier", "endpoint": "outside", "hostEndpoint": true, "direction": way,
            "tier": "default", "asked": asked, "hook": hook })
    };
    let both: [&str; 2] = ["gnp/forward", "gnp/host"];
    vec![
        udp("host, rule, ingress", &there, ip, 20023, rule("ingress", "gnp/host", 0, "input")),
        udp("host, rule, egress", &here, far_ip, 20024, rule("egress", "gnp/host", 0, "output")),
        udp("host, end of tier, ingress", &there, ip, 20025, end("ingress", "input", &both)),
        udp("host, end of tier, egress", &here, far_ip, 20026, end("egress", "output", &both)),
        udp("host, forward, ingress", &far.place(), b.ip(), 20027, rule("ingress", "gnp/forward", 0, "forward")),
        udp("host, before NAT", &there, ip, 20028, rule("ingress", "gnp/early", 0, "prerouting")),
        udp("host, untracked, ingress", &there, ip, 20029, rule("ingress", "gnp/raw", 0, "prerouting")),
        udp("host, forward, end of tier", &far.place(), b.ip(), 20030, end("ingress", "forward", &["gnp/forward"])),
        udp("host, forward, egress", &b.place(), far.ip(), 20031, rule("egress", "gnp/forward", 0, "forward")),
        udp("host, untracked, egress", &here, far_ip, 20032, rule("egress", "gnp/raw", 0, "output")),
    ]
}

fn beside(scene: &Scene<'_>) -> Vec<Row> {
    let Scene { node, far_node, a, b, plain, limited, stranger, .. } = scene;
    let (a_at, b_at, plain_at, stray_at) = (a.place(), b.place(), plain.place(), stranger.place());
    let of = |pod: &Pod, cause: &str| json!({ "cause": cause, "endpoint": name(pod), "direction": "egress" });
    let foreign: IpAddr = "10.98.0.1".parse().unwrap();
    let foreign6: IpAddr = "fd00:98::1".parse().unwrap();
    let port = |protocol: &str, port: u16| json!({ "protocol": protocol, "destinationPort": port });
    let by_source = |source: IpAddr| json!({ "source": source });
    let cut =
        |direction: &str, hook: &str| json!({ "cause": "unknown-interface", "direction": direction, "hook": hook });
    let tunnelled = json!({ "protocol": "4" });
    let to = SocketAddr::new(plain.ip(), 20048);
    let connections = Sent::Connections { to, listener: plain_at.clone(), count: 4 };
    let no_node: IpAddr = "172.17.8.200".parse().unwrap();
    let foreign_vxlan = Sent::udp_from(no_node, IpAddr::V4(node.ip()), 4789);
    let spoofed = Sent::udp_from(foreign, b.ip(), 20040);
    let spoofed6 = Sent::udp_from(foreign6, ip6(b), 20041);
    vec![
        raw("spoofed", &plain_at, spoofed, by_source(foreign), of(plain, "spoofed")),
        raw("spoofed, IPv6", &a_at, spoofed6, by_source(foreign6), of(a, "spoofed")),
        raw("invalid", &plain_at, Sent::bogus_tcp(plain.ip(), b.ip(), 20042), port("TCP", 20042), of(plain, "invalid")),
        udp("unknown interface, forwarded", &stray_at, b.ip(), 20043, cut("egress", "forward")),
        udp("unknown interface, to the node", &stray_at, IpAddr::V4(node.ip()), 20044, cut("egress", "input")),
        udp("unknown interface, towards", &b_at, STRAY.parse().unwrap(), 20045, cut("ingress", "forward")),
        udp("to the node", &b_at, IpAddr::V4(node.ip()), 20046, of(b, "to-host")),
        raw(
            "router advertisement to the node",
            &a_at,
            Sent::router_advertisement("fe80::9".parse().unwrap(), node.place().ip(Family::V6).unwrap()),
            json!({ "protocol": "ICMPv6", "icmpType": 134 }),
            of(a, "to-host"),
        ),
        udp("VXLAN of a pod", &b_at, plain.ip(), 4789, of(b, "vxlan")),
        raw("IPIP of a pod", &b_at, Sent::ipip(b.ip(), plain.ip()), tunnelled, of(b, "ipip")),
        raw(
            "packet rate",
            &limited.place(),
            Sent::flood(b.ip(), 20047, 20),
            port("UDP", 20047),
            of(limited, "packet-rate"),
        ),
        raw("connections", &b_at, connections, port("TCP", 20048), of(b, "connections")),
        raw(
            "VXLAN of a stranger",
            &far_node.place(),
            foreign_vxlan,
            by_source(no_node),
            json!({ "cause": "foreign-tunnel", "direction": "ingress", "hook": "input" }),
        ),
        udp("service loop", &b_at, "10.96.0.9".parse().unwrap(), 20049, json!({ "cause": "service-loop" })),
    ]
}
