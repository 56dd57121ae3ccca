//! `tortie why` against real packets: its verdict is the packet's, and the change that it proposes turns the packet.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::time::Duration;

use serde_json::{Map, Value, json};
use tortie_lab::{Lab, Outcome, Pod, Probe, Store, probe};

const START: Duration = Duration::from_secs(20);

/// Everything may leave, and only some may come in: by label, by port, by protocol, with an exception.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: leave
spec:
  order: 1
  types: [Egress]
  egress:
  - action: Deny
    protocol: UDP
    destination: {ports: [9003]}
  - action: Allow
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: web
  namespace: default
spec:
  order: 2
  selector: app == 'web'
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {selector: role == 'client'}
    destination: {ports: [9000]}
  - action: Allow
    protocol: ICMP
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: client
  namespace: default
spec:
  order: 2
  selector: role == 'client'
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: UDP
    source: {notSelector: app == 'web'}
";

/// Runs `tortie why` on the first node.
fn why(lab: &Lab, from: &Pod, to: &Pod, flow: &[&str]) -> Value {
    let (from, to) = (format!("default/{}", from.name()), format!("default/{}", to.name()));
    let mut args = vec!["why", "-o", "json", from.as_str(), to.as_str()];
    args.extend(flow);
    let output = lab.node(1).command("tortie").unwrap().args(&args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Applies what `why` proposes. On Kubernetes an endpoint's labels are its pod's.
fn apply(lab: &Lab, pods: &[&Pod], resource: &Value) {
    let pod = pods.iter().find(|pod| resource["metadata"]["name"] == pod.endpoint_name());
    let (Store::Kubernetes, Some(pod)) = (lab.store(), pod) else {
        lab.apply(&resource.to_string()).unwrap();
        return;
    };
    let proposed = resource["metadata"]["labels"].as_object().unwrap();
    let own = proposed.iter().filter(|(label, _)| !label.starts_with("projectcalico.org/"));
    let gone = pod.labels().keys().filter(|label| !proposed.contains_key(*label)).map(|l| (l.clone(), Value::Null));
    let labels: Map<String, Value> = own.map(|(l, v)| (l.clone(), v.clone())).chain(gone).collect();
    pod.change(&json!({ "metadata": { "labels": labels } })).unwrap();
}

fn flows() -> [(Vec<&'static str>, Probe); 4] {
    [
        (vec!["tcp", "9000"], Probe::tcp(9000)),
        (vec!["tcp", "9001"], Probe::tcp(9001)),
        (vec!["udp", "9003"], Probe::udp(9003)),
        (vec!["icmp"], Probe::icmp()),
    ]
}

#[test]
#[ignore = "needs root"]
fn the_verdict_is_that_of_the_packet_and_the_change_turns_it() {
    let lab = Lab::builder().nodes(2).up().unwrap();
    lab.start(START).unwrap();
    let web = lab.node(1).add_pod("default", "web", &[("app", "web")]).unwrap();
    let client = lab.node(2).add_pod("default", "client", &[("role", "client")]).unwrap();
    let other = lab.node(1).add_pod("default", "other", &[("role", "other")]).unwrap();
    lab.wait_routes(START).unwrap();
    lab.apply(POLICY).unwrap();
    assert!(probe::becomes(&client.place(), &web.place(), &Probe::tcp(9000), Outcome::Open, START).unwrap());
    let pods = [&web, &client, &other];
    let (mut open, mut closed) = (0, 0);
    for from in pods {
        for to in pods.into_iter().filter(|to| to.name() != from.name()) {
            for (flow, probe) in flows() {
                let told = why(&lab, from, to, &flow);
                let seen = probe::ask(&from.place(), &to.place(), &probe).unwrap();
                let allowed = told["allowed"].as_bool().unwrap();
                assert_eq!(allowed, seen == Outcome::Open, "{flow:?} {} to {}: {told:#}", from.name(), to.name());
                if allowed { open += 1 } else { closed += 1 }
            }
        }
    }
    assert!(open >= 3 && closed >= 12, "{open} open, {closed} closed");

    // The policies as they are, then one change after the other, each on top of those before.
    for (from, to, (flow, probe)) in [
        (&client, &web, flows()[1].clone()),
        (&other, &web, flows()[0].clone()),
        (&other, &client, flows()[2].clone()),
        (&client, &web, flows()[3].clone()),
    ] {
        let told = why(&lab, from, to, &flow);
        let before = told["allowed"].as_bool().unwrap();
        let resources = told["change"]["resources"].as_array().unwrap_or_else(|| panic!("no change in {told:#}"));
        for resource in resources {
            apply(&lab, &pods, resource);
        }
        let wanted = if before { Outcome::Dropped } else { Outcome::Open };
        let turned = probe::becomes(&from.place(), &to.place(), &probe, wanted, START).unwrap();
        assert!(turned, "{flow:?} {} to {} after {}", from.name(), to.name(), told["change"]["steps"]);
        assert_eq!(why(&lab, from, to, &flow)["allowed"], !before);
    }
}
