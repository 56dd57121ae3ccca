//! Single steps: one endpoint against many selectors, one selector against many endpoints, a selector by itself.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Result;
use serde_json::json;
use tortie_calc::Calculator;
use tortie_facts::Update;
use tortie_selector::Selector;

use super::Seen;
use super::facts::{self, LOCAL, calculator, cpu, default_tier, fact};

const REPEATS: usize = 200;

/// The text that upstream's selector benchmark parses.
const TEXT: &str = r#"! (a == "b"&&! c != "d") || !(has(e) && f in {"g", "h"})"#;

/// Endpoints that one of the selectors matches, one after the other.
pub fn endpoint(selectors: usize) -> Result<Seen> {
    let mut calculator = started()?;
    let rules = (0..selectors).map(|n| json!({ "action": "Allow", "source": { "selector": selector_text(n) } }));
    let rules: Vec<_> = rules.collect();
    for (n, part) in rules.chunks(1000).enumerate() {
        calculator.apply(policy(&format!("many-{n}"), part)?);
    }
    calculator.flush();
    let updates = (1..=REPEATS).map(marked).collect::<Result<Vec<_>>>()?;
    let mut seconds = Vec::new();
    for update in updates {
        let start = cpu();
        calculator.apply(update);
        black_box(calculator.flush());
        seconds.push((cpu() - start).as_secs_f64());
    }
    Ok(Seen { seconds, heap: 0.0, made: [1, selectors, selectors] })
}

/// Policies with one selector that every endpoint, or none, matches.
pub fn selector(endpoints: usize) -> Result<Seen> {
    let mut calculator = started()?;
    for n in 1..=endpoints {
        calculator.apply(marked(n)?);
    }
    calculator.flush();
    let mut seconds = Vec::new();
    for n in 0..REPEATS {
        // A text of its own for each: the same selector would be known already.
        let text = format!("{} && !has(never-{n})", selector_text(n % 10));
        let rule = json!({ "action": "Allow", "source": { "selector": text } });
        let update = policy(&format!("one-{n}"), &[rule])?;
        let start = cpu();
        calculator.apply(update);
        black_box(calculator.flush());
        seconds.push((cpu() - start).as_secs_f64());
    }
    Ok(Seen { seconds, heap: 0.0, made: [endpoints, REPEATS, REPEATS] })
}

/// The time of one parse, from rounds of a thousand.
pub fn parse() -> Result<Seen> {
    rounds(|| {
        black_box(Selector::parse(black_box(TEXT))?);
        Ok(())
    })
}

/// The time of one evaluation, from rounds of a thousand.
pub fn evaluate() -> Result<Seen> {
    let selector = Selector::parse(TEXT)?;
    let labels: BTreeMap<String, String> = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".into(), "d".into())]);
    rounds(|| {
        black_box(selector.matches(black_box(&labels)));
        Ok(())
    })
}

fn rounds(mut step: impl FnMut() -> Result<()>) -> Result<Seen> {
    const ROUND: u32 = 1000;
    let mut seconds = Vec::new();
    for _ in 0..REPEATS {
        let start = cpu();
        for _ in 0..ROUND {
            step()?;
        }
        seconds.push((cpu() - start).as_secs_f64() / f64::from(ROUND));
    }
    Ok(Seen { seconds, heap: 0.0, made: [0, 0, 1] })
}

/// A calculator in sync, with one local endpoint that every policy selects.
fn started() -> Result<Calculator> {
    let mut calculator = calculator();
    calculator.apply(default_tier()?);
    calculator.apply(endpoint_of(LOCAL, 0, BTreeMap::from([("here".to_owned(), "yes".to_owned())]))?);
    calculator.in_sync();
    calculator.flush();
    Ok(calculator)
}

fn selector_text(n: usize) -> String {
    format!(r#"alpha == "beta" && has(ipset-{n})"#)
}

fn policy(name: &str, rules: &[serde_json::Value]) -> Result<Update> {
    let spec = json!({ "tier": "default", "selector": "has(here)", "types": ["Ingress"], "ingress": rules });
    fact("GlobalNetworkPolicy", "", name, BTreeMap::new(), spec)
}

/// A remote endpoint with the labels that the first selectors look for.
fn marked(n: usize) -> Result<Update> {
    let labels = BTreeMap::from([("alpha".to_owned(), "beta".to_owned()), ("ipset-1".into(), "true".into())]);
    endpoint_of("host", n, labels)
}

fn endpoint_of(node: &str, n: usize, labels: BTreeMap<String, String>) -> Result<Update> {
    facts::endpoint(node, n, "default", &format!("namespace-{n}"), labels)
}
