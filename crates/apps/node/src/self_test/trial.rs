//! What is done about a tunnel that nothing passes: the interface below may spoil checksums that were left to it.
//!
//! Invariant: that they are to blame is said only once the tunnel was open without them, and shut with them again.

use std::time::{Duration, Instant};

/// Rounds in a row that nothing passes before anything is tried.
const DOUBTS: u8 = 2;
/// For how many rounds checksums are made here before that is given up; the other node may have to do the same.
const ROUNDS: u8 = 6;
/// When it is tried again.
const AGAIN: Duration = Duration::from_secs(600);

/// Where a device stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trial {
    /// Nothing is known against it.
    #[default]
    Sound,
    /// Nothing has passed for so many rounds.
    Doubted(u8),
    /// Checksums are made here, for so many rounds more.
    Under(u8),
    /// They are left below once more: if that shuts it, they are to blame.
    Proof,
    /// They are, and are made here for good.
    Helped,
    /// It did not help; not to be tried before then.
    Failed(Instant),
}

impl Trial {
    /// What follows from a round in which something passed, or nothing. The second part: whether checksums are to be left
    /// to the interface below from now on, or not; `None` leaves that as it is.
    pub(super) fn after(self, passed: bool, now: Instant) -> (Trial, Option<bool>) {
        match self {
            Trial::Helped => (Trial::Helped, None),
            Trial::Failed(until) if until > now => (self, None),
            Trial::Sound | Trial::Doubted(_) | Trial::Failed(_) if passed => (Trial::Sound, None),
            Trial::Sound | Trial::Failed(_) => (Trial::Doubted(1), None),
            Trial::Doubted(rounds) if rounds + 1 < DOUBTS => (Trial::Doubted(rounds + 1), None),
            Trial::Doubted(_) => (Trial::Under(ROUNDS), Some(false)),
            Trial::Under(_) if passed => (Trial::Proof, Some(true)),
            Trial::Under(0) => (Trial::Failed(now + AGAIN), Some(true)),
            Trial::Under(left) => (Trial::Under(left - 1), None),
            Trial::Proof if passed => (Trial::Sound, None),
            Trial::Proof => (Trial::Helped, Some(false)),
        }
    }

    /// Where it stands if checksums can't be moved.
    pub(super) fn refused(now: Instant) -> Trial {
        Trial::Failed(now + AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device whose packets pass as `passes` says of the round and of checksums being left below. Returns where it
    /// stands after each round, and whether they are left below then.
    fn rounds(count: u32, passes: impl Fn(u32, bool) -> bool) -> Vec<(Trial, bool)> {
        let (mut trial, mut below) = (Trial::default(), true);
        let start = Instant::now();
        let round = |round: u32| {
            let (next, change) = trial.after(passes(round, below), start + Duration::from_secs(30) * round);
            trial = next;
            below = change.unwrap_or(below);
            (trial, below)
        };
        (0..count).map(round).collect()
    }

    #[test]
    fn what_spoils_checksums_is_proved_and_mended_for_good() {
        let all = rounds(20, |_, below| !below);
        let (doubted, under) = (Trial::Doubted(1), Trial::Under(ROUNDS));
        let steps = [(doubted, true), (under, false), (Trial::Proof, true), (Trial::Helped, false)];
        assert_eq!(all[..4], steps);
        assert!(all[4..].iter().all(|last| *last == (Trial::Helped, false)));
        // The other node takes some rounds more.
        let all = rounds(20, |round, below| !below && round > 4);
        assert_eq!(all[19], (Trial::Helped, false), "{all:?}");
    }

    #[test]
    fn an_outage_of_any_length_leaves_no_fault() {
        for length in 1..40 {
            for from in [0, 3] {
                let all = rounds(80, |round, _| !(from..from + length).contains(&round));
                assert_eq!(all[79], (Trial::Sound, true), "{length} rounds: {all:?}");
                assert!(!all.iter().any(|(trial, _)| *trial == Trial::Helped), "{length} rounds: {all:?}");
            }
        }
    }

    #[test]
    fn one_shut_round_is_none_and_what_does_not_help_is_left() {
        assert!(rounds(20, |round, _| round % 2 == 0).iter().all(|(_, below)| *below));
        let all = rounds(50, |_, _| false);
        let tries = all.windows(2).filter(|pair| pair[0].1 && !pair[1].1).count();
        assert_eq!(tries, 2, "once in {} s: {all:?}", AGAIN.as_secs());
        assert!(matches!(all[usize::from(DOUBTS + ROUNDS)], (Trial::Failed(_), true)), "{all:?}");
    }
}
