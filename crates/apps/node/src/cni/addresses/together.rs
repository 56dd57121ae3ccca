//! Calls that wait for each other are served together: whoever comes while one is being served waits, and the next one
//! to serve serves all who wait.

use std::sync::mpsc::{self, Sender, TryRecvError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Calls of one kind: jobs, and what comes of each.
pub(super) struct Together<J, R> {
    state: Mutex<State<J, R>>,
    changed: Condvar,
}

struct State<J, R> {
    next: u64,
    waiting: Vec<Waiting<J, R>>,
    serving: bool,
}

struct Waiting<J, R> {
    ticket: u64,
    job: J,
    reply: Sender<R>,
}

impl<J, R> Default for Together<J, R> {
    fn default() -> Self {
        let state = State { next: 0, waiting: Vec::new(), serving: false };
        Together { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<J, R> Together<J, R> {
    fn state(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a job served, with others if some wait; `serve` gives one result for each job, in their order. `None`: its
    /// turn did not come in time, or who served it panicked.
    pub(super) fn call(&self, job: J, patience: Duration, serve: impl FnOnce(Vec<J>) -> Vec<R>) -> Option<R> {
        let deadline = Instant::now() + patience;
        let (reply, served) = mpsc::channel();
        let mut state = self.state();
        let ticket = state.next;
        state.next += 1;
        state.waiting.push(Waiting { ticket, job, reply });
        while state.serving {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            match served.try_recv() {
                Ok(result) => return Some(result),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if left.is_zero() => {
                    state.waiting.retain(|waiting| waiting.ticket != ticket);
                    return None;
                }
                Err(TryRecvError::Empty) => {}
            }
        }
        state.serving = true;
        let all = std::mem::take(&mut state.waiting);
        drop(state);
        let serving = Serving(self);
        let (replies, jobs): (Vec<_>, Vec<_>) = all.into_iter().map(|one| (one.reply, one.job)).unzip();
        for (reply, result) in replies.into_iter().zip(serve(jobs)) {
            // Who gave up meanwhile does not hear it.
            let _ = reply.send(result);
        }
        drop(serving);
        served.try_recv().ok()
    }
}

/// While it is there, somebody serves.
struct Serving<'a, J, R>(&'a Together<J, R>);

impl<J, R> Drop for Serving<'_, J, R> {
    fn drop(&mut self) {
        self.0.state().serving = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn who_waits_is_served_with_the_others() {
        let together = Together::<u32, u32>::default();
        let (started, start) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let together = &together;
            scope.spawn(move || {
                let served = together.call(1, PATIENCE, |jobs| {
                    started.send(()).expect("the test waits");
                    may_go.recv().expect("the test says when");
                    jobs.iter().map(|job| job * 10).collect()
                });
                assert_eq!(served, Some(10));
            });
            start.recv().expect("it serves");
            let sizes: Vec<_> = (2..7)
                .map(|job| {
                    scope.spawn(move || {
                        let mut size = 0;
                        let served = together.call(job, PATIENCE, |jobs| {
                            size = jobs.len();
                            jobs.iter().map(|job| job * 10).collect()
                        });
                        assert_eq!(served, Some(job * 10));
                        size
                    })
                })
                .collect();
            while together.state().waiting.len() < 5 {
                std::thread::yield_now();
            }
            go.send(()).expect("it waits");
            let mut sizes: Vec<usize> = sizes.into_iter().map(|one| one.join().expect("no panic")).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, [0, 0, 0, 0, 5], "one of the five serves them all");
        });
    }

    #[test]
    fn a_panic_fails_who_is_served_and_nobody_else() {
        let together = Together::<u32, u32>::default();
        assert!(catch_unwind(AssertUnwindSafe(|| together.call(1, PATIENCE, |_| panic!("in the middle")))).is_err());
        assert_eq!(together.call(2, PATIENCE, |jobs| jobs), Some(2));
    }

    #[test]
    fn whose_turn_does_not_come_is_not_served_later() {
        let together = Together::<u32, u32>::default();
        let served = together.call(1, PATIENCE, |jobs| {
            assert_eq!(together.call(2, Duration::ZERO, |jobs| jobs), None);
            jobs
        });
        assert_eq!(served, Some(1));
        assert_eq!(together.call(3, PATIENCE, |jobs| jobs), Some(3));
    }
}
