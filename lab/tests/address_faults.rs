//! Faults of addresses under traffic: no pool, an exhausted pool, an address that two nodes want.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/run.rs"]
mod run;
#[path = "support/streams.rs"]
mod streams;

use facts::{facts, holds, untouched};
use run::run;
use streams::{START, Streams};
use tortie_lab::cni::CniFailure;
use tortie_lab::{Lab, Node};

/// How ADD of a pod fails.
fn refused(node: &Node, name: &str) -> CniFailure {
    let failure = node.add_pod("default", name, &[]).expect_err("there is no address for it");
    failure.downcast_ref::<CniFailure>().unwrap_or_else(|| panic!("{failure:?}")).clone()
}

#[test]
#[ignore = "needs root"]
fn an_exhausted_pool_is_named_and_works_again_after_a_del() {
    let lab = Lab::builder().nodes(1).pool("10.65.0.0/29").env("CALICO_IPV4POOL_BLOCK_SIZE", "29").up().unwrap();
    let streams = Streams::start(lab);
    let node = streams.lab.node(1);
    let mut pods: Vec<_> = (0..6).map(|index| node.add_pod("default", &format!("p{index}"), &[]).unwrap()).collect();
    let full = facts(&streams.lab);
    for round in 0..3 {
        let failure = refused(node, "one-too-many");
        assert_eq!(failure.code, 100, "{failure}");
        holds(&failure.to_string(), &["no free address for", "node1", "10.65.0.0/29", "8 of 8"]);
        assert_eq!(facts(&streams.lab).keys().collect::<Vec<_>>(), full.keys().collect::<Vec<_>>(), "round {round}");
        assert!(node.ready(), "a full pool is no fault of the node");
    }
    let freed = pods.pop().unwrap();
    let address = freed.ip();
    freed.delete().unwrap();
    let next = node.add_pod("default", "next", &[]).unwrap();
    assert_eq!(next.ip(), address, "the only free one");
    assert_eq!(refused(node, "one-too-many").code, 100);
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn without_a_pool_add_says_so_until_there_is_one() {
    let lab = Lab::builder().nodes(1).no_pool().up().unwrap();
    lab.start(START).unwrap();
    let node = lab.node(1);
    let failure = refused(node, "early");
    assert_eq!(failure.code, 100, "{failure}");
    holds(&failure.to_string(), &["no IPv4 pool", "node1"]);
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: late}\nspec: {cidr: 10.66.0.0/24, ";
    lab.apply(&format!("{pool}disabled: true}}\n")).unwrap();
    let disabled = tortie_lab::wait(START, || Some(refused(node, "early")).filter(|f| f.msg.contains("10.66.0.0/24")));
    assert_eq!(disabled.expect("the pool that is disabled is named").code, 100);
    lab.apply(&format!("{pool}disabled: false}}\n")).unwrap();
    let pod = tortie_lab::wait(START, || node.add_pod("default", "now", &[]).ok()).expect("there is a pool");
    assert!(pod.ip().to_string().starts_with("10.66.0."), "{}", pod.ip());
}

#[test]
#[ignore = "needs root"]
fn a_node_that_wants_anothers_address_does_not_start() {
    let streams = Streams::start(Lab::builder().nodes(2).up().unwrap());
    let node = streams.lab.node(2);
    node.kill9().unwrap();
    let before = facts(&streams.lab);
    for (name, address) in [("node2", "172.17.8.101"), ("node9", "172.17.8.102/24"), ("node9", "autodetect")] {
        let ended = run(node, "tortie", &["node"], &[("NODENAME", name), ("IP", address)]);
        assert_eq!(ended.code, Some(1), "{}", ended.text);
        let owner = if name == "node2" { "node1" } else { "node2" };
        let delete = format!("calicoctl delete node {owner}");
        holds(&ended.text, &["has the address", "172.17.8.10", &delete]);
        assert_eq!(facts(&streams.lab), before, "{name} {address}");
    }
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_node_without_an_address_says_what_it_looked_at() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    for (method, parts) in [
        ("interface=nosuch.*", ["IPv4", "172.17.8.101", "nosuch"]),
        ("cidr=10.0.0.0/8", ["IPv4", "172.17.8.101", "10.0.0.0/8"]),
        ("skip-interface=eth.*", ["IPv4", "172.17.8.101", "skip-interface"]),
    ] {
        let ended = run(lab.node(1), "tortie", &["node"], &[("IP_AUTODETECTION_METHOD", method)]);
        assert_eq!(ended.code, Some(1), "{method}: {}", ended.text);
        holds(&ended.text, &parts);
        if !untouched(&lab) {
            let kept = facts(&lab);
            assert!(kept.is_empty(), "{method}: {kept:#?}");
        }
    }
}
