//! Periodic compaction of etcd: without it every version of every value stays, until the quota is full and nobody may write.
//!
//! Invariant: at least one whole period of history is kept, so that who is cut off for less goes on where it was.

use std::time::Duration;

use tortie_control::Moment;
use tortie_facts::Revision;
use tortie_store::StoreError;
use tortie_store_etcd::EtcdStore;

/// A store that keeps a history.
pub(crate) trait History {
    /// Its revision now.
    fn revision(&self) -> Result<Revision, StoreError>;

    /// Forgets what was before and at a revision.
    fn compact(&self, upto: Revision) -> Result<(), StoreError>;
}

impl History for EtcdStore {
    fn revision(&self) -> Result<Revision, StoreError> {
        EtcdStore::revision(self)
    }

    fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        EtcdStore::compact(self, upto)
    }
}

/// Forgets history that is older than a period.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// When the store was looked at last, and its revision then.
    seen: Option<(Moment, Revision)>,
}

impl Compaction {
    /// Does what is due. A period of zero keeps everything.
    pub(crate) fn turn(&mut self, store: &dyn History, at: Moment, period: Duration) -> Result<(), StoreError> {
        let last = self.seen.filter(|_| !period.is_zero());
        if period.is_zero() || last.is_some_and(|(since, _)| at < since.saturating_add(period)) {
            self.seen = last;
            return Ok(());
        }
        self.seen = Some((at, store.revision()?));
        last.map_or(Ok(()), |(_, revision)| store.compact(revision))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[derive(Default)]
    struct Book {
        now: Cell<u64>,
        forgotten: RefCell<Vec<u64>>,
        away: Cell<bool>,
    }

    impl History for Book {
        fn revision(&self) -> Result<Revision, StoreError> {
            if self.away.get() { Err(StoreError::Unavailable("away".into())) } else { Ok(Revision(self.now.get())) }
        }

        fn compact(&self, upto: Revision) -> Result<(), StoreError> {
            self.forgotten.borrow_mut().push(upto.0);
            Ok(())
        }
    }

    fn turn(compaction: &mut Compaction, book: &Book, at: u64, period: u64) -> Result<(), StoreError> {
        // Revisions that tell the time at which they were made.
        book.now.set(at);
        compaction.turn(book, Duration::from_secs(at), Duration::from_secs(period))
    }

    #[test]
    fn what_is_older_than_a_period_is_forgotten_and_nothing_younger() {
        let (mut compaction, book) = (Compaction::default(), Book::default());
        for at in 0..35 {
            turn(&mut compaction, &book, at, 10).expect("it is there");
            assert!(book.forgotten.borrow().iter().all(|upto| upto + 10 <= at));
        }
        assert_eq!(*book.forgotten.borrow(), [0, 10, 20]);
    }

    #[test]
    fn a_period_of_zero_forgets_nothing_and_a_new_one_begins_anew() {
        let (mut compaction, book) = (Compaction::default(), Book::default());
        for (at, period) in [(0, 10), (5, 0), (100, 0), (101, 10), (110, 10)] {
            turn(&mut compaction, &book, at, period).expect("it is there");
        }
        assert!(book.forgotten.borrow().is_empty(), "101 is not ten seconds ago at 110");
        turn(&mut compaction, &book, 111, 10).expect("it is there");
        assert_eq!(*book.forgotten.borrow(), [101]);
    }

    #[test]
    fn a_store_that_is_away_is_asked_again() {
        let (mut compaction, book) = (Compaction::default(), Book::default());
        turn(&mut compaction, &book, 0, 10).expect("it is there");
        book.away.set(true);
        turn(&mut compaction, &book, 10, 10).expect_err("it is away");
        book.away.set(false);
        turn(&mut compaction, &book, 12, 10).expect("it is back");
        assert_eq!(*book.forgotten.borrow(), [0]);
    }
}
