//! When an address, a node or an empty block is given up: by cases.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tortie_api::{Kind, Metadata, Node, WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_control::{Abandoned, Course, Leaks, Ledger, Suspects, Users};
use tortie_facts::{Key, Value};
use tortie_ipam::{Holder, Now, Owner, Reserved, block};

const GRACE: Duration = Duration::from_secs(900);

/// A block of four addresses of a node, with these pods in it.
fn held(cidr: &str, node: &str, pods: &[(&str, &str)], born: u64) -> (Key, Value) {
    let cidr: IpNet = cidr.parse().expect("a literal");
    let mut found = block::new(cidr, Some(&Owner::host(node)), Now(born));
    for (handle, pod) in pods {
        let attrs = [("node", node), ("namespace", "t"), ("pod", pod)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let holder = Holder { handle: Some((*handle).to_owned()), attrs: attrs.into() };
        block::assign(cidr, &mut found, 1, &holder, &Reserved::default());
        found.sequence_number += 1;
    }
    (Key::Block(cidr), Value::Block(Arc::new(found)))
}

fn node(name: &str) -> (Key, Value) {
    let value = Node { metadata: Metadata::named(name), ..Node::default() };
    (Key::resource(Kind::Node, "", name), Value::resource(value.into()))
}

fn endpoint(pod: &str, address: &str) -> (Key, Value) {
    let name = format!("n1-k8s-{pod}-eth0");
    let ip_networks = vec![address.into()];
    let spec = WorkloadEndpointSpec { pod: pod.into(), ip_networks, ..WorkloadEndpointSpec::default() };
    let metadata = Metadata::in_namespace("t", &name);
    (Key::resource(Kind::WorkloadEndpoint, "t", &name), Value::resource(WorkloadEndpoint { metadata, spec }.into()))
}

struct Cluster {
    leaks: Leaks,
    facts: Vec<(Key, Value)>,
    seen: Course,
}

impl Cluster {
    fn new(facts: Vec<(Key, Value)>) -> Cluster {
        Cluster { leaks: Leaks::default(), facts, seen: Course::Forward }
    }

    fn users(&self) -> Users {
        Users::new(self.facts.iter().map(|(key, value)| (key, value)), [])
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.facts.iter().map(|(key, value)| (key, value)))
    }

    fn look(&mut self, secs: u64) -> (Suspects, Course) {
        self.look_with(secs, Some(GRACE))
    }

    fn look_with(&mut self, secs: u64, grace: Option<Duration>) -> (Suspects, Course) {
        let (users, ledger) = (self.users(), self.ledger());
        let seen = std::mem::replace(&mut self.seen, Course::Forward);
        self.leaks.look(&users, &ledger, seen, Duration::from_secs(secs), grace)
    }

    fn confirm(&mut self, suspects: Suspects) -> Abandoned {
        let (users, ledger) = (self.users(), self.ledger());
        self.leaks.confirm(suspects, &users, &ledger)
    }

    /// What the first look finds due at a moment and the second confirms, as texts.
    fn abandoned(&mut self, secs: u64) -> Vec<String> {
        let (suspects, _) = self.look(secs);
        let Abandoned { leaks, nodes, empty } = self.confirm(suspects);
        let leaks = leaks.into_values().flatten().map(|one| one.address.to_string());
        leaks.chain(nodes).chain(empty.into_iter().map(|(owner, cidr)| format!("{cidr} of {owner}"))).collect()
    }
}

#[test]
fn an_address_goes_after_its_grace_period_and_a_second_look() {
    let mut cluster = Cluster::new(vec![node("n1"), held("10.0.0.0/30", "n1", &[("h", "web")], 5)]);
    assert!(cluster.abandoned(0).is_empty());
    assert!(cluster.abandoned(899).is_empty());
    let (due, _) = cluster.look(900);
    assert_eq!(due.leaks.len(), 1);
    cluster.facts.push(endpoint("web", "10.0.0.0"));
    assert_eq!(cluster.confirm(due), Abandoned::default(), "the second look finds it in use");
    cluster.facts.pop();
    assert!(cluster.abandoned(901).is_empty(), "the grace period starts anew");
    assert_eq!(cluster.abandoned(1801), ["10.0.0.0"]);
}

#[test]
fn a_use_in_between_or_another_giving_out_starts_the_grace_period_anew() {
    let mut cluster = Cluster::new(vec![node("n1"), held("10.0.0.0/30", "n1", &[("h", "web")], 5)]);
    cluster.look(0);
    cluster.facts.push(endpoint("web", "10.0.0.0"));
    cluster.look(500);
    cluster.facts.pop();
    cluster.look(600);
    assert!(cluster.abandoned(1499).is_empty());
    // The same address under the same handle, but given out again.
    cluster.facts[1] = held("10.0.0.0/30", "n1", &[("h", "web")], 50);
    assert!(cluster.abandoned(1500).is_empty());
    let (due, _) = cluster.look(2400);
    assert_eq!(due.leaks.len(), 1);
    cluster.facts[1] = held("10.0.0.0/30", "n1", &[("h", "web")], 500);
    assert_eq!(cluster.confirm(due), Abandoned::default(), "given out anew between the looks");
}

#[test]
fn a_handle_goes_as_a_whole() {
    let mut cluster = Cluster::new(vec![node("n1"), held("10.0.0.0/30", "n1", &[("h", "web"), ("h", "web")], 5)]);
    cluster.facts.push(endpoint("web", "10.0.0.1"));
    cluster.look(0);
    assert!(cluster.abandoned(900).is_empty(), "the pod runs with the other address");
    cluster.facts.pop();
    cluster.look(1000);
    assert_eq!(cluster.abandoned(1900), ["10.0.0.0", "10.0.0.1"]);
}

#[test]
fn without_a_grace_period_only_nodes_that_are_gone_are_collected() {
    let mut cluster = Cluster::new(vec![node("n1"), held("10.0.0.0/30", "n1", &[("h", "web")], 5)]);
    cluster.look_with(0, None);
    assert!(cluster.look_with(1_000_000, None).0.is_empty());
    cluster.facts.remove(0);
    cluster.look_with(1_000_001, None);
    let (due, _) = cluster.look_with(1_000_061, None);
    assert_eq!((due.leaks.len(), due.nodes.len()), (1, 1));
}

#[test]
fn a_node_that_is_gone_keeps_its_blocks_while_anybody_uses_its_addresses() {
    let mut cluster = Cluster::new(vec![held("10.0.0.0/30", "n1", &[("h", "web")], 5), endpoint("web", "10.0.0.0")]);
    cluster.look(0);
    assert!(cluster.abandoned(10_000).is_empty());
    cluster.facts.pop();
    assert!(cluster.abandoned(10_010).is_empty());
    assert_eq!(cluster.abandoned(10_070), ["10.0.0.0", "n1"]);
    let (due, _) = cluster.look(10_080);
    assert!(due.nodes.contains("n1"));
    cluster.facts.push(node("n1"));
    assert!(cluster.confirm(due).nodes.is_empty(), "it came back between the looks");
}

#[test]
fn empty_blocks_go_but_one() {
    let blocks = ["10.0.0.0/30", "10.0.0.4/30"].map(|cidr| held(cidr, "n1", &[], 5));
    let mut cluster = Cluster::new(std::iter::once(node("n1")).chain(blocks).collect());
    cluster.look(0);
    assert!(cluster.abandoned(899).is_empty());
    let (due, _) = cluster.look(900);
    assert_eq!(due.empty.len(), 1);
    cluster.facts[1] = held("10.0.0.0/30", "n1", &[("h", "web")], 6);
    cluster.facts[2] = held("10.0.0.4/30", "n1", &[("h", "web")], 6);
    assert_eq!(cluster.confirm(due).empty, [], "used between the looks");
}

#[test]
fn on_a_datastore_that_went_back_nothing_is_given_up_for_a_grace_period() {
    let now =
        vec![node("n1"), held("10.0.0.0/30", "n1", &[("h1", "old"), ("h2", "new")], 1000), endpoint("new", "10.0.0.1")];
    // The backup is of a time when the first address was another pod's, and `new` did not run.
    let backup = vec![node("n1"), held("10.0.0.0/30", "n1", &[("h0", "older")], 10)];
    for by_revision in [false, true] {
        let mut cluster = Cluster::new(now.clone());
        cluster.look(0);
        cluster.look(899);
        cluster.facts = backup.clone();
        if by_revision {
            // No block shows it.
            cluster.facts[1] = held("10.0.0.0/30", "n1", &[("h0", "older")], 2000);
            cluster.seen = Course::Back;
        }
        let (due, course) = cluster.look(1000);
        assert_eq!((due, course), (Suspects::default(), Course::Back));
        assert!(cluster.abandoned(1899).is_empty(), "what nodes tell again has time to come");
        cluster.facts.push(endpoint("mended", "10.0.0.0"));
        assert!(cluster.abandoned(1901).is_empty(), "somebody uses the address");
        cluster.facts.pop();
        cluster.look(2000);
        assert_eq!(cluster.abandoned(2900), ["10.0.0.0"]);
    }
}
