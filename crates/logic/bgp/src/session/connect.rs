//! Connect: TCP is being dialled.
//!
//! Invariant: a dial is given up after five seconds, whatever the kernel's own limit is.

use std::time::{Duration, Instant};

use super::Step;

const GIVE_UP: Duration = Duration::from_secs(5);

/// A dial.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) deadline: Instant,
}

impl Connect {
    pub(crate) fn start(now: Instant) -> Connect {
        Connect { deadline: now + GIVE_UP }
    }

    pub(crate) fn on_timeout(&self, now: Instant) -> Step<'static> {
        if self.deadline <= now { Step::DialTimedOut } else { Step::Stay }
    }
}
