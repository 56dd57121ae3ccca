//! Connections to the file, kept for the next call: one is enough for a program that does one thing at a time.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::fault::Fault;
use crate::options::Sync;

/// Idle connections beyond this are closed.
const KEPT: usize = 8;

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.metadata().map(|file| (file.dev(), file.ino()))
}

/// Pages of the write-ahead log that a program which closes the file as the last one may leave. The next one that opens
/// the file reads them all.
const LEFT_PAGES: u32 = 64;

/// Connections to one file.
pub(crate) struct Pool {
    path: PathBuf,
    /// Device and inode at the start.
    identity: (u64, u64),
    sync: Sync,
    patience: Duration,
    idle: Mutex<Vec<Connection>>,
    /// Pages in the write-ahead log after the last commit of this process.
    wal_pages: Arc<AtomicU32>,
}

impl Pool {
    /// No connection yet, to a file that exists.
    pub(crate) fn new(path: PathBuf, sync: Sync, patience: Duration) -> Result<Pool, Fault> {
        let identity = identity(&path).map_err(|error| Fault::of_io(&path, "look at it", &error))?;
        Ok(Pool { path, identity, sync, patience, idle: Mutex::default(), wal_pages: Arc::default() })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pages in the write-ahead log after the last commit of this process.
    pub(crate) fn wal_pages(&self) -> u32 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// Runs `work` with a connection and says what its error means.
    ///
    /// A connection whose work failed, or left a transaction open, is closed: its state is not to be trusted.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        // Writes to a file that lost its name would be acknowledged and seen by nobody.
        if identity(&self.path).ok() != Some(self.identity) {
            return Err(Fault::Unusable(format!("{} was removed or replaced while in use", self.path.display())));
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = work(&mut connection).map_err(|error| Fault::of(&self.path, &error));
        if result.is_ok() && connection.is_autocommit() {
            self.keep(connection);
        }
        result
    }

    /// Keeps a connection for later.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    /// Another connection.
    pub(crate) fn connect(&self) -> Result<Connection, Fault> {
        self.try_connect().map_err(|error| Fault::of(&self.path, &error))
    }

    fn try_connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.patience)?;
        match self.sync {
            Sync::Full => {} // SQLite's default.
            Sync::Normal => connection.execute_batch("PRAGMA synchronous = NORMAL")?,
        }
        // Most short-lived programs must not pay for tidying up; see `drop`.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let pages = Arc::clone(&self.wal_pages);
        // This also turns the automatic checkpoint off, which would delay the commit's answer.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(connection)
    }
}

impl Drop for Pool {
    /// The last one to close the file moves the write-ahead log into it, unless that is short.
    fn drop(&mut self) {
        if self.wal_pages() < LEFT_PAGES {
            return;
        }
        for connection in self.idle.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let tidied = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
            if let Err(error) = tidied {
                tracing::debug!(%error, path = %self.path.display(), "the write-ahead log stays");
            }
        }
    }
}
