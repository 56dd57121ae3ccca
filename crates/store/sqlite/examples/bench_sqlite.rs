//! Measures the embedded store: opening, commits, compare-and-swap by several processes, news to other processes.
//!
//! `cargo run -p tortie-store-sqlite --example bench_sqlite [DIRECTORY]` prints p50, p99 and maximum of each. It runs
//! itself again as the other processes. Figures depend on the disk below DIRECTORY (default: the temporary directory).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tortie_facts::{Filter, Key, Value};
use tortie_store::{Entry, Event, Expect, Reader, Store, Write, WriteError};
use tortie_store_sqlite::{Options, SqliteStore, Sync};

const PROCESSES: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["as-writer", sync, pause, count] => writer(sync, pause, count),
        ["as-swapper", sync, millis, name] => swapper(sync, millis, name),
        ["as-opener"] => opener(),
        [] => bench(&std::env::temp_dir()),
        [directory] => bench(Path::new(directory)),
        _ => eprintln!("usage: bench_sqlite [DIRECTORY]"),
    }
}

fn bench(below: &Path) {
    let directory = below.join(format!("bench-sqlite-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory that can be written");
    for (name, sync) in [("full", Sync::Full), ("normal", Sync::Normal)] {
        println!("synchronous = {name}");
        let path = directory.join(format!("{name}.db"));
        commits(&path, sync);
        for (what, count, pause) in [("1 writer, 500/s", 1, 2000), ("4 writers, no pause", PROCESSES, 0)] {
            news(&path, sync, what, count, pause);
        }
        swaps(&path, sync, "own keys", |n| format!("own-{n}"));
        swaps(&path, sync, "one key", |_| "shared".to_owned());
        opening(&path, "again, nobody else has it open");
        let _held = open(&path, sync);
        opening(&path, "again, another process has it open");
    }
    std::fs::remove_dir_all(&directory).expect("it is ours");
}

fn open(path: &Path, sync: Sync) -> SqliteStore {
    SqliteStore::open(Options { sync, ..Options::at(path) }).expect("a store")
}

fn sync_word(sync: Sync) -> &'static str {
    match sync {
        Sync::Full => "full",
        Sync::Normal => "normal",
    }
}

/// A process of this program in another role.
fn other(path: &Path, arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().expect("this program has a file"))
        .args(arguments)
        .env("TORTIE_SQLITE", path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

fn lines(child: &mut Child) -> Vec<String> {
    let out = child.stdout.take().expect("it is piped");
    BufReader::new(out).lines().map_while(Result::ok).collect()
}

fn options_of_child(sync: &str) -> Options {
    let sync = if sync == "normal" { Sync::Normal } else { Sync::Full };
    Options { sync, ..Options::from_env().expect("the parent set it") }
}

/// Microseconds of a clock that all processes share.
fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_micros()
}

fn status(name: &str, text: String) -> Write {
    Write { key: Key::Status(name.to_owned()), expect: Expect::Any, value: Some(Value::Status(text.into())) }
}

fn print(what: &str, mut micros: Vec<u128>) {
    micros.sort_unstable();
    let at = |share: f64| {
        let index = ((micros.len() as f64 * share) as usize).min(micros.len().saturating_sub(1));
        micros.get(index).map_or(0.0, |value| *value as f64 / 1000.0)
    };
    println!("  {what:<58} p50 {:>7.3}  p99 {:>7.3}  max {:>7.3} ms  n {}", at(0.5), at(0.99), at(1.0), micros.len());
}

/// One thread that writes 800 bytes at a time.
fn commits(path: &Path, sync: Sync) {
    let begin = Instant::now();
    let store = open(path, sync);
    print("open, making the file", vec![begin.elapsed().as_micros()]);
    let took: Vec<u128> = (0..1500)
        .map(|n| {
            let begin = Instant::now();
            store.write_one(status(&format!("k{}", n % 100), "x".repeat(800))).expect("a write");
            begin.elapsed().as_micros()
        })
        .collect();
    print("commit, one writer, 800 bytes", took);
    let begin = Instant::now();
    let groups: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    (0..200)
                        .map(|n| {
                            let begin = Instant::now();
                            store.write_one(status(&format!("t{thread}-{n}"), "x".repeat(800))).expect("a write");
                            begin.elapsed().as_micros()
                        })
                        .collect::<Vec<u128>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let rate = groups.len() as f64 / begin.elapsed().as_secs_f64();
    print(&format!("commit, 8 threads of one process ({rate:.0}/s)"), groups);
}

/// Writes `count` times; the value says when, the output when it was acknowledged.
fn writer(sync: &str, pause: &str, count: &str) {
    let store = SqliteStore::open(options_of_child(sync)).expect("a store");
    let pause = Duration::from_micros(pause.parse().expect("a number"));
    let name = format!("w-{}", std::process::id());
    let mut acknowledged = Vec::new();
    for _ in 0..count.parse().expect("a number") {
        std::thread::sleep(pause);
        let text = format!("{:<800}", micros());
        let revision = store.write_one(status(&name, text)).expect("a write");
        acknowledged.push((revision.0, micros()));
    }
    for (revision, at) in acknowledged {
        println!("{revision} {at}");
    }
}

/// How long after a write, and after its acknowledgement, another process holds the change in its hand.
fn news(path: &Path, sync: Sync, what: &str, writers: usize, pause: u32) {
    let store = open(path, sync);
    let from = store.list(&Filter::Any(Vec::new())).expect("a listing").revision;
    let mut watch = store.watch(&Filter::All, from).expect("a watch from now");
    let count = 2000 / writers;
    let arguments = ["as-writer", sync_word(sync), &pause.to_string(), &count.to_string()];
    let mut children: Vec<Child> = (0..writers).map(|_| other(path, &arguments)).collect();
    let mut seen = BTreeMap::new();
    while seen.len() < count * writers {
        let events = watch.next(Duration::from_secs(10)).expect("nothing was trimmed");
        let now = micros();
        assert!(!events.is_empty(), "the writers stopped");
        for event in events {
            if let Event::Put(Entry { value: Value::Status(text), revision, key: _ }) = event {
                let begun: u128 = text.trim_end().parse().expect("a time");
                seen.insert(revision.0, (begun, now));
            }
        }
    }
    let mut after_ack = Vec::new();
    for line in children.iter_mut().flat_map(lines) {
        let (revision, at) = line.split_once(' ').expect("two numbers");
        let (_, now) = seen[&revision.parse().expect("a number")];
        after_ack.push(now.saturating_sub(at.parse().expect("a number")));
    }
    for child in &mut children {
        assert!(child.wait().expect("it ends").success());
    }
    let after_begin = seen.values().map(|(begun, now)| now.saturating_sub(*begun)).collect();
    print(&format!("seen by another process, from the write's begin, {what}"), after_begin);
    print(&format!("seen by another process, from its answer, {what}"), after_ack);
}

/// Raises a counter by compare-and-swap for so long, and says how long each success took.
fn swapper(sync: &str, millis: &str, name: &str) {
    let store = SqliteStore::open(options_of_child(sync)).expect("a store");
    let key = Key::Status(name.to_owned());
    let end = Instant::now() + Duration::from_millis(millis.parse().expect("a number"));
    let (mut took, mut conflicts) = (Vec::new(), 0_u32);
    while Instant::now() < end {
        let begin = Instant::now();
        loop {
            let old = store.get(&key).expect("a read");
            let count = match &old {
                Some(Entry { value: Value::Status(text), .. }) => text.trim_end().parse().expect("a number"),
                Some(_) | None => 0_u64,
            };
            let expect = old.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
            let value = Some(Value::Status(format!("{:<800}", count + 1).into()));
            match store.write_one(Write { key: key.clone(), expect, value }) {
                Ok(_) => break,
                Err(WriteError::Conflict { .. }) => conflicts += 1,
                Err(error) => panic!("{error}"),
            }
        }
        took.push(begin.elapsed().as_micros());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "conflicts {conflicts}").expect("the parent reads");
    for micros in took {
        writeln!(out, "{micros}").expect("the parent reads");
    }
}

fn swaps(path: &Path, sync: Sync, what: &str, name: impl Fn(usize) -> String) {
    const MILLIS: usize = 2000;
    let before = count_all(path, sync);
    let arguments = |n| ["as-swapper".to_owned(), sync_word(sync).to_owned(), MILLIS.to_string(), name(n)];
    let mut children: Vec<Child> =
        (0..PROCESSES).map(|n| other(path, &arguments(n).iter().map(String::as_str).collect::<Vec<_>>())).collect();
    let (mut took, mut conflicts) = (Vec::new(), 0);
    for line in children.iter_mut().flat_map(lines) {
        match line.strip_prefix("conflicts ") {
            Some(count) => conflicts += count.parse::<u32>().expect("a number"),
            None => took.push(line.parse().expect("a number")),
        }
    }
    for child in &mut children {
        assert!(child.wait().expect("it ends").success());
    }
    let raised = count_all(path, sync) - before;
    assert_eq!(raised, took.len() as u64, "lost updates");
    let rate = took.len() * 1000 / MILLIS;
    print(&format!("swap, {PROCESSES} processes, {what} ({rate}/s, {conflicts} conflicts)"), took);
}

/// The sum of all counters.
fn count_all(path: &Path, sync: Sync) -> u64 {
    let names = (0..PROCESSES).map(|n| format!("own-{n}")).chain(["shared".to_owned()]);
    let store = open(path, sync);
    names
        .filter_map(|name| store.get(&Key::Status(name)).expect("a read"))
        .map(|entry| match entry.value {
            Value::Status(text) => text.trim_end().parse().unwrap_or(0),
            other => panic!("{other:?}"),
        })
        .sum()
}

/// Opens the store and reads one key, as a command would, and says how long each took.
fn opener() {
    let path = PathBuf::from(std::env::var_os("TORTIE_SQLITE").expect("the parent set it"));
    let begin = Instant::now();
    let store = SqliteStore::open(Options::at(path)).expect("a store");
    let opened = begin.elapsed().as_micros();
    store.get(&Key::Status("own-0".to_owned())).expect("a read").expect("it is there");
    println!("{opened} {}", begin.elapsed().as_micros());
}

fn opening(path: &Path, what: &str) {
    let (mut opened, mut read) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let mut child = other(path, &["as-opener"]);
        for line in lines(&mut child) {
            let (first, second) = line.split_once(' ').expect("two numbers");
            opened.push(first.parse().expect("a number"));
            read.push(second.parse().expect("a number"));
        }
        assert!(child.wait().expect("it ends").success());
    }
    print(&format!("open, {what}"), opened);
    print(&format!("open and one read, {what}"), read);
}
