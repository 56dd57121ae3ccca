//! The quick walk of the first steps, with v3 resources: two hosts, a workload on each, no policy, then one.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::time::Duration;

use tortie_lab::{Lab, Outcome, Probe, Store, probe, wait};

const START: Duration = Duration::from_secs(60);

/// What the walk's profile and policy say, in v3: every endpoint of the network may send and receive anything.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: net1
spec:
  order: 0
  selector: role == 'net1'
  ingress:
  - action: Allow
  egress:
  - action: Allow
";

/// Pods of Kubernetes are open until a policy selects them: this one gives them the walk's start.
const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

#[test]
#[ignore = "needs root"]
fn without_policy_packets_are_dropped_and_the_applied_policy_opens_them() {
    let lab = Lab::builder().nodes(2).env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap();
    lab.start(START).unwrap();
    if lab.store() == Store::Kubernetes {
        lab.kubectl(&["apply", "-f", "-"], CLOSED).unwrap();
    }
    let a = lab.node(1).add_pod("default", "workload-a", &[("role", "net1")]).unwrap();
    let b = lab.node(2).add_pod("default", "workload-b", &[("role", "net1")]).unwrap();
    let c = lab.node(1).add_pod("default", "workload-c", &[("role", "net1")]).unwrap();
    for (node, other) in [(1, &b), (2, &a)] {
        lab.node(node).wait_route(START, "to the other host's block", |r| r.net.contains(&other.ip())).unwrap();
    }
    if lab.store() == Store::Kubernetes {
        for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
            probe::becomes(&from.place(), &to.place(), &Probe::udp(9000), Outcome::Dropped, START).unwrap();
        }
    }
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
        for probe in [Probe::icmp(), Probe::udp(9000), Probe::tcp(9000)] {
            let seen = probe::ask(&from.place(), &to.place(), &probe).unwrap();
            assert_eq!(seen, Outcome::Dropped, "{} to {} by {probe:?} without a policy", from.name(), to.name());
        }
    }
    let said = lab.apply(POLICY).unwrap();
    assert!(said.contains("Successfully applied 1 'GlobalNetworkPolicy' resource(s)"), "{said}");
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
        for probe in [Probe::icmp(), Probe::udp(9000), Probe::tcp(9000)] {
            let open = probe::becomes(&from.place(), &to.place(), &probe, Outcome::Open, START).unwrap();
            assert!(open, "{} to {} by {probe:?} with the policy", from.name(), to.name());
        }
    }
    let routes = lab.node(1).ip_route(false).unwrap();
    let block = |text: &str| routes.lines().any(|line| line.contains("/26") && line.trim_end().ends_with(text));
    assert!(block("via 172.17.8.102 dev eth0 proto bird metric 1024"), "{routes}");
    assert!(
        routes.lines().any(|l| l.starts_with("blackhole 192.168.") && l.trim_end().ends_with("/26 proto bird")),
        "{routes}"
    );
    let own = format!("{} dev {} scope link", a.ip(), a.host_interface());
    assert!(routes.lines().any(|line| line.trim_end() == own), "{own} in\n{routes}");
}

#[test]
#[ignore = "needs root"]
fn node_status_prints_the_table_of_sessions() {
    let lab = Lab::builder().nodes(3).up().unwrap();
    lab.start(START).unwrap();
    let status = wait(START, || {
        let text = lab.ctl(&["node", "status"], "").ok()?;
        (text.matches("Established").count() == 2).then_some(text)
    });
    let status = status.expect("two sessions are established");
    for line in [
        "Calico process is running.",
        "IPv4 BGP status",
        "|  PEER ADDRESS  |     PEER TYPE     | STATE |  SINCE   |    INFO     |",
        "IPv6 BGP status",
        "No IPv6 peers found.",
    ] {
        // Column widths follow the longest cell, so blanks are compared as one.
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&status).contains(&squeezed(line)), "{line:?} in\n{status}");
    }
    for address in ["172.17.8.102", "172.17.8.103"] {
        let row =
            status.lines().find(|line| line.contains(address)).unwrap_or_else(|| panic!("{address} in\n{status}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!((cells[2], cells[3], cells[5]), ("node-to-node mesh", "up", "Established"), "{row}");
    }
}
