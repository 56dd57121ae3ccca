//! What needs a look inside: a full file without a full disk, trimming, group commit, checkpoints.

use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use tempfile::TempDir;
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_store::{Expect, Listing, Reader, Store, WatchError, Write, WriteError};

use crate::options::Options;
use crate::read::{bounds, list_in_parts};
use crate::store::{Shared, SqliteStore, shared};

fn store(change: impl FnOnce(Options) -> Options) -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = change(Options::at(directory.path().join("facts.db")));
    (directory, SqliteStore::open(options).expect("a store"))
}

fn put(name: &str, length: usize) -> Write {
    let value = Some(Value::Status("x".repeat(length).into()));
    Write { key: Key::Status(name.to_owned()), expect: Expect::Any, value }
}

fn log_bounds(shared: &Shared) -> (u64, u64) {
    shared.pool.with(|connection| bounds(connection)).expect("a read")
}

#[test]
fn a_full_file_fails_the_whole_call_and_nothing_else() {
    let (_directory, store) = store(|options| options);
    store.write_one(put("before", 10)).expect("there is room");
    let connection = shared(&store).pool.connect().expect("a connection");
    connection.execute_batch("PRAGMA max_page_count = 40").expect("a setting");
    // The pool holds one connection: the calls that follow use the last one given to it.
    shared(&store).pool.keep(connection);
    let results = store.write(&[put("small", 10), put("large", 500_000), put("behind", 10)]);
    let text = format!("{}: disk full", store.path().display());
    assert_eq!(results, vec![Err(WriteError::Unavailable(text)); 3]);
    let listing = store.list(&Filter::All).expect("reads go on");
    assert_eq!((listing.entries.len(), listing.revision), (1, Revision(1)));
    assert_eq!(store.write_one(put("after", 10)), Ok(Revision(2)));
}

#[test]
fn the_log_is_trimmed_by_count_and_a_late_watch_is_gone() {
    let (_directory, store) = store(|options| Options { keep_changes: 100, ..options });
    let mut late = store.watch(&Filter::All, Revision(0)).expect("an empty history");
    let writes: Vec<Write> = (0..600).map(|n| put(&format!("k{}", n % 10), 10)).collect();
    for part in writes.chunks(50) {
        store.write_all(part).expect("there is room");
    }
    let (first, last) = log_bounds(shared(&store));
    assert_eq!(last, 600);
    assert!(first > 400 && last - first >= 99, "{first}..{last}");
    assert_eq!(late.next(Duration::from_secs(20)), Err(WatchError::Gone));
    assert!(store.watch(&Filter::All, Revision(first - 1)).is_ok());
    assert_eq!(store.list(&Filter::All).expect("a listing").entries.len(), 10);
}

#[test]
fn the_log_is_trimmed_by_age_but_its_last_row_stays() {
    let (_directory, store) = store(|options| Options { keep_for: Duration::ZERO, ..options });
    let writes: Vec<Write> = (0..512).map(|n| put(&format!("k{}", n % 10), 10)).collect();
    store.write_all(&writes[..511]).expect("there is room");
    let age = "UPDATE log SET at = at - 100";
    shared(&store).pool.with(|connection| connection.execute(age, [])).expect("a write");
    store.write_one(writes[511].clone()).expect("there is room");
    assert_eq!(log_bounds(shared(&store)), (512, 512));
    store.compact(Revision(u64::MAX)).expect("it can be written");
    assert_eq!(log_bounds(shared(&store)), (512, 512));
    assert_eq!(store.write_one(put("next", 1)), Ok(Revision(513)));
}

#[test]
fn the_write_ahead_log_is_moved_into_the_file() {
    let (_directory, store) = store(|options| options);
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let wal = store.path().with_extension("db-wal");
    for n in 0..300 {
        store.write_one(put(&format!("k{}", n % 5), 20_000)).expect("there is room");
    }
    assert!(size(store.path()) > 1 << 20, "the file grew to {}", size(store.path()));
    assert!(size(&wal) < 8 << 20, "the write-ahead log grew to {}", size(&wal));
    let path = store.path().to_owned();
    drop(store);
    assert!(size(&wal) == 0, "the last one to close the file left {}", size(&wal));
    let store = SqliteStore::open(Options::at(path)).expect("a store");
    assert_eq!(store.list(&Filter::All).expect("a listing").revision, Revision(300));
}

#[test]
fn callers_at_once_share_commits_and_each_gets_its_own_results() {
    const CALLERS: usize = 8;
    const CALLS: usize = 30;
    let (_directory, store) = store(|options| options);
    let barrier = Barrier::new(CALLERS);
    let mut all: Vec<Revision> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut revisions = Vec::new();
                    for n in 0..CALLS {
                        let name = format!("own-{caller}-{n}");
                        let shared = Write { expect: Expect::Absent, ..put(&format!("shared-{n}"), 1) };
                        // Fails for all but one caller, and takes the first write of its call along.
                        let results = store.write(&[put(&name, 1), shared]);
                        let done = store.get(&Key::Status(name)).expect("a read").map(|entry| entry.revision);
                        match &results[..] {
                            [Ok(own), Ok(shared)] => {
                                assert_eq!(done, Some(*own));
                                revisions.extend([*own, *shared]);
                            }
                            [Err(WriteError::NotTried), Err(WriteError::Conflict { .. })] => assert_eq!(done, None),
                            other => panic!("{other:?}"),
                        }
                    }
                    revisions
                })
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
    });
    all.sort();
    assert_eq!(all, (1..=2 * CALLS as u64).map(Revision).collect::<Vec<_>>());
}

#[test]
fn many_watches_of_one_process_all_hear_this_process_and_others() {
    // Only the waker and the doorbell are in time.
    let (_directory, store) = store(|options| Options { poll: Duration::from_secs(3600), ..options });
    let other = SqliteStore::open(Options::at(store.path())).expect("a store");
    let told: Vec<usize> = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..6)
            .map(|_| {
                let mut watch = store.watch(&Filter::All, Revision(0)).expect("an empty history");
                scope.spawn(move || {
                    let mut told = 0;
                    while told < 40 {
                        let events = watch.next(Duration::from_secs(20)).expect("nothing was trimmed");
                        assert!(!events.is_empty(), "it slept through a change behind {told}");
                        told += events.len();
                    }
                    // The one that listens leaves; the rest must go on hearing.
                    told
                })
            })
            .collect();
        for n in 0..20 {
            store.write_one(put(&format!("own-{n}"), 1)).expect("there is room");
            other.write_one(put(&format!("other-{n}"), 1)).expect("there is room");
            std::thread::sleep(Duration::from_millis(n % 3));
        }
        watchers.into_iter().map(|watcher| watcher.join().expect("no panic")).collect()
    });
    assert_eq!(told, [40; 6]);
}

#[test]
fn a_change_without_a_ring_is_found_by_looking() {
    let (_directory, store) = store(|options| Options { poll: Duration::from_millis(20), ..options });
    store.write_one(put("a", 1)).expect("there is room");
    let mut watch = store.watch(&Filter::All, Revision(1)).expect("it is the last");
    let foreign = rusqlite::Connection::open(store.path()).expect("the file is there");
    let change = "INSERT INTO log SELECT 2, path, value, at FROM log";
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| watch.next(Duration::from_secs(20)));
        std::thread::sleep(Duration::from_millis(30));
        foreign.execute(change, []).expect("the file is free");
        assert_eq!(waiting.join().expect("no panic").map(|events| events.len()), Ok(1));
    });
    foreign.execute("INSERT INTO log SELECT 3, path, value, at FROM log WHERE revision = 2", []).expect("it is free");
    assert_eq!(watch.next(Duration::ZERO).map(|events| events.len()), Ok(1), "a call that does not wait looks too");
}

#[test]
fn a_listing_in_parts_shows_one_moment_whatever_is_written_meanwhile() {
    let (_directory, store) = store(|options| options);
    let names: Vec<String> = (0..20).map(|number| format!("k{number:02}")).collect();
    for name in &names {
        store.write_one(put(name, 50_000)).expect("there is room");
    }
    let spans = tortie_store::spans(&Filter::All);
    // In time, and so late that the rest is read at once.
    for patience in [Duration::from_secs(60), Duration::ZERO] {
        let whole = store.list(&Filter::All).expect("a listing");
        let mut parts = Vec::new();
        let mut each = |part: Listing| {
            parts.push(part);
            store.write_one(put("k19", 10)).expect("writers do not wait");
            store.write_one(put("k20", 10)).expect("writers do not wait");
        };
        let pool = &shared(&store).pool;
        pool.with(|connection| list_in_parts(connection, &spans, patience, &mut each)).expect("parts");
        assert!(parts.len() > 2, "{}", parts.len());
        assert!(parts.iter().all(|part| part.revision == whole.revision));
        assert_eq!(parts.into_iter().flat_map(|part| part.entries).collect::<Vec<_>>(), whole.entries);
        store.write_one(Write { value: None, ..put("k20", 0) }).expect("it is there");
        store.write_one(put("k19", 50_000)).expect("there is room");
    }
}
