//! The embedded store keeps the port's promises, with a client of its own for each handle.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tortie_facts::Revision;
use tortie_store::Store;
use tortie_store::conformance::Subject;
use tortie_store_sqlite::{Options, SqliteStore, Sync};

/// A store in a directory of its own.
struct Sqlite {
    directory: TempDir,
    sync: Sync,
}

impl Sqlite {
    fn new(sync: Sync) -> Sqlite {
        Sqlite { directory: tempfile::tempdir().expect("a directory"), sync }
    }

    fn options(&self) -> Options {
        Options { sync: self.sync, ..Options::at(self.directory.path().join("facts.db")) }
    }
}

impl Subject for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.options()).expect("a fresh store"))
    }

    /// As another program would: no lock but SQLite's, no doorbell.
    fn plant(&self, path: &str, text: &str) {
        drop(SqliteStore::open(self.options()).expect("a fresh store"));
        let connection = Connection::open(self.options().path).expect("the file is there");
        connection.busy_timeout(Duration::from_secs(5)).expect("a setting");
        let text = text.replace('\'', "''");
        let next = "(SELECT ifnull(max(revision), 0) + 1 FROM log)";
        let script = format!(
            "BEGIN IMMEDIATE;
             INSERT INTO kv SELECT '{path}', '{text}', {next}, {next} WHERE true
                 ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision;
             INSERT INTO log SELECT {next}, '{path}', '{text}', 0;
             COMMIT;"
        );
        connection.execute_batch(&script).expect("the tables are there");
    }

    fn text(&self, path: &str) -> String {
        let connection = Connection::open(self.options().path).expect("the file is there");
        let found = connection.query_row("SELECT value FROM kv WHERE path = ?1", [path], |row| row.get(0));
        found.expect("it is there")
    }

    fn compact(&self, upto: Revision) {
        SqliteStore::open(self.options()).and_then(|store| store.compact(upto)).expect("it can be written");
    }
}

mod full {
    //! With every commit on the disk.
    tortie_store::conformance_tests!(|| super::Sqlite::new(super::Sync::Full));
}

mod normal {
    //! With commits that outlive processes only.
    tortie_store::conformance_tests!(|| super::Sqlite::new(super::Sync::Normal));
}
