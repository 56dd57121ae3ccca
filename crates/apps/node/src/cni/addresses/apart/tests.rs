//! Addresses on a store that does one thing at a time, with tests that get in between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tortie_api::{IpPool, IpPoolAllowedUse, IpPoolSpec, LabelMap, Metadata, Resource};
use tortie_cni::conf::Conf;
use tortie_facts::{Filter, Revision, Update};
use tortie_net::Family;
use tortie_store::{Entry, Expect as StoreExpect, Listing, MemoryStore, Store, StoreError, Watch, WatchError};

use super::*;

mod beside;
mod later;

/// A store that does one thing at a time, counts what it wrote, and lets a test get in between.
struct OneByOne {
    store: MemoryStore,
    wrote: Mutex<Vec<Key>>,
    /// Called before each write.
    before: Box<dyn Fn(&MemoryStore, &Write) + Send + Sync>,
    /// Whether the answer to the next write of a block is lost on the way.
    loses: AtomicBool,
    /// Whether handles can't be written.
    refuses_handles: AtomicBool,
}

impl OneByOne {
    fn with_pool(before: impl Fn(&MemoryStore, &Write) + Send + Sync + 'static) -> Arc<OneByOne> {
        let store = MemoryStore::new();
        let uses = vec![IpPoolAllowedUse::Workload];
        let spec = IpPoolSpec { cidr: "10.7.0.0/16".into(), allowed_uses: uses, ..IpPoolSpec::default() };
        let mut pool = Resource::from(IpPool { metadata: Metadata::named("pool"), spec, status: None });
        pool.apply_defaults();
        let key = Key::resource(pool.kind(), "", "pool");
        let made = Write { key, expect: StoreExpect::Absent, value: Some(Value::resource(pool)) };
        store.write_one(made).expect("written");
        let (wrote, loses, refuses_handles) = Default::default();
        Arc::new(OneByOne { store, wrote, before: Box::new(before), loses, refuses_handles })
    }

    fn wrote(&self, is: impl Fn(&Key) -> bool) -> usize {
        self.wrote.lock().expect("no panic").iter().filter(|key| is(key)).count()
    }

    /// Address to handle, as the blocks have it; every one must have its handle, which counts it.
    fn held(&self) -> BTreeMap<IpAddr, String> {
        let mut held = BTreeMap::new();
        let listed = self.store.list(&Filter::Blocks).expect("listed");
        let blocks = listed.entries.iter().filter_map(|entry| Some((&entry.key, entry.value.as_block()?)));
        for (key, block) in blocks {
            let Key::Block(cidr) = key else { panic!("a block has a block's key: {key}") };
            for (ordinal, slot) in block.allocations.iter().enumerate() {
                let Some(handle) = slot.and_then(|index| block.attributes[index].handle_id.clone()) else { continue };
                held.insert(tortie_ipam::block::address(*cidr, ordinal), handle);
            }
        }
        for handle in held.values() {
            let entry = self.store.get(&Key::Handle(handle.clone())).expect("read").expect("an address has its handle");
            let counted: u32 = entry.value.as_handle().expect("a handle").block.values().sum();
            let really = held.values().filter(|other| *other == handle).count();
            assert_eq!(usize::try_from(counted).expect("few"), really, "{handle}");
        }
        held
    }
}

impl Reader for OneByOne {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key)
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        self.store.list(filter)
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(filter, from)
    }
}

impl Store for OneByOne {
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        let mut results: Vec<Result<Revision, WriteError>> = Vec::new();
        for write in writes {
            if results.iter().any(Result::is_err) {
                results.push(Err(WriteError::NotTried));
                continue;
            }
            (self.before)(&self.store, write);
            if matches!(&write.key, Key::Handle(_)) && self.refuses_handles.load(Ordering::SeqCst) {
                results.push(Err(WriteError::Unavailable("forbidden".to_owned())));
                continue;
            }
            self.wrote.lock().expect("no panic").push(write.key.clone());
            let result = self.store.write_one(write.clone());
            let lost = is_block(&write.key) && self.loses.swap(false, Ordering::SeqCst);
            results.push(if lost { Err(WriteError::Unavailable("no answer".to_owned())) } else { result });
        }
        results
    }

    fn one_by_one(&self) -> bool {
        true
    }
}

fn ask(number: usize) -> Ask {
    let conf = Conf::read(r#"{"name":"net","cniVersion":"1.0.0","ipam":{"type":"calico-ipam"}}"#).expect("a good one");
    let families = vec![(Family::V4, conf.ipam.ipv4_pools)];
    Ask {
        handle: format!("net.c{number}"),
        attrs: BTreeMap::new(),
        namespace_labels: LabelMap::new(),
        wanted: Vec::new(),
        families,
        purpose: IpPoolAllowedUse::Workload,
    }
}

fn is_block(key: &Key) -> bool {
    matches!(key, Key::Block(_))
}

/// Everybody got an address of their own, and nobody else holds one.
fn all_hold(store: &OneByOne, results: &[(String, Vec<IpAddr>)]) {
    let given: BTreeMap<IpAddr, String> =
        results.iter().flat_map(|(handle, given)| given.iter().map(|addr| (*addr, handle.clone()))).collect();
    assert_eq!(given.len(), results.len());
    assert_eq!(store.held(), given);
}

fn give(addresses: &Addresses, numbers: std::ops::Range<usize>) -> Vec<(String, Vec<IpAddr>)> {
    let asks: Vec<Ask> = numbers.map(ask).collect();
    let given = addresses.give(&asks, None);
    let finished = asks.iter().zip(given).map(|(ask, given)| {
        let given = given.expect("there is room");
        addresses.finish(&given).expect("the handle is written");
        (ask.handle.clone(), given.addresses)
    });
    finished.collect()
}

/// Addresses of a node that could write a handle before, and what it gave.
fn proven(store: &Arc<OneByOne>) -> (Addresses, Vec<(String, Vec<IpAddr>)>) {
    let addresses = Addresses::new(store.clone(), "n".into());
    let results = give(&addresses, 0..2);
    assert!(addresses.later.takes());
    (addresses, results)
}

/// Another node writes what is there.
fn write_again(store: &MemoryStore, key: &Key) {
    let entry = store.get(key).expect("read").expect("it is there");
    let same = Write { key: entry.key, expect: StoreExpect::Any, value: Some(entry.value) };
    store.write_one(same).expect("written");
}

#[test]
fn who_waits_together_costs_one_write_of_the_block() {
    let store = OneByOne::with_pool(|_, _| {});
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..1);
    let before = store.wrote(is_block);
    results.extend(give(&addresses, 1..41));
    assert_eq!(store.wrote(is_block) - before, 1);
    // A block has 64 addresses: the next one is claimed on the way.
    results.extend(give(&addresses, 41..101));
    assert!(store.wrote(is_block) - before <= 8, "{}", store.wrote(is_block) - before);
    all_hold(&store, &results);
}

#[test]
fn a_block_that_another_wrote_and_a_handle_that_was_there_cost_nobody_an_address() {
    let armed = Arc::new(Mutex::new(false));
    let store = OneByOne::with_pool({
        let armed = armed.clone();
        move |store, write| {
            if !is_block(&write.key) || !std::mem::take(&mut *armed.lock().expect("no panic")) {
                return;
            }
            write_again(store, &write.key);
        }
    });
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..1);
    *armed.lock().expect("no panic") = true;
    results.extend(give(&addresses, 1..6));
    assert!(!*armed.lock().expect("no panic"));
    all_hold(&store, &results);
    // The third of them has an address already: it gets another one, and the others are not harmed.
    let again = give(&addresses, 3..9);
    assert_eq!(store.held().len(), 12);
    let of_three: BTreeSet<IpAddr> = store.held().iter().filter(|(_, h)| *h == "net.c3").map(|(a, _)| *a).collect();
    let told = results.iter().chain(&again).filter(|(handle, _)| handle == "net.c3").flat_map(|(_, given)| given);
    assert_eq!(of_three, told.copied().collect());
}

#[test]
fn many_at_once_each_get_their_own_and_give_it_back() {
    let store = OneByOne::with_pool(|_, _| std::thread::yield_now());
    let addresses = Addresses::new(store.clone(), "n".into());
    let results: Vec<(String, Vec<IpAddr>)> = std::thread::scope(|scope| {
        let addresses = &addresses;
        let all: Vec<_> = (0..100)
            .map(|number| {
                scope.spawn(move || {
                    let ask = ask(number);
                    let given = addresses.assign(&ask, None).expect("there is room");
                    (number % 3 != 0).then_some((ask.handle.clone(), given)).or_else(|| {
                        addresses.release(&ask.handle, None).expect("it is ours");
                        None
                    })
                })
            })
            .collect();
        all.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
    });
    all_hold(&store, &results);
    for (handle, _) in &results {
        addresses.release(handle, None).expect("it is ours");
    }
    assert!(store.held().is_empty());
    assert!(store.store.list(&Filter::Handles).expect("listed").entries.is_empty());
}

#[test]
fn an_endpoint_that_cannot_be_written_keeps_no_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let addresses = Addresses::new(store.clone(), "n".into());
    let key = Key::resource(tortie_api::Kind::WorkloadEndpoint, "default", "e");
    let refused = |_: &[IpAddr]| Write { key: key.clone(), expect: StoreExpect::Revision(Revision(9)), value: None };
    assert!(addresses.assign(&ask(1), Some(&refused)).is_err());
    assert!(store.held().is_empty());
}

#[test]
fn who_dies_before_the_handle_is_written_loses_no_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..2);
    // Two who wait together.
    let given = addresses.give(&[ask(2), ask(3)], None);
    assert!(given.iter().all(|one| one.as_ref().is_ok_and(|one| one.addresses.len() == 1 && one.handle.is_some())));
    drop(given);
    addresses.release("net.c3", None).expect("it is looked for");
    // The next one to run knows what is in the store, or nothing at all.
    let told: Vec<Update> = store.store.list(&Filter::All).expect("listed").entries.into_iter().map(told).collect();
    for told in [told, Vec::new()] {
        let begun = addresses.give(&[ask(3), ask(4)], None).pop().expect("two").expect("there is room");
        let next = Addresses::new(store.clone(), "n".into());
        next.observe(&told);
        next.release("net.c2", None).expect("it is looked for");
        next.observe(&[told_of(&store, &begun)]);
        next.release("net.c3", None).expect("it is looked for");
        next.release("net.c4", None).expect("it is looked for");
    }
    all_hold(&store, &results);
    // And who is told of it again changes nothing.
    let wrote = store.wrote(is_block);
    addresses.release("net.c2", None).expect("nothing is there");
    assert_eq!(store.wrote(is_block), wrote);
    results.extend(give(&addresses, 2..5));
    all_hold(&store, &results);
}

#[test]
fn who_is_alone_has_the_handle_as_soon_as_the_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..1);
    let given = addresses.begin(&ask(1), None).expect("there is room");
    results.push(("net.c1".to_owned(), given.addresses.clone()));
    all_hold(&store, &results);
    assert!(given.handle.is_none());
}

#[test]
fn a_handle_beside_a_block_that_another_wrote_counts_nothing_twice() {
    let armed = Arc::new(AtomicBool::new(false));
    let store = OneByOne::with_pool({
        let armed = armed.clone();
        move |store, write| {
            if is_block(&write.key) && armed.swap(false, Ordering::SeqCst) {
                write_again(store, &write.key);
            }
        }
    });
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..1);
    armed.store(true, Ordering::SeqCst);
    results.extend(give(&addresses, 1..2));
    assert!(!armed.load(Ordering::SeqCst));
    all_hold(&store, &results);
}

#[test]
fn a_block_that_was_written_without_an_answer_keeps_no_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let addresses = Addresses::new(store.clone(), "n".into());
    let mut results = give(&addresses, 0..2);
    store.loses.store(true, Ordering::SeqCst);
    assert!(addresses.begin(&ask(2), None).is_err());
    all_hold(&store, &results);
    results.extend(give(&addresses, 2..4));
    all_hold(&store, &results);
}

fn told(entry: Entry) -> Update {
    let Entry { key, value, revision } = entry;
    Update { key, value: Some(value), revision }
}

/// The block that holds what was given.
fn told_of(store: &OneByOne, given: &Given) -> Update {
    let listed = store.store.list(&Filter::Blocks).expect("listed").entries;
    let holds = |entry: &Entry| matches!(&entry.key, Key::Block(cidr) if cidr.contains(&given.addresses[0]));
    listed.into_iter().find(holds).map(told).expect("a block holds it")
}
