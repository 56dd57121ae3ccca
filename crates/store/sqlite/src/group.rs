//! Group commit: while one thread commits, the calls of the others gather, and one of them commits them all.
//!
//! No thread of its own: the first caller leads, and hands the lead to the one that waits longest.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tortie_store::WriteError;

use crate::transaction::{Call, Results};

/// How many writes one group may have, unless a single call has more.
const LIMIT: usize = 512;

enum Stage {
    Waiting,
    Leading,
    Done(Results),
}

/// A call that waits for its results.
pub(crate) struct Ticket {
    call: Call,
    stage: Mutex<Stage>,
    changed: Condvar,
}

impl Ticket {
    /// The call.
    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, stage: Stage) {
        *self.stage() = stage;
        self.changed.notify_all();
    }

    fn fail(&self, error: &WriteError) -> Results {
        vec![Err(error.clone()); self.call.len()]
    }
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Ticket>>,
    led: bool,
}

/// The calls that wait for a commit.
#[derive(Default)]
pub(crate) struct Queue {
    line: Mutex<Line>,
}

/// The lead over a group: whatever happens, each call gets results and the lead goes on.
struct Lead<'a> {
    queue: &'a Queue,
    group: Vec<Arc<Ticket>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        for ticket in &self.group {
            let undone = !matches!(*ticket.stage(), Stage::Done(_));
            if undone {
                ticket.advance(Stage::Done(ticket.fail(&WriteError::Unavailable("the commit broke off".to_owned()))));
            }
        }
        let mut line = self.queue.line();
        match line.waiting.front() {
            Some(next) => next.advance(Stage::Leading),
            None => line.led = false,
        }
    }
}

impl Queue {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a call committed, by this thread or another; `commit` gives the results of each call of a group.
    pub(crate) fn submit(
        &self,
        call: Call,
        commit: impl FnOnce(&[Arc<Ticket>]) -> Result<Vec<Results>, WriteError>,
    ) -> Results {
        let ticket = Arc::new(Ticket { call, stage: Mutex::new(Stage::Waiting), changed: Condvar::new() });
        let mut line = self.line();
        line.waiting.push_back(Arc::clone(&ticket));
        let first = !std::mem::replace(&mut line.led, true);
        drop(line);
        if first || ticket.must_lead() {
            self.lead(commit);
        }
        let stage = std::mem::replace(&mut *ticket.stage(), Stage::Waiting);
        match stage {
            Stage::Done(results) => results,
            Stage::Waiting | Stage::Leading => ticket.fail(&WriteError::Unavailable("the commit broke off".to_owned())),
        }
    }

    /// Commits the calls at the front of the line, the leader's own first.
    fn lead(&self, commit: impl FnOnce(&[Arc<Ticket>]) -> Result<Vec<Results>, WriteError>) {
        let mut lead = Lead { queue: self, group: Vec::new() };
        let mut line = self.line();
        let mut writes = 0;
        while let Some(ticket) = line.waiting.front() {
            writes += ticket.call.len();
            if !lead.group.is_empty() && writes > LIMIT {
                break;
            }
            lead.group.extend(line.waiting.pop_front());
        }
        drop(line);
        let outcome = commit(&lead.group);
        match outcome {
            Ok(results) => {
                for (ticket, results) in lead.group.iter().zip(results) {
                    ticket.advance(Stage::Done(results));
                }
            }
            Err(error) => {
                for ticket in &lead.group {
                    ticket.advance(Stage::Done(ticket.fail(&error)));
                }
            }
        }
    }
}

impl Ticket {
    /// Waits until this call is done (false) or its thread must lead (true).
    fn must_lead(&self) -> bool {
        let mut stage = self.stage();
        loop {
            match *stage {
                Stage::Waiting => stage = self.changed.wait(stage).unwrap_or_else(PoisonError::into_inner),
                Stage::Leading => return true,
                Stage::Done(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn call(n: usize) -> Call {
        vec![Err(WriteError::Missing(n.to_string()))]
    }

    /// Answers each call with what it asked.
    fn echo(group: &[Arc<Ticket>]) -> Result<Vec<Results>, WriteError> {
        Ok(group
            .iter()
            .map(|ticket| ticket.call().iter().map(|one| Err(one.clone().expect_err("as made"))).collect())
            .collect())
    }

    fn answer(n: usize) -> Results {
        vec![Err(WriteError::Missing(n.to_string()))]
    }

    #[test]
    fn calls_that_come_during_a_commit_share_the_next_one() {
        let (queue, sizes) = (Queue::default(), Mutex::new(Vec::new()));
        let commit = |group: &[Arc<Ticket>]| {
            sizes.lock().expect("no panic").push(group.len());
            // The first commit lasts until all the others wait.
            while sizes.lock().expect("no panic").len() == 1 && queue.line().waiting.len() < 3 {
                std::thread::yield_now();
            }
            echo(group)
        };
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (queue, commit) = (&queue, &commit);
                scope.spawn(move || assert_eq!(queue.submit(call(n), commit), answer(n)));
                while sizes.lock().expect("no panic").is_empty() {
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(sizes.into_inner().expect("no panic"), [1, 3]);
    }

    #[test]
    fn a_commit_that_breaks_off_fails_its_calls_and_frees_the_lead() {
        let queue = Queue::default();
        let broken = catch_unwind(AssertUnwindSafe(|| queue.submit(call(0), |_| panic!("on purpose"))));
        assert!(broken.is_err());
        let error = WriteError::Unavailable("disk full".to_owned());
        assert_eq!(queue.submit(call(1), |_| Err(error.clone())), [Err(error.clone())]);
        assert_eq!(queue.submit(call(2), echo), answer(2));
    }
}
