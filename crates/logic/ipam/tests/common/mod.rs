//! A store in memory that counts what operations ask of it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_facts::{Filter, Key, OwnerKind, Revision, Value};
use tortie_ipam::{
    Answer, Ask, Assign, Assignment, Client, Expect, Fact, Holder, IpamError, Machine, Now, Outcome, Plan, Pool,
    Request, Settings, View, drive,
};
use tortie_net::Family;

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub facts: BTreeMap<Key, (Value, Revision)>,
    pub revision: u64,
    pub reads: usize,
    pub writes: Vec<Vec<Key>>,
}

impl Memory {
    fn fact(&self, key: &Key) -> Option<Fact> {
        let (value, revision) = self.facts.get(key)?;
        Some(Fact { key: key.clone(), value: value.clone(), revision: *revision })
    }

    pub fn all(&self) -> Vec<Fact> {
        self.facts.keys().filter_map(|key| self.fact(key)).collect()
    }

    pub fn block(&self, cidr: &str) -> &tortie_api::ipam::Block {
        let key = Key::Block(cidr.parse().expect("a literal"));
        self.facts[&key].0.as_block().expect("a block")
    }

    pub fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Get(keys) => {
                self.reads += 1;
                Answer::Got(keys.iter().map(|key| self.fact(key)).collect())
            }
            Ask::List(filter) => {
                self.reads += 1;
                let covered = |fact: &Fact| match (&filter, &fact.key) {
                    (Filter::Blocks, Key::Block(_)) | (Filter::Handles, Key::Handle(_)) => true,
                    (Filter::AllAffinities(kind), Key::Affinity(key)) => key.kind == *kind,
                    (Filter::Affinities(kind, owner), Key::Affinity(key)) => key.kind == *kind && key.owner == *owner,
                    _ => false,
                };
                Answer::Listed(self.all().into_iter().filter(covered).collect())
            }
            Ask::Write(writes) => {
                self.writes.push(writes.iter().map(|write| write.key.clone()).collect());
                let mut outcomes = Vec::new();
                for write in &writes {
                    let found = self.facts.get(&write.key).map(|(_, revision)| *revision);
                    let fits = match write.expect {
                        Expect::Absent => found.is_none(),
                        Expect::Revision(revision) => found == Some(revision),
                    };
                    if !fits {
                        outcomes.push(Outcome::Conflict);
                        break;
                    }
                    self.revision += 1;
                    let revision = Revision(self.revision);
                    match &write.value {
                        Some(value) => drop(self.facts.insert(write.key.clone(), (value.clone(), revision))),
                        None => drop(self.facts.remove(&write.key)),
                    }
                    outcomes.push(Outcome::Done(revision));
                }
                outcomes.resize(writes.len(), Outcome::NotTried);
                Answer::Wrote(outcomes)
            }
        }
    }

    pub fn run<P: Plan>(&mut self, plan: P) -> Result<P::Output, IpamError> {
        self.run_with(plan, View::default())
    }

    pub fn run_with<P: Plan>(&mut self, plan: P, view: View) -> Result<P::Output, IpamError> {
        let mut machine = Machine::new(plan, view);
        let done: Result<_, std::convert::Infallible> = drive(&mut machine, |ask| Ok(self.answer(ask)));
        done.expect("this store never fails")
    }

    pub fn assign(
        &mut self,
        settings: &Arc<Settings>,
        node: &str,
        handle: &str,
        count: usize,
    ) -> Result<Assignment, IpamError> {
        let request = Request { count, ..Request::one(Client::workload(node), holder(node, handle), Family::V4) };
        self.run(Assign::new(request, Arc::clone(settings), NOW))
    }

    pub fn affinities(&self) -> usize {
        self.facts.keys().filter(|key| matches!(key, Key::Affinity(key) if key.kind == OwnerKind::Host)).count()
    }
}

pub const NOW: Now = Now(1_700_000_000_000_000_000);

pub fn later(secs: u64) -> Now {
    Now(NOW.0 + secs * 1_000_000_000)
}

pub fn holder(node: &str, handle: &str) -> Holder {
    let attrs = [("node", node), ("pod", "web"), ("namespace", "prod")];
    Holder {
        handle: Some(handle.to_owned()),
        attrs: attrs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

pub fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool {
        name: name.to_owned(),
        cidr: cidr.parse().expect("a literal"),
        block_size,
        node_selector: String::new(),
        namespace_selector: String::new(),
        uses: vec![tortie_api::IpPoolAllowedUse::Workload],
        manual: false,
        closed: None,
    }
}

pub fn settings(pools: Vec<Pool>) -> Settings {
    Settings { pools, ..Settings::default() }
}
