//! Many clients at once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tortie_facts::{Filter, Revision};

use super::{Subject, brief, collect, delete, get, handle, now, number_of, put, set, watch};
use crate::{Entry, Event, Expect, Store, WriteError};

const CLIENTS: u32 = 4;

/// Adds one to a counter by compare-and-swap, as often as it takes.
fn increment(store: &dyn Store, name: &str) -> Revision {
    loop {
        let write = match get(store, name) {
            Some(Entry { key, value, revision }) => put(key, Expect::Revision(revision), number_of(&value) + 1),
            None => put(handle(name), Expect::Absent, 1),
        };
        match store.write_one(write) {
            Ok(revision) => return revision,
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Counters that several clients raise by compare-and-swap hold the sum of all raises.
pub fn counters_lose_no_update(subject: &dyn Subject) {
    const RAISES: u32 = 40;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let store = subject.open();
            scope.spawn(move || {
                for _ in 0..RAISES {
                    increment(&*store, "shared");
                    increment(&*store, &format!("own-{client}"));
                }
            });
        }
    });
    let store = subject.open();
    let value = |name: &str| get(&*store, name).map(|entry| number_of(&entry.value));
    assert_eq!(value("shared"), Some(CLIENTS * RAISES));
    for client in 0..CLIENTS {
        assert_eq!(value(&format!("own-{client}")), Some(RAISES));
    }
}

/// Of many that create one key, exactly one succeeds, and its value is there.
pub fn one_of_many_creators_wins(subject: &dyn Subject) {
    for round in 0..10 {
        let name = format!("h{round}");
        let winners = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (store, winners, name) = (subject.open(), &winners, &name);
                scope.spawn(move || match store.write_one(put(handle(name), Expect::Absent, client)) {
                    Ok(_) => winners.lock().expect("no panic").push(client),
                    Err(error) => assert!(matches!(error, WriteError::Conflict { .. }), "{error}"),
                });
            }
        });
        let winners = winners.into_inner().expect("no panic");
        let value = get(&*subject.open(), &name).map(|entry| number_of(&entry.value));
        assert_eq!((winners.len(), winners.first().copied()), (1, value));
    }
}

/// While several clients write, a watch tells each acknowledged write exactly once, in the order of revisions.
pub fn a_watch_of_concurrent_writers_has_no_gap(subject: &dyn Subject) {
    const WRITES: u32 = 60;
    let store = subject.open();
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    let written = Mutex::new(BTreeMap::new());
    let events = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (store, written) = (subject.open(), &written);
            scope.spawn(move || {
                for n in 0..WRITES {
                    let name = format!("h{}", (client + n) % 5);
                    let revision = set(&*store, &name, client * 1000 + n);
                    let before = written.lock().expect("no panic").insert(revision, (name, client * 1000 + n));
                    assert_eq!(before, None, "two writes with revision {revision}");
                }
            });
        }
        collect(&mut *watching, (CLIENTS * WRITES) as usize).expect("nothing was compacted")
    });
    let told: Vec<_> = events.iter().map(brief).map(|(name, n, revision)| (revision, (name, n.unwrap_or(0)))).collect();
    let written: Vec<_> = written.into_inner().expect("no panic").into_iter().collect();
    assert_eq!(told, written);
}

/// A picture made of a listing and the changes behind it becomes the store's state, whenever the listing is taken.
pub fn listing_then_watching_misses_nothing(subject: &dyn Subject) {
    /// Stops the writer however the test ends: who waits for it would wait for ever.
    struct Stops<'a>(&'a AtomicBool);
    impl Drop for Stops<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = subject.open();
        let stop = &stop;
        let stops = Stops(stop);
        scope.spawn(move || {
            for n in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    set(&*writer, "end", 1);
                    return;
                }
                set(&*writer, &format!("h{}", n % 11), n);
                if n % 3 == 0 {
                    writer.write_one(delete(handle(&format!("h{}", n % 11)), Expect::Any)).expect("it is there");
                }
            }
        });
        let follow = || {
            let store = subject.open();
            let listing = store.list(&Filter::Handles).expect("a listing");
            let mut picture: BTreeMap<_, _> =
                listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
            (watch(&*store, &Filter::Handles, listing.revision), std::mem::take(&mut picture), store)
        };
        let mut followers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(3));
                follow()
            })
            .collect();
        drop(stops);
        for (watching, picture, store) in &mut followers {
            while !picture.contains_key(&handle("end")) {
                for event in collect(&mut **watching, 1).expect("nothing was compacted") {
                    match event {
                        Event::Put(entry) => {
                            picture.insert(entry.key.clone(), entry);
                        }
                        Event::Deleted { key, revision: _ } => {
                            assert!(picture.remove(&key).is_some(), "{key} was deleted before it came");
                        }
                        Event::Invalid(invalid) => panic!("{invalid:?}"),
                    }
                }
            }
            let state = store.list(&Filter::Handles).expect("a listing").entries;
            assert_eq!(picture.values().cloned().collect::<Vec<_>>(), state);
        }
    });
}
