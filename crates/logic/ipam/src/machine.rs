//! How an operation talks to a store that it does not know: it asks, a driver answers.
//!
//! Invariant: an operation may be dropped between any two asks, and any prefix of a batch of writes may be all that
//! happened, without an address being owned twice or lost.

use tortie_facts::{Filter, Key, Revision, Value};

use crate::{IpamError, View};

/// Conflicts that an operation survives before it gives up.
const MOST_CONFLICTS: u32 = 100;

/// A fact with the revision of its last write.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// What it is.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision of its last write.
    pub revision: Revision,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist with this revision.
    Revision(Revision),
}

/// One compare-and-swap.
#[derive(Clone, Debug, PartialEq)]
pub struct CasWrite {
    /// What to write.
    pub key: Key,
    /// What must be there.
    pub expect: Expect,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// What came of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the key has this revision now.
    Done(Revision),
    /// Nothing changed: the key was not as expected, or is missing.
    Conflict,
    /// Nothing changed: another write of the batch failed.
    NotTried,
    /// The store could not say or refused; the write may have happened.
    Failed(String),
}

/// What an operation needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Read these keys, in this order. Answer with [`Answer::Got`].
    Get(Vec<Key>),
    /// Read everything that the filter covers. Answer with [`Answer::Listed`].
    List(Filter),
    /// Do these writes in order and stop at the first that fails. Answer with [`Answer::Wrote`].
    Write(Vec<CasWrite>),
}

/// What a driver found or did.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One entry per key that was asked for; `None`: absent.
    Got(Vec<Option<Fact>>),
    /// All that the filter covers.
    Listed(Vec<Fact>),
    /// One entry per write.
    Wrote(Vec<Outcome>),
}

/// What a machine wants.
#[derive(Clone, Debug)]
pub enum Next<T> {
    /// Do this, then call [`Machine::answer`].
    Ask(Ask),
    /// The operation is over.
    Done(Result<T, IpamError>),
}

/// Why a plan stopped.
#[derive(Clone, Debug)]
pub enum Pause {
    /// It needs this.
    Ask(Ask),
    /// It decided on what the caller supplied, which may be old; plan again without it.
    Again,
    /// It can't be done.
    Fail(IpamError),
}

impl From<IpamError> for Pause {
    fn from(error: IpamError) -> Self {
        Pause::Fail(error)
    }
}

/// An operation, as a function of what is known. It is called again from its start after every answer.
pub trait Plan {
    /// What the operation returns.
    type Output;

    /// Goes as far as the view allows.
    fn plan(&mut self, view: &mut View) -> Result<Self::Output, Pause>;

    /// Told what came of the writes that it asked for; the view holds the new state already.
    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]);
}

/// An operation under way.
///
/// ```text
/// loop {
///     match machine.next() {
///         Next::Ask(ask) => machine.answer(store_answers(ask)?),
///         Next::Done(result) => break result,
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Machine<P> {
    plan: P,
    view: View,
    asked: Option<Ask>,
    conflicts: u32,
    broken: Option<IpamError>,
}

impl<P: Plan> Machine<P> {
    /// An operation that starts with what the caller already knows; an empty view is always right.
    pub fn new(plan: P, view: View) -> Machine<P> {
        Machine { plan, view, asked: None, conflicts: 0, broken: None }
    }

    /// What is needed next.
    #[allow(clippy::should_implement_trait, reason = "no iterator: what comes next depends on the answer")]
    pub fn next(&mut self) -> Next<P::Output> {
        loop {
            if let Some(error) = self.broken.take() {
                return Next::Done(Err(error));
            }
            match self.plan.plan(&mut self.view) {
                Ok(done) => return Next::Done(Ok(done)),
                Err(Pause::Fail(error)) => return Next::Done(Err(error)),
                Err(Pause::Again) => {
                    self.view.drop_hints();
                    self.conflict();
                }
                Err(Pause::Ask(ask)) => {
                    self.asked = Some(ask.clone());
                    return Next::Ask(ask);
                }
            }
        }
    }

    fn conflict(&mut self) {
        self.conflicts += 1;
        if self.conflicts > MOST_CONFLICTS {
            self.broken = Some(IpamError::Contention { conflicts: self.conflicts });
        }
    }

    /// Takes the answer to the last ask. An answer that does not fit fails the operation.
    pub fn answer(&mut self, answer: Answer) {
        match (self.asked.take(), answer) {
            (Some(Ask::Get(keys)), Answer::Got(facts)) if keys.len() == facts.len() => {
                for (key, fact) in keys.into_iter().zip(facts) {
                    self.view.got(key, fact.map(|fact| (fact.value, fact.revision)));
                }
            }
            (Some(Ask::List(filter)), Answer::Listed(facts)) => self.view.listed(&filter, facts),
            (Some(Ask::Write(writes)), Answer::Wrote(outcomes)) if writes.len() == outcomes.len() => {
                self.wrote(&writes, &outcomes);
            }
            (asked, _) => {
                self.broken = Some(IpamError::Store(format!("the answer does not fit what was asked: {asked:?}")));
            }
        }
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        for (write, outcome) in writes.iter().zip(outcomes) {
            match outcome {
                Outcome::Done(revision) => {
                    self.view.wrote(&write.key, write.value.clone().map(|value| (value, *revision)));
                }
                Outcome::Conflict => {
                    self.view.forget(&write.key);
                    self.conflict();
                }
                Outcome::NotTried => {}
                Outcome::Failed(reason) => self.broken = Some(IpamError::Store(reason.clone())),
            }
        }
        self.plan.wrote(writes, outcomes);
    }

    /// What is known at the end, for the caller to keep as hints for the next operation.
    pub fn into_view(self) -> View {
        self.view
    }
}

/// Runs an operation to its end. `ask` does what is asked; its errors end the run.
pub fn drive<P: Plan, E>(
    machine: &mut Machine<P>,
    mut ask: impl FnMut(Ask) -> Result<Answer, E>,
) -> Result<Result<P::Output, IpamError>, E> {
    loop {
        match machine.next() {
            Next::Ask(wanted) => machine.answer(ask(wanted)?),
            Next::Done(result) => return Ok(result),
        }
    }
}
