//! Runs of a scenario: as written, and with other histories that lead to the same facts.

use std::fmt::Write as _;

use tortie_calc::{Calculator, Overrides, print};
use tortie_desired::{Batch, Tables};
use tortie_facts::Update;

use super::{Facts, NODE, Outcome, Scenario, Step, check, packets, update};

/// A calculator with the tables that its batches built up.
pub struct Node {
    calculator: Calculator,
    tables: Tables,
    merged: Batch,
}

impl Node {
    fn new(scenario: &Scenario) -> Node {
        let started_with = Overrides {
            workload_routes: Some(scenario.workload_routes()),
            iptables: Some(scenario.iptables()),
            ..Overrides::default()
        };
        let mut calculator = Calculator::new(NODE, started_with);
        assert!(calculator.flush().is_empty(), "nothing may come out before in-sync");
        calculator.in_sync();
        Node { calculator, tables: Tables::default(), merged: Batch::default() }
    }

    fn apply(&mut self, updates: impl IntoIterator<Item = Update>) {
        for update in updates {
            self.calculator.apply(update);
        }
    }

    fn flush(&mut self) {
        let batch = self.calculator.flush();
        check::batch(&self.tables, &batch);
        self.tables.apply(&batch);
        check::tables(&self.tables);
        self.merged.merge(batch);
        let mut at_once = Tables::default();
        at_once.apply(&self.merged);
        assert_eq!(at_once, self.tables, "merged batches");
        assert!(self.calculator.flush().is_empty(), "a second flush told something");
    }

    fn outcome(&self, step: &Step) -> Outcome {
        let mut tables = print::tables(&self.tables, &|id| self.calculator.describe_set(id));
        for (key, lines) in self.calculator.problems() {
            for line in lines {
                writeln!(tables, "problem {key}: {line}").expect("writing to a string");
            }
        }
        let verdicts = step.packets.iter().map(|question| packets::answer(&self.tables, question) + "\n").collect();
        Outcome { tables, verdicts }
    }
}

/// As written: a flush after each step.
pub fn in_steps(scenario: &Scenario) -> Vec<Outcome> {
    let mut node = Node::new(scenario);
    let each = |step: &Step| {
        node.apply(step.updates.clone());
        node.flush();
        node.outcome(step)
    };
    scenario.steps.iter().map(each).collect()
}

/// The same facts with other histories; what differs from the expectation.
pub fn with_other_histories(scenario: &Scenario) -> Vec<String> {
    let states = scenario.states();
    let last = scenario.steps.len() - 1;
    let mut wrong = Vec::new();
    let mut expect = |what: &str, node: &Node, at: usize| {
        let step = &scenario.steps[at];
        let found = node.outcome(step);
        let wanted = Outcome { tables: step.tables.clone(), verdicts: step.verdicts.clone() };
        if found != wanted {
            let (wanted, found) = (wanted.tables + &wanted.verdicts, found.tables + &found.verdicts);
            let difference = similar_asserts::SimpleDiff::from_str(&wanted, &found, "expected", "found");
            wrong.push(format!("{what}, step {at}:\n{difference}"));
        }
    };

    let mut node = Node::new(scenario);
    for step in &scenario.steps {
        node.apply(step.updates.clone());
    }
    node.flush();
    expect("one flush", &node, last);

    let mut node = Node::new(scenario);
    for (at, step) in scenario.steps.iter().enumerate() {
        for update in &step.updates {
            node.apply([update.clone()]);
            node.flush();
        }
        expect("a flush an update", &node, at);
    }

    let mut node = Node::new(scenario);
    for (at, step) in scenario.steps.iter().enumerate() {
        node.apply(step.updates.clone());
        node.apply(step.updates.clone());
        node.flush();
        node.apply(told_again(&states[at]));
        assert!(node.calculator.flush().is_empty(), "facts told again changed something");
        expect("repeats", &node, at);
    }

    let mut node = Node::new(scenario);
    node.apply(told_again(&states[last]).into_iter().rev());
    node.flush();
    expect("squashed, from the last key to the first", &node, last);
    for at in (0..last).rev() {
        node.apply(way(&states[at + 1], &states[at]));
        node.flush();
        expect("backwards", &node, at);
    }
    node.apply(way(&states[0], &Facts::new()).into_iter().rev());
    node.flush();
    assert_eq!(node.tables, Tables::default(), "nothing may stay when all facts are gone");

    for (at, state) in states.iter().enumerate() {
        let mut node = Node::new(scenario);
        node.apply(told_again(state));
        node.flush();
        expect("from scratch", &node, at);
    }
    wrong
}

fn told_again(facts: &Facts) -> Vec<Update> {
    facts.iter().map(|(key, value)| update(key.clone(), Some(value.clone()))).collect()
}

fn way(from: &Facts, to: &Facts) -> Vec<Update> {
    let gone = from.keys().filter(|key| !to.contains_key(key)).map(|key| update(key.clone(), None));
    let news = to.iter().filter(|(key, value)| from.get(key) != Some(value));
    gone.chain(news.map(|(key, value)| update(key.clone(), Some(value.clone())))).collect()
}
