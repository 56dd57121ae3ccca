//! Little clusters, a flow, and what a person should be told.

mod common;

use common::{ask, changed, facts};
use tortie_net::Protocol;
use tortie_why::{World, find};

/// Two nodes; client and other on n2, web on n1, all in `prod`; a policy for web.
const CLUSTER: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 192.0.2.2/24}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.prod}
spec: {labelsToApply: {pcns.projectcalico.org/name: prod}, ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: prod, labels: {app: web}}
spec: {orchestrator: k8s, node: n1, pod: web, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32], profiles: [kns.prod]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n2-k8s-client-eth0, namespace: prod, labels: {role: client}}
spec: {orchestrator: k8s, node: n2, pod: client, endpoint: eth0, interfaceName: cali2, ipNetworks: [10.0.1.1/32], profiles: [kns.prod]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n2-k8s-other-eth0, namespace: prod, labels: {role: other}}
spec: {orchestrator: k8s, node: n2, pod: other, endpoint: eth0, interfaceName: cali3, ipNetworks: [10.0.1.2/32], profiles: [kns.prod]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow, namespace: prod}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [9000]}}
";

/// More YAML, the flow, the verdict, the first step of the change, and a piece of the decision or default.
type Case = (&'static str, (&'static str, &'static str, Protocol, u16), bool, Option<&'static str>, &'static str);

const CASES: [Case; 11] = [
    (
        "",
        ("prod/client", "prod/web", Protocol::TCP, 9000),
        true,
        Some("add to NetworkPolicy prod/allow, before ingress rule 0: Deny TCP from role == 'client' to port 9000"),
        "Allow by rule 0",
    ),
    (
        "",
        ("client", "web", Protocol::TCP, 9001),
        false,
        Some("add port 9001 to the destination ports of ingress rule 0 of NetworkPolicy prod/allow"),
        "at the end of tier default, because it is selected for ingress by NetworkPolicy prod/allow",
    ),
    (
        "",
        ("prod/other", "prod/web", Protocol::TCP, 9000),
        false,
        Some("set label role=client on WorkloadEndpoint prod/n2-k8s-other-eth0 (pod prod/other)"),
        "Deny at the end of tier default",
    ),
    (
        "",
        ("prod/other", "prod/web", Protocol::UDP, 53),
        false,
        Some(
            "add to the end of the ingress rules of NetworkPolicy prod/allow: Allow UDP from role == 'other' to port 53",
        ),
        "Deny at the end of tier default",
    ),
    (
        "",
        ("n2-k8s-client-eth0", "web", Protocol::ICMP, 0),
        false,
        Some("add to the end of the ingress rules of NetworkPolicy prod/allow: Allow ICMP from role == 'client'"),
        "Deny at the end of tier default",
    ),
    (
        "",
        ("web", "client", Protocol::TCP, 80),
        true,
        Some("apply a NetworkPolicy prod/why-deny for role == 'client' that denies ingress from prod/web, TCP port 80"),
        "its profiles decide",
    ),
    (
        "",
        ("203.0.113.9", "web", Protocol::TCP, 9000),
        false,
        Some(
            "add to the end of the ingress rules of NetworkPolicy prod/allow: Allow TCP from 203.0.113.9/32 to port 9000",
        ),
        "nothing in the cluster has 203.0.113.9",
    ),
    (
        "
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: partners, namespace: prod, labels: {role: client}}
spec: {nets: [198.51.100.0/24]}
",
        ("203.0.113.9", "web", Protocol::TCP, 9000),
        false,
        Some("add 203.0.113.9 to the nets of NetworkSet prod/partners"),
        "Deny at the end of tier default",
    ),
    ("", ("web", "node-of-nobody", Protocol::TCP, 80), false, None, ""),
    (
        "",
        ("prod/client", "n2", Protocol::TCP, 80),
        false,
        Some("set defaultEndpointToHostAction to Accept in FelixConfiguration node.n2"),
        "to the node itself: Drop",
    ),
    ("", ("n2", "203.0.113.9", Protocol::TCP, 80), true, None, "no endpoint of this node is concerned"),
];

#[test]
fn each_flow_gets_its_cause_and_a_change_that_turns_it() {
    for (more, (from, to, protocol, port), allowed, change, piece) in CASES {
        let mut world = World::new(facts(&format!("{CLUSTER}{more}")));
        if to == "node-of-nobody" {
            assert!(find(&world, to).is_err());
            continue;
        }
        let (report, found) = ask(&mut world, from, to, protocol, port);
        let told = serde_json::to_string_pretty(&report).expect("it is JSON");
        assert_eq!(report.allowed, allowed, "{told}");
        assert!(told.contains(piece), "{piece:?} in {told}");
        let step = found.as_ref().map(|change| change.texts[0].as_str());
        assert_eq!(step, change, "{told}");
        if let Some(found) = found {
            let (after, _) = ask(&mut changed(&world, &found), from, to, protocol, port);
            assert_eq!(after.allowed, !allowed, "after {found:?}");
        }
    }
}

#[test]
fn a_change_may_take_a_step_for_each_denial_on_the_way() {
    let more = "
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-egress}
spec: {selector: role == 'other', order: 1, types: [Egress], egress: [{action: Deny, protocol: TCP}]}
";
    let mut world = World::new(facts(&format!("{CLUSTER}{more}")));
    let (report, change) = ask(&mut world, "other", "web", Protocol::TCP, 9000);
    assert!(!report.allowed);
    let change = change.expect("two steps open it");
    assert_eq!(change.texts.len(), 2, "{change:?}");
    assert!(change.texts[0].contains("before egress rule 0"), "{change:?}");
    assert!(ask(&mut changed(&world, &change), "other", "web", Protocol::TCP, 9000).0.allowed);
    // The world that was asked is as before.
    assert!(!ask(&mut world, "other", "web", Protocol::TCP, 9000).0.allowed);
}

#[test]
fn without_policy_and_profile_a_policy_of_its_own_is_proposed() {
    let bare = CLUSTER.replace(", profiles: [kns.prod]", "");
    let mut world = World::new(facts(&bare));
    let (report, change) = ask(&mut world, "web", "client", Protocol::TCP, 80);
    assert!(!report.allowed);
    let told = serde_json::to_string(&report).expect("it is JSON");
    assert!(told.contains("everything is denied: no policy selects it for egress and it has no profile"), "{told}");
    let change = change.expect("two policies open it");
    assert_eq!(
        change.texts[0],
        "apply a NetworkPolicy prod/why-allow for app == 'web' that allows egress to prod/client, TCP port 80"
    );
    assert!(ask(&mut changed(&world, &change), "web", "client", Protocol::TCP, 80).0.allowed);
}

#[test]
fn an_unused_address_of_a_block_is_a_black_hole() {
    let mut all = facts(CLUSTER);
    let key = tortie_facts::Key::Block("10.0.1.0/26".parse().expect("a literal"));
    let json = r#"{"cidr":"10.0.1.0/26","affinity":"host:n2","allocations":[],"unallocated":[],"attributes":[]}"#;
    let value = tortie_facts::Value::from_json(&key, json).expect("a block");
    all.push((key, value));
    let affinity = tortie_facts::Key::host_affinity("n2", "10.0.1.0/26".parse().expect("a literal"));
    let value = tortie_facts::Value::from_json(&affinity, r#"{"state":"confirmed"}"#).expect("an affinity");
    all.push((affinity, value));
    let mut world = World::new(all);
    let (report, change) = ask(&mut world, "web", "10.0.1.9", Protocol::TCP, 80);
    assert!(!report.allowed && change.is_none());
    let last = report.hops.last().expect("a node judged it");
    assert_eq!((last.node.as_str(), last.steps[0].as_str()), ("n2", "nothing uses this address of block 10.0.1.0/26"));
}

#[test]
fn a_name_that_is_wrong_or_unclear_gets_an_answer_that_helps() {
    let world = World::new(facts(CLUSTER));
    let wrong = |text: &str| find(&world, text).expect_err("no such point").to_string();
    assert!(wrong("prod/clinet").contains("did you mean \"prod/client\""), "{}", wrong("prod/clinet"));
    assert!(wrong("test/web").contains("did you mean \"prod/web\""), "{}", wrong("test/web"));
    assert!(wrong("10.0.0.0/8").contains("is a range: expected one address"), "{}", wrong("10.0.0.0/8"));
    let twice = CLUSTER.replace("namespace: prod, labels: {role: other}", "namespace: test, labels: {role: other}");
    let twice = twice.replace("n2-k8s-other-eth0", "n2-k8s-web-eth0").replace("pod: other", "pod: web");
    let world = World::new(facts(&twice));
    let error = find(&world, "web").expect_err("two of that name").to_string();
    assert!(error.contains("prod/web") && error.contains("test/web"), "{error}");
    assert!(find(&world, "test/web").is_ok());
}

/// A host endpoint that its address finds, with a policy of its own for what the node itself gets.
const HOST: &str = "
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: front, labels: {role: node}}
spec: {node: n1, expectedIPs: [192.0.2.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ssh-alone}
spec:
  selector: role == 'node'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [2222]}}
";

#[test]
fn what_a_host_endpoint_says_is_shown_and_turned() {
    let mut world = World::new(facts(&format!("{CLUSTER}{HOST}")));
    let (report, change) = ask(&mut world, "n2", "n1", Protocol::TCP, 8080);
    assert!(!report.allowed);
    let host = report.hops.last().and_then(|hop| hop.directions.last()).expect("the host endpoint judged it");
    assert_eq!((host.endpoint.as_str(), host.stage.as_deref()), ("front", Some("normal")));
    assert_eq!(host.selected_by, ["GlobalNetworkPolicy ssh-alone"]);
    let change = change.expect("a change");
    assert_eq!(
        change.texts,
        ["add port 8080 to the destination ports of ingress rule 0 of GlobalNetworkPolicy ssh-alone"]
    );
    let (report, _) = ask(&mut changed(&world, &change), "n2", "n1", Protocol::TCP, 8080);
    assert!(report.allowed);
    // Ports that no policy may close stay open.
    let (report, _) = ask(&mut world, "n2", "n1", Protocol::TCP, 22);
    assert!(report.allowed && report.hops[1].steps.iter().any(|step| step.contains("failsafe")), "{report:?}");
}

#[test]
fn a_host_endpoint_of_an_interface_that_nobody_knows_is_told_of() {
    let host = HOST.replace("expectedIPs: [192.0.2.1]", "interfaceName: eth7");
    let mut world = World::new(facts(&format!("{CLUSTER}{host}")));
    let (report, _) = ask(&mut world, "n2", "n1", Protocol::TCP, 8080);
    assert!(report.allowed);
    assert!(
        report.notes.iter().any(|note| note.contains("HostEndpoint front is for interface eth7")),
        "{:?}",
        report.notes
    );
}

#[test]
fn staged_policies_have_a_verdict_of_their_own() {
    let staged = "
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: closed, namespace: prod}
spec: {selector: role == 'client', types: [Egress], egress: []}
";
    let mut world = World::new(facts(&format!("{CLUSTER}{staged}")));
    let (report, _) = ask(&mut world, "prod/client", "prod/web", Protocol::TCP, 9000);
    assert_eq!((report.allowed, report.allowed_if_staged), (true, Some(false)));
    let (report, change) = ask(&mut world.with_staged(), "prod/client", "prod/web", Protocol::TCP, 9000);
    assert_eq!((report.allowed, report.allowed_if_staged), (false, Some(false)));
    assert!(change.is_some(), "{report:?}");
    let (report, _) = ask(&mut World::new(facts(CLUSTER)), "prod/client", "prod/web", Protocol::TCP, 9000);
    assert_eq!(report.allowed_if_staged, None);
    // What is staged for the node itself.
    let wider = HOST[HOST.find("---\napiVersion: projectcalico.org/v3\nkind: Global").expect("the policy")..]
        .replace("kind: Global", "kind: StagedGlobal")
        .replace("[2222]", "[8080]");
    let mut world = World::new(facts(&format!("{CLUSTER}{HOST}{wider}")));
    let (report, _) = ask(&mut world, "n2", "n1", Protocol::TCP, 8080);
    assert_eq!((report.allowed, report.allowed_if_staged), (false, Some(true)));
    let (report, _) = ask(&mut world, "n2", "n1", Protocol::TCP, 8081);
    assert_eq!((report.allowed, report.allowed_if_staged), (false, Some(false)));
}
