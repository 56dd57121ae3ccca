//! Many processes share one file: no lost update, no gap in any watch, nothing acknowledged lost by `kill -9`.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tortie_facts::{Filter, Revision, Value};
use tortie_store::{Entry, Event, Expect, Reader, Store, Watch, Write, WriteError};
use tortie_store_sqlite::{Options, SqliteStore, Sync};

use common::{child as child_command, handle, number, role, this_binary};

const PROCESSES: u32 = 4;
const RAISES: u32 = 60;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(Options::at(path)).expect("a store")
}

fn put(name: &str, expect: Expect, n: u32) -> Write {
    Write { key: handle(name), expect, value: Some(number(n)) }
}

fn spawn(role: &str, path: &Path) -> Child {
    child_command(&this_binary(), "child", role, path).spawn().expect("a process")
}

fn number_of(value: &Value) -> u32 {
    value.as_handle().expect("a handle").block.values().sum()
}

/// What the children do. Not a test unless the environment gives a role.
#[test]
fn child() {
    let Some(role) = role() else { return };
    let options = Options::from_env().expect("the parent set it");
    // Ends the line that the test harness began.
    println!();
    match role.as_str() {
        "raise" => raise(&SqliteStore::open(options).expect("a store")),
        "open" => {
            let store = SqliteStore::open(options).expect("a store");
            store.write_one(put("a", Expect::Any, 1)).expect("a write");
        }
        "write" => write_on(&SqliteStore::open(options).expect("a store")),
        "write-normal" => {
            let options = Options { sync: Sync::Normal, ..options };
            write_on(&SqliteStore::open(options).expect("a store"));
        }
        other => panic!("no role {other}"),
    }
}

/// Raises a shared counter by compare-and-swap and says each revision.
fn raise(store: &SqliteStore) {
    for _ in 0..RAISES {
        loop {
            let write = match store.get(&handle("shared")).expect("a read") {
                Some(Entry { value, revision, key: _ }) => {
                    put("shared", Expect::Revision(revision), number_of(&value) + 1)
                }
                None => put("shared", Expect::Absent, 1),
            };
            match store.write_one(write) {
                Ok(revision) => break println!("ack {revision}"),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Writes until killed, pairs of keys in one call, and says each acknowledged revision.
fn write_on(store: &SqliteStore) {
    let me = std::process::id();
    for n in 0.. {
        let (a, b) = (format!("{me}-a-{}", n % 50), format!("{me}-b-{}", n % 50));
        let revisions =
            store.write_all(&[put(&a, Expect::Any, n), put(&b, Expect::Any, n)]).expect("nothing stands against it");
        println!("ack {} {a} {n} {}", revisions[0], revisions[1]);
    }
}

/// The acknowledgements that a child printed.
fn acks(child: &mut Child) -> Vec<String> {
    let out = child.stdout.take().expect("it is piped");
    let lines = BufReader::new(out).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("ack ").map(str::to_owned)).collect()
}

fn collect(watch: &mut dyn Watch, count: usize) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} changes came", events.len());
        events.extend(watch.next(Duration::from_secs(1)).expect("nothing was trimmed"));
    }
    events
}

fn revision_of(event: &Event) -> Revision {
    match event {
        Event::Put(Entry { revision, .. }) | Event::Deleted { revision, .. } => *revision,
        Event::Invalid(invalid) => invalid.revision,
    }
}

fn assert_whole(path: &Path) {
    let connection = Connection::open(path).expect("the file is there");
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(verdict, "ok");
    let gaps: i64 = connection
        .query_row("SELECT ifnull(max(revision) - min(revision) + 1, 0) - count(*) FROM log", [], |row| row.get(0))
        .expect("a query");
    assert_eq!(gaps, 0, "the log has a gap");
    let differ: i64 = connection
        .query_row(
            "SELECT count(*) FROM kv JOIN log USING (revision) WHERE kv.path != log.path OR kv.value != log.value",
            [],
            |row| row.get(0),
        )
        .expect("a query");
    assert_eq!(differ, 0, "the log tells other values than the store holds");
}

#[test]
fn processes_that_race_to_make_the_file_all_get_it() {
    for _ in 0..10 {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("facts.db");
        let mut children: Vec<Child> = (0..PROCESSES).map(|_| spawn("open", &path)).collect();
        for child in &mut children {
            assert!(child.wait().expect("it ends").success());
        }
        assert_eq!(open(&path).list(&Filter::All).expect("a listing").revision, Revision(u64::from(PROCESSES)));
    }
}

#[test]
fn processes_lose_no_update_and_a_watch_sees_each_once_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("facts.db");
    // Nobody opened the file yet: the children race to make it.
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| spawn("raise", &path)).collect();
    let store = open(&path);
    let mut watch = store.watch(&Filter::All, Revision(0)).expect("the whole history is there");
    let events = collect(&mut *watch, (PROCESSES * RAISES) as usize);
    let mut acknowledged = Vec::new();
    for child in &mut children {
        acknowledged.extend(acks(child).iter().map(|line| Revision(line.parse().expect("a revision"))));
        assert!(child.wait().expect("it ends").success());
    }
    acknowledged.sort();
    assert_eq!(events.iter().map(revision_of).collect::<Vec<_>>(), acknowledged);
    let values: Vec<u32> = events
        .iter()
        .map(|event| match event {
            Event::Put(entry) => number_of(&entry.value),
            Event::Deleted { .. } | Event::Invalid(_) => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(values, (1..=PROCESSES * RAISES).collect::<Vec<_>>());
    assert_whole(&path);
}

fn survives_kill_9(role: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("facts.db");
    let store = open(&path);
    let mut watch = store.watch(&Filter::All, Revision(0)).expect("the whole history is there");
    let mut told = Vec::new();
    let mut round = 0;
    // On a slow machine few children live long enough to write.
    while round < 12 || told.len() <= 50 && round < 120 {
        round += 1;
        let mut children = [spawn(role, &path), spawn(role, &path)];
        // From before the store is open to the middle of things.
        std::thread::sleep(Duration::from_millis(10 + 17 * round % 90 + round / 12 * 50));
        for child in &mut children {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
        let mut last_acks = BTreeMap::new();
        for line in children.iter_mut().flat_map(acks) {
            let words: Vec<&str> = line.split(' ').collect();
            let [a_revision, name, n, b_revision] = words[..] else { continue };
            let revision = |text: &str| Revision(text.parse().expect("a revision"));
            last_acks.insert(name.to_owned(), (revision(a_revision), revision(b_revision), n.to_owned()));
        }
        for (name, (a_revision, b_revision, n)) in last_acks {
            let other = name.replace("-a-", "-b-");
            for (name, revision) in [(&name, a_revision), (&other, b_revision)] {
                let entry = store.get(&handle(name)).expect("a read").expect("it was acknowledged");
                // What was written last need not have been acknowledged.
                assert!(entry.revision >= revision, "{name} {n}: {} before {revision}", entry.revision);
            }
            let value = |name: &str| store.get(&handle(name)).expect("a read").map(|entry| number_of(&entry.value));
            assert_eq!(value(&name), value(&other), "half of a call was done");
        }
        assert_whole(&path);
        let now = store.list(&Filter::All).expect("a listing").revision;
        let missing = usize::try_from(now.0).expect("a small number") - told.len();
        told.extend(collect(&mut *watch, missing).iter().map(revision_of));
        store.write_one(put("after", Expect::Any, 1)).expect("the dead hold no lock");
        told.extend(collect(&mut *watch, 1).iter().map(revision_of));
    }
    let wanted: Vec<Revision> = (1..=told.len() as u64).map(Revision).collect();
    assert_eq!(told, wanted);
    assert!(told.len() > 50, "the children wrote {} times", told.len());
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_full() {
    survives_kill_9("write");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_normal() {
    survives_kill_9("write-normal");
}

#[test]
fn a_writer_that_stands_still_delays_others_by_their_patience_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("facts.db");
    let options = || Options { patience: Duration::from_millis(100), ..Options::at(&path) };
    let store = SqliteStore::open(options()).expect("a store");
    store.write_one(put("a", Expect::Absent, 1)).expect("it is absent");
    let mut child = spawn("write", &path);
    // Until it stands still in the middle of a commit.
    let stop =
        || nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::SIGSTOP);
    let go_on =
        || nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::SIGCONT);
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        assert!(Instant::now() < deadline, "it never stood still in the middle of a commit");
        stop().expect("it runs");
        let before = Instant::now();
        let result = store.write_one(put("b", Expect::Any, 1));
        if let Err(error) = result {
            assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
            break error;
        }
        go_on().expect("it runs");
        std::thread::sleep(Duration::from_millis(2));
    };
    let WriteError::Unavailable(text) = error else { panic!("{error}") };
    assert!(text.contains("facts.db") && text.contains("another process"), "{text}");
    assert!(store.get(&handle("a")).expect("reads go on").is_some());
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    store.write_one(put("b", Expect::Any, 2)).expect("the dead hold no lock");
    assert_whole(&path);
}
