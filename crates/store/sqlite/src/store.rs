//! The store itself: opening the file, and the port's calls.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tortie_facts::{Filter, Key, Revision};
use tortie_store::{Entry, Listing, Reader, Store, StoreError, Watch, WatchError, Write, WriteError, encode, spans};

use crate::bell::Bell;
use crate::chores::{self, WAL_PAGES};
use crate::connection::Pool;
use crate::fault::Fault;
use crate::group::{Queue, Ticket};
use crate::options::Options;
use crate::read;
use crate::schema::{self, Found};
use crate::transaction::{self, Call, Results, Written};
use crate::turns::Turns;
use crate::watch::{Hub, SqliteWatch};

/// Opening one file twice at the same time must not let go of SQLite's locks: closing any handle of a file does.
static OPENING: Mutex<()> = Mutex::new(());

/// How long a listing in parts may take its time.
const LISTING: Duration = Duration::from_secs(3);

/// What all clones and watches of an open store share.
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) turns: Turns,
    pub(crate) hub: Hub,
    pub(crate) bell_path: PathBuf,
    pub(crate) poll: Duration,
    pub(crate) patience: Duration,
    pub(crate) keep_changes: u64,
    pub(crate) keep_for: Duration,
    bell: Bell,
    queue: Queue,
    /// Pages of the write-ahead log at which the next checkpoint is due.
    checkpoint_at: AtomicU32,
}

impl Shared {
    /// Whether the write-ahead log grew by enough since the last checkpoint; says so once.
    pub(crate) fn checkpoint_due(&self) -> bool {
        let pages = self.pool.wal_pages();
        let due = pages >= self.checkpoint_at.load(Ordering::Relaxed);
        if due || pages < WAL_PAGES {
            self.checkpoint_at.store((pages / WAL_PAGES + 1) * WAL_PAGES, Ordering::Relaxed);
        }
        due
    }
}

/// The embedded store. Clones share it; it is closed with the last clone and watch.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

/// The inside, for tests.
#[cfg(test)]
pub(crate) fn shared(store: &SqliteStore) -> &Shared {
    &store.shared
}

/// `FILE.suffix`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Seconds since 1970, for the age of changes.
fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Makes the file, for this user alone, unless it is there; its one true path.
fn make_file(path: &Path, create_directory: bool) -> Result<PathBuf, Fault> {
    let wrong = |error: io::Error| Fault::of_io(path, "make it", &error);
    if create_directory && let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(wrong)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(error)),
    }
    // Two names of one file must share one lock and one bell.
    path.canonicalize().map_err(wrong)
}

impl SqliteStore {
    /// Opens the store, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if somebody must act: no permission, no directory, no database, another program's, a
    /// newer version, a read-only file system. [`StoreError::Unavailable`] if the disk is full or the file locked.
    pub fn open(options: Options) -> Result<SqliteStore, StoreError> {
        let Options { path, create_directory, sync, patience, keep_changes, keep_for, poll } = options;
        let opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = make_file(&path, create_directory)?;
        let bell_path = beside(&path, ".notify");
        let shared = Shared {
            turns: Turns::new(beside(&path, ".lock")),
            bell: Bell::new(bell_path.clone()),
            bell_path,
            pool: Pool::new(path, sync, patience)?,
            hub: Hub::default(),
            queue: Queue::default(),
            checkpoint_at: AtomicU32::new(WAL_PAGES),
            poll,
            patience,
            keep_changes: keep_changes.max(1),
            keep_for,
        };
        let mut connection = shared.pool.connect()?;
        if schema::look(&connection, shared.pool.path())? == Found::Empty {
            let turn = shared.turns.take(patience)?;
            schema::create(&mut connection, shared.pool.path())?;
            drop(turn);
        }
        shared.pool.keep(connection);
        drop(opening);
        Ok(SqliteStore { shared: Arc::new(shared) })
    }

    /// The file, with no symbolic link in its path.
    pub fn path(&self) -> &Path {
        self.shared.pool.path()
    }

    /// Forgets the changes up to and including `upto`, except the very last; watches from before are gone.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        chores::trim(&self.shared, i64::try_from(upto.0).unwrap_or(i64::MAX))?;
        Ok(())
    }

    /// Commits a group of calls: on the disk, then told to the watches.
    fn commit(&self, group: &[Arc<Ticket>], now: i64) -> Result<(Vec<Results>, Option<Written>), Fault> {
        let shared = &*self.shared;
        let turn = shared.turns.take(shared.patience)?;
        let calls = || group.iter().map(|ticket| ticket.call());
        let (results, written) = shared.pool.with(|connection| transaction::run(connection, calls(), now))?;
        if let Some(Written { first: _, last }) = written {
            shared.hub.publish(last);
            shared.bell.ring();
        }
        drop(turn);
        Ok((results, written))
    }
}

impl Reader for SqliteStore {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let path = key.path();
        let row = self.shared.pool.with(|connection| read::get(connection, &path))?;
        row.map(|row| row.decode().map_err(|invalid| StoreError::Invalid(invalid.reason))).transpose()
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        let mut whole = Listing::default();
        self.list_in_parts(filter, &mut |Listing { entries, invalid, revision }| {
            whole.entries.extend(entries);
            whole.invalid.extend(invalid);
            whole.revision = revision;
        })?;
        Ok(whole)
    }

    fn list_in_parts(&self, filter: &Filter, each: &mut dyn FnMut(Listing)) -> Result<(), StoreError> {
        let spans = spans(filter);
        Ok(self.shared.pool.with(|connection| read::list_in_parts(connection, &spans, LISTING, each))?)
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(SqliteWatch::open(&self.shared, spans(filter), from.0)?))
    }
}

impl Store for SqliteStore {
    /// All or none: each call is one transaction, or a part of one that is undone on its own.
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let call: Call = writes.iter().map(encode).collect();
        let now = seconds();
        let mut done = None;
        let results = self.shared.queue.submit(call, |group| {
            let (results, written) = self.commit(group, now)?;
            done = written;
            Ok(results)
        });
        if let Some(written) = done {
            chores::after(&self.shared, written, now);
        }
        results
    }
}
