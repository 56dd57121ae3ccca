//! No connection: when to dial next (RFC 4271's ConnectRetryTimer).
//!
//! Invariant: waits grow from 200 ms to 5 s and start over once a session was up. They are shortened by up to a
//! half, by a fixed amount for each pair of routers, so that two ends do not keep dialling at the same instant.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// The wait before the next dial.
#[derive(Debug)]
pub(crate) struct Retry {
    next_wait: Duration,
    /// 0 to 255: how much of half the wait is cut off.
    skew: u8,
    /// When to dial; `None` while there is no reason to.
    pub(crate) at: Option<Instant>,
}

impl Retry {
    /// Dials at once if `at` is given.
    pub(crate) fn new(skew: u8, at: Option<Instant>) -> Retry {
        Retry { next_wait: FIRST, skew, at }
    }

    /// Waits, longer than the last time.
    pub(crate) fn wait(&mut self, now: Instant) {
        let wait = self.next_wait;
        self.next_wait = (wait * 2).min(LONGEST);
        self.at = Some(now + wait - wait / 2 * u32::from(self.skew) / 256);
    }

    /// A session came up: the next loss is retried quickly.
    pub(crate) fn succeeded(&mut self) {
        self.next_wait = FIRST;
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_start_over() {
        let now = Instant::now();
        for skew in [0, 128, 255] {
            let mut retry = Retry::new(skew, None);
            let mut wait = || {
                retry.wait(now);
                retry.at.expect("set") - now
            };
            let first = wait();
            assert!((Duration::from_millis(100)..=FIRST).contains(&first), "{first:?}");
            let long = (0..9).map(|_| wait()).last().expect("some");
            assert!((LONGEST / 2..=LONGEST).contains(&long), "{long:?}");
            retry.succeeded();
            retry.wait(now);
            assert_eq!(retry.at, Some(now + first));
        }
    }
}
