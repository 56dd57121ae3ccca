//! The model check: nodes on one store, every order of steps, crashes between any two, planted bugs.
//!
//! `IPAM_SEED=n cargo test -p tortie-ipam --test model storm` replays one run. `IPAM_STEPS=n` sets the number of steps.

#[path = "model/exhaustive.rs"]
mod exhaustive;
#[path = "model/job.rs"]
mod job;
#[path = "model/store.rs"]
mod store;
#[path = "model/storm.rs"]
mod storm;
#[path = "model/world.rs"]
mod world;

use store::Bug;

const RUN: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn storm_of_a_million_steps_keeps_every_promise() {
    if let Some(seed) = number("IPAM_SEED") {
        storm::run(seed, RUN, None).expect("no promise is broken");
        return;
    }
    let wanted = number("IPAM_STEPS").unwrap_or(1_200_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(8);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let (mut steps, mut seed) = (0, worker);
                    while steps < wanted / threads {
                        match storm::run(seed, RUN, None) {
                            Ok(took) => steps += took,
                            Err(error) => return Some(error),
                        }
                        seed += threads;
                    }
                    None
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "replay with IPAM_SEED=SEED: {failures:#?}");
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..300).find_map(|seed| storm::run(seed, RUN, Some(bug)).err());
        match found {
            Some(error) => println!("{bug:?}: {error}"),
            None => panic!("{bug:?} was not found"),
        }
    }
}

#[test]
fn every_order_of_two_operations_keeps_every_promise() {
    for (name, strict, before, start) in exhaustive::CASES {
        let walked = exhaustive::check(name, strict, before, start).expect("no promise is broken");
        println!("{name}: {walked:?}");
        assert!(walked.orders > 100, "{name}: only {walked:?}");
    }
}
