//! What `tortie show` prints: each table of a node as text and as JSON, and which node is meant.

use std::sync::Arc;

use clap::Parser;
use tortie_store::{MemoryStore, Store, resource as stored};
use tortie_why::cli::{ShowArgs, show};

/// Two nodes, the first with a pod and a policy for it, a pool and the other node's block.
const CLUSTER: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 192.0.2.2/24, asNumber: 64999}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.prod}
spec: {labelsToApply: {pcns.projectcalico.org/name: prod}}
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
kind: NetworkPolicy
metadata: {name: allow, namespace: prod}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [9000]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nothing}
spec: {selector: app == 'web', types: [Egress]}
";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ShowArgs,
}

fn shown(line: &str, host: &str) -> Result<String, String> {
    let store = MemoryStore::new();
    for mut resource in tortie_api::manifest::parse("test", CLUSTER).expect("good") {
        resource.apply_defaults();
        store.write_one(stored::create(resource)).expect("written");
    }
    let Cli { args } = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let store: Arc<MemoryStore> = Arc::new(store);
    show(&args, &*store, host, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

#[test]
fn endpoints_come_with_the_policies_that_select_them() {
    assert_eq!(
        shown("show endpoints --node n1", "elsewhere").expect("shown"),
        "\
ENDPOINT               INTERFACE   ADDRESSES   INGRESS                 EGRESS                PROFILES
prod/n1-k8s-web-eth0   cali1       10.0.0.1    default:np/prod/allow   default:gnp/nothing   kns.prod
"
    );
}

#[test]
fn policies_come_rule_by_rule_and_those_without_rules_too() {
    let text = shown("show policies --node n1", "elsewhere").expect("shown");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "POLICY          TIER      DIRECTION   RULE   WHAT");
    assert!(lines[1].starts_with("np/prod/allow   default   ingress     0      Allow TCP from sets s:"), "{text}");
    assert!(lines[1].ends_with(" to ports 9000"), "{text}");
    assert_eq!(lines[2], "gnp/nothing     default   -           -      -");
}

#[test]
fn routes_sets_and_peers_are_shown() {
    assert_eq!(
        shown("show routes", "n1").expect("shown"),
        "PREFIX        KIND       TO\n10.0.0.1/32   workload   cali1\n"
    );
    let sets = shown("show sets", "n1").expect("shown");
    assert!(sets.starts_with("SET ") && sets.lines().count() == 2, "{sets}");
    assert!(sets.contains("role == ") && sets.ends_with("   10.0.1.1/32\n"), "{sets}");
    let peers = shown("show peers", "n1").expect("shown");
    assert!(peers.starts_with("ADDRESS     PORT   AS "), "{peers}");
    assert!(peers.lines().nth(1).is_some_and(|line| line.starts_with("192.0.2.2   179    64999")), "{peers}");
}

#[test]
fn json_has_the_headings_as_names() {
    let json: serde_json::Value =
        serde_json::from_str(&shown("show peers -o json", "n1").expect("shown")).expect("JSON");
    assert_eq!(json[0]["address"], "192.0.2.2");
    assert_eq!(json[0]["as"], "64999");
    assert_eq!(shown("show sets -o json", "n2").expect("shown"), "[]\n");
}

#[test]
fn the_node_is_this_host_or_has_to_be_named() {
    let error = shown("show routes", "elsewhere").expect_err("two nodes");
    assert_eq!(error, "which node? Name one with --node: n1, n2");
    let error = shown("show routes --node n3", "n1").expect_err("no such node");
    assert!(error.starts_with("--node \"n3\": there is no such node; did you mean"), "{error}");
    assert!(shown("show rotues", "n1").expect_err("no such table").contains("'routes'"));
}
