//! What the lab's store holds, and looking at texts.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};
use tortie_lab::Lab;

/// The lab's store file.
pub fn store_file(lab: &Lab) -> PathBuf {
    lab.dir().path().join("store/tortie.db")
}

/// What the store holds, by path, with revisions; states of nodes left out, which change by themselves.
pub fn facts(lab: &Lab) -> BTreeMap<String, (String, i64)> {
    let connection = Connection::open_with_flags(store_file(lab), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let mut select = connection.prepare("SELECT path, value, revision FROM kv").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    let all: BTreeMap<String, (String, i64)> = rows.map(Result::unwrap).collect();
    all.into_iter().filter(|(path, _)| !path.starts_with("/calico/felix/")).collect()
}

/// A text that must hold all of some parts.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
