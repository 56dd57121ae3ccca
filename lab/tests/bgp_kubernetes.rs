//! BGP that depends on Kubernetes: single addresses of services by the nodes that serve them, passwords from a Secret.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::collections::BTreeSet;
use std::time::Duration;

use tortie_lab::{Lab, Store, kubernetes};

use routers::{START, tortie_bgp, tortie_bgp_json, until, up_since};

/// Nodes 1 and 2.
const PEERS: [&str; 2] = ["172.17.8.102", "172.17.8.101"];

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  ports: [{port: 80}]
  externalIPs: [203.0.113.5]
  externalTrafficPolicy: Local
---
apiVersion: v1
kind: Service
metadata: {name: single, namespace: default}
spec:
  type: LoadBalancer
  ports: [{port: 80}]
  externalIPs: [198.51.100.7]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: single-1, namespace: default, labels: {kubernetes.io/service-name: single}}
addressType: IPv4
endpoints: []
ports: []
";

fn slice(node: &str, ready: bool) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints: [{{addresses: [192.168.0.9], nodeName: {node}, conditions: {{ready: {ready}}}}}]
ports: []
"
    )
}

fn settings(password: bool) -> String {
    let password =
        if password { "nodeMeshPassword: {secretKeyRef: {name: bgp-secrets, key: mesh}}" } else { "asNumber: 64512" };
    format!(
        "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {{name: default}}
spec:
  serviceExternalIPs: [{{cidr: 203.0.113.0/24}}, {{cidr: 198.51.100.7/32}}]
  {password}
"
    )
}

/// The services' prefixes that a node tells the other.
fn told(lab: &Lab, node: usize) -> BTreeSet<String> {
    let answer = tortie_bgp_json(lab, node, &["routes", PEERS[node - 1]]);
    let sent = answer[0]["routes"]["sent"].as_array().cloned().unwrap_or_default();
    let prefixes = sent.iter().filter_map(|route| Some(route["prefix"].as_str()?.to_owned()));
    prefixes.filter(|prefix| prefix.starts_with("203.") || prefix.starts_with("198.51.")).collect()
}

fn both_up(lab: &Lab) -> Result<(), String> {
    let up = |node| {
        let state = tortie_bgp_json(lab, node, &["peers"]);
        state["peers"].as_array().is_some_and(|all| all.len() == 1 && all[0]["state"] == "up")
    };
    if (1..=2).all(up) { Ok(()) } else { Err(tortie_bgp(lab, 1, &["peers"]) + &tortie_bgp(lab, 2, &["peers"])) }
}

#[test]
#[ignore = "needs root"]
fn services_are_announced_where_they_are_served_and_passwords_come_from_a_secret() {
    if let Some(missing) = kubernetes::missing() {
        eprintln!("skipped: {missing} is not there");
        return;
    }
    let lab = Lab::builder().nodes(2).store(Store::Kubernetes).up().unwrap();
    lab.start(START).unwrap();
    let kubectl = |args: &str, stdin: &str| lab.kubectl(&args.split(' ').collect::<Vec<_>>(), stdin).unwrap();
    let tells = |node: usize, prefixes: &[&str]| {
        let wanted: BTreeSet<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        until(&format!("node {node} tells {wanted:?}"), || {
            let told = told(&lab, node);
            if told == wanted { Ok(()) } else { Err(format!("{told:?}")) }
        });
    };
    lab.apply(&settings(false)).unwrap();
    kubectl("apply -f -", SERVICES);
    kubectl("apply -f -", &slice(lab.node(1).name(), true));
    tells(1, &["203.0.113.0/24", "203.0.113.5/32", "198.51.100.7/32"]);
    tells(2, &["203.0.113.0/24", "198.51.100.7/32"]);
    kubectl("apply -f -", &slice(lab.node(2).name(), true));
    tells(2, &["203.0.113.0/24", "203.0.113.5/32", "198.51.100.7/32"]);
    tells(1, &["203.0.113.0/24", "198.51.100.7/32"]);
    kubectl("apply -f -", &slice(lab.node(2).name(), false));
    tells(2, &["203.0.113.0/24", "198.51.100.7/32"]);

    lab.apply(&settings(true)).unwrap();
    until("without the Secret there is no session, and the reason is named", || {
        let text = tortie_bgp(&lab, 1, &["explain", PEERS[0]]);
        if text.contains("no Secret kube-system/bgp-secrets") { Ok(()) } else { Err(text) }
    });
    kubectl("create secret generic bgp-secrets -n kube-system --from-literal=mesh=first", "");
    until("the sessions are up with the password", || both_up(&lab));
    let since = || up_since(&lab, 1, PEERS[0]);
    let first = since();
    // Such times are whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    kubectl("patch secret bgp-secrets -n kube-system -p {\"stringData\":{\"mesh\":\"second\"}}", "");
    until("the session begins anew with the other password", || {
        both_up(&lab)?;
        if since() == first { Err(tortie_bgp(&lab, 1, &["explain", PEERS[0]])) } else { Ok(()) }
    });
    tells(1, &["203.0.113.0/24", "198.51.100.7/32"]);
}
