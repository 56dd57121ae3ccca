//! CalicoNodeStatus: a resource that asks a node for its agent, sessions and routes gets them, as often as it says.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::time::Duration;

use serde_json::Value;
use tortie_lab::{Lab, wait};

const START: Duration = Duration::from_secs(20);

const ASK: &str = "
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: first}
spec: {node: node1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 1}
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: of-nobody}
spec: {node: node9, classes: [Agent], updatePeriodSeconds: 1}
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: once}
spec: {node: node1, classes: [BGP], updatePeriodSeconds: 0}
";

fn status(lab: &Lab, name: &str) -> Value {
    let text = lab.ctl(&["get", "caliconodestatus", name, "-o", "json"], "").unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["status"].clone()
}

fn until(lab: &Lab, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait(START, || {
        last = status(lab, name);
        holds(&last).then_some(())
    });
    assert!(found.is_some(), "{what}: {last}\n{}", lab.node(1).log());
    last
}

#[test]
#[ignore = "needs root"]
fn a_node_reports_what_it_is_asked_for() {
    let lab = Lab::builder().nodes(2).up().unwrap();
    lab.start(START).unwrap();
    let pod = lab.node(2).add_pod("default", "far", &[]).unwrap();
    let near = lab.node(1).add_pod("default", "near", &[]).unwrap();
    lab.wait_routes(START).unwrap();
    lab.apply(ASK).unwrap();
    let (node, far) = (lab.node(2).ip().to_string(), pod.ip());
    let whole = until(&lab, "first", "sessions and routes", |status| {
        status["bgp"]["numberEstablishedV4"] == 1
            && status["routes"]["routesV4"].as_array().is_some_and(|all| all.len() > 3)
    });
    assert_eq!(whole["agent"]["birdV4"]["state"], "Ready", "{whole}");
    assert_eq!(whole["agent"]["birdV4"]["routerID"], lab.node(1).ip().to_string());
    assert_eq!(whole["agent"]["birdV6"]["state"], "NotReady", "no IPv6 here");
    let peer = &whole["bgp"]["peersV4"][0];
    assert_eq!(
        (&peer["peerIP"], &peer["type"], &peer["state"]),
        (&node.clone().into(), &"NodeMesh".into(), &"Established".into())
    );
    let routes = whole["routes"]["routesV4"].as_array().unwrap();
    let learned = routes.iter().find(|route| route["learnedFrom"]["sourceType"] == "NodeMesh").unwrap();
    assert!(learned["destination"].as_str().unwrap().parse::<tortie_net::IpNet>().unwrap().contains(&far), "{learned}");
    assert_eq!((&learned["gateway"], &learned["learnedFrom"]["peerIP"]), (&node.clone().into(), &node.into()));
    let own = routes.iter().find(|route| route["interface"] == near.host_interface()).unwrap();
    assert_eq!(own["learnedFrom"]["sourceType"], "Kernel");

    until(&lab, "once", "the one report", |status| status["bgp"]["numberEstablishedV4"] == 1);
    lab.node(2).kill9().unwrap();
    let after = until(&lab, "first", "the session is over", |status| status["bgp"]["numberNotEstablishedV4"] == 1);
    // What nothing changed is not written again.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(status(&lab, "first")["agent"], after["agent"]);
    assert_eq!(status(&lab, "once")["bgp"]["numberEstablishedV4"], 1, "asked for once");
    assert!(status(&lab, "of-nobody")["agent"]["birdV4"]["state"].is_null());
}
