//! Random facts in random order: the incremental calculator against one that starts from scratch, and its verdicts
//! against a model that reads policy as it is written, without sets, tiers' tables or an index.

#[path = "scenario/check.rs"]
mod check;
mod model {
    pub mod generate;
    pub mod meaning;
}

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::generate::{self, Op};
use model::meaning;
use proptest::prelude::*;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Key, Revision, Update, Value};
use tortie_verdict::{Direction, Packet, evaluate_endpoint, with_staged};

type Facts = BTreeMap<Key, Value>;

fn from_scratch(facts: &Facts) -> Tables {
    let mut calculator = Calculator::new(generate::NODE, Overrides::default());
    for (key, value) in facts {
        calculator.apply(Update { key: key.clone(), value: Some(value.clone()), revision: Revision(1) });
    }
    calculator.in_sync();
    let mut tables = Tables::default();
    tables.apply(&calculator.flush());
    tables
}

/// Asks both about every local endpoint, every address of the little world, and a few ports.
fn compare_verdicts(facts: &Facts, tables: &Tables) -> Result<(), TestCaseError> {
    let staged = with_staged(tables);
    for (id, endpoint) in &tables.endpoints {
        let own = endpoint.addresses[0];
        for peer in generate::addresses() {
            for (port, protocol) in generate::PORTS {
                for direction in [Direction::Ingress, Direction::Egress] {
                    let (src, dst): (IpAddr, IpAddr) =
                        if direction == Direction::Ingress { (peer, own) } else { (own, peer) };
                    let packet = Packet { protocol, ..Packet::tcp(src, 40000, dst, port) };
                    let verdict = evaluate_endpoint(tables, id, direction, &packet).expect("the endpoint is there");
                    let meant = meaning::allowed(facts, id, direction, &packet, false);
                    prop_assert_eq!(verdict.allowed, meant, "{} {:?} {:?}: {:?}", id, direction, packet, verdict.steps);
                    let verdict = evaluate_endpoint(&staged, id, direction, &packet).expect("the endpoint is there");
                    let meant = meaning::allowed(facts, id, direction, &packet, true);
                    let steps = verdict.steps;
                    prop_assert_eq!(verdict.allowed, meant, "staged {} {:?} {:?}: {:?}", id, direction, packet, steps);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_history_leads_to_what_the_facts_mean(ops in prop::collection::vec(generate::op(), 1..60)) {
        let mut calculator = Calculator::new(generate::NODE, Overrides::default());
        calculator.in_sync();
        let (mut facts, mut tables) = (Facts::new(), Tables::default());
        for op in ops.into_iter().chain([Op::Flush]) {
            match op {
                Op::Put(key, value) => {
                    calculator.apply(Update { key: key.clone(), value: Some(value.clone()), revision: Revision(1) });
                    facts.insert(key, value);
                }
                Op::Delete(key) => {
                    calculator.apply(Update { key: key.clone(), value: None, revision: Revision(1) });
                    facts.remove(&key);
                }
                Op::Flush => {
                    let batch = calculator.flush();
                    check::batch(&tables, &batch);
                    tables.apply(&batch);
                    check::tables(&tables);
                    prop_assert_eq!(&tables, &from_scratch(&facts));
                }
            }
        }
        compare_verdicts(&facts, &tables)?;
    }
}
