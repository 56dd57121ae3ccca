//! Host endpoints from the resource to the packet: by name, by address, of all interfaces, and what becomes of a node
//! when they go.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::time::Duration;

use support::Traces;
use tortie_lab::probe::becomes;
use tortie_lab::{Lab, Outcome, Probe};

const START: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(10);

fn endpoint(which: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: guarded, labels: {{guard: \"yes\"}}}}\n\
         spec: {{node: node2, {which}}}\n"
    )
}

const POLICY: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: guard}
spec:
  selector: guard == 'yes'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [9000]}}]
  egress: [{action: Allow}]
";

#[test]
#[ignore = "needs root"]
fn a_node_is_guarded_by_name_by_address_and_as_a_whole() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(2).up().unwrap();
    lab.start(START).unwrap();
    let (from, to) = (lab.node(1).place(), lab.node(2).place());
    let passes = |port: u16, passes: bool, why: &str| {
        let wanted = if passes { Outcome::Open } else { Outcome::Dropped };
        assert!(becomes(&from, &to, &Probe::tcp(port), wanted, SOON).unwrap(), "{port}: {why}");
    };
    passes(9001, true, "no host endpoint");
    lab.apply(POLICY).unwrap();
    let by_address = format!("expectedIPs: [{}]", lab.node(2).ip());
    for which in ["interfaceName: eth0", by_address.as_str(), "interfaceName: \"*\""] {
        lab.apply(&endpoint(which)).unwrap();
        passes(9001, false, which);
        passes(9000, true, which);
        lab.ctl(&["delete", "hostendpoint", "guarded"], "").unwrap();
        passes(9001, true, "the host endpoint is gone");
    }
    // What stands in the kernel outlives the process.
    lab.apply(&endpoint(&by_address)).unwrap();
    passes(9001, false, "guarded again");
    lab.node(2).kill9().unwrap();
    passes(9001, false, "the agent is dead");
    lab.node(2).start().unwrap();
    lab.node(2).wait_in_sync(START).unwrap();
    passes(9001, false, "the agent is back");
    passes(9000, true, "the agent is back");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
