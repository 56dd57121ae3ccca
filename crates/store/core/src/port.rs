//! The port that every store implements.

use std::time::Duration;

use tortie_facts::{Filter, Key, Revision, Value};

/// A fact with the revision of its last write.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision of its last write.
    pub revision: Revision,
}

/// A stored text that can't be read. One bad object never stops the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEntry {
    /// The key's text.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// The revision of its last write.
    pub revision: Revision,
}

/// A consistent picture of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Facts, sorted by key text.
    pub entries: Vec<Entry>,
    /// What can't be read.
    pub invalid: Vec<InvalidEntry>,
    /// The store's revision at the moment of the listing: watch from here.
    pub revision: Revision,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist with this revision.
    Revision(Revision),
    /// Whatever is there. Only for what has one writer by construction, such as a node's own status.
    Any,
}

/// One compare-and-swap.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What to write.
    pub key: Key,
    /// What must be there.
    pub expect: Expect,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// A change that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The key has this value now.
    Put(Entry),
    /// The key is gone.
    Deleted {
        /// The key.
        key: Key,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// The key holds something that can't be read; what was there before is no more.
    Invalid(InvalidEntry),
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached or did not answer in time; trying again later may work.
    #[error("the datastore is not available: {0}")]
    Unavailable(String),
    /// The store refuses this client: wrong credentials, a file of a newer version, a file that is no store.
    #[error("the datastore can't be used: {0}")]
    Unusable(String),
    /// The value under this key can't be read.
    #[error("{0}")]
    Invalid(String),
}

/// Why a write was not done. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key exists, or its revision is another one: read again and decide anew.
    #[error("{key} was changed meanwhile (it has revision {found}, expected {expected})")]
    Conflict {
        /// The key.
        key: String,
        /// The revision that is there; zero when absent.
        found: Revision,
        /// The revision that was expected; zero when it should have been absent.
        expected: Revision,
    },
    /// An update or deletion of what is not there.
    #[error("{0} does not exist")]
    Missing(String),
    /// Another write of the same call failed, so this one was not done (an earlier one may have been rolled back).
    #[error("not done, since another write of the same call failed")]
    NotTried,
    /// The store refuses the value.
    #[error("{0}")]
    Invalid(String),
    /// The store can't be reached, is full or did not answer in time. For a remote store the write may have happened.
    #[error("the datastore is not available: {0}")]
    Unavailable(String),
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The revision to go on from was compacted away: list again, watch from there.
    #[error("the history from there on is gone")]
    Gone,
    /// The store can't be reached: open another watch from the last revision seen.
    #[error("the datastore is not available: {0}")]
    Unavailable(String),
}

/// A stream of changes.
pub trait Watch: Send {
    /// The next changes in order, waiting up to `timeout` for the first one. Empty: nothing came in that time.
    /// Never splits the changes of one revision over two calls.
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError>;
}

/// What a follower needs; the fan-out client offers this too.
pub trait Reader: Send + Sync {
    /// The fact under a key, if there is one.
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// The fact under a key as it was told last to who follows this very store, with what was written by it since; a
    /// store that keeps nothing of that asks, as [`Reader::get`] does. For who does not mind that it may be older than
    /// the store by as much as a watch is late.
    fn get_recent(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.get(key)
    }

    /// A consistent picture of everything that the filter covers.
    fn list(&self, filter: &Filter) -> Result<Listing, StoreError>;

    /// The same picture in parts, each with the revision of the whole, for who needs no more than one part at a time.
    /// There is at least one. An error may come after some of the parts: then they are not the whole picture.
    ///
    /// # Errors
    /// As [`Reader::list`]; [`StoreError::Unavailable`] too if the history went away between two parts.
    fn list_in_parts(&self, filter: &Filter, each: &mut dyn FnMut(Listing)) -> Result<(), StoreError> {
        each(self.list(filter)?);
        Ok(())
    }

    /// Changes after `from` to what the filter covers, in order, none left out.
    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError>;
}

/// A store that can be written.
pub trait Store: Reader {
    /// Does the writes in order and stops at the first that fails; the result has one entry per write.
    ///
    /// An adapter may do them in one transaction (then all or none, and the others of a call that failed are
    /// [`WriteError::NotTried`]), but a caller must be correct when any prefix of them happens: a crash may come
    /// between two. A write that returned `Ok` survives `kill -9` of any process; one that returned an error other
    /// than [`WriteError::Unavailable`] was not done. Deleting what is not there is [`WriteError::Missing`].
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>>;

    /// Whether each write is a request of its own, so that several in one call gain nothing.
    fn one_by_one(&self) -> bool {
        false
    }

    /// Writes that have nothing to do with each other: all are tried, in any order; one result for each.
    fn write_each(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        writes.iter().map(|write| self.write_one(write.clone())).collect()
    }

    /// One write.
    fn write_one(&self, write: Write) -> Result<Revision, WriteError> {
        self.write(std::slice::from_ref(&write))
            .pop()
            .unwrap_or_else(|| Err(WriteError::Unavailable("the store returned no result".to_owned())))
    }

    /// How long the report that a node is alive outlives its last writing; zero: for ever. Stores that can't take things
    /// back by themselves, which are all but etcd, have no use for it.
    fn expire_reports_after(&self, age: Duration) {
        let _ = age;
    }

    /// Several writes: their revisions, or the error of the one that failed (never [`WriteError::NotTried`]).
    fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, WriteError> {
        let results = self.write(writes);
        if let Some(error) = results.iter().find_map(|one| one.as_ref().err().filter(|e| **e != WriteError::NotTried)) {
            return Err(error.clone());
        }
        results.into_iter().collect()
    }
}
