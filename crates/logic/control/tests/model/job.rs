//! What a node does for a runtime, one access to the store at a time: ADD and DEL of a pod.

use std::collections::VecDeque;
use std::net::IpAddr;

use tortie_api::{Kind, Metadata, WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_facts::{Key, Value};
use tortie_ipam::{
    Answer, Ask, Assign, CasWrite, Expect, Fact, IpamError, Machine, Next, Outcome, Plan, ReleaseHandle,
};
use tortie_store::{Expect as StoreExpect, MemoryStore, Reader, Store, Write, WriteError};

/// A pod that a runtime wants, has, or had.
#[derive(Clone, Debug)]
pub struct Pod {
    pub node: usize,
    pub name: String,
    pub handle: String,
}

pub fn node_name(node: usize) -> String {
    format!("n{node}")
}

impl Pod {
    /// Whether both are one object of a store.
    pub fn is(&self, other: &Pod) -> bool {
        self.node == other.node && self.name == other.name
    }

    pub fn key(&self) -> Key {
        Key::resource(Kind::WorkloadEndpoint, "t", &format!("{}-k8s-{}-eth0", node_name(self.node), self.name))
    }

    pub fn endpoint(&self, addresses: &[IpAddr]) -> Value {
        let Key::Resource { kind: _, namespace, name } = self.key() else { unreachable!("it is a resource") };
        let spec = WorkloadEndpointSpec {
            orchestrator: "k8s".into(),
            node: node_name(self.node),
            pod: self.name.clone(),
            endpoint: "eth0".into(),
            ip_networks: addresses.iter().map(|addr| addr.to_string().as_str().into()).collect(),
            ..WorkloadEndpointSpec::default()
        };
        Value::resource(WorkloadEndpoint { metadata: Metadata::in_namespace(namespace, name), spec }.into())
    }
}

pub fn fact(entry: tortie_store::Entry) -> Fact {
    Fact { key: entry.key, value: entry.value, revision: entry.revision }
}

/// A batch of writes under way.
#[derive(Debug, Default)]
pub struct Batch {
    writes: VecDeque<CasWrite>,
    outcomes: Vec<Outcome>,
}

/// What one access to the store was.
pub enum Access {
    Read(Answer),
    /// A write; the answer once the batch is over.
    Wrote(Key, Option<Answer>),
}

impl Batch {
    pub fn is_torn(&self) -> bool {
        !self.writes.is_empty() && !self.outcomes.is_empty()
    }

    /// Goes on with a batch, or begins what is asked. `blind`: blocks are written whatever their revision is.
    pub fn access(&mut self, store: &MemoryStore, ask: impl FnOnce() -> Ask, blind: bool) -> Access {
        if self.writes.is_empty() {
            match ask() {
                Ask::Get(keys) => {
                    let got = keys.iter().map(|key| store.get(key).expect("it is up").map(fact)).collect();
                    return Access::Read(Answer::Got(got));
                }
                Ask::List(filter) => {
                    let listing = store.list(&filter).expect("it is up");
                    return Access::Read(Answer::Listed(listing.entries.into_iter().map(fact).collect()));
                }
                Ask::Write(writes) => *self = Batch { writes: writes.into(), outcomes: Vec::new() },
            }
        }
        let CasWrite { key, expect, value } = self.writes.pop_front().expect("no batch is empty");
        let expect = match expect {
            _ if blind && matches!(key, Key::Block(_)) => StoreExpect::Any,
            Expect::Absent => StoreExpect::Absent,
            Expect::Revision(revision) => StoreExpect::Revision(revision),
        };
        let outcome = match store.write_one(Write { key: key.clone(), expect, value }) {
            Ok(revision) => Outcome::Done(revision),
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => Outcome::Conflict,
            Err(error) => panic!("the store failed: {error}"),
        };
        let failed = outcome == Outcome::Conflict;
        self.outcomes.push(outcome);
        if failed {
            self.outcomes.extend(self.writes.drain(..).map(|_| Outcome::NotTried));
        }
        let over = self.writes.is_empty();
        Access::Wrote(key, over.then(|| Answer::Wrote(std::mem::take(&mut self.outcomes))))
    }
}

#[derive(Debug)]
pub enum Stage {
    /// The pod is told, without addresses.
    Tell(Box<Machine<Assign>>),
    Assign(Box<Machine<Assign>>),
    Endpoint(Vec<IpAddr>),
    Answer(Vec<IpAddr>),
    Remove(Box<Machine<ReleaseHandle>>),
    Release(Box<Machine<ReleaseHandle>>),
}

#[derive(Debug)]
pub struct Job {
    pub pod: Pod,
    pub stage: Stage,
    pub started: u64,
    pub batch: Batch,
}

/// What a step of a job did.
pub enum Stepped {
    Read,
    Wrote(Key),
    /// ADD is answered: the pod runs with these addresses.
    Runs(Vec<IpAddr>),
    Ended,
    Failed(IpamError),
}

/// One step of a machine: an access to the store, or its end.
fn turn<P: Plan>(machine: &mut Machine<P>, batch: &mut Batch, store: &MemoryStore) -> Result<Stepped, P::Output> {
    let ask = match batch.is_torn() {
        true => None,
        false => match machine.next() {
            Next::Ask(ask) => Some(ask),
            Next::Done(Ok(done)) => return Err(done),
            Next::Done(Err(error)) => return Ok(Stepped::Failed(error)),
        },
    };
    Ok(match batch.access(store, || ask.expect("nothing is torn"), false) {
        Access::Read(answer) => {
            machine.answer(answer);
            Stepped::Read
        }
        Access::Wrote(key, answer) => {
            if let Some(answer) = answer {
                machine.answer(answer);
            }
            Stepped::Wrote(key)
        }
    })
}

impl Job {
    pub fn step(&mut self, store: &MemoryStore) -> Stepped {
        let put = |key: Key, value: Option<Value>| {
            let _ = store.write_one(Write { key: key.clone(), expect: StoreExpect::Any, value });
            Stepped::Wrote(key)
        };
        loop {
            match &mut self.stage {
                Stage::Tell(machine) => {
                    let machine = std::mem::replace(machine, machine.clone());
                    self.stage = Stage::Assign(machine);
                    return put(self.pod.key(), Some(self.pod.endpoint(&[])));
                }
                Stage::Assign(machine) => match turn(machine, &mut self.batch, store) {
                    Ok(stepped) => return stepped,
                    Err(done) => {
                        self.stage = Stage::Endpoint(done.addresses.iter().map(|one| one.address).collect());
                    }
                },
                Stage::Endpoint(addresses) => {
                    let addresses = std::mem::take(addresses);
                    let value = self.pod.endpoint(&addresses);
                    self.stage = Stage::Answer(addresses);
                    return put(self.pod.key(), Some(value));
                }
                Stage::Answer(addresses) => return Stepped::Runs(std::mem::take(addresses)),
                Stage::Remove(machine) => {
                    let machine = std::mem::replace(machine, machine.clone());
                    self.stage = Stage::Release(machine);
                    return put(self.pod.key(), None);
                }
                Stage::Release(machine) => match turn(machine, &mut self.batch, store) {
                    Ok(Stepped::Failed(IpamError::UnknownHandle(_))) | Err(_) => return Stepped::Ended,
                    Ok(stepped) => return stepped,
                },
            }
        }
    }
}
