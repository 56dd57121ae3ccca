//! The embedded store: one SQLite file (WAL) that many processes share, with no server.
//!
//! Each write adds a row to the change log in its own transaction; the log's last row is the store's revision, its
//! rows have no gap, and watches read it. Beside FILE: `FILE.lock` makes writers of many processes take turns,
//! `FILE.notify` wakes the watches of other processes after each commit; neither is needed for correctness.

mod bell;
mod chores;
mod connection;
mod fault;
mod group;
mod options;
mod read;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod transaction;
mod turns;
mod watch;

pub use options::{DEFAULT_PATH, Options, OptionsError, Sync};
pub use schema::VERSION;
pub use store::SqliteStore;
