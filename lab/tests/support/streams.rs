//! Two streams of numbered packets through a fault: one that policy allows and one that it forbids.
//!
//! Both send 1,000 packets a second. At the end every allowed packet has arrived, and no forbidden one.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::time::Duration;

use tortie_lab::{Lab, Pod, Prober};
use tortie_net::Family;

/// How long a lab may take to start or to come to rest.
pub const START: Duration = Duration::from_secs(60);
const RATE: u32 = 1000;

/// `a` may send to port 9000 of `b`, and to nothing else.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ingress}
spec:
  selector: name == 'b'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, source: {selector: name == 'a'}, destination: {ports: [9000]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: egress}
spec:
  selector: name == 'a'
  types: [Egress]
  egress:
  - {action: Allow}
";

/// A running lab with a pod `a` on its first node, a pod `b` on its last, and both streams from `a` to `b`.
pub struct Streams {
    pub lab: Lab,
    /// The pod that sends.
    pub a: Pod,
    /// The pod that is sent to.
    pub b: Pod,
    /// What `a` may send.
    pub allowed: Prober,
    forbidden: Prober,
    /// Number of the allowed stream's first packet that must arrive: from there on it flows.
    first: u64,
}

impl Streams {
    /// Starts the lab's nodes, makes the pods and lets both streams flow.
    pub fn start(lab: Lab) -> Streams {
        lab.start(START).unwrap();
        Streams::on(lab)
    }

    /// The same on nodes that run.
    pub fn on(lab: Lab) -> Streams {
        lab.apply(POLICY).unwrap();
        let last = lab.nodes().len();
        let a = lab.node(1).add_pod("default", "a", &[("name", "a")]).unwrap();
        let b = lab.node(last).add_pod("default", "b", &[("name", "b")]).unwrap();
        for (node, other) in [(1, &b), (last, &a)] {
            let to_other = |route: &tortie_netlink::Route| {
                route.net.contains(&other.ip()) && (last == 1 || !route.hops.is_empty())
            };
            lab.node(node).wait_route(START, "to the other pod", to_other).unwrap();
        }
        let allowed = Prober::start(&a.place(), &b.place(), Family::V4, 9000, RATE).unwrap();
        assert!(allowed.wait_received(100, START), "the allowed stream flows");
        let first = allowed.mark();
        let forbidden = Prober::start(&a.place(), &b.place(), Family::V4, 9001, RATE).unwrap();
        Streams { lab, a, b, allowed, forbidden, first }
    }

    /// Lets both streams run for so many packets.
    pub fn run(&self, packets: u64) {
        self.allowed.wait_sent(packets);
        self.forbidden.wait_sent(1);
    }

    /// Ends both streams after some packets more: nothing allowed was lost, nothing forbidden arrived.
    pub fn end(self) -> Lab {
        let first = self.first;
        self.end_from(first)
    }

    /// The same, where only what was sent from the packet of the number `first` on must have arrived.
    pub fn end_from(self, first: u64) -> Lab {
        self.run(200);
        let Streams { lab, a: _, b: _, allowed, forbidden, first: _ } = self;
        let (allowed, forbidden) = (allowed.stop(), forbidden.stop());
        forbidden.expect_silence().unwrap();
        assert!(forbidden.rate() >= 900.0 && allowed.rate() >= 900.0, "{} packets/s", allowed.rate());
        allowed.expect_all(first..allowed.sent).unwrap();
        lab
    }
}
