//! Random worlds in a real kernel: every packet fares as the oracle says, and the oracle says what the resources mean.
//!
//! Everything follows from the number of the world, which is printed. `TORTIE_FULL` asks for twenty times as many worlds,
//! `TORTIE_ORACLE_WORLDS` for so many, and `TORTIE_ORACLE_SEED` says with which to begin.

use std::time::Instant;

use tortie_iptables::Flavour;
use tortie_oracle::{
    Backend, Disagreement, Facts, Flow, IptablesBackend, Network, NftablesBackend, Trial, facts, flows, report, shrink,
};

const WORLDS: u64 = 250;
/// Worlds for each flavour of iptables, whose programs take their time.
const IPTABLES_WORLDS: u64 = 70;
/// Flows through each world.
const FLOWS: usize = 800;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?}: expected a number")),
        Err(_) => default,
    }
}

/// The least world in which this flow still fares otherwise, and how.
fn least<B: Backend>(trial: &mut Trial<B>, facts: &Facts, flow: Flow) -> Option<(Facts, Disagreement)> {
    let mut ask = |facts: &Facts| -> Option<Disagreement> {
        trial.load(facts).expect("it loads");
        trial.compare(&[flow], 1).expect("it is sent").pop()
    };
    ask(facts)?;
    let small = shrink(facts, 2000, |facts| ask(facts).is_some());
    let found = ask(&small)?;
    Some((small, found))
}

fn run<B: Backend>(trial: &mut Trial<B>, usual: u64) {
    let default = if std::env::var_os("TORTIE_FULL").is_some() { 20 * usual } else { usual };
    let (first, worlds) = (number("TORTIE_ORACLE_SEED", 1), number("TORTIE_ORACLE_WORLDS", default));
    let begun = Instant::now();
    for seed in first..first + worlds {
        let world = facts(seed);
        // From nothing every tenth time, else by what changed since the last world.
        let fresh = (seed - first) % 10 == 0;
        if fresh { trial.load(&world) } else { trial.turn(&world) }.expect("the kernel takes it");
        let wrong = trial.compare(&flows(seed, FLOWS), 4).expect("packets are sent");
        let Some(one) = wrong.first() else { continue };
        println!("world {seed}: {} of {FLOWS} flows fare otherwise; the first:\n{one}", wrong.len());
        match least(trial, &world, one.flow) {
            Some((small, found)) => println!("shrunk to:\n{}", report(&small, &found)),
            None => println!("not so in a fresh kernel: it takes what was there before, world {}", seed - 1),
        }
        panic!("TORTIE_ORACLE_SEED={seed}: {} disagreements", wrong.len());
    }
    let counts = trial.counts;
    let took = begun.elapsed();
    println!(
        "{}: worlds {first} to {}: {} pairs of world and flow agree, {} of them allowed; {} were held against the \
         resources too; {} packets were sent again; {:.1} s, {:.0} pairs a second",
        trial.backend.name(),
        first + worlds - 1,
        counts.pairs,
        counts.passed,
        counts.by_meaning,
        counts.again,
        took.as_secs_f64(),
        counts.pairs as f64 / took.as_secs_f64()
    );
    let share = counts.passed as f64 / counts.pairs as f64;
    assert!((0.15..0.85).contains(&share), "worlds that allow or deny nearly everything say little: {share}");
    assert!(counts.again * 1000 < counts.pairs, "packets get lost on the way: {} did", counts.again);
}

#[test]
#[ignore = "needs root"]
fn nftables_does_with_every_packet_what_the_oracle_says() {
    let network = Network::new().expect("namespaces");
    let backend = NftablesBackend::open(network.node()).expect("nf_tables");
    run(&mut Trial::new(network, backend), WORLDS);
}

fn iptables(flavour: Flavour) {
    let network = Network::new().expect("namespaces");
    let backend = IptablesBackend::open(network.node(), flavour).expect("iptables");
    run(&mut Trial::new(network, backend), IPTABLES_WORLDS);
}

#[test]
#[ignore = "needs root"]
fn iptables_legacy_does_with_every_packet_what_the_oracle_says() {
    iptables(Flavour::Legacy);
}

#[test]
#[ignore = "needs root"]
fn iptables_nft_does_with_every_packet_what_the_oracle_says() {
    iptables(Flavour::Nft);
}
