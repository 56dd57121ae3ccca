//! Chains that tell of packets and end them, one for each cause.
//!
//! A rule that ends packets goes to such a chain; so what passes pays nothing, and a flood of what is dropped is told
//! of at a limited rate. What is over the rate ends silently, and is counted by the first rule of the chain.

use std::collections::BTreeSet;

use tortie_desired::{Period, Settings};

use crate::cause::Cause;
use crate::model::{Chain, Match, Name, Rate, Rule, Statement, Verdict};
use crate::names::Names;

/// How many packets a second are told of for each cause.
pub const RECORD_RATE: u32 = 100;
/// How many at once before the rate counts.
pub const RECORD_BURST: u32 = 200;

/// What the names of these chains start with.
const PREFIXES: [&str; 3] = ["cali-drop-", "cali-reject-", "cali-reset-"];

/// A rule that ends packets.
pub(crate) fn end(settings: &Settings, matches: impl Into<Vec<Match>>, cause: &Cause, verdict: Verdict) -> Rule {
    let record = || Statement::Record { group: cause.group(), prefix: cause.prefix().into() };
    let statements = settings.record_drops.then(record).into_iter().collect();
    Rule { matches: matches.into(), statements, verdict: Some(verdict) }
}

/// Sends the packets of rules that record them to chains of their own, which it returns, each once.
pub(crate) fn outline(chain: &mut Chain, names: Names) -> Vec<(Name, Chain)> {
    let mut made: Vec<(Name, Chain)> = Vec::new();
    for rule in &mut chain.rules {
        let [Statement::Record { group: _, prefix }] = rule.statements.as_slice() else { continue };
        let Some(verdict) = rule.verdict.take() else { continue };
        let name = name(&verdict, prefix, names);
        let statements = std::mem::take(&mut rule.statements);
        rule.verdict = Some(Verdict::Goto(name.clone()));
        if made.iter().all(|(known, _)| *known != name) {
            made.push((name, recording(statements, verdict)));
        }
    }
    made
}

fn recording(statements: Vec<Statement>, verdict: Verdict) -> Chain {
    let rate = Rate { packets: RECORD_RATE, period: Period::Second, burst: RECORD_BURST };
    let over = Rule {
        matches: vec![Match::Rate { rate, over: true }],
        statements: vec![Statement::Count],
        verdict: Some(verdict.clone()),
    };
    Chain { rules: vec![over, Rule { matches: Vec::new(), statements, verdict: Some(verdict) }], ..Chain::default() }
}

fn name(verdict: &Verdict, prefix: &str, names: Names) -> Name {
    let [drop, reject, reset] = PREFIXES;
    let start = match verdict {
        Verdict::Reject => reject,
        Verdict::Reset => reset,
        Verdict::Drop
        | Verdict::Accept
        | Verdict::Return
        | Verdict::Jump(_)
        | Verdict::Goto(_)
        | Verdict::Dispatch { .. }
        | Verdict::Choose { .. }
        | Verdict::SourceNat { .. }
        | Verdict::DestinationNat(_) => drop,
    };
    // The first bar follows letters and digits, so this can be turned back.
    names.recording(start, &prefix.replacen('|', "/", 1))
}

/// The chains of this kind that a chain sends packets to.
pub(crate) fn ends(chain: &Chain) -> BTreeSet<Name> {
    let target = |rule: &Rule| {
        let Some(Verdict::Goto(name)) = &rule.verdict else { return None };
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)).then(|| name.clone())
    };
    chain.rules.iter().filter_map(target).collect()
}

/// The chains that may tell of a cause. The first rule of each counts what it does not tell.
pub fn drop_chain(prefix: &str, max_name_len: usize) -> [Name; 3] {
    let names = Names { max_len: max_name_len };
    [Verdict::Drop, Verdict::Reject, Verdict::Reset].map(|verdict| name(&verdict, prefix, names))
}
