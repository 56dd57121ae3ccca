//! What every store must do, as one suite of functions run against any store.
//!
//! A store's test file says `tortie_store::conformance_tests!(make)`, where `make()` gives a fresh [`Subject`]; each
//! case becomes one `#[test]`. The cases assume no number of a revision, only that revisions grow.

mod lists;
mod newer;
mod points;
mod races;
mod walk;
mod watches;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_api::Kind;
use tortie_facts::{Filter, Key, Revision, Value};

use crate::{Entry, Event, Expect, Listing, Store, Watch, WatchError, Write, WriteError};

pub use lists::*;
pub use newer::*;
pub use points::*;
pub use races::*;
pub use walk::*;
pub use watches::*;

/// A store under test, empty at the start.
pub trait Subject: Send + Sync {
    /// Another client of the same store.
    fn open(&self) -> Arc<dyn Store>;

    /// Puts a text under a key's text as a foreign writer would, with a new revision.
    fn plant(&self, path: &str, text: &str);

    /// Whether [`Subject::plant`] takes a resource of this kind, and [`Subject::text`] gives it back.
    fn plants(&self, _kind: Kind) -> bool {
        true
    }

    /// The text under a key's text as a foreign reader sees it.
    fn text(&self, path: &str) -> String;

    /// Forgets the history up to and including this revision.
    fn compact(&self, upto: Revision);

    /// Whether this fact is there without anybody having written it. Such facts are no part of a listing's test.
    fn given(&self, _key: &Key) -> bool {
        false
    }

    /// What the store promises beyond the least that every store does.
    fn nature(&self) -> Nature {
        Nature::default()
    }
}

/// What a store promises by its nature. A store without one of these can't be made to keep it by any adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// It keeps reported statuses, and with them texts of every shape. A store of typed objects has no place for them.
    pub keeps_statuses: bool,
    /// A compaction takes the history from every new watch. A server in front of the store may remember more than the
    /// store, and rightly serve a watch from its memory.
    pub forgets_at_once: bool,
}

impl Default for Nature {
    fn default() -> Nature {
        Nature { keeps_statuses: true, forgets_at_once: true }
    }
}

/// A listing without what was there before anybody wrote.
fn list(subject: &dyn Subject, store: &dyn Store, filter: &Filter) -> Listing {
    let mut listing = store.list(filter).expect("a listing");
    listing.entries.retain(|entry| !subject.given(&entry.key));
    listing
}

/// Makes one `#[test]` of each case. The argument is a function or closure that makes a fresh [`Subject`], or after
/// `maybe:` one that makes an `Option` of it: `None` skips the case, having said why.
#[macro_export]
macro_rules! conformance_tests {
    (maybe: $make:expr) => {
        $crate::conformance_tests! { @cases $make;
            absent_is_none
            what_is_written_is_read
            expectations_are_kept
            deletion_leaves_nothing
            texts_of_every_shape_survive
            a_value_of_another_kind_is_refused
            no_writes_give_no_results
            a_call_that_succeeds_does_all
            a_call_that_fails_tells_what_it_did
            one_call_may_write_a_key_twice
            listings_are_sorted_and_whole
            filters_never_cover_half_a_name
            a_node_is_told_what_it_acts_on
            filters_that_overlap_list_once
            unreadable_texts_stop_nothing_else
            what_newer_versions_wrote_survives_a_change
            what_newer_versions_wrote_of_addresses_survives
            a_watch_tells_every_change_in_order
            a_watch_starts_behind_its_revision
            a_watch_tells_only_what_its_filter_covers
            a_watch_waits_and_wakes
            a_watch_hears_other_clients
            a_watch_tells_unreadable_texts
            a_compacted_history_is_gone
            a_watch_that_lags_behind_compaction_has_no_gap
            compaction_changes_no_fact
            counters_lose_no_update
            one_of_many_creators_wins
            a_watch_of_concurrent_writers_has_no_gap
            listing_then_watching_misses_nothing
            a_random_walk_agrees_with_the_model
        }
    };
    ($make:expr) => {
        $crate::conformance_tests! { maybe: || Some(($make)()) }
    };
    (@cases $make:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                if let Some(subject) = ($make)() {
                    $crate::conformance::$case(&subject);
                }
            }
        )*
    };
}

/// Longer than any store needs; a wait that ends by it is a failure.
const LONG: Duration = Duration::from_secs(20);

/// Long enough for what should not come.
const SHORT: Duration = Duration::from_millis(30);

fn handle(name: &str) -> Key {
    Key::Handle(name.to_owned())
}

/// A value that holds a number.
fn number(n: u32) -> Value {
    let text = format!(r#"{{"block":{{"10.0.0.0/26":{n}}},"deleted":false}}"#);
    Value::from_json(&handle("any"), &text).expect("the text of a handle")
}

fn number_of(value: &Value) -> u32 {
    value.as_handle().expect("a handle").block.values().sum()
}

fn put(key: Key, expect: Expect, n: u32) -> Write {
    Write { key, expect, value: Some(number(n)) }
}

fn delete(key: Key, expect: Expect) -> Write {
    Write { key, expect, value: None }
}

/// Writes `n` under a handle, whatever is there.
fn set(store: &dyn Store, name: &str, n: u32) -> Revision {
    store.write_one(put(handle(name), Expect::Any, n)).expect("an unconditional write")
}

fn get(store: &dyn Store, name: &str) -> Option<Entry> {
    store.get(&handle(name)).expect("a read")
}

fn conflict(result: &Result<Revision, WriteError>) -> bool {
    matches!(result, Err(WriteError::Conflict { .. }))
}

fn missing(result: &Result<Revision, WriteError>) -> bool {
    matches!(result, Err(WriteError::Missing(_)))
}

fn now(store: &dyn Store) -> Revision {
    store.list(&Filter::Handles).expect("a listing").revision
}

fn watch(store: &dyn Store, filter: &Filter, from: Revision) -> Box<dyn Watch> {
    store.watch(filter, from).expect("a watch from a revision that is there")
}

/// Collects changes until there are `count`.
fn collect(watch: &mut dyn Watch, count: usize) -> Result<Vec<Event>, WatchError> {
    let deadline = Instant::now() + LONG;
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} changes came: {events:?}", events.len());
        events.extend(watch.next(Duration::from_secs(1))?);
    }
    Ok(events)
}

/// A change of a handle as (name, number if it was put, revision).
fn brief(event: &Event) -> (String, Option<u32>, Revision) {
    match event {
        Event::Put(Entry { key: Key::Handle(name), value, revision }) => {
            (name.clone(), Some(number_of(value)), *revision)
        }
        Event::Deleted { key: Key::Handle(name), revision } => (name.clone(), None, *revision),
        Event::Put(_) | Event::Deleted { .. } | Event::Invalid(_) => panic!("not a change of a handle: {event:?}"),
    }
}

fn briefs(events: &[Event]) -> Vec<(String, Option<u32>, Revision)> {
    events.iter().map(brief).collect()
}
