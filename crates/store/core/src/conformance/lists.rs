//! Listings and filters.

use std::collections::BTreeSet;

use ipnet::IpNet;
use tortie_api::Kind;
use tortie_facts::{Filter, Key, OwnerKind, Value};

use super::{LONG, Subject, get, handle, list, now, number, number_of, put, set, watch};
use crate::{Entry, Event, Expect, Listing, Store, StoreError, Write, WriteError};

fn affinity(owner: &str, third: u8) -> Key {
    let cidr: IpNet = format!("10.0.{third}.0/26").parse().expect("a network");
    Key::host_affinity(owner, cidr)
}

fn claim(store: &dyn Store, key: &Key) {
    let value = Value::from_json(key, r#"{"state":"confirmed"}"#).expect("the text of an affinity");
    store.write_one(Write { key: key.clone(), expect: Expect::Absent, value: Some(value) }).expect("it is absent");
}

fn keys(listing: &Listing) -> Vec<Key> {
    listing.entries.iter().map(|entry| entry.key.clone()).collect()
}

/// A listing holds every fact once, sorted by key text, with its value and revision, and says from where to watch.
pub fn listings_are_sorted_and_whole(subject: &dyn Subject) {
    let store = subject.open();
    let empty = list(subject, &*store, &Filter::All);
    assert_eq!((empty.entries.len(), empty.invalid.len()), (0, 0));
    let names: Vec<String> = (0..300_u32).map(|n| format!("h-{}", n * 7919 % 300)).collect();
    let writes: Vec<Write> = (0..).zip(&names).map(|(n, name)| put(handle(name), Expect::Absent, n)).collect();
    for part in writes.chunks(100) {
        store.write_all(part).expect("all are absent");
    }
    let listing = store.list(&Filter::Handles).expect("a listing");
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(keys(&listing), sorted.iter().map(|name| handle(name)).collect::<Vec<_>>());
    for Entry { key, value, revision } in &listing.entries {
        let Key::Handle(name) = key else { panic!("{key}") };
        assert_eq!(names.get(number_of(value) as usize), Some(name));
        assert!(*revision <= listing.revision);
    }
    assert_eq!(list(subject, &*store, &Filter::All).entries, listing.entries);
    assert_eq!(now(&*store), listing.revision);
    let mut parts = Vec::new();
    store.list_in_parts(&Filter::Handles, &mut |part| parts.push(part)).expect("parts");
    assert!(parts.iter().all(|part| part.revision == listing.revision));
    assert_eq!(parts.into_iter().flat_map(|part| part.entries).collect::<Vec<_>>(), listing.entries);
    let mut count = 0;
    store.list_in_parts(&Filter::Blocks, &mut |part| count += 1 + part.entries.len()).expect("an empty part");
    assert_eq!(count, 1, "even an empty listing says its revision");
}

/// `node-1` is not `node-10`, and one namespace is not another that starts like it.
pub fn filters_never_cover_half_a_name(subject: &dyn Subject) {
    let store = subject.open();
    let all = [affinity("node-1", 0), affinity("node-1", 1), affinity("node-10", 2), affinity("node", 3)];
    for key in &all {
        claim(&*store, key);
    }
    let of = |filter| keys(&store.list(&filter).expect("a listing"));
    let host = |owner: &str| Filter::Affinities(OwnerKind::Host, owner.to_owned());
    assert_eq!(of(host("node-1")), all[..2]);
    assert_eq!(of(host("node-10")), all[2..3]);
    assert_eq!(of(host("node")), all[3..]);
    assert_eq!(of(host("nod")), []);
    assert_eq!(of(host("node-")), []);
    assert_eq!(of(Filter::AllAffinities(OwnerKind::Host)).len(), 4);
    assert_eq!(of(Filter::AllAffinities(OwnerKind::Virtual)), []);
    assert_eq!(of(Filter::Kind(Kind::Node)), []);
}

/// What a node's agent acts on: its own affinities and no others, blocks and settings, no handles; listed and watched.
pub fn a_node_is_told_what_it_acts_on(subject: &dyn Subject) {
    let store = subject.open();
    let filter = Filter::NodeAgent("node-1".to_owned());
    let start = now(&*store);
    let mut watching = watch(&*store, &filter, start);
    set(&*store, "h", 1);
    let (own, others) = (affinity("node-1", 0), [affinity("node-10", 1), affinity("node", 2)]);
    others.iter().for_each(|key| claim(&*store, key));
    claim(&*store, &own);
    let config = Value::from_json(&Key::IpamConfig, r#"{"strict_affinity":true}"#).expect("the text of settings");
    store.write_one(Write { key: Key::IpamConfig, expect: Expect::Any, value: Some(config) }).expect("written");
    set(&*store, "i", 1);
    let told = |keys: Vec<Key>| {
        let ipam = keys.into_iter().filter(|key| !matches!(key, Key::Resource { .. }));
        ipam.collect::<BTreeSet<Key>>()
    };
    let wanted = BTreeSet::from([Key::IpamConfig, own]);
    assert_eq!(told(keys(&list(subject, &*store, &filter))), wanted);
    let mut seen = BTreeSet::new();
    while seen.len() < wanted.len() {
        let events = watching.next(LONG).expect("nothing was compacted");
        assert!(!events.is_empty(), "only {seen:?} was told");
        seen.extend(told(
            events
                .iter()
                .filter_map(|event| match event {
                    Event::Put(entry) => Some(entry.key.clone()),
                    Event::Deleted { key, .. } => Some(key.clone()),
                    Event::Invalid(_) => None,
                })
                .collect(),
        ));
    }
    assert_eq!(seen, wanted);
}

/// Several filters at once list each fact once; no filter lists nothing.
pub fn filters_that_overlap_list_once(subject: &dyn Subject) {
    let store = subject.open();
    let key = affinity("a", 0);
    claim(&*store, &key);
    set(&*store, "h", 1);
    let twice = Filter::Any(vec![
        Filter::Affinities(OwnerKind::Host, "a".to_owned()),
        Filter::Handles,
        Filter::AllAffinities(OwnerKind::Host),
    ]);
    assert_eq!(keys(&store.list(&twice).expect("a listing")), [handle("h"), key.clone()]);
    let all = Filter::Any(vec![Filter::Handles, Filter::All]);
    assert_eq!(keys(&list(subject, &*store, &all)).len(), 2);
    assert_eq!(keys(&store.list(&Filter::Any(Vec::new())).expect("a listing")), []);
}

/// A text that can't be read is told as such, beside all others, and can be overwritten.
pub fn unreadable_texts_stop_nothing_else(subject: &dyn Subject) {
    let store = subject.open();
    set(&*store, "a", 1);
    let bad = handle("b");
    subject.plant(&bad.path(), "{half");
    subject.plant("/calico/ipam/v2/assignment/ipv4/block/nonsense", "{}");
    set(&*store, "c", 3);
    let listing = list(subject, &*store, &Filter::All);
    assert_eq!(keys(&listing), [handle("a"), handle("c")]);
    let paths: Vec<&str> = listing.invalid.iter().map(|invalid| &*invalid.path).collect();
    assert_eq!(paths, ["/calico/ipam/v2/assignment/ipv4/block/nonsense", &*bad.path()]);
    for invalid in &listing.invalid {
        assert!(!invalid.reason.is_empty() && invalid.revision <= listing.revision, "{invalid:?}");
    }
    assert!(matches!(store.get(&bad), Err(StoreError::Invalid(_))));
    assert!(get(&*store, "a").is_some());

    let absent = store.write_one(put(bad.clone(), Expect::Absent, 2));
    let Err(WriteError::Conflict { found, .. }) = absent else { panic!("{absent:?}") };
    store.write_one(put(bad.clone(), Expect::Revision(found), 2)).expect("it has this revision");
    assert_eq!(get(&*store, "b").map(|entry| entry.value), Some(number(2)));
    assert_eq!(store.list(&Filter::Handles).expect("a listing").invalid, []);
}
