//! Watches: order, start, filter, waiting, compaction.

use std::time::{Duration, Instant};

use tortie_facts::{Filter, OwnerKind, Revision};

use super::{LONG, SHORT, Subject, brief, briefs, collect, delete, get, handle, list, now, set, watch};
use crate::{Event, Expect, WatchError};

/// Every put and every deletion, with its value, in the order of the revisions.
pub fn a_watch_tells_every_change_in_order(subject: &dyn Subject) {
    let store = subject.open();
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    let mut wanted = Vec::new();
    for n in 0..50_u32 {
        let name = format!("h{}", n % 7);
        wanted.push((name.clone(), Some(n), set(&*store, &name, n)));
        if n % 5 == 4 {
            let revision = store.write_one(delete(handle(&name), Expect::Any)).expect("it is there");
            wanted.push((name, None, revision));
        }
    }
    let events = collect(&mut *watching, wanted.len()).expect("nothing was compacted");
    assert_eq!(briefs(&events), wanted);
    assert_eq!(watching.next(SHORT), Ok(Vec::new()));
}

/// A watch from a revision tells what came behind it, and nothing else.
pub fn a_watch_starts_behind_its_revision(subject: &dyn Subject) {
    let store = subject.open();
    let revisions: Vec<Revision> = (0..10).map(|n| set(&*store, &format!("h{n}"), n)).collect();
    for (at, from) in revisions.iter().enumerate() {
        let mut watching = watch(&*store, &Filter::Handles, *from);
        let rest = revisions.len() - 1 - at;
        let events = collect(&mut *watching, rest).expect("nothing was compacted");
        let told: Vec<Revision> = events.iter().map(|event| brief(event).2).collect();
        assert_eq!(told, revisions[at + 1..]);
        assert_eq!(watching.next(Duration::ZERO), Ok(Vec::new()));
    }
}

/// Other keys are passed over; a quiet filter gives nothing though others change.
pub fn a_watch_tells_only_what_its_filter_covers(subject: &dyn Subject) {
    let store = subject.open();
    let start = now(&*store);
    let mut quiet = watch(&*store, &Filter::AllAffinities(OwnerKind::Host), start);
    let both = Filter::Any(vec![Filter::AllAffinities(OwnerKind::Host), Filter::Handles, Filter::All]);
    let mut all = watch(&*store, &both, start);
    set(&*store, "a", 1);
    set(&*store, "a", 2);
    assert_eq!(collect(&mut *all, 2).expect("nothing was compacted").len(), 2);
    assert_eq!(all.next(SHORT), Ok(Vec::new()), "told twice");
    assert_eq!(quiet.next(SHORT), Ok(Vec::new()));
}

/// A watch with nothing to tell waits, and wakes at the write.
pub fn a_watch_waits_and_wakes(subject: &dyn Subject) {
    let store = subject.open();
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    let before = Instant::now();
    assert_eq!(watching.next(SHORT), Ok(Vec::new()));
    assert!(before.elapsed() >= SHORT, "it did not wait");
    let before = Instant::now();
    let events = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHORT);
            set(&*store, "a", 1);
        });
        watching.next(LONG)
    });
    assert_eq!(briefs(&events.expect("a change")).len(), 1);
    assert!(before.elapsed() < LONG, "it slept on");
}

/// The writes of another client are told too.
pub fn a_watch_hears_other_clients(subject: &dyn Subject) {
    let (store, other) = (subject.open(), subject.open());
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    for n in 0..20 {
        let revision = set(&*other, "a", n);
        let events = collect(&mut *watching, 1).expect("nothing was compacted");
        assert_eq!(briefs(&events), [("a".to_owned(), Some(n), revision)]);
        assert_eq!(get(&*store, "a").map(|entry| entry.revision), Some(revision), "told before it can be read");
    }
}

/// A text that can't be read is told as such and stops nothing; nor does its deletion.
pub fn a_watch_tells_unreadable_texts(subject: &dyn Subject) {
    let store = subject.open();
    set(&*store, "b", 1);
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    subject.plant(&handle("b").path(), "{half");
    set(&*store, "c", 3);
    store.write_one(delete(handle("b"), Expect::Any)).expect("it is there, if unreadable");
    let events = collect(&mut *watching, 3).expect("nothing was compacted");
    let Event::Invalid(invalid) = &events[0] else { panic!("{events:?}") };
    assert_eq!(invalid.path, handle("b").path());
    assert_eq!(brief(&events[1]).0, "c");
    assert_eq!((brief(&events[2]).0.as_str(), brief(&events[2]).1), ("b", None));
}

/// From before a compaction: gone. From it or behind it: every change.
pub fn a_compacted_history_is_gone(subject: &dyn Subject) {
    let store = subject.open();
    let revisions: Vec<Revision> = (0..10).map(|n| set(&*store, "a", n)).collect();
    subject.compact(revisions[5]);
    let forgotten: &[Revision] = if subject.nature().forgets_at_once { &[revisions[0], revisions[4]] } else { &[] };
    for from in forgotten.iter().copied() {
        let end = store.watch(&Filter::Handles, from).and_then(|mut watching| watching.next(LONG));
        assert_eq!(end, Err(WatchError::Gone), "from {from}");
    }
    for at in [5, 7, 9] {
        let mut watching = watch(&*store, &Filter::Handles, revisions[at]);
        let events = collect(&mut *watching, 9 - at).expect("it is behind the compaction");
        let told: Vec<Revision> = events.iter().map(|event| brief(event).2).collect();
        assert_eq!(told, revisions[at + 1..]);
    }
}

/// An open watch that has not read what was compacted either still tells all of it or is gone.
pub fn a_watch_that_lags_behind_compaction_has_no_gap(subject: &dyn Subject) {
    let store = subject.open();
    let mut watching = watch(&*store, &Filter::Handles, now(&*store));
    let revisions: Vec<Revision> = (0..10).map(|n| set(&*store, "a", n)).collect();
    subject.compact(revisions[5]);
    match collect(&mut *watching, 10) {
        Ok(events) => {
            let told: Vec<Revision> = events.iter().map(|event| brief(event).2).collect();
            assert_eq!(told, revisions);
        }
        Err(error) => assert_eq!(error, WatchError::Gone),
    }
}

/// Facts, revisions and expectations outlive a compaction, and revisions go on growing, also from all to nothing.
pub fn compaction_changes_no_fact(subject: &dyn Subject) {
    let store = subject.open();
    let kept = set(&*store, "kept", 1);
    set(&*store, "dropped", 2);
    let last = store.write_one(delete(handle("dropped"), Expect::Any)).expect("it is there");
    subject.compact(last);
    let listing = list(subject, &*store, &Filter::All);
    assert_eq!((listing.entries.len(), listing.revision >= last), (1, true));
    assert_eq!(get(&*store, "kept").map(|entry| entry.revision), Some(kept));
    let mut watching = watch(&*store, &Filter::Handles, listing.revision);
    let next = set(&*store, "kept", 2);
    assert!(next > last, "{next} after {last}");
    assert_eq!(briefs(&collect(&mut *watching, 1).expect("behind the compaction")), [("kept".into(), Some(2), next)]);
}
