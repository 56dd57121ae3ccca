//! The follower's promises: no `InSync` before a whole listing, nothing vanished stays, convergence through anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_facts::{Filter, Key, Revision, SyncStatus, Update, Value};

use super::{Backoff, Follower, Mailbox, Mirror, Options, Told, Want};
use crate::{Entry, Event, Expect, InvalidEntry, Listing, MemoryStore, Reader, Store, StoreError, WatchError, Write};

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

fn following(names: &[(&str, u64)], revision: u64) -> Follower {
    let mut follower = Follower::new(Backoff::default());
    follower.start();
    follower.listed(Ok(listing(names, revision)), 0.0);
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
    assert_eq!(follower.listed(Err(down.clone()), 0.0), [Told::Trouble(down.to_string())]);
    follower.paused();
    let told = follower.listed(Ok(listing(&[("a", 3), ("b", 1)], 5)), 0.0);
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
    let told = follower.listed(Ok(listing(&[("b", 7), ("d", 8)], 9)), 0.0);
    assert_eq!(told, [gone("a", 9), gone("c", 9), update("b", 7), update("d", 8), Told::Status(SyncStatus::InSync)]);
    assert_eq!(follower.want(), Want::Watch(Revision(9)));
    follower.lost(WatchError::Gone, 0.0);
    assert!(matches!(follower.want(), Want::Pause(_)), "a history that is always gone must not make a busy loop");
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
    assert_eq!(converges(&mirror, &store, &mut picture), Some(SyncStatus::InSync));
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
