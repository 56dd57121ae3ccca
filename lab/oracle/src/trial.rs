//! One world after the other in the kernel, and every flow judged three times: by the resources as written, by the
//! oracle, and by the packet itself.

use std::fmt;

use anyhow::Result;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Revision, Update};

use crate::backend::Backend;
use crate::expect::{by_meaning, by_verdict};
use crate::flow::Flow;
use crate::generate::Facts;
use crate::network::Network;
use crate::place::{NODE, node_interfaces};

/// A flow about which not all are of one mind.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The flow.
    pub flow: Flow,
    /// Whether the resources let it pass; `None` if they were not asked.
    pub meaning: Option<bool>,
    /// Whether the oracle lets it pass.
    pub verdict: bool,
    /// Whether it passed.
    pub kernel: bool,
    /// How the oracle came to its verdict.
    pub steps: Vec<String>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |allowed: bool| if allowed { "allow" } else { "deny" };
        let Disagreement { flow, meaning, verdict, kernel, steps } = self;
        let meaning = meaning.map_or("not asked", word);
        writeln!(f, "packet: {flow}")?;
        write!(f, "resources: {meaning}; oracle: {}; kernel: {}", word(*verdict), word(*kernel))?;
        steps.iter().try_for_each(|step| write!(f, "\n  {step}"))
    }
}

/// What many flows came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Pairs of a world and a flow.
    pub pairs: usize,
    /// Of those, how many passed.
    pub passed: usize,
    /// Of those, how many were held against the resources too.
    pub by_meaning: usize,
    /// Packets sent again, since an allowed one did not arrive at first.
    pub again: usize,
}

/// A network with a backend and what it holds.
pub struct Trial<B> {
    /// The network.
    pub network: Network,
    /// The part under test.
    pub backend: B,
    calculator: Calculator,
    facts: Facts,
    tables: Tables,
    /// Sums over all flows.
    pub counts: Counts,
}

fn calculator() -> Calculator {
    let mut calculator = Calculator::new(NODE, Overrides::default());
    calculator.set_interfaces(node_interfaces());
    calculator
}

impl<B: Backend> Trial<B> {
    /// A network that holds nothing yet.
    pub fn new(network: Network, backend: B) -> Trial<B> {
        let calculator = calculator();
        let (facts, tables) = (Facts::new(), Tables::default());
        Trial { network, backend, calculator, facts, tables, counts: Counts::default() }
    }

    /// Puts a world into the kernel from nothing.
    pub fn load(&mut self, facts: &Facts) -> Result<()> {
        self.calculator = calculator();
        (self.facts, self.tables) = (Facts::new(), Tables::default());
        self.feed(facts);
        self.calculator.in_sync();
        self.tables.apply(&self.calculator.flush());
        self.backend.load(&self.tables)?;
        self.network.route(&self.tables)
    }

    /// Turns the world in the kernel into another one, by what differs.
    pub fn turn(&mut self, facts: &Facts) -> Result<()> {
        self.feed(facts);
        let batch = self.calculator.flush();
        self.tables.apply(&batch);
        self.backend.update(&self.tables, &batch)?;
        self.network.route(&self.tables)
    }

    fn feed(&mut self, facts: &Facts) {
        let update = |key: &tortie_facts::Key, value| Update { key: key.clone(), value, revision: Revision(1) };
        for key in self.facts.keys().filter(|key| !facts.contains_key(*key)) {
            self.calculator.apply(update(key, None));
        }
        for (key, value) in facts.iter().filter(|(key, value)| self.facts.get(*key) != Some(*value)) {
            self.calculator.apply(update(key, Some(value.clone())));
        }
        self.facts = facts.clone();
    }

    /// Sends the flows through the world that is in the kernel. Every `sample`-th flow is held against the resources
    /// too, which takes longer; 0 asks for none.
    pub fn compare(&mut self, flows: &[Flow], sample: usize) -> Result<Vec<Disagreement>> {
        let verdicts: Vec<(bool, Vec<String>)> = flows.iter().map(|flow| by_verdict(&self.tables, flow)).collect();
        let arrived = self.arrivals(flows, |at| verdicts[at].0)?;
        let mut out = Vec::new();
        for (at, ((flow, (verdict, steps)), kernel)) in flows.iter().zip(verdicts).zip(arrived).enumerate() {
            let meaning = (sample > 0 && at.is_multiple_of(sample)).then(|| by_meaning(&self.facts, flow));
            self.counts.pairs += 1;
            self.counts.passed += usize::from(kernel);
            self.counts.by_meaning += usize::from(meaning.is_some());
            if verdict != kernel || meaning.is_some_and(|meaning| meaning != verdict) {
                out.push(Disagreement { flow: *flow, meaning, verdict, kernel, steps });
            }
        }
        Ok(out)
    }

    /// Which flows' packets arrive. What should have arrived is sent once more, as any network may lose a packet.
    pub fn arrivals(&mut self, flows: &[Flow], expected: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
        let mut arrived = self.network.send(flows)?;
        let lost: Vec<usize> = (0..flows.len()).filter(|at| expected(*at) && !arrived[*at]).collect();
        if !lost.is_empty() {
            self.counts.again += lost.len();
            let again: Vec<Flow> = lost.iter().map(|at| flows[*at]).collect();
            for (at, now) in lost.into_iter().zip(self.network.send(&again)?) {
                arrived[at] = now;
            }
        }
        Ok(arrived)
    }

    /// The world that is in the kernel.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}
