//! Random little clusters: the verdict is the oracle's, and every change that is proposed turns it.
//!
//! The clusters are those against which the calculation itself is tested.

mod common;
#[allow(dead_code, reason = "its test program uses more of it")]
#[path = "../../../logic/calc/tests/model/generate.rs"]
mod generate;

use std::cell::Cell;
use std::collections::BTreeMap;

use common::{changed, oracle};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tortie_api::{Kind, Resource};
use tortie_facts::{Key, Value};
use tortie_net::Protocol;
use tortie_why::{Flow, Point, World, explain_flow, find, suggest};

use generate::{Op, PORTS, op};

fn cluster(ops: Vec<Op>) -> World {
    let mut facts: BTreeMap<Key, Value> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Put(key, Value::Resource(resource)) => {
                let mut resource = Resource::clone(&resource);
                resource.apply_defaults();
                facts.insert(key, Value::resource(resource));
            }
            Op::Put(..) | Op::Delete(_) | Op::Flush => {}
        }
    }
    World::new(facts)
}

fn points(world: &World) -> Vec<Point> {
    let names = world.facts().keys().filter_map(|key| match key {
        Key::Resource { kind: Kind::WorkloadEndpoint, namespace, name } => Some(format!("{namespace}/{name}")),
        _ => None,
    });
    let mut all: Vec<Point> = names.map(|name| find(world, &name).expect("it is there")).collect();
    all.push(find(world, "10.0.0.9").expect("an address"));
    all
}

#[test]
fn the_verdict_is_the_oracles_and_every_proposed_change_turns_it() {
    let (flows, denied, opened, open, closed) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |cell: &Cell<usize>| cell.set(cell.get() + 1);
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let strategy = (prop::collection::vec(op(), 8..40), 0..PORTS.len());
    let result = runner.run(&strategy, |(ops, port)| {
        let mut world = cluster(ops);
        let points = points(&world);
        let (port, protocol): (u16, Protocol) = PORTS[port];
        // No change is proposed against policies that are Kubernetes' own.
        let foreign = |key: &Key| match key {
            Key::Resource { kind, .. } => {
                matches!(kind, Kind::KubernetesNetworkPolicy | Kind::KubernetesClusterNetworkPolicy)
            }
            _ => false,
        };
        let counted = !world.facts().keys().any(foreign);
        for source in &points {
            for destination in points.iter().filter(|point| *point != source) {
                if source.node().is_none() && destination.node().is_none() {
                    continue;
                }
                let flow = Flow::between(source.clone(), destination.clone(), protocol, port).expect("both are IPv4");
                let wanted = oracle(&world, source, destination, &flow.packet);
                let before = world.facts().clone();
                let change = suggest(&mut world, &flow);
                prop_assert_eq!(world.facts(), &before, "a question left something behind");
                let report = explain_flow(&mut world, &flow);
                prop_assert_eq!(report.allowed, wanted);
                for hop in &report.hops {
                    let all = hop.directions.iter().all(|direction| direction.allowed);
                    prop_assert!(all || !hop.allowed, "a direction denies, the node does not: {:?}", hop);
                }
                count(&flows);
                if counted {
                    count(if wanted { &open } else { &denied });
                }
                if let Some(change) = change {
                    let after = changed(&world, &change);
                    let now = oracle(&after, source, destination, &flow.packet);
                    prop_assert_eq!(now, !wanted, "after {:?}", change);
                    if counted {
                        count(if wanted { &closed } else { &opened });
                    }
                }
            }
        }
        Ok(())
    });
    println!(
        "{} flows; {} denied, {} with a change; {} allowed, {} with a change",
        flows.get(),
        denied.get(),
        opened.get(),
        open.get(),
        closed.get()
    );
    result.expect("no counterexample");
    assert!(denied.get() > 100, "hardly a denial was counted");
    assert!(opened.get() * 10 > denied.get() * 9, "too few denials get a change");
    assert!(closed.get() * 10 > open.get() * 9, "too few allowed flows get a change");
}
