//! A disk that is full and one that is read-only: small file systems in a mount namespace of a child's own.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_store::{Expect, Reader, Store, StoreError, Write, WriteError};
use tortie_store_sqlite::{Options, SqliteStore};

use common::{child, handle, number, role, this_binary};

fn mount_small(directory: &Path, flags: MsFlags) {
    mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("size=512k")).expect("root may mount");
}

/// Runs in a child with its own mounts. Not a test unless the environment gives a role.
#[test]
fn inside() {
    let Some(role) = role() else { return };
    let path = PathBuf::from(std::env::var_os("TORTIE_SQLITE").expect("the parent set it"));
    let directory = path.parent().expect("a directory");
    unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("root may mount");
    mount_small(directory, MsFlags::empty());
    match role.as_str() {
        "full" => full(&path),
        "full-at-open" => {
            fs::write(directory.join("filler"), vec![0; 508 << 10]).expect("it fits");
            let error = SqliteStore::open(Options::at(&path)).map(|_| ()).expect_err("there is no room");
            assert_eq!(error, StoreError::Unavailable(format!("{}: disk full", path.display())));
            fs::remove_file(directory.join("filler")).expect("it is there");
            SqliteStore::open(Options::at(&path)).expect("there is room");
        }
        "read-only" => {
            let write = |n| Write { key: handle("a"), expect: Expect::Any, value: Some(number(n)) };
            SqliteStore::open(Options::at(&path)).expect("a store").write_one(write(1)).expect("a write");
            mount_small(directory, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
            let store = SqliteStore::open(Options::at(&path)).expect("it can be read");
            assert!(store.get(&handle("a")).expect("a read").is_some());
            let error = store.write_one(write(2)).expect_err("it is read-only");
            let text = format!("{} is on a read-only file system", directory.display());
            assert!(matches!(&error, WriteError::Unavailable(why) if why.ends_with(&text)), "{error}");
        }
        other => panic!("no role {other}"),
    }
}

/// Fills the disk by writing; what was acknowledged stays, what failed left nothing, and room makes it work again.
fn full(path: &Path) {
    let store = SqliteStore::open(Options::at(path)).expect("a store");
    let name = |n: u32| Key::Status(format!("filler/{n}"));
    let big = || Some(Value::Status("x".repeat(20_000).into()));
    let mut written = 0;
    let error = loop {
        let small = Write { key: handle(&format!("h{written}")), expect: Expect::Absent, value: Some(number(written)) };
        let large = Write { key: name(written), expect: Expect::Absent, value: big() };
        match store.write_all(&[small, large]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "512 KiB hold no 20 MB");
    };
    assert_eq!(error, WriteError::Unavailable(format!("{}: disk full", path.display())));
    let listing = store.list(&Filter::All).expect("reads go on");
    assert_eq!((listing.entries.len(), listing.revision), (written as usize * 2, Revision(u64::from(written) * 2)));
    // Room by another's hand.
    mount(None::<&str>, path.parent().expect("one"), None::<&str>, MsFlags::MS_REMOUNT, Some("size=4m"))
        .expect("root may");
    store.write_one(Write { key: name(written), expect: Expect::Absent, value: big() }).expect("there is room again");
}

fn run(role: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let output = child(&this_binary(), "inside", role, &directory.path().join("facts.db")).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_fails_the_write_and_keeps_what_was_acknowledged() {
    run("full");
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_fails_the_opening_and_room_heals_it() {
    run("full-at-open");
}

#[test]
#[ignore = "needs root"]
fn a_read_only_file_system_can_be_read_and_is_named() {
    run("read-only");
}
