//! What can be wrong with the file: each a clear error that names it, and nothing half-written.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tortie_facts::{Filter, Revision};
use tortie_store::{Expect, Reader, Store, StoreError, WatchError, Write, WriteError};
use tortie_store_sqlite::{Options, SqliteStore, VERSION};

use common::{child, handle, number, role, this_binary};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn put(n: u32) -> Write {
    Write { key: handle("a"), expect: Expect::Any, value: Some(number(n)) }
}

/// The text of the error that somebody must act on.
fn unusable(path: &Path) -> String {
    match SqliteStore::open(Options::at(path)).map(|_| ()) {
        Err(StoreError::Unusable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let directory = directory();
    for (name, content) in [("short", b"hello".to_vec()), ("long", vec![b'x'; 100_000])] {
        let path = directory.path().join(name);
        fs::write(&path, &content).expect("a file");
        assert_eq!(unusable(&path), format!("{} is not a SQLite database", path.display()));
        assert_eq!(fs::read(&path).expect("the file"), content);
    }
}

#[test]
fn a_database_of_another_program_is_named_and_left_alone() {
    let directory = directory();
    let path = directory.path().join("other.db");
    Connection::open(&path).and_then(|c| c.execute_batch("CREATE TABLE theirs (x)")).expect("a database");
    let before = fs::read(&path).expect("the file");
    assert_eq!(unusable(&path), format!("{} is a SQLite database of another program", path.display()));
    assert_eq!(fs::read(&path).expect("the file"), before);
}

#[test]
fn a_newer_version_is_refused_and_both_versions_are_named() {
    let directory = directory();
    let path = directory.path().join("facts.db");
    SqliteStore::open(Options::at(&path)).expect("a store").write_one(put(1)).expect("a write");
    let newer = VERSION + 41;
    Connection::open(&path).and_then(|c| c.pragma_update(None, "user_version", newer)).expect("a setting");
    let text = unusable(&path);
    for part in [&*path.to_string_lossy(), "newer Tortie", &format!("version {newer}"), &format!("version {VERSION}")] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn a_missing_directory_is_named_or_made() {
    let directory = directory();
    let path = directory.path().join("none/facts.db");
    let text = unusable(&path);
    assert!(
        text.contains(&format!("the directory {} does not exist", path.parent().expect("one").display())),
        "{text}"
    );
    SqliteStore::open(Options { create_directory: true, ..Options::at(&path) }).expect("a store");
    assert!(unusable(&path.join("below")).contains("is not a directory"));
    assert!(unusable(path.parent().expect("one")).ends_with("is a directory"));
}

#[test]
fn all_files_are_for_their_owner_alone() {
    let directory = directory();
    let store = SqliteStore::open(Options::at(directory.path().join("facts.db"))).expect("a store");
    let _watch = store.watch(&Filter::All, Revision(0)).expect("an empty history");
    store.write_one(put(1)).expect("a write");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(directory.path()).expect("the directory") {
        let entry = entry.expect("an entry");
        names.push(entry.file_name().to_string_lossy().into_owned());
        assert_eq!(entry.metadata().expect("a file").permissions().mode() & 0o777, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["facts.db", "facts.db-shm", "facts.db-wal", "facts.db.lock", "facts.db.notify"]);
}

#[test]
fn two_names_of_one_file_are_one_store() {
    let directory = directory();
    let (path, link) = (directory.path().join("facts.db"), directory.path().join("link.db"));
    let store = SqliteStore::open(Options::at(&path)).expect("a store");
    symlink(&path, &link).expect("a link");
    let other = SqliteStore::open(Options::at(&link)).expect("a store");
    assert_eq!(other.path(), store.path());
    let mut watch = other.watch(&Filter::All, Revision(0)).expect("an empty history");
    store.write_one(put(1)).expect("a write");
    assert_eq!(watch.next(Duration::from_secs(20)).map(|events| events.len()), Ok(1));
}

#[test]
fn a_file_removed_while_in_use_is_noticed() {
    let directory = directory();
    let path = directory.path().join("facts.db");
    let store = SqliteStore::open(Options::at(&path)).expect("a store");
    let mut watch = store.watch(&Filter::All, Revision(0)).expect("an empty history");
    fs::remove_file(&path).expect("it is there");
    let text = format!("{} was removed or replaced while in use", path.display());
    assert_eq!(store.write_one(put(1)), Err(WriteError::Unavailable(text.clone())));
    assert_eq!(store.get(&handle("a")), Err(StoreError::Unusable(text.clone())));
    assert_eq!(watch.next(Duration::from_secs(20)), Err(WatchError::Unavailable(text)));
}

#[test]
fn a_watch_from_the_future_is_gone() {
    let directory = directory();
    let store = SqliteStore::open(Options::at(directory.path().join("facts.db"))).expect("a store");
    let revision = store.write_one(put(1)).expect("a write");
    let future = store.watch(&Filter::All, Revision(revision.0 + 1)).map(|_| ());
    assert_eq!(future, Err(WatchError::Gone), "its revision is of another file");
}

#[test]
fn a_foreign_program_that_holds_the_file_locked_is_waited_for_and_named() {
    let directory = directory();
    let path = directory.path().join("facts.db");
    let store =
        SqliteStore::open(Options { patience: Duration::from_millis(50), ..Options::at(&path) }).expect("a store");
    let foreign = Connection::open(&path).expect("the file is there");
    foreign.execute_batch("BEGIN IMMEDIATE").expect("it is free");
    let text = format!("{}: another process holds it locked", path.display());
    assert_eq!(store.write_one(put(1)), Err(WriteError::Unavailable(text)));
    assert_eq!(store.get(&handle("a")), Ok(None), "reads go on");
    foreign.execute_batch("ROLLBACK").expect("it is open");
    store.write_one(put(1)).expect("the file is free again");
}

/// Runs in a process without root's rights over files. Not a test unless the environment gives a role.
#[test]
fn without_rights() {
    let Some(role) = role() else { return };
    let path = PathBuf::from(std::env::var_os("TORTIE_SQLITE").expect("the parent set it"));
    let shown = path.display();
    let wanted = match role.as_str() {
        "file" => format!("{shown}: no permission to read and write it"),
        "directory" => {
            let parent = path.parent().expect("a directory").display();
            format!("{shown}: no permission to write in the directory {parent}")
        }
        other => panic!("no role {other}"),
    };
    assert_eq!(unusable(&path), wanted);
}

#[test]
fn missing_rights_are_named() {
    const NOBODY: u32 = 65534;
    let directory = directory();
    // Others need not be able to reach where this binary was built.
    let binary = directory.path().join("test");
    fs::copy(this_binary(), &binary).expect("a copy");
    let as_other = |role: &str, path: &Path| {
        let mut command = child(&binary, "without_rights", role, path);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().expect("the copy can be run by others");
        assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    let path = directory.path().join("facts.db");
    drop(SqliteStore::open(Options::at(&path)).expect("a store"));
    mode(directory.path(), 0o777);
    mode(&path, 0o000);
    as_other("file", &path);
    mode(&path, 0o444);
    as_other("file", &path);
    mode(directory.path(), 0o555);
    as_other("directory", &directory.path().join("new.db"));
    mode(directory.path(), 0o700);
}
