//! The outer packets of VXLAN: connection tracking knows nothing of them, in every packet filter, and they are judged
//! all the same.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/overlay.rs"]
mod overlay;
#[path = "support/programs.rs"]
mod programs;
mod support;

use overlay::{START, everybody_talks, flows, pods, started, three_nodes};
use programs::installed;
use support::Traces;
use tortie_lab::probe::becomes;
use tortie_lab::{Node, Outcome, Probe, Rules};
use tortie_net::Protocol;

const PORT: u16 = 4789;
const PROBES: [fn() -> Probe; 3] = [|| Probe::tcp(9000), || Probe::udp(9000), || Probe::tcp(9000).v6()];

/// A host endpoint on every node that lets only one port of TCP in, and nothing out but what is always let.
const CLOSED: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec:
  selector: guard == 'yes'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [9001]}}]
";

fn host_endpoint(node: &Node) -> String {
    let name = node.name();
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: {name}, labels: {{guard: \"yes\"}}}}\n\
         spec: {{node: {name}, interfaceName: \"*\"}}\n"
    )
}

fn outer_flows_of(node: &Node) -> Vec<String> {
    flows(node, |flow| flow.protocol == Protocol::UDP && flow.original.dst_port == PORT)
}

fn nothing_is_known_of_the_outer_packets(rules: Rules) {
    let before = Traces::now();
    let lab = three_nodes()
        .subnet6("fd00:8::/64")
        .subnet6("fd00:9::/64")
        .pool("fd00:192:168::/48")
        .rules(rules)
        .env("CALICO_NETWORKING_BACKEND", "vxlan")
        .env("CALICO_IPV4POOL_VXLAN", "Always")
        .env("CALICO_IPV6POOL_VXLAN", "Always");
    let lab = started(lab.up().unwrap());
    let pods = pods(&lab);
    let probes = PROBES.map(|probe| probe());
    everybody_talks(&pods, &probes).unwrap();
    // Before the first node knew another one, there may have been flows of it: those that are there begin anew.
    for node in lab.nodes() {
        node.command("conntrack").unwrap().args(["-F"]).output().unwrap();
    }
    everybody_talks(&pods, &probes).unwrap();
    for node in lab.nodes() {
        assert_eq!(outer_flows_of(node), Vec::<String>::new(), "{}", node.name());
        assert_ne!(flows(node, |flow| flow.original.dst_port == 9000), Vec::<String>::new(), "pods' own are known");
    }

    // A host endpoint that lets nothing else in or out does not close the tunnel.
    let endpoints: String = lab.nodes().iter().map(host_endpoint).collect();
    lab.apply(&(CLOSED.to_owned() + &endpoints)).unwrap();
    let (from, to) = (lab.node(2).place(), lab.node(1).place());
    assert!(becomes(&from, &to, &Probe::tcp(9002), Outcome::Dropped, START).unwrap(), "the node is closed");
    everybody_talks(&pods, &probes).unwrap();
    assert_eq!(outer_flows_of(lab.node(1)), Vec::<String>::new());
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn nothing_is_known_of_the_outer_packets_in_nftables() {
    nothing_is_known_of_the_outer_packets(Rules::Nftables);
}

#[test]
#[ignore = "needs root"]
fn nothing_is_known_of_the_outer_packets_in_iptables() {
    if installed(&["iptables-legacy", "iptables-nft", "ipset"]) {
        nothing_is_known_of_the_outer_packets(Rules::IptablesLegacy);
        nothing_is_known_of_the_outer_packets(Rules::IptablesNft);
    }
}
