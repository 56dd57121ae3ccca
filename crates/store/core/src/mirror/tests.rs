//! The follower's promises: no `InSync` before a whole listing, nothing vanished stays, convergence through anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tortie_facts::{Filter, Key, Revision, SyncStatus, Update, Value};

use super::{Backoff, Follower, Mailbox, Mirror, Options, Told, Want};
use crate::{
    Entry, Event, Expect, InvalidEntry, Listing, MemoryStore, Reader, Store, StoreError, Watch, WatchError, Write,
};

fn key(name: &str) -> Key {
    Key::Status(name.to_owned())
}

fn value(text: &str) -> Value {
    Value::Status(Arc::from(text))
}

fn entry(name: &str, revision: u64) -> Entry {
    Entry { key: key(name), value: value(&revision.to_string()), revision: Revision(revision) }
}

fn update(name: &str, revision: u64) -> Told {
    let Entry { key, value, revision } = entry(name, revision);
    Told::Update(Update { key, value: Some(value), revision })
}

fn gone(name: &str, revision: u64) -> Told {
    Told::Update(Update { key: key(name), value: None, revision: Revision(revision) })
}

fn listing(names: &[(&str, u64)], revision: u64) -> Listing {
    let entries = names.iter().map(|(name, revision)| entry(name, *revision)).collect();
    Listing { entries, invalid: Vec::new(), revision: Revision(revision) }
}

/// The answer to a listing as a whole.
fn listed(follower: &mut Follower, answer: Result<Listing, StoreError>) -> Vec<Told> {
    let (mut told, end) = match answer {
        Ok(whole) => (follower.part(whole), Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    told.extend(follower.listed(end, 0.0));
    told
}

fn following(names: &[(&str, u64)], revision: u64) -> Follower {
    let mut follower = Follower::new(Backoff::default());
    follower.start();
    listed(&mut follower, Ok(listing(names, revision)));
    follower.watching();
    assert_eq!(follower.want(), Want::Changes);
    follower
}

#[test]
fn in_sync_comes_with_the_first_whole_listing_and_not_before() {
    let mut follower = Follower::new(Backoff::default());
    assert_eq!(follower.start(), [Told::Status(SyncStatus::Resync)]);
    assert_eq!(follower.want(), Want::List);
    let down = StoreError::Unavailable("no route".into());
    let told = follower.listed(Err(down.clone()), 1.0);
    assert_eq!(told, [Told::Trouble(down.to_string()), Told::Status(SyncStatus::WaitForDatastore)]);
    assert_eq!(follower.want(), Want::Pause(Backoff::default().first));
    follower.paused();
    assert_eq!(follower.want(), Want::List);
    assert_eq!(listed(&mut follower, Err(down.clone())), [Told::Trouble(down.to_string())]);
    follower.paused();
    let told = listed(&mut follower, Ok(listing(&[("a", 3), ("b", 1)], 5)));
    assert_eq!(told, [update("a", 3), update("b", 1), Told::Status(SyncStatus::InSync)]);
    assert_eq!(follower.want(), Want::Watch(Revision(5)));
    assert_eq!(follower.watching(), []);
}

#[test]
fn a_gone_history_is_listed_anew_and_what_vanished_is_deleted() {
    let mut follower = following(&[("a", 1), ("b", 2)], 2);
    follower.changed(vec![Event::Put(entry("c", 3))]);
    assert_eq!(follower.lost(WatchError::Gone, 0.0), [Told::Status(SyncStatus::Resync)]);
    assert_eq!(follower.want(), Want::List, "no pause for the first time");
    assert!(!follower.takes_parts(), "users act on the picture that they have");
    let told = listed(&mut follower, Ok(listing(&[("b", 7), ("d", 8)], 9)));
    assert_eq!(told, [update("b", 7), update("d", 8), gone("a", 9), gone("c", 9), Told::Status(SyncStatus::InSync)]);
    assert_eq!(follower.want(), Want::Watch(Revision(9)));
    follower.lost(WatchError::Gone, 0.0);
    assert!(matches!(follower.want(), Want::Pause(_)), "a history that is always gone must not make a busy loop");
}

#[test]
fn the_first_listing_comes_in_parts_and_what_a_broken_one_told_is_deleted_if_it_vanished() {
    let mut follower = Follower::new(Backoff::default());
    follower.start();
    assert!(follower.takes_parts());
    assert_eq!(follower.part(listing(&[("a", 1), ("b", 2)], 9)), [update("a", 1), update("b", 2)]);
    assert_eq!(follower.part(listing(&[("c", 3)], 9)), [update("c", 3)]);
    let told = follower.listed(Err(StoreError::Unavailable("reset".into())), 0.0);
    assert_eq!(told[1..], [Told::Status(SyncStatus::WaitForDatastore)]);
    follower.paused();
    assert!(follower.takes_parts(), "it was never whole");
    let invalid = InvalidEntry { path: key("c").path(), reason: "half".into(), revision: Revision(11) };
    let part = Listing { invalid: vec![invalid.clone()], ..listing(&[("b", 10)], 12) };
    assert_eq!(follower.part(part), [update("b", 10), gone("c", 11), Told::Invalid(invalid)]);
    assert_eq!(follower.part(listing(&[("d", 4)], 12)), [update("d", 4)]);
    assert_eq!(follower.listed(Ok(()), 0.0), [gone("a", 12), Told::Status(SyncStatus::InSync)]);
    assert_eq!(follower.want(), Want::Watch(Revision(12)));
    assert!(!follower.takes_parts());
}

#[test]
fn a_broken_watch_goes_on_from_the_last_revision_seen() {
    let mut follower = following(&[("a", 1)], 4);
    assert_eq!(follower.changed(vec![Event::Put(entry("a", 6))]), [update("a", 6)]);
    let told = follower.lost(WatchError::Unavailable("reset".into()), 0.5);
    assert_eq!(told[1..], [Told::Status(SyncStatus::WaitForDatastore)]);
    follower.paused();
    assert_eq!(follower.want(), Want::Watch(Revision(6)));
    assert_eq!(follower.watching(), [Told::Status(SyncStatus::InSync)]);
}

#[test]
fn what_can_not_be_read_is_deleted_and_noted() {
    let mut follower = following(&[("a", 1)], 1);
    let invalid = InvalidEntry { path: key("a").path(), reason: "half".into(), revision: Revision(2) };
    let told = follower.changed(vec![Event::Invalid(invalid.clone())]);
    assert_eq!(told, [gone("a", 2), Told::Invalid(invalid)]);
    let foreign = InvalidEntry { path: "/elsewhere".into(), reason: "no key".into(), revision: Revision(3) };
    assert_eq!(follower.changed(vec![Event::Invalid(foreign.clone())]), [Told::Invalid(foreign)]);
}

#[test]
fn pauses_grow_to_a_limit_and_jitter_takes_up_to_a_half() {
    let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
    let millis: Vec<u128> = (0..6).map(|attempt| backoff.pause(attempt, 1.0).as_millis()).collect();
    assert_eq!(millis, [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(backoff.pause(u32::MAX, 0.0), Duration::from_millis(500));
    assert_eq!(backoff.pause(0, -3.0), Duration::from_millis(50));
}

#[test]
fn the_mailbox_merges_by_key_and_keeps_the_order_of_revisions() {
    let mailbox = Mailbox::new(Box::new(|| {}));
    let invalid = InvalidEntry { path: key("b").path(), reason: "half".into(), revision: Revision(4) };
    mailbox.push(vec![update("z", 1), update("b", 2), update("a", 3), gone("b", 4), Told::Invalid(invalid.clone())]);
    mailbox.push(vec![update("z", 5), Told::Status(SyncStatus::Resync), Told::Status(SyncStatus::InSync)]);
    let batch = mailbox.take();
    let order: Vec<_> = batch.updates.into_iter().map(Told::Update).collect();
    assert_eq!(order, [update("a", 3), gone("b", 4), update("z", 5)]);
    assert_eq!((batch.invalid, batch.status), (vec![invalid.clone()], Some(SyncStatus::InSync)));
    assert!(mailbox.take().is_empty());
    mailbox.push(vec![gone("b", 4), Told::Invalid(invalid)]);
    mailbox.push(vec![update("b", 6)]);
    assert_eq!(mailbox.take().invalid, [], "it can be read again");
}

#[test]
fn the_mailbox_is_idle_once_its_user_is_done_with_what_it_took() {
    let mailbox = Mailbox::new(Box::new(|| {}));
    let idle = || mailbox.wait_idle(Duration::ZERO);
    assert!(idle());
    mailbox.push(vec![update("a", 1)]);
    assert!(!idle(), "nobody took it");
    assert!(!mailbox.take().is_empty());
    assert!(!idle(), "its user is busy");
    mailbox.done();
    assert!(idle());
    mailbox.push(vec![update("a", 2)]);
    assert!(!mailbox.wait(Duration::ZERO).is_empty());
    assert!(mailbox.take().is_empty());
    assert!(idle(), "its user is back for more");
    mailbox.push(vec![update("a", 3)]);
    mailbox.done();
    assert!(!idle(), "done, but there is more");
}

/// Applies batches until the picture equals the store's state.
fn converges(mirror: &Mirror, store: &MemoryStore, picture: &mut BTreeMap<Key, Value>) -> Option<SyncStatus> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut status = None;
    loop {
        let batch = mirror.wait(Duration::from_millis(20));
        for Update { key, value, revision: _ } in batch.updates {
            match value {
                Some(value) => picture.insert(key, value),
                None => picture.remove(&key),
            };
        }
        status = batch.status.or(status);
        let state = store.list(&Filter::All).expect("switched on").entries;
        if state.iter().map(|e| (&e.key, &e.value)).eq(&*picture) {
            return status;
        }
        assert!(Instant::now() < deadline, "{picture:?} is not {state:?}");
    }
}

#[test]
fn a_mirror_converges_through_outages_and_compaction() {
    let store = MemoryStore::new();
    store.put(key("a"), value("1")).expect("switched on");
    store.set_available(false);
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(5) };
    let options = Options { backoff, ..Options::default() };
    let mirror = Mirror::spawn(Arc::new(store.clone()), Filter::All, options).expect("a thread");
    let mut early = mirror.wait(Duration::from_secs(20));
    while early.trouble.is_none() {
        early = mirror.wait(Duration::from_secs(20));
    }
    assert_eq!((early.status, early.updates.len()), (Some(SyncStatus::WaitForDatastore), 0));
    store.set_available(true);
    let mut picture = BTreeMap::new();
    let mut status = converges(&mirror, &store, &mut picture);
    while status != Some(SyncStatus::InSync) {
        let batch = mirror.wait(Duration::from_secs(20));
        assert!(
            batch.updates.is_empty() && batch.status.is_some(),
            "what it waits for comes after all facts: {batch:?}"
        );
        status = batch.status;
    }
    for round in 0..30_u64 {
        for n in 0..5_u64 {
            let key = key(&format!("k{}", (round + n) % 7));
            let known = store.get(&key).expect("switched on");
            let write = match known {
                Some(Entry { key, revision, .. }) if n % 2 == 0 => {
                    Write { key, expect: Expect::Revision(revision), value: None }
                }
                Some(_) | None => Write { key, expect: Expect::Any, value: Some(value(&format!("{round}.{n}"))) },
            };
            store.write_one(write).expect("switched on");
        }
        if round % 3 == 0 {
            store.set_available(false);
            std::thread::sleep(Duration::from_millis(2));
            let revision = store.put(key("a"), value("down"));
            assert!(revision.is_err());
            store.set_available(true);
        }
        if round % 4 == 0 {
            let now = store.list(&Filter::All).expect("switched on").revision;
            store.compact(now);
        }
    }
    converges(&mirror, &store, &mut picture);
}

/// A store that gives its picture in parts of one fact each, and breaks off the first time.
struct InParts {
    store: MemoryStore,
    broke: AtomicBool,
    given: AtomicUsize,
}

impl Reader for InParts {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key)
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        self.store.list(filter)
    }

    fn list_in_parts(&self, filter: &Filter, each: &mut dyn FnMut(Listing)) -> Result<(), StoreError> {
        let Listing { entries, invalid: _, revision } = self.store.list(filter)?;
        let breaks = !self.broke.swap(true, Ordering::Relaxed);
        let count = if breaks { 2 } else { entries.len() };
        for entry in entries.into_iter().take(count) {
            each(Listing { entries: vec![entry], invalid: Vec::new(), revision });
            self.given.fetch_add(1, Ordering::Relaxed);
        }
        if breaks { Err(StoreError::Unavailable("reset".into())) } else { Ok(()) }
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(filter, from)
    }
}

#[test]
fn a_mirror_takes_parts_one_after_the_other_and_is_in_sync_with_the_last() {
    let store = MemoryStore::new();
    for number in 0..20 {
        store.put(key(&format!("k{number:02}")), value("1")).expect("switched on");
    }
    let reader = Arc::new(InParts { store, broke: AtomicBool::new(true), given: AtomicUsize::new(0) });
    let begun = Instant::now();
    let mirror = Mirror::spawn(reader.clone(), Filter::All, Options::default()).expect("a thread");
    std::thread::sleep(Duration::from_millis(100));
    let given = reader.given.load(Ordering::Relaxed);
    if begun.elapsed() < super::PATIENCE {
        assert!(given <= 1, "{given} parts in memory, and nobody took one");
    }
    drop(mirror);
    reader.broke.store(false, Ordering::Relaxed);
    let mirror = Mirror::spawn(reader, Filter::All, Options::default()).expect("a thread");
    let (mut keys, mut status) = (BTreeSet::new(), None);
    let deadline = Instant::now() + Duration::from_secs(20);
    while status != Some(SyncStatus::InSync) {
        assert!(Instant::now() < deadline, "{keys:?}");
        let batch = mirror.wait(Duration::from_secs(1));
        keys.extend(batch.updates.into_iter().map(|update| update.key));
        status = batch.status.or(status);
    }
    assert_eq!(keys.len(), 20, "all of it is there when it is said to be");
}

#[test]
fn a_dropped_mirror_lets_go_of_the_store() {
    let store: Arc<dyn Reader> = Arc::new(MemoryStore::new());
    let mirror = Mirror::spawn(Arc::clone(&store), Filter::All, Options::default()).expect("a thread");
    mirror.wait(Duration::from_secs(20));
    drop(mirror);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Arc::strong_count(&store) > 1 {
        assert!(Instant::now() < deadline, "the thread lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
