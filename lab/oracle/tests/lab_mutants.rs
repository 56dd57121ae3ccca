//! Every fault that is made on purpose shows: some packet fares otherwise than the resources say.
//!
//! `cargo xtask mutants` runs this and shows the list.

use std::time::Instant;

use tortie_oracle::mutants::{Faulty, Mutant, all};
use tortie_oracle::{Backend, Facts, Flow, Network, Trial, expect, facts, flows, report, shrink};

/// How many worlds a fault may need to show, at most.
const WORLDS: u64 = 200;
const FLOWS: usize = 500;

/// A world, its flows, and what must become of each: by the resources, which no fault is in.
struct Known {
    facts: Facts,
    flows: Vec<Flow>,
    passes: Vec<bool>,
}

fn known(seed: u64) -> Known {
    let (facts, flows) = (facts(seed), flows(seed, FLOWS));
    let passes = flows.iter().map(|flow| expect::by_meaning(&facts, flow)).collect();
    Known { facts, flows, passes }
}

fn trial() -> Trial<Faulty> {
    let network = Network::new().expect("namespaces");
    let backend = Faulty::open(network.node()).expect("netlink");
    Trial::new(network, backend)
}

/// The first flow that fares otherwise, if any. Rules that the kernel refuses show nothing about packets.
fn shows(trial: &mut Trial<Faulty>, Known { facts, flows, passes }: &Known) -> Option<String> {
    if let Err(error) = trial.load(facts) {
        assert!(trial.backend.mutant.is_some(), "{error:#}");
        return None;
    }
    if trial.backend.mutant.is_some() && !trial.backend.applied {
        return None;
    }
    let arrived = trial.arrivals(flows, |at| passes[at]).expect("packets are sent");
    let wrong = (0..flows.len()).find(|at| arrived[*at] != passes[*at]);
    wrong.map(|at| format!("{} {}", if passes[at] { "denied:" } else { "allowed:" }, flows[at]))
}

#[test]
#[ignore = "needs root"]
fn every_mutant_is_killed() {
    let mut trial = trial();
    let mut worlds: Vec<Known> = Vec::new();
    let begun = Instant::now();
    // Without a fault all is well in every world: what is seen below comes from the faults.
    for seed in 1..=WORLDS {
        let world = known(seed);
        assert_eq!(shows(&mut trial, &world), None, "world {seed} without a fault");
        worlds.push(world);
    }
    let (mut killed, mut survived) = (0, Vec::new());
    for mutant in all() {
        trial.backend.mutant = Some(mutant);
        let seen = worlds.iter().enumerate().find_map(|(at, world)| Some((at + 1, shows(&mut trial, world)?)));
        let Mutant { name, change: _ } = mutant;
        match seen {
            Some((world, found)) => {
                killed += 1;
                println!("killed in world {world:3}: {:8} {name} -- {found}", mutant.step());
            }
            None => {
                println!("SURVIVED:            {:8} {name}", mutant.step());
                survived.push(format!("{}: {name}", mutant.step()));
            }
        }
    }
    println!("{killed} of {} mutants killed in {:.1} s", killed + survived.len(), begun.elapsed().as_secs_f64());
    assert!(survived.is_empty(), "no packet told of {survived:#?}");
}

/// A failing world shrinks to what can be read, and is printed as resources and a packet.
#[test]
#[ignore = "needs root"]
fn a_failing_world_shrinks_to_a_few_resources() {
    let mut trial = trial();
    for name in ["notNets are ignored", "named ports are ignored", "tiers in reverse order"] {
        trial.backend.mutant = all().into_iter().find(|mutant| mutant.name == name);
        let (world, wrong) = (1..)
            .find_map(|seed| {
                let facts = facts(seed);
                trial.load(&facts).expect("it loads");
                let wrong = trial.compare(&flows(seed, FLOWS), 0).expect("it is sent").into_iter().next();
                wrong.map(|wrong| (facts, wrong))
            })
            .expect("there is always another world");
        let mut asks = |facts: &Facts| {
            trial.load(facts).expect("it loads");
            trial.compare(&[wrong.flow], 1).expect("it is sent").pop()
        };
        let small = shrink(&world, 2000, |facts| asks(facts).is_some());
        let found = asks(&small).expect("it still shows");
        let text = report(&small, &found);
        println!("{name}: {} resources shrunk to {}:\n{text}\n", world.len(), small.len());
        assert!(small.len() <= 5 && small.len() < world.len(), "{text}");
        assert!(text.contains("Endpoint\n") && text.contains("packet: in by"), "{text}");
    }
    assert!(trial.backend.name().contains("tiers in reverse order"));
}
