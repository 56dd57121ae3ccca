//! The model check: nodes on one store, every order of steps, crashes between any two, planted bugs.
//!
//! `IPAM_SEED=n cargo test -p tortie-ipam --test model storm` replays one run. `IPAM_STEPS=n` sets how long it goes on.

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
    let results: Vec<Result<(u64, world::Seen), String>> = std::thread::scope(|scope| {
        let run = |worker: u64| {
            let (mut steps, mut seen, mut seed) = (0, world::Seen::default(), worker);
            while steps < wanted.div_ceil(threads) {
                let (took, more) = storm::run(seed, RUN, None)?;
                steps += took;
                seen.add(more);
                seed += threads;
            }
            Ok((steps, seen))
        };
        let workers: Vec<_> = (0..threads).map(|worker| scope.spawn(move || run(worker))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    let (mut steps, mut seen) = (0, world::Seen::default());
    for result in results {
        let (took, more) = result.expect("replay with IPAM_SEED set to the seed");
        steps += took;
        seen.add(more);
    }
    println!("{steps} steps: {seen:?}");
    assert!(steps >= wanted);
    assert_eq!(seen.contention, 0, "an operation gave up");
    let world::Seen { assigned, borrowed, exhausted, refused, conflicts, contention: _, crashes, torn } = seen;
    let rare = [assigned / 50, borrowed, exhausted, refused, conflicts, crashes, torn].into_iter().min().unwrap_or(0);
    assert!(rare * 10_000 >= wanted, "the runs hardly meet what they are for: {seen:?}");
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
