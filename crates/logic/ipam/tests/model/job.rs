//! One operation under way, advanced by one store access at a time.

use tortie_facts::Key;
use tortie_ipam::{
    Answer, Ask, Assign, AssignAt, Assigned, Collect, IpamError, Machine, Next, Outcome, Release, ReleaseAffinities,
    ReleaseHandle,
};

use crate::store::{Bug, Store, spoil};

#[derive(Clone, Debug)]
pub enum Op {
    Assign(Machine<Assign>),
    AssignAt(Machine<AssignAt>),
    Release(Machine<Release>),
    ReleaseHandle(Machine<ReleaseHandle>),
    ReleaseAffinities(Machine<ReleaseAffinities>),
    Collect(Machine<Collect>),
}

#[derive(Clone, Debug)]
pub enum Ended {
    Assigned(Vec<Assigned>),
    Other,
    Failed(IpamError),
}

#[derive(Clone, Debug)]
enum Doing {
    Nothing,
    Getting(Vec<Key>, Vec<Option<tortie_ipam::Fact>>),
    Writing(Vec<tortie_ipam::CasWrite>, Vec<Outcome>),
}

#[derive(Clone, Debug)]
pub struct Job {
    pub op: Op,
    /// The handle that it assigns to or releases.
    pub handle: Option<String>,
    /// Whether a release of the handle ran beside it, so that its result says nothing.
    pub tainted: bool,
    doing: Doing,
}

/// What one step did.
pub enum Stepped {
    Read,
    Wrote(Vec<Key>),
    /// A write met a conflict.
    Refused,
    Ended(Ended),
}

/// How the store behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Batches are all or none, at once.
    pub transactions: bool,
    /// Keys of one get are read one step at a time.
    pub split_reads: bool,
    pub bug: Option<Bug>,
}

impl Job {
    pub fn new(op: Op, handle: Option<String>) -> Job {
        Job { op, handle, tainted: false, doing: Doing::Nothing }
    }

    /// Whether some writes of its batch are done and some are not.
    pub fn is_torn(&self) -> bool {
        matches!(&self.doing, Doing::Writing(_, outcomes) if !outcomes.is_empty())
    }

    fn next(&mut self) -> Result<Ask, Ended> {
        fn ended<T>(next: Next<T>, of: impl FnOnce(T) -> Ended) -> Result<Ask, Ended> {
            match next {
                Next::Ask(ask) => Ok(ask),
                Next::Done(Ok(done)) => Err(of(done)),
                Next::Done(Err(error)) => Err(Ended::Failed(error)),
            }
        }
        match &mut self.op {
            Op::Assign(m) => ended(m.next(), |done| Ended::Assigned(done.addresses)),
            Op::AssignAt(m) => ended(m.next(), |done| Ended::Assigned(vec![done])),
            Op::Release(m) => ended(m.next(), |_| Ended::Other),
            Op::ReleaseHandle(m) => ended(m.next(), |_| Ended::Other),
            Op::ReleaseAffinities(m) => ended(m.next(), |_| Ended::Other),
            Op::Collect(m) => ended(m.next(), |_| Ended::Other),
        }
    }

    fn answer(&mut self, answer: Answer) {
        match &mut self.op {
            Op::Assign(m) => m.answer(answer),
            Op::AssignAt(m) => m.answer(answer),
            Op::Release(m) => m.answer(answer),
            Op::ReleaseHandle(m) => m.answer(answer),
            Op::ReleaseAffinities(m) => m.answer(answer),
            Op::Collect(m) => m.answer(answer),
        }
    }

    /// The next access to the store. `flaky`: a write that is due is done but reported as unknown.
    pub fn step(&mut self, store: &mut Store, manner: Manner, flaky: bool) -> Stepped {
        loop {
            match std::mem::replace(&mut self.doing, Doing::Nothing) {
                Doing::Nothing => {
                    let ask = match self.next() {
                        Ok(ask) => spoil(ask, manner.bug),
                        Err(ended) => return Stepped::Ended(ended),
                    };
                    match ask {
                        Ask::Get(keys) => self.doing = Doing::Getting(keys, Vec::new()),
                        Ask::List(filter) => {
                            self.answer(Answer::Listed(store.list(&filter)));
                            return Stepped::Read;
                        }
                        Ask::Write(writes) => self.doing = Doing::Writing(writes, Vec::new()),
                    }
                }
                Doing::Getting(keys, mut facts) => {
                    while facts.len() < keys.len() {
                        facts.push(store.get(&keys[facts.len()]));
                        if manner.split_reads && facts.len() < keys.len() {
                            self.doing = Doing::Getting(keys, facts);
                            return Stepped::Read;
                        }
                    }
                    self.answer(Answer::Got(facts));
                    return Stepped::Read;
                }
                Doing::Writing(writes, outcomes) if manner.transactions => {
                    return self.transaction(store, manner, writes, outcomes, flaky);
                }
                Doing::Writing(writes, mut outcomes) => {
                    let write = writes[outcomes.len()].clone();
                    let outcome = store.write(&write, manner.bug);
                    let conflict = outcome == Outcome::Conflict;
                    let stop = flaky || conflict;
                    outcomes.push(if flaky { Outcome::Failed("timed out".to_owned()) } else { outcome });
                    if stop {
                        outcomes.resize(writes.len(), Outcome::NotTried);
                    }
                    if outcomes.len() == writes.len() {
                        self.written(&writes, outcomes, manner);
                    } else {
                        self.doing = Doing::Writing(writes, outcomes);
                    }
                    return if conflict { Stepped::Refused } else { Stepped::Wrote(vec![write.key]) };
                }
            }
        }
    }

    fn transaction(
        &mut self,
        store: &mut Store,
        manner: Manner,
        writes: Vec<tortie_ipam::CasWrite>,
        mut outcomes: Vec<Outcome>,
        flaky: bool,
    ) -> Stepped {
        let mut copy = store.clone();
        for write in &writes {
            outcomes.push(copy.write(write, manner.bug));
        }
        if let Some(at) = outcomes.iter().position(|outcome| *outcome == Outcome::Conflict) {
            outcomes = vec![Outcome::NotTried; writes.len()];
            outcomes[at] = Outcome::Conflict;
            self.written(&writes, outcomes, manner);
            return Stepped::Refused;
        }
        *store = copy;
        if flaky {
            outcomes = vec![Outcome::Failed("timed out".to_owned()); writes.len()];
        }
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        self.written(&writes, outcomes, manner);
        Stepped::Wrote(keys)
    }

    /// The machine gets its outcomes in the order in which it asked, whatever a planted bug made of it.
    fn written(&mut self, writes: &[tortie_ipam::CasWrite], outcomes: Vec<Outcome>, manner: Manner) {
        if manner.bug != Some(Bug::HandleLast) {
            return self.answer(Answer::Wrote(outcomes));
        }
        let by_key: Vec<(Key, Outcome)> = writes.iter().map(|write| write.key.clone()).zip(outcomes).collect();
        let Ok(Ask::Write(asked)) = self.next() else { return };
        let found = |key: &Key| by_key.iter().find(|(k, _)| k == key).map(|(_, outcome)| outcome.clone());
        self.answer(Answer::Wrote(asked.iter().filter_map(|write| found(&write.key)).collect()));
    }
}
