//! A locked datastore: nodes and plugins leave it as it is, packets go on, and what was written meanwhile counts after.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;

use std::time::Duration;

use facts::{facts, holds};
use tortie_lab::cni::CniFailure;
use tortie_lab::{Lab, Node, wait};

const START: Duration = Duration::from_secs(60);

const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: written-while-locked
spec:
  selector: all()
  ingress:
  - action: Deny
    source:
      nets: [198.51.100.77/32]
";

/// What of the policy the kernel holds.
fn holds_policy(node: &Node) -> bool {
    let output = node.command("nft").unwrap().args(["list", "table", "inet", "tortie"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().contains("198.51.100.77")
}

#[test]
#[ignore = "needs root"]
fn nodes_and_plugins_leave_a_locked_datastore_alone() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    let node = lab.node(1);
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    let early = node.add_pod("default", "early", &[]).unwrap();
    assert_eq!(lab.ctl(&["datastore", "migrate", "lock"], "").unwrap(), "Datastore locked.\n");
    // On the Kubernetes API plugins know of the lock what the node does.
    assert!(wait(START, || node.log().contains("the datastore's lock changed").then_some(())).is_some());
    lab.apply(POLICY).unwrap();
    let before = facts(&lab);
    let failure = node.add_pod("default", "late", &[]).unwrap_err();
    let failure = failure.downcast_ref::<CniFailure>().unwrap_or_else(|| panic!("{failure:?}"));
    assert_eq!(failure.code, 11, "{failure}");
    holds(&failure.msg, &["locked", "calicoctl datastore migrate unlock"]);
    let failure = early.cni("DEL").unwrap().unwrap_err();
    assert_eq!(failure.code, 11, "{failure}");
    // The policy came after the lock, and so did everything that the agent does by now.
    assert!(wait(Duration::from_secs(2), || holds_policy(node).then_some(())).is_none());
    node.kill9().unwrap();
    node.start().unwrap();
    assert!(wait(START, || node.log().contains("the datastore is locked").then_some(())).is_some());
    assert!(!node.ready());
    assert_eq!(facts(&lab), before, "nothing was written");
    assert_eq!(lab.ctl(&["datastore", "migrate", "unlock"], "").unwrap(), "Datastore unlocked.\n");
    node.wait_in_sync(START).unwrap();
    assert!(wait(START, || holds_policy(node).then_some(())).is_some());
    node.add_pod("default", "late", &[]).unwrap().delete().unwrap();
    early.delete().unwrap();
}
