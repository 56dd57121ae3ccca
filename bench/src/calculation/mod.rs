//! The calculation alone, as a program of its own, so that every run starts with an empty heap.
//!
//! The workloads are those that upstream's `felix/calc` and `felix/labelindex` benchmarks name, with the same counts,
//! labels and selectors, given as facts.

mod facts;
mod snapshot;
mod steps;
mod tenants;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What one run saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// CPU seconds for each repetition of what was timed.
    pub seconds: Vec<f64>,
    /// MiB that the calculator holds afterwards, the facts that it keeps included; zero where it does not matter.
    pub heap: f64,
    /// How many local endpoints, policies and sets came out, as a proof that there was work.
    pub made: [usize; 3],
}

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// So many tenants with a namespace, a policy and a pod each, a hundred pods of them on this node.
    Tenants(usize),
    /// 200 local and 10,000 remote endpoints, 1,000 network sets, each with a policy for all endpoints.
    NetworkSets,
    /// 200 local and 250,000 remote endpoints, 10,000 policies of five rules.
    Labels,
    /// Endpoints come to a node with so many selectors.
    Endpoint(usize),
    /// A selector comes to a node that knows so many endpoints.
    Selector(usize),
    /// A selector is parsed.
    Parse,
    /// A selector is evaluated.
    Evaluate,
}

impl Workload {
    const ALL: [(&'static str, Workload); 11] = [
        ("tenants-10k", Workload::Tenants(10_000)),
        ("tenants-100k", Workload::Tenants(100_000)),
        ("network-sets", Workload::NetworkSets),
        ("labels-250k", Workload::Labels),
        ("endpoint-1k", Workload::Endpoint(1_000)),
        ("endpoint-10k", Workload::Endpoint(10_000)),
        ("selector-10k", Workload::Selector(10_000)),
        ("selector-100k", Workload::Selector(100_000)),
        ("parse", Workload::Parse),
        ("evaluate", Workload::Evaluate),
        ("tenants-1k", Workload::Tenants(1_000)),
    ];

    /// The word that names it on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("?", |(name, _)| name)
    }
}

/// The program: `calculation WORKLOAD` prints what it saw as JSON.
pub fn program(args: &[String]) -> Result<()> {
    let [name] = args else { bail!("expected calculation WORKLOAD") };
    let Some((_, workload)) = Workload::ALL.iter().find(|(known, _)| known == name) else {
        bail!("no workload {name:?}: expected one of {}", Workload::ALL.map(|(name, _)| name).join(", "));
    };
    let seen = match workload {
        Workload::Tenants(count) => tenants::run(*count)?,
        Workload::NetworkSets => snapshot::network_sets()?,
        Workload::Labels => snapshot::labels()?,
        Workload::Endpoint(selectors) => steps::endpoint(*selectors)?,
        Workload::Selector(endpoints) => steps::selector(*endpoints)?,
        Workload::Parse => steps::parse()?,
        Workload::Evaluate => steps::evaluate()?,
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}
