//! What goes wrong with a real etcd: members that stop, die or come back, compaction, a full quota. No update is lost,
//! and what is said not to have been done was not done.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tortie_etcd_server::{Server, Wish, installed};
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_store::{Event, Expect, Reader, Store, StoreError, Watch, WatchError, Write, WriteError};
use tortie_store_etcd::{EtcdStore, Options};

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);

fn handle(name: &str) -> Key {
    Key::Handle(name.to_owned())
}

fn number(n: u32) -> Value {
    let text = format!(r#"{{"block":{{"10.0.0.0/26":{n}}},"deleted":false}}"#);
    Value::from_json(&handle("any"), &text).expect("the text of a handle")
}

fn number_of(value: &Value) -> u32 {
    value.as_handle().expect("a handle").block.values().sum()
}

fn put(name: &str, expect: Expect, n: u32) -> Write {
    Write { key: handle(name), expect, value: Some(number(n)) }
}

fn open(server: &Server) -> EtcdStore {
    EtcdStore::open(common::options(server)).expect("good settings")
}

/// Writes whatever is there, as often as it takes.
fn set(store: &EtcdStore, name: &str, n: u32) -> Revision {
    let deadline = Instant::now() + LONG;
    loop {
        match store.write_one(put(name, Expect::Any, n)) {
            Ok(revision) => return revision,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// Waits for a change of `name` to `n`; the watch may say that the store is unavailable meanwhile.
fn wait_for(watch: &mut dyn Watch, name: &str, n: u32) -> Result<(), WatchError> {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "{name}={n} was not told");
        for event in watch.next(Duration::from_secs(1))? {
            if let Event::Put(entry) = event
                && entry.key == handle(name)
                && number_of(&entry.value) == n
            {
                return Ok(());
            }
        }
    }
}

/// Adds to counters by compare-and-swap from two threads while `trouble` runs, with a watch looking on. At the end each
/// counter holds at least what was acknowledged and at most that and what is unknown, and the watch saw every value.
fn count_through(server: &mut Server, trouble: impl FnOnce(&mut Server)) {
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = open(server);
    let mut watch =
        watcher.watch(&Filter::Handles, watcher.list(&Filter::Handles).expect("a listing").revision).expect("open");
    let writers: Vec<_> = (0..2)
        .map(|number| (open(server), Arc::clone(&stop), format!("counter-{number}")))
        .map(|(store, stop, name)| std::thread::spawn(move || count(&store, &name, &stop)))
        .collect();
    trouble(server);
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<(u32, u32)> = writers.into_iter().map(|writer| writer.join().expect("no panic")).collect();
    let store = open(server);
    set(&store, "end", 1);
    let mut told: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let deadline = Instant::now() + LONG;
    while !told.contains_key("end") {
        assert!(Instant::now() < deadline, "the end was not told: {told:?}");
        for event in watch.next(Duration::from_secs(1)).expect("nothing was compacted") {
            let Event::Put(entry) = event else { panic!("{event:?}") };
            let Key::Handle(name) = entry.key else { panic!("{}", entry.key) };
            told.entry(name).or_default().push(number_of(&entry.value));
        }
    }
    for (number, (sure, unknown)) in counts.into_iter().enumerate() {
        let name = format!("counter-{number}");
        let stored = number_of(&store.get(&handle(&name)).expect("a read").expect("it was written").value);
        assert!(sure > 0 && (sure..=sure + unknown).contains(&stored), "{sure} and perhaps {unknown}: {stored}");
        assert_eq!(told[&name], (1..=stored).collect::<Vec<_>>(), "{name}: each value is told once, in order");
    }
}

/// Raises a counter until told to stop: how often that was acknowledged, and how often the outcome stayed unknown.
fn count(store: &EtcdStore, name: &str, stop: &AtomicBool) -> (u32, u32) {
    let (mut sure, mut unknown) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let write = match store.get(&handle(name)) {
            Ok(Some(entry)) => put(name, Expect::Revision(entry.revision), number_of(&entry.value) + 1),
            Ok(None) => put(name, Expect::Absent, 1),
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        match store.write_one(write) {
            Ok(_) => sure += 1,
            Err(WriteError::Unavailable(_)) => unknown += 1,
            // Only this thread writes this counter, so this must be its own write of unknown outcome, come late.
            Err(WriteError::Conflict { .. }) if unknown > 0 => {}
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (sure, unknown)
}

#[test]
fn a_lost_member_of_three_loses_no_update() {
    if !installed() {
        return;
    }
    let mut server = Server::start(Wish { members: 3, ..Wish::default() }).ready();
    count_through(&mut server, |server| {
        for _ in 0..2 {
            let leader = server.leader();
            server.kill9(leader);
            std::thread::sleep(Duration::from_secs(2));
            server.restart(leader);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

#[test]
fn a_member_that_stands_still_loses_no_update() {
    if !installed() {
        return;
    }
    let mut server = Server::start(Wish { members: 3, ..Wish::default() }).ready();
    count_through(&mut server, |server| {
        for at in 0..3 {
            server.signal(at, Signal::SIGSTOP);
            std::thread::sleep(Duration::from_secs(3));
            server.signal(at, Signal::SIGCONT);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

#[test]
fn a_lone_member_that_is_killed_comes_back_with_every_update() {
    if !installed() {
        return;
    }
    let mut server = Server::plain().ready();
    count_through(&mut server, |server| {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            server.kill9(0);
            std::thread::sleep(Duration::from_millis(300));
            server.restart(0);
        }
    });
}

#[test]
fn a_silent_member_is_noticed_by_a_watch_that_hears_nothing() {
    if !installed() {
        return;
    }
    let server = Server::start(Wish { members: 3, ..Wish::default() }).ready();
    // The watch is on a member of its own; the others go on without it.
    let silent = (server.leader() + 1) % 3;
    let store = EtcdStore::open(Options::at(server.endpoint(silent))).expect("good settings");
    let from = store.list(&Filter::Handles).expect("a listing").revision;
    let mut watch = store.watch(&Filter::Handles, from).expect("open");
    server.signal(silent, Signal::SIGSTOP);
    let others = EtcdStore::open(Options::at(server.endpoint((silent + 1) % 3))).expect("good settings");
    set(&others, "a", 7);
    let deadline = Instant::now() + LONG;
    let error = loop {
        assert!(Instant::now() < deadline, "nobody noticed");
        match watch.next(Duration::from_secs(1)) {
            Ok(events) => assert_eq!(events, []),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WatchError::Unavailable(_)), "{error}");
    server.signal(silent, Signal::SIGCONT);
    let mut again = watch;
    let told = (0..20).find_map(|_| match wait_for(&mut *again, "a", 7) {
        Ok(()) => Some(()),
        Err(WatchError::Unavailable(_)) => None,
        Err(WatchError::Gone) => panic!("nothing was compacted"),
    });
    assert!(told.is_some(), "the watch goes on where it was");
}

#[test]
fn compaction_while_a_watch_is_cut_off_is_gone() {
    if !installed() {
        return;
    }
    let mut server = Server::plain().ready();
    let store = open(&server);
    let from = set(&store, "a", 1);
    let mut watch = store.watch(&Filter::Handles, from).expect("open");
    assert_eq!(watch.next(Duration::ZERO), Ok(Vec::new()));
    server.kill9(0);
    server.restart(0);
    let mut last = from;
    // Another client writes and compacts before the watch is asked again.
    let other = open(&server);
    for n in 0..5 {
        last = set(&other, "a", n);
    }
    other.compact(last).expect("it may");
    let deadline = Instant::now() + LONG;
    let end = loop {
        assert!(Instant::now() < deadline, "the end did not come");
        match watch.next(Duration::from_secs(1)) {
            Ok(events) if events.is_empty() => {}
            other => break other,
        }
    };
    assert_eq!(end, Err(WatchError::Gone));
}

#[test]
fn a_full_quota_is_named_and_loses_nothing() {
    if !installed() {
        return;
    }
    let quota = vec!["--quota-backend-bytes".to_owned(), (2 << 20).to_string()];
    let server = Server::start(Wish { args: quota, ..Wish::default() }).ready();
    let store = open(&server);
    let big = |n: u32| Write {
        key: Key::Status(format!("big/{n}")),
        expect: Expect::Absent,
        value: Some(Value::Status("x".repeat(300_000).into())),
    };
    let mut count = 0;
    let error = loop {
        assert!(count < 100, "there is no room for ever more");
        match store.write_one(big(count)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert!(matches!(error, WriteError::Unavailable(_)), "{text}");
    assert!(["quota", "defrag", "alarm disarm"].iter().all(|part| text.contains(part)), "{text}");
    // etcd asks before it applies a write, and again after: a write that it refuses then is there all the same.
    let there = store.get(&Key::Status(format!("big/{count}"))).expect("read").is_some();
    let expected = count as usize + usize::from(there);
    assert_eq!(store.list(&Filter::All).map(|listing| listing.entries.len()), Ok(expected));
    // A deletion is always possible, and makes the room that the message asks for.
    store.write_one(Write { key: Key::Status("big/0".into()), expect: Expect::Any, value: None }).expect("a deletion");
}

#[test]
fn a_value_that_is_too_large_is_refused_for_good() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = open(&server);
    let large = |n: usize| Write {
        key: Key::Status("large".into()),
        expect: Expect::Any,
        value: Some(Value::Status("x".repeat(n).into())),
    };
    assert!(store.write_one(large(1_000_000)).is_ok());
    for size in [1_600_000, 9_000_000] {
        let error = store.write_one(large(size)).expect_err("too large");
        assert!(matches!(&error, WriteError::Invalid(text) if text.contains("1.5 MB")), "{error}");
    }
    // Many that are small enough fit together, in as many transactions as it takes.
    let many: Vec<Write> = (0..400)
        .map(|n| Write {
            key: Key::Status(format!("many/{n}")),
            expect: Expect::Absent,
            value: Some(Value::Status("y".repeat(20_000).into())),
        })
        .collect();
    let revisions = store.write_all(&many).expect("all are absent");
    assert!(revisions.is_sorted() && revisions[0] < revisions[399]);
}

#[test]
fn a_listing_is_of_one_revision_though_others_write_and_compact() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = open(&server);
    let all = |n: u32| (0..2500).map(|at| put(&format!("h{at:04}"), Expect::Any, n)).collect::<Vec<_>>();
    store.write_all(&all(0)).expect("written");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (writer, stop) = (open(&server), &stop);
        scope.spawn(move || {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // One pair a transaction, the first and the last of the listing.
                let pair = [put("h0000", Expect::Any, n), put("h2499", Expect::Any, n)];
                let last = *writer.write_all(&pair).expect("written").last().expect("two");
                if n % 50 == 0 {
                    writer.compact(last).expect("it may");
                }
            }
        });
        for _ in 0..10 {
            let listing = store.list(&Filter::Handles).expect("a listing");
            let ends = [listing.entries.first(), listing.entries.last()].map(|e| number_of(&e.expect("there").value));
            assert_eq!((listing.entries.len(), ends[0]), (2500, ends[1]));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
