//! A cluster out of manifests, and the verdict of the oracle without anything of the crate under test.

#![allow(dead_code, reason = "not every test program uses all of it")]

use tortie_api::manifest;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Key, Revision, Update, Value};
use tortie_net::Protocol;
use tortie_verdict::{Packet, Source, Target, evaluate};
use tortie_why::{Change, Flow, Point, Report, Sort, World, explain_flow, find, suggest};

/// The facts of a manifest.
pub fn facts(yaml: &str) -> Vec<(Key, Value)> {
    let mut resources = manifest::parse("test", yaml).unwrap_or_else(|error| panic!("{error}"));
    let fact = |resource: &mut tortie_api::Resource| {
        resource.apply_defaults();
        let metadata = resource.metadata();
        let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
        (key, Value::resource(resource.clone()))
    };
    resources.iter_mut().map(fact).collect()
}

/// The answer for one flow.
pub fn ask(world: &mut World, from: &str, to: &str, protocol: Protocol, port: u16) -> (Report, Option<Change>) {
    let (source, destination) = (find(world, from).expect("the source"), find(world, to).expect("the destination"));
    let flow = Flow::between(source, destination, protocol, port).expect("a flow");
    let change = suggest(world, &flow);
    (explain_flow(world, &flow), change)
}

/// What a node should hold, worked out from nothing.
pub fn tables(world: &World, node: &str) -> Tables {
    let mut calculator = Calculator::new(node, Overrides::default());
    for (key, value) in world.facts() {
        calculator.apply(Update { key: key.clone(), value: Some(value.clone()), revision: Revision(1) });
    }
    calculator.in_sync();
    let mut tables = Tables::default();
    tables.apply(&calculator.flush());
    tables
}

/// The oracle's verdict for a flow from workload to workload or address.
pub fn oracle(world: &World, source: &Point, destination: &Point, packet: &Packet) -> bool {
    let place = |point: &Point| match &point.sort {
        Sort::Workload { id: _, node, interface } => Some((node.clone(), interface.clone())),
        _ => None,
    };
    let (from, to) = (place(source), place(destination));
    if let Some((node, interface)) = &from {
        let tables = tables(world, node);
        if !evaluate(&tables, packet, Source::Interface(interface), Target::Routed).allowed {
            return false;
        }
    }
    match (from, to) {
        (Some((a, _)), Some((b, _))) if a == b => true,
        (_, Some((node, _))) => {
            evaluate(&tables(world, &node), packet, Source::Interface("eth0"), Target::Routed).allowed
        }
        (_, None) => true,
    }
}

/// The same cluster after a change.
pub fn changed(world: &World, change: &Change) -> World {
    let mut facts: std::collections::BTreeMap<Key, Value> = world.facts().clone();
    for (key, resource) in &change.edits {
        facts.insert(key.clone(), Value::resource(resource.clone()));
    }
    World::new(facts)
}
