//! `tortie why` about random flows through random worlds: its verdict is the oracle's, and the change that it proposes
//! turns it. `TORTIE_FULL` asks for the full number of cases.

mod support;

use support::{Oracle, changed, question};
use tortie_oracle::{facts, flows};
use tortie_why::{World, explain_flow};

const CASES: usize = 2000;
const FULL: usize = 10_000;
/// So many flows of each world.
const FLOWS: usize = 100;

#[test]
fn every_verdict_is_the_oracles_and_every_proposed_change_turns_it() {
    let wanted_cases = if std::env::var_os("TORTIE_FULL").is_some() { FULL } else { CASES };
    let (mut cases, mut allowed, mut turned, mut nothing) = (0, 0, 0, 0);
    for seed in 1.. {
        let facts = facts(seed);
        let (mut world, oracle) = (World::new(facts.clone()), Oracle::of(&facts));
        for flow in flows(seed, FLOWS) {
            let Some(asked) = question(&world, &flow) else { continue };
            let wanted = oracle.allows(&flow);
            let report = explain_flow(&mut world, &asked);
            assert_eq!(report.allowed, wanted, "world {seed}: {flow}");
            match changed(&facts, &report) {
                Some(after) => {
                    let now = Oracle::of(&after).allows(&flow);
                    assert_eq!(now, !wanted, "world {seed}: {flow} after {:?}", report.change);
                    turned += 1;
                }
                None => nothing += 1,
            }
            cases += 1;
            allowed += usize::from(wanted);
            if cases == wanted_cases {
                println!("{cases} cases, {allowed} allowed; {turned} turned by the change, {nothing} without one");
                assert!(nothing * 100 <= cases, "too few changes are found");
                return;
            }
        }
    }
}
