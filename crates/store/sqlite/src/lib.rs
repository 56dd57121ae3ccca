//! The embedded store: SQLite shared by many processes.
