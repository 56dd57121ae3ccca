//! The tables, and how a file is known to be ours: application id and schema version in the file's header.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::fault::Fault;

/// The version of the tables that this program reads and writes.
pub const VERSION: i32 = 1;

/// "Tort" in the header of the file.
const APPLICATION: i32 = 0x546f_7274;

/// `kv` is what is there now, `log` what changed; the log's revisions have no gap and its last row is never trimmed.
const TABLES: &str = "
    CREATE TABLE kv (
        path TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        revision INTEGER NOT NULL,
        created INTEGER NOT NULL
    );
    CREATE TABLE log (
        revision INTEGER NOT NULL PRIMARY KEY,
        path TEXT NOT NULL,
        value TEXT,
        at INTEGER NOT NULL
    );
";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Ours, of this version.
    Ours,
    /// A database with nothing in it.
    Empty,
}

/// Looks at the header.
pub(crate) fn look(connection: &Connection, path: &Path) -> Result<Found, Fault> {
    let shown = path.display();
    // One moment: another process may be making the tables just now.
    let moment = connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose();
    let _moment = moment.map_err(|error| Fault::of(path, &error))?;
    let number = |pragma: &str| -> Result<i32, Fault> {
        connection.query_row(pragma, [], |row| row.get(0)).map_err(|error| Fault::of(path, &error))
    };
    match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
        (APPLICATION, VERSION) => Ok(Found::Ours),
        (APPLICATION, version) if version > VERSION => Err(Fault::Unusable(format!(
            "{shown} was written by a newer Tortie: its format is version {version}, this program reads up to version {VERSION}"
        ))),
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(Found::Empty),
        (APPLICATION, version) => Err(Fault::Unusable(format!(
            "{shown} has the unknown format version {version}, this program reads version {VERSION}"
        ))),
        (_, _) => Err(Fault::Unusable(format!("{shown} is a SQLite database of another program"))),
    }
}

/// Makes the tables, all or none. Harmless if another process was faster.
pub(crate) fn create(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    let wrong = |error: rusqlite::Error| Fault::of(path, &error);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(wrong)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
    if look(&transaction, path)? == Found::Empty {
        transaction.execute_batch(TABLES).map_err(wrong)?;
        let header = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};");
        transaction.execute_batch(&header).map_err(wrong)?;
    }
    transaction.commit().map_err(wrong)
}
