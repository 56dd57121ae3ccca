//! Random desired states through real tables: increments end where starting afresh ends, in both flavours.

#[path = "../../../logic/ruleset/tests/arbitrary/mod.rs"]
mod arbitrary;
#[path = "../../nftables/tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{lab, run, try_run};
use tortie_desired::{Batch, Tables};
use tortie_iptables::{Error, Flavour, Iptables, Options};

/// Rules, chains and sets of others, around the places where ours go.
const OTHERS: &str = "*filter\n:DOCKER - [0:0]\n-A FORWARD -s 192.0.2.1/32 -j DROP\n-A FORWARD -j DOCKER\n\
                      -A DOCKER -p 6 -m tcp --dport 9 -j DROP\nCOMMIT\n*nat\n-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE\nCOMMIT\n";

fn restore(flavour: Flavour, text: &str) {
    let mut child = Command::new(format!("iptables-{flavour}-restore"))
        .args(["--noflush", "--wait", "20"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iptables is installed");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{text}");
}

/// All that is not ours: rules that are no hooks, and sets.
fn others(flavour: Flavour) -> String {
    let save = |six: &str| run(&format!("ip{six}tables-{flavour}-save"), &[]);
    let text = [save(""), save("6"), run("ipset", &["save"])].concat();
    let foreign = |line: &&str| (line.starts_with("-A") || line.starts_with("add")) && !line.contains("cali");
    text.lines().filter(foreign).collect::<Vec<_>>().join("\n")
}

fn converges(flavour: Flavour) {
    let _alone = lab();
    restore(flavour, OTHERS);
    run("ipset", &["create", "other", "hash:ip"]);
    run("ipset", &["add", "other", "192.0.2.1"]);
    let before = others(flavour);
    let batches = proptest::collection::vec((arbitrary::batch(), 0u8..8), 1..5);
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&batches, |batches| {
        let fail = |e: Error| TestCaseError::fail(e.to_string());
        let mut backend = Iptables::new(Options::new(flavour));
        let mut tables = Tables::default();
        // Starts from whatever the case before left behind, as after a crash.
        backend.resync(&tables).map_err(fail)?;
        for (batch, fault) in &batches {
            tables.apply(batch);
            match fault {
                0 => {
                    try_run(&format!("iptables-{flavour}"), &["-w", "20", "-F", "cali-FORWARD"]);
                    try_run(&format!("iptables-{flavour}"), &["-w", "20", "-N", "cali-alien"]);
                    try_run("ipset", &["create", "cali40s-alien", "hash:ip"]);
                    backend.resync(&tables).map_err(fail)?;
                }
                1 => {
                    try_run(&format!("ip6tables-{flavour}"), &["-w", "20", "-D", "FORWARD", "1"]);
                    try_run(&format!("iptables-{flavour}"), &["-w", "20", "-I", "INPUT", "-j", "cali-INPUT"]);
                    backend.resync(&tables).map_err(fail)?;
                }
                // Nobody tells: the next commit that builds on it is refused, and must recover by itself.
                2 => {
                    try_run(&format!("iptables-{flavour}"), &["-w", "20", "-F"]);
                    try_run(&format!("iptables-{flavour}"), &["-w", "20", "-X", "cali-wl-dispatch"]);
                    restore(flavour, "*filter\n-A FORWARD -s 192.0.2.1/32 -j DROP\n-A FORWARD -j DOCKER\n-A DOCKER -p 6 -m tcp --dport 9 -j DROP\nCOMMIT\n");
                    backend = Iptables::new(Options::new(flavour));
                }
                _ => {}
            }
            backend.commit(&tables, batch).map_err(fail)?;
            let second = backend.resync(&tables).map_err(fail)?;
            prop_assert!(!second.wrote, "{:?}", second);
        }
        let first = Iptables::new(Options::new(flavour)).resync(&tables).map_err(fail)?;
        prop_assert!(!first.wrote, "without memory: {:?}", first);
        prop_assert_eq!(&others(flavour), &before);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{flavour}: {e}"));
    let mut backend = Iptables::new(Options::new(flavour));
    backend.remove_all().expect("removal");
    assert!(!tortie_iptables::leftovers(flavour).expect("it is read"));
    assert_eq!(others(flavour), before);
    assert!(!run("ipset", &["list", "-n"]).contains("cali"), "sets are gone");
}

#[test]
#[ignore = "needs root"]
fn increments_converge_and_a_second_pass_writes_nothing_in_legacy() {
    converges(Flavour::Legacy);
}

#[test]
#[ignore = "needs root"]
fn increments_converge_and_a_second_pass_writes_nothing_in_nft() {
    converges(Flavour::Nft);
}

#[test]
#[ignore = "needs root"]
fn a_refused_change_leaves_tables_and_sets_as_they_were() {
    let _alone = lab();
    for flavour in Flavour::ALL {
        let mut backend = Iptables::new(Options::new(flavour));
        let mut tables = Tables::default();
        backend.resync(&tables).expect("the first change");
        // Somebody else's set has the name of one that comes, and can't go as their rule refers to it.
        let saved = || [run(&format!("iptables-{flavour}-save"), &[]), run("ipset", &["save"])].concat();
        let cut = |text: String| text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n");
        let before = cut(saved());
        let odd = tortie_desired::Endpoint {
            interface: "cali+".into(),
            addresses: vec!["10.0.0.1".parse().expect("literal")],
            ..tortie_desired::Endpoint::default()
        };
        let id = tortie_desired::EndpointId { namespace: "ns".into(), name: "a".into() };
        let batch = Batch { endpoints: [(id.clone(), Some(odd.into()))].into(), ..Batch::default() };
        tables.apply(&batch);
        let refused = backend.commit(&tables, &batch).expect_err("a name that is a pattern");
        assert!(matches!(&refused, Error::Unsupported { what } if what.contains("cali+")), "{refused:?}");
        assert_eq!(cut(saved()), before, "{flavour}");
        let undo = Batch { endpoints: [(id, None)].into(), ..Batch::default() };
        tables.apply(&undo);
        assert!(!backend.commit(&tables, &undo).expect("the last good state").wrote);
        backend.remove_all().expect("removal");
    }
}
