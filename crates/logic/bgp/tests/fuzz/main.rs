//! Fuzzing of the codec and of the session machine: scripts of a hostile peer, mutated, against a speaker that also has
//! a good peer. What no script may do is in `world`.
//!
//! Usually some thousand scripts; `TORTIE_FULL` asks for a hundred times as many, `TORTIE_FUZZ_SECS` for as many as fit
//! that time. `TORTIE_FUZZ_CORPUS` names a folder that takes the scripts that showed something new: an event, or two in
//! a row. `corpus` holds such ones, and each is run as it is. `TORTIE_SEED` runs another sequence.

mod mutate;
mod script;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::{Dice, mutate};
use script::{Script, seeds};

/// Scripts that are kept to mutate.
const MOST_KEPT: usize = 4000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// Runs one script; a failure shows it.
fn run(script: &Script) -> BTreeSet<u64> {
    match catch_unwind(AssertUnwindSafe(|| world::run(script))) {
        Ok(events) => events,
        Err(panic) => {
            println!("the script, for a file in the corpus:\n{script}");
            resume_unwind(panic)
        }
    }
}

fn corpus() -> Vec<(PathBuf, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a script");
        let script = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, script)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_script_of_the_corpus_is_survived() {
    for (path, script) in corpus() {
        println!("{}", path.display());
        run(&script);
    }
}

#[test]
fn scripts_are_read_as_they_are_written() {
    for script in seeds() {
        assert_eq!(script.to_string().parse(), Ok(script));
    }
}

#[test]
fn a_hostile_peer_harms_nobody() {
    let seed = number("TORTIE_SEED").unwrap_or(1);
    let time = number("TORTIE_FUZZ_SECS").map(Duration::from_secs);
    let full = std::env::var_os("TORTIE_FULL").is_some();
    let count = if time.is_some() { u64::MAX } else { 3000 * if full { 100 } else { 1 } };
    let keep = std::env::var_os("TORTIE_FUZZ_CORPUS").map(PathBuf::from);
    let mut dice = Dice::new(seed);
    let mut kept: Vec<Script> = seeds();
    kept.extend(corpus().into_iter().map(|(_, script)| script));
    let mut seen: BTreeSet<u64> = kept.iter().flat_map(run).collect();
    let begun = Instant::now();
    let mut told = begun;
    let mut runs = 0_u64;
    while runs < count && time.is_none_or(|time| begun.elapsed() < time) {
        let base = &kept[dice.below(kept.len())];
        let other = &kept[dice.below(kept.len())];
        let script = mutate(base, other, &mut dice);
        runs += 1;
        let before = seen.len();
        seen.extend(run(&script));
        if seen.len() > before {
            if let Some(folder) = &keep {
                std::fs::write(folder.join(format!("{:016x}.txt", script.name())), script.to_string())
                    .expect("the corpus can be written");
            }
            if kept.len() < MOST_KEPT {
                kept.push(script);
            } else {
                let at = dice.below(kept.len());
                kept[at] = script;
            }
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!(
                "{runs} scripts in {} s, {} events, {} scripts kept",
                begun.elapsed().as_secs(),
                seen.len(),
                kept.len()
            );
        }
    }
    println!("seed {seed}: {runs} scripts in {:.0} s, {} events", begun.elapsed().as_secs_f64(), seen.len());
}
