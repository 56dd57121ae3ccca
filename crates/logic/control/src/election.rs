//! Who of several controllers acts: one record that the holder renews, taken over when it stands still for too long.
//!
//! Like Kubernetes' own leases it trusts no clock but the reader's: a record counts as left when it has not changed for
//! its duration since it was first seen so. Two holders at once are possible for a moment, if one of them hangs; what
//! controllers do stays correct then, since each write names what it saw.

use std::time::Duration;

use crate::leaks::Moment;

/// How long a record may stand still before others take it over. As upstream's libraries have it.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often the holder renews and others look.
pub const RENEW: Duration = Duration::from_secs(2);

/// How long a holder goes on without having renewed: less than [`LEASE`], so that it stops before another starts.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The record as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if it was given up.
    pub holder: String,
    /// Goes up each time that the holder renews.
    pub renewed: u64,
    /// How often it changed hands.
    pub transitions: u64,
}

/// What to do with the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: another holds it.
    Wait,
    /// Write this over what was read.
    Write(Record),
}

/// What one candidate knows.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    seen: Option<(Record, Moment)>,
    renewed_at: Option<Moment>,
}

impl Election {
    /// A candidate of this name, which must be its own.
    pub fn new(me: impl Into<String>) -> Election {
        Election { me: me.into(), seen: None, renewed_at: None }
    }

    /// What to do, given the record that was read; `None`: there is none.
    pub fn read(&mut self, found: Option<&Record>, at: Moment) -> Step {
        let Some(found) = found else {
            return Step::Write(Record { holder: self.me.clone(), renewed: 1, transitions: 0 });
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            Some(_) | None => at,
        };
        self.seen = Some((found.clone(), since));
        let Record { holder, renewed, transitions } = found;
        if *holder == self.me {
            return Step::Write(Record { holder: self.me.clone(), renewed: renewed + 1, transitions: *transitions });
        }
        self.renewed_at = None;
        if holder.is_empty() || at.saturating_sub(since) >= LEASE {
            return Step::Write(Record { holder: self.me.clone(), renewed: renewed + 1, transitions: transitions + 1 });
        }
        Step::Wait
    }

    /// The write that was asked for at `at` is done.
    pub fn wrote(&mut self, record: Record, at: Moment) {
        self.seen = Some((record, at));
        self.renewed_at = Some(at);
    }

    /// Until when this candidate may act, if it may.
    pub fn leads_until(&self) -> Option<Moment> {
        self.renewed_at.map(|renewed| renewed + DEADLINE)
    }

    /// The record with which the holder gives up, so that nobody has to wait; `None` if it does not hold.
    pub fn resign(&mut self) -> Option<Record> {
        self.renewed_at.take()?;
        let (Record { holder: _, renewed, transitions }, _) = self.seen.as_ref()?;
        Some(Record { holder: String::new(), renewed: renewed + 1, transitions: *transitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(one: &Election, at: u64) -> bool {
        one.leads_until().is_some_and(|until| secs(at) < until)
    }

    fn secs(secs: u64) -> Moment {
        Moment::from_secs(secs)
    }

    #[test]
    fn a_record_that_stands_still_is_taken_over_and_its_holder_has_stopped_before() {
        let (mut a, mut b) = (Election::new("a"), Election::new("b"));
        let Step::Write(mut record) = a.read(None, secs(0)) else { panic!("there is none") };
        a.wrote(record.clone(), secs(0));
        assert!(leads(&a, 1) && !leads(&b, 1));
        for at in [1, 3, 5, 20] {
            let Step::Write(next) = a.read(Some(&record), secs(at)) else { panic!("it is a's") };
            record = next;
            a.wrote(record.clone(), secs(at));
            assert_eq!(b.read(Some(&record), secs(at)), Step::Wait, "it moves");
        }
        assert_eq!(b.read(Some(&record), secs(34)), Step::Wait);
        assert!(!leads(&a, 34), "it stopped before");
        let Step::Write(taken) = b.read(Some(&record), secs(35)) else { panic!("it stood still for 15 s") };
        assert_eq!((taken.holder.as_str(), taken.transitions), ("b", 1));
        b.wrote(taken.clone(), secs(35));
        assert!(leads(&b, 35));
        assert_eq!(a.read(Some(&taken), secs(36)), Step::Wait);
        assert!(!leads(&a, 36));
    }

    #[test]
    fn a_holder_that_gives_up_is_followed_at_once() {
        let (mut a, mut b) = (Election::new("a"), Election::new("b"));
        let Step::Write(record) = a.read(None, secs(0)) else { panic!("there is none") };
        a.wrote(record, secs(0));
        let given_up = a.resign().expect("it holds");
        assert!(!leads(&a, 0));
        assert!(matches!(b.read(Some(&given_up), secs(1)), Step::Write(record) if record.holder == "b"));
        assert_eq!(b.resign(), None);
    }
}
