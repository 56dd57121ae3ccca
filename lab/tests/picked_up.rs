//! A connection that was there before the node: the kernel meets it in the middle, maybe by an answer, and can't tell
//! which side opened it. It goes on while policy allows it one way round or the other.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/flows.rs"]
mod flows;
mod support;

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use flows::{Flow, Kind, TICK};
use support::Traces;
use tortie_lab::{Lab, wait};

const START: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(40);
/// Ticks without a packet until a flow counts as stopped.
const LOOK: usize = 30;

/// The policy of a node's own interface, with what it does each way.
fn policy(ingress: &str, egress: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: outside, labels: {{guard: \"yes\"}}}}\n\
         spec: {{node: node2, interfaceName: eth0}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: guard}}\n\
         spec: {{selector: guard == 'yes', types: [Ingress, Egress], \
         ingress: [{{action: {ingress}}}], egress: [{{action: {egress}}}]}}\n"
    )
}

/// Whether anything of a flow comes.
fn passes(flow: &mut Flow) -> bool {
    flow.take();
    let before = flow.got;
    (0..LOOK).any(|_| {
        flow.send();
        sleep(TICK);
        flow.take();
        flow.got > before
    })
}

#[test]
#[ignore = "needs root"]
fn a_connection_that_was_there_before_is_judged_either_way_round() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(2).up().unwrap();
    let (far, near) = (lab.node(1).place(), lab.node(2).place());
    let [far_ip, near_ip] = [1, 2].map(|number| IpAddr::V4(lab.node(number).ip()));
    // The node opened it, and from now on the other side alone speaks.
    let mut early = Flow::open(Kind::TcpPush, &near, &far, far_ip, 7100);
    lab.start(START).unwrap();
    assert!(passes(&mut early));
    let mut late = Flow::open(Kind::TcpEcho, &far, &near, near_ip, 7200);
    assert!(passes(&mut late));

    lab.apply(&policy("Deny", "Allow")).unwrap();
    wait(SOON, || (!passes(&mut late)).then_some(())).expect("a flow into the node stops");
    assert!(passes(&mut early), "a flow out of the node goes on");
    lab.apply(&policy("Deny", "Deny")).unwrap();
    wait(SOON, || (!passes(&mut early)).then_some(())).expect("what nobody may begin stops");
    lab.apply(&policy("Deny", "Allow")).unwrap();
    wait(SOON, || passes(&mut early).then_some(())).expect("it goes on");
    assert!(!passes(&mut late));
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
