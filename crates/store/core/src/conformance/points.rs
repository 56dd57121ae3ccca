//! Reads and writes of single keys, and calls with several writes.

use std::sync::Arc;

use tortie_api::Kind;
use tortie_facts::{Key, Revision, Value};

use super::{Subject, conflict, delete, get, handle, missing, number, number_of, put, set};
use crate::{Entry, Expect, Write, WriteError};

/// A key that was never written has no value.
pub fn absent_is_none(subject: &dyn Subject) {
    let store = subject.open();
    assert_eq!(get(&*store, "a"), None);
    set(&*store, "ab", 1);
    assert_eq!(get(&*store, "a"), None);
}

/// A read gives the last write and its revision; revisions grow and are never zero.
pub fn what_is_written_is_read(subject: &dyn Subject) {
    let (store, other) = (subject.open(), subject.open());
    let mut last = Revision(0);
    for n in 1..=20 {
        let revision = set(&*store, "a", n);
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        let entry = Entry { key: handle("a"), value: number(n), revision };
        assert_eq!(get(&*store, "a"), Some(entry.clone()));
        assert_eq!(get(&*other, "a"), Some(entry));
    }
}

/// Absent, at a revision, any: each holds or fails as the port says, and a failed write changes nothing.
pub fn expectations_are_kept(subject: &dyn Subject) {
    let store = subject.open();
    let key = || handle("a");
    assert!(missing(&store.write_one(put(key(), Expect::Revision(Revision(1)), 1))));
    assert!(missing(&store.write_one(delete(key(), Expect::Revision(Revision(1))))));
    assert!(missing(&store.write_one(delete(key(), Expect::Any))));
    assert_eq!(get(&*store, "a"), None);

    let first = store.write_one(put(key(), Expect::Absent, 1)).expect("it is absent");
    let again = store.write_one(put(key(), Expect::Absent, 2));
    let Err(WriteError::Conflict { key: name, found, expected }) = again else { panic!("{again:?}") };
    assert_eq!((name, found, expected), (key().to_string(), first, Revision(0)));

    let second = store.write_one(put(key(), Expect::Revision(first), 2)).expect("it has this revision");
    let stale = store.write_one(put(key(), Expect::Revision(first), 3));
    let Err(WriteError::Conflict { key: _, found, expected }) = stale else { panic!("{stale:?}") };
    assert_eq!((found, expected), (second, first));
    assert!(conflict(&store.write_one(put(key(), Expect::Revision(Revision(second.0 + 1000)), 3))));
    assert!(conflict(&store.write_one(delete(key(), Expect::Revision(first)))));
    assert_eq!(get(&*store, "a"), Some(Entry { key: key(), value: number(2), revision: second }));

    store.write_one(put(key(), Expect::Any, 4)).expect("any is any");
    assert_eq!(get(&*store, "a").map(|entry| number_of(&entry.value)), Some(4));
}

/// A deleted key is absent, can be made again, and its old revision is worth nothing.
pub fn deletion_leaves_nothing(subject: &dyn Subject) {
    let store = subject.open();
    let first = set(&*store, "a", 1);
    let deletion = store.write_one(delete(handle("a"), Expect::Revision(first))).expect("it has this revision");
    assert!(deletion > first);
    assert_eq!(get(&*store, "a"), None);
    assert!(missing(&store.write_one(put(handle("a"), Expect::Revision(first), 2))));
    assert!(missing(&store.write_one(delete(handle("a"), Expect::Any))));
    let again = store.write_one(put(handle("a"), Expect::Absent, 3)).expect("it is absent");
    assert!(again > deletion);
    assert!(conflict(&store.write_one(put(handle("a"), Expect::Revision(first), 4))));
}

/// Empty, long and non-ASCII texts come back as they were.
pub fn texts_of_every_shape_survive(subject: &dyn Subject) {
    let store = subject.open();
    if !subject.nature().keeps_statuses {
        let key = Key::Status("conformance/any".to_owned());
        let write = Write { key: key.clone(), expect: Expect::Any, value: Some(Value::Status(Arc::from("x"))) };
        store.write_one(write).expect("it is dropped without a word");
        assert_eq!(store.get(&key), Ok(None));
        return;
    }
    let long = "x".repeat(300_000);
    for (name, text) in [("empty", ""), ("long", &*long), ("signs", "ä \u{1f422} \" ' % \n \u{1}")] {
        let key = Key::Status(format!("conformance/{name}/ünïcode"));
        let value = Value::Status(Arc::from(text));
        let write = Write { key: key.clone(), expect: Expect::Absent, value: Some(value.clone()) };
        store.write_one(write).expect("a status");
        let entry = store.get(&key).expect("a read").expect("it was written");
        assert!(entry.value == value, "{name} came back changed");
    }
}

/// What could not be read back is refused, and nothing is written.
pub fn a_value_of_another_kind_is_refused(subject: &dyn Subject) {
    let store = subject.open();
    for key in [Key::IpamConfig, Key::resource(Kind::Node, "", "n1"), Key::resource(Kind::Node, "", "a/b")] {
        let result = store.write_one(Write { key: key.clone(), expect: Expect::Any, value: Some(number(1)) });
        assert!(matches!(result, Err(WriteError::Invalid(_))), "{key}: {result:?}");
        assert_eq!(store.get(&key).expect("a read"), None);
    }
}

/// An empty call is no write.
pub fn no_writes_give_no_results(subject: &dyn Subject) {
    assert_eq!(subject.open().write(&[]), []);
}

/// All writes of a call that succeeds are done, in order.
pub fn a_call_that_succeeds_does_all(subject: &dyn Subject) {
    let store = subject.open();
    let old = set(&*store, "old", 1);
    let writes = [
        put(handle("a"), Expect::Absent, 1),
        put(handle("b"), Expect::Any, 2),
        delete(handle("old"), Expect::Revision(old)),
    ];
    let revisions = store.write_all(&writes).expect("all expectations hold");
    assert!(revisions.is_sorted() && revisions[0] > old, "{revisions:?} after {old}");
    assert_eq!(get(&*store, "a").map(|entry| entry.revision), Some(revisions[0]));
    assert_eq!(get(&*store, "b").map(|entry| entry.revision), Some(revisions[1]));
    assert_eq!(get(&*store, "old"), None);
}

/// Of a call that fails, each `Ok` was done, each error was not, and nothing behind the failure was tried.
pub fn a_call_that_fails_tells_what_it_did(subject: &dyn Subject) {
    let store = subject.open();
    let taken = set(&*store, "taken", 9);
    let writes = [
        put(handle("a"), Expect::Absent, 1),
        put(handle("taken"), Expect::Absent, 2),
        put(handle("b"), Expect::Absent, 3),
        delete(handle("taken"), Expect::Any),
    ];
    let results = store.write(&writes);
    assert_eq!(results.len(), 4);
    assert!(conflict(&results[1]), "{results:?}");
    assert_eq!(results[2..], [Err(WriteError::NotTried), Err(WriteError::NotTried)]);
    match (&results[0], get(&*store, "a")) {
        (Ok(revision), Some(entry)) => assert_eq!(entry.revision, *revision),
        (Err(WriteError::NotTried), None) => {}
        other => panic!("the first write's result and state: {other:?}"),
    }
    assert_eq!(get(&*store, "b"), None);
    assert_eq!(get(&*store, "taken").map(|entry| entry.revision), Some(taken));
    assert!(matches!(store.write_all(&writes), Err(WriteError::Conflict { .. })));
    set(&*store, "after", 1);
}

/// The second write of one call sees the first.
pub fn one_call_may_write_a_key_twice(subject: &dyn Subject) {
    let store = subject.open();
    let key = || handle("a");
    let revisions = store
        .write_all(&[put(key(), Expect::Absent, 1), put(key(), Expect::Any, 2)])
        .expect("the second write sees the first");
    assert_eq!(get(&*store, "a"), Some(Entry { key: key(), value: number(2), revision: revisions[1] }));
    let results = store.write(&[delete(key(), Expect::Any), put(key(), Expect::Revision(revisions[1]), 3)]);
    assert!(missing(&results[1]), "{results:?}");
}
