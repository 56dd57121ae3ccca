//! Answers of every kind and broken connections at random: no update is lost, and followers see what is there.

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tortie_facts::{Filter, Key, Revision, Update, Value};
use tortie_store::mirror::{Mirror, Options as MirrorOptions};
use tortie_store::{Entry, Event, Expect, Reader, Store, StoreError, WatchError, Write, WriteError};
use tortie_store_kubernetes::{Group, KubernetesStore, Options};

use common::Cluster;
use proxy::Proxy;

static CLUSTER: LazyLock<Option<Cluster>> = LazyLock::new(|| Cluster::start("faults", &[]));

const CLIENTS: u32 = 4;
const ITEMS: u32 = 25;

fn store(proxy: &Proxy) -> KubernetesStore {
    KubernetesStore::open(Options {
        endpoint: format!("http://127.0.0.1:{}", proxy.port),
        group: Some(Group::V1),
        qps: Some(-1.0),
        deadline: Some(Duration::from_secs(10)),
        patience: Some(Duration::from_secs(2)),
        ..Options::default()
    })
    .expect("a thread")
}

fn item(client: u32, n: u32) -> String {
    format!("10.{client}.{n}.0/26")
}

fn holds(value: &Value, item: &str) -> bool {
    value.as_handle().expect("a handle").block.contains_key(item)
}

/// Adds an item to what the handle holds, by compare-and-swap, until it is surely there.
fn add(store: &dyn Store, key: &Key, item: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline, "{item} can't be added");
        let entry = match store.get(key) {
            Ok(entry) => entry,
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        let mut handle =
            entry.as_ref().map(|entry| (**entry.value.as_handle().expect("a handle")).clone()).unwrap_or_default();
        if handle.block.insert(item.to_owned(), 1).is_some() {
            return;
        }
        let expect = entry.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        match store.write_one(Write { key: key.clone(), expect, value: Some(Value::Handle(Arc::new(handle))) }) {
            Ok(_) => return,
            // An unavailable store may have done it or not: look again.
            Err(WriteError::Conflict { .. } | WriteError::Missing(_) | WriteError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The picture that a mirror tells; what is told of a key never goes back.
fn take(mirror: &Mirror, picture: &mut BTreeMap<Key, (Value, Revision)>) {
    let batch = mirror.wait(Duration::from_millis(100));
    assert_eq!(batch.invalid, []);
    for Update { key, value, revision } in batch.updates {
        let before = match value {
            Some(value) => picture.insert(key.clone(), (value, revision)),
            None => picture.remove(&key),
        };
        assert!(before.is_none_or(|(_, before)| before <= revision), "{key} went back to {revision}");
    }
}

#[test]
fn under_faults_no_update_is_lost_and_followers_see_what_is_there() {
    let Some(cluster) = &*CLUSTER else { return };
    let proxy = Proxy::start(cluster, 20_261_121);
    let key = Key::Handle("shared".into());
    let filter = Filter::Any(vec![Filter::Handles, Filter::Blocks]);
    let mirror = Mirror::spawn(Arc::new(store(proxy)), filter.clone(), MirrorOptions::default()).expect("a thread");
    let mut picture = BTreeMap::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let key = &key;
                scope.spawn(move || {
                    let store = store(proxy);
                    for n in 0..ITEMS {
                        add(&store, key, &item(client, n));
                        add(&store, &Key::Handle(format!("own-{client}")), &item(client, n));
                    }
                })
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            take(&mirror, &mut picture);
        }
    });
    // A quick machine is through before it has met every fault.
    let (extra, until) = (store(proxy), Instant::now() + Duration::from_secs(60));
    for n in 0.. {
        if Instant::now() > until || proxy.faults.iter().all(|count| count.load(Ordering::Relaxed) > 0) {
            break;
        }
        add(&extra, &key, &item(CLIENTS, n));
        take(&mirror, &mut picture);
    }
    proxy.faulty.store(false, Ordering::Relaxed);
    let direct = cluster.store(Some(Group::V1));
    let listing = direct.list(&filter).expect("a listing");
    let shared = listing.entries.iter().find(|entry| entry.key == key).expect("it is there");
    for (client, n) in (0..CLIENTS).flat_map(|client| (0..ITEMS).map(move |n| (client, n))) {
        assert!(holds(&shared.value, &item(client, n)), "the update {} is lost", item(client, n));
    }
    let wanted: BTreeMap<Key, (Value, Revision)> =
        listing.entries.into_iter().map(|Entry { key, value, revision }| (key, (value, revision))).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while picture != wanted {
        assert!(Instant::now() < deadline, "the follower has {:?}", picture.keys());
        take(&mirror, &mut picture);
    }
    for (fault, count) in
        ["429", "500", "409", "410", "closed before", "closed after", "broken watch"].iter().zip(&proxy.faults)
    {
        assert!(count.load(Ordering::Relaxed) > 0, "there was no {fault}");
    }
}

#[test]
fn a_watch_that_lost_the_server_goes_on_where_it_was() {
    let Some(cluster) = &*CLUSTER else { return };
    let proxy = Proxy::start(cluster, 1);
    proxy.faulty.store(false, Ordering::Relaxed);
    let (store, direct) = (store(proxy), cluster.store(Some(Group::V1)));
    let filter = Filter::Any(vec![Filter::Blocks, Filter::Handles]);
    let write = |name: &str, n: u32| {
        let key = Key::Handle(name.into());
        let value = Value::from_json(&key, &format!(r#"{{"block":{{"10.0.0.0/26":{n}}}}}"#)).expect("good");
        direct.write_one(Write { key, expect: Expect::Any, value: Some(value) }).expect("anything goes")
    };
    let from = store.list(&filter).expect("a listing").revision;
    let mut watch = store.watch(&filter, from).expect("a watch");
    let told = |watch: &mut dyn tortie_store::Watch, name: &str, revision| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "{name} at {revision} does not come");
            let events = watch.next(Duration::from_millis(500)).expect("it goes on");
            let is = |event: &Event| matches!(event, Event::Put(entry) if entry.key == Key::Handle(name.into()) && entry.revision == revision);
            if events.iter().any(is) {
                return;
            }
        }
    };
    let first = write("gone-on", 1);
    told(&mut *watch, "gone-on", first);
    proxy.away.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 10;
    let error = loop {
        assert!(Instant::now() < deadline, "it never says that the server is away");
        // The connection from before may still tell one change; then it is closed.
        n += 1;
        write("gone-on-noise", n);
        if let Err(error) = watch.next(Duration::from_millis(500)) {
            break error;
        }
    };
    assert!(matches!(error, WatchError::Unavailable(_)), "{error:?}");
    assert!(matches!(store.watch(&filter, first), Err(WatchError::Unavailable(_))));
    proxy.away.store(false, Ordering::Relaxed);
    let third = write("gone-on", 3);
    let mut again = store.watch(&filter, first).expect("the server is back");
    told(&mut *again, "gone-on", third);
}
