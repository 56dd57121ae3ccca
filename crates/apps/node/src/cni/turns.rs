//! One call at a time for each endpoint.
//!
//! A runtime that gave up on ADD calls DEL, or ADD for the next container of the same pod, while the first call is
//! still under way here. Side by side, the first could delete the device that the later one just made.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who has the turn, by name.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<BTreeSet<String>>,
    given_back: Condvar,
}

/// A turn; dropping it gives it back.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    name: String,
}

impl Turns {
    /// Waits for the turn of this name; `None`: it did not come in time.
    pub(super) fn take(&self, name: &str, patience: Duration) -> Option<Turn<'_>> {
        let deadline = Instant::now() + patience;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(name) {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            taken = self.given_back.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.insert(name.to_owned());
        Some(Turn { turns: self, name: name.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        self.turns.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_name_is_one_at_a_time_and_others_do_not_wait() {
        let (turns, inside) = (Turns::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = turns.take("a", Duration::from_secs(60)).expect("everyone gives it back");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        let _a = turns.take("a", Duration::ZERO).expect("nobody has it");
        assert!(turns.take("a", Duration::from_millis(1)).is_none());
        assert!(turns.take("b", Duration::ZERO).is_some());
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::default();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take("a", Duration::ZERO);
            panic!("in the middle of a call");
        }));
        assert!(result.is_err() && turns.take("a", Duration::ZERO).is_some());
    }
}
