//! Random desired states through a real kernel: increments end where starting afresh ends.

#[path = "../../../logic/ruleset/tests/arbitrary/mod.rs"]
mod arbitrary;
mod support;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{lab, run, try_run};
use tortie_desired::{Batch, Endpoint, EndpointId, Tables};
use tortie_nftables::{Error, Nftables, Object, Options};

const OTHER: &str = "add table inet other { chain c { type filter hook input priority 0; }; \
                     set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }; }";

#[test]
#[ignore = "needs root"]
fn increments_converge_and_a_second_pass_writes_nothing() {
    let _alone = lab();
    run("nft", &[OTHER]);
    let other = run("nft", &["list", "table", "inet", "other"]);
    let batches = proptest::collection::vec((arbitrary::batch(), 0u8..8), 1..8);
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(batches, any::<bool>(), any::<bool>()), |(mut batches, own, narrow)| {
        if narrow {
            batches.iter_mut().for_each(|(batch, _)| arbitrary::narrow(batch));
        }
        // A single policy is chosen by a map too.
        let options = Options { own, shortest_run: 1, ..Options::default() };
        let mut nft = Nftables::open_with(options).expect("netlink");
        let mut tables = Tables::default();
        // Starts from whatever the case before left behind, as after a crash.
        nft.resync(&tables).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for (batch, fault) in &batches {
            tables.apply(batch);
            if !own && *fault == 0 {
                // Nobody resyncs: the next commit that changes anything is refused, and must recover by itself.
                try_run("nft", &["delete table inet tortie"]);
            }
            if !own && *fault == 1 {
                try_run("nft", &["flush chain inet tortie filter-INPUT"]);
                try_run("nft", &["add set inet tortie alien { type mark; }"]);
                nft.resync(&tables).map_err(|e| TestCaseError::fail(e.to_string()))?;
            }
            nft.commit(&tables, batch).map_err(|e| TestCaseError::fail(e.to_string()))?;
            if *fault != 0 {
                let second = nft.resync(&tables).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(second.written, Default::default(), "{:?}", second);
            }
        }
        let second = nft.resync(&tables).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(!own || second.written == Default::default(), "{:?}", second);
        if !own {
            nft.remove_all().map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run("nft", &["list", "table", "inet", "other"]), other);
}

fn endpoint(interface: &str) -> Option<Arc<Endpoint>> {
    let addresses = vec!["10.0.0.1".parse().expect("literal")];
    Some(Arc::new(Endpoint { interface: Arc::from(interface), addresses, ..Endpoint::default() }))
}

#[test]
#[ignore = "needs root"]
fn a_refused_transaction_changes_nothing_and_names_its_object() {
    let _alone = lab();
    let id = |name: &str| EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) };
    let mut nft = Nftables::open().expect("netlink");
    let mut tables = Tables::default();
    let good = Batch { endpoints: [(id("a"), endpoint("cali0"))].into(), ..Batch::default() };
    tables.apply(&good);
    nft.commit(&tables, &good).expect("a good batch");
    let before = run("nft", &["list", "ruleset"]);
    let last_good = tables.clone();
    // Two names that are one as far as the kernel can tell them apart.
    let other = |endpoint: Arc<Endpoint>| Endpoint { profiles: vec![Arc::from("kns.other")], ..(*endpoint).clone() };
    let second = endpoint("cali-0123456789-c").map(other).map(Arc::new);
    let clash = [(id("b"), endpoint("cali-0123456789-b")), (id("c"), second)];
    let bad = Batch { endpoints: clash.into(), ..Batch::default() };
    tables.apply(&bad);
    let refused = nft.commit(&tables, &bad).expect_err("one interface, two chains");
    println!("{refused}");
    assert!(
        matches!(&refused, Error::Refused { object: Object::Elements(name), .. } if name.ends_with("-dispatch")),
        "{refused:?}"
    );
    assert_eq!(run("nft", &["list", "ruleset"]), before, "nothing changed");
    assert_eq!(nft.resync(&last_good).expect("the last good state").written, Default::default());
    let next = Batch { endpoints: [(id("d"), endpoint("cali1"))].into(), ..Batch::default() };
    let mut tables = last_good;
    tables.apply(&next);
    nft.commit(&tables, &next).expect("the next good batch");
    assert!(run("nft", &["list", "ruleset"]).contains("\"cali1\" : goto cali-gi-cali0"), "it shares the chain");
}

#[test]
#[ignore = "needs root"]
fn a_table_of_a_running_process_is_not_touched() {
    let _alone = lab();
    let mut first = Nftables::open().expect("netlink");
    first.resync(&Tables::default()).expect("the first transaction");
    let mut second = Nftables::open().expect("netlink");
    assert!(matches!(second.resync(&Tables::default()), Err(Error::Owned { .. })));
    assert!(matches!(second.remove_all(), Err(Error::Owned { .. })));
    drop(first);
    let taken = second.resync(&Tables::default()).expect("taking over");
    assert!(taken.repaired.is_empty() && !taken.replaced && taken.owned, "{taken:?}");
    second.remove_all().expect("removal");
    assert_eq!(run("nft", &["list", "ruleset"]), "");
    // A table of the same name that is not owned, as an older kernel leaves behind, becomes an owned one at once.
    let mut plain = Nftables::open_with(Options { own: false, ..Options::default() }).expect("netlink");
    plain.resync(&Tables::default()).expect("the first transaction");
    drop(plain);
    let report = second.resync(&Tables::default()).expect("replacing");
    assert!(report.replaced && report.owned);
}
