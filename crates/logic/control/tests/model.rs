//! The model check of collection: nodes, runtimes and two controllers on one store, in any order of steps, with crashes
//! between any two, pictures that are old, and a clock that jumps.
//!
//! Never: an address with two users, or one that is freed while it has a user. In the end: nothing leaked.
//! `CONTROL_SEED=n` replays one run, `CONTROL_OPS=n` sets how many operations of IPAM there are in all.

#[path = "model/controller.rs"]
mod controller;
#[path = "model/job.rs"]
mod job;
#[path = "model/world.rs"]
mod world;

use std::time::Instant;

use world::{Bug, Scale, Seen, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds from `first` on until so many operations are done.
fn runs(scale: Scale, first: u64, operations: u64) -> Seen {
    let mut seen = Seen::default();
    let mut seed = first;
    while seen.operations < operations {
        seen.add(run(seed, scale, None).expect("replay with CONTROL_SEED set to the seed"));
        seed += 1;
    }
    seen
}

#[test]
fn no_address_is_shared_freed_in_use_or_leaked() {
    if let Some(seed) = number("CONTROL_SEED") {
        for scale in [Scale::Small, Scale::Large] {
            println!("seed {seed}, {scale:?}: {:?}", run(seed, scale, None).expect("no promise is broken"));
        }
        return;
    }
    let full = std::env::var_os("TORTIE_FULL").is_some();
    let wanted = number("CONTROL_OPS").unwrap_or(if full { 1_050_000 } else { 24_000 });
    let started = Instant::now();
    let (small, large) = std::thread::scope(|scope| {
        let small = scope.spawn(|| runs(Scale::Small, 1, wanted / 2));
        let large = scope.spawn(|| runs(Scale::Large, 1_000_000, wanted / 2));
        (small.join().expect("no panic"), large.join().expect("no panic"))
    });
    println!("few nodes, seeds from 1: {small:?}");
    println!("200 nodes, seeds from 1000000: {large:?}");
    println!("{} operations in {:.1?}", small.operations + large.operations, started.elapsed());
    for (name, seen) in [("small", small), ("large", large)] {
        let Seen { operations, assigned, released, collected, refuted, crashes, torn, late, nodes_gone } = seen;
        assert!(operations > 0 && assigned > 0 && released > 0, "{name}: {seen:?}");
        let rare = [collected, refuted, crashes, torn, late, nodes_gone].into_iter().min().unwrap_or(0);
        assert!(rare > 0, "{name}: the runs do not meet what they are for: {seen:?}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..400).find_map(|seed| run(seed, Scale::Small, Some(bug)).err());
        match found {
            Some(error) => println!("{bug:?}: {error}"),
            None => panic!("{bug:?} was not found"),
        }
    }
}
