//! Runs IPAM's pure steps against the store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tortie_facts::Key;
use tortie_ipam::{Answer, Ask, Expect, Fact, Machine, Now, Outcome, Plan, Settings, View};
use tortie_store::{Entry, Expect as StoreExpect, Reader, Store, Write, WriteError};

/// The time, as IPAM counts it.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Pools, reservations and settings.
pub(crate) fn settings(store: &dyn Store) -> Result<Arc<Settings>> {
    let listing = store.list(&Settings::filter())?;
    let config = Reader::get(store, &Key::IpamConfig)?;
    let facts = listing.entries.iter().chain(&config).map(|entry| (&entry.key, &entry.value));
    Ok(Arc::new(Settings::from_facts(facts)))
}

/// An entry as IPAM wants it.
pub(crate) fn fact(entry: Entry) -> Fact {
    let Entry { key, value, revision } = entry;
    Fact { key, value, revision }
}

/// Runs an operation to its end.
pub(crate) fn run<P: Plan>(store: &dyn Store, plan: P) -> Result<P::Output> {
    let mut machine = Machine::new(plan, View::default());
    Ok(tortie_ipam::drive(&mut machine, |ask| answer(store, ask))??)
}

fn answer(store: &dyn Store, ask: Ask) -> Result<Answer> {
    match ask {
        Ask::Get(keys) => {
            let got = keys.iter().map(|key| Ok(Reader::get(store, key)?.map(fact)));
            Ok(Answer::Got(got.collect::<Result<_>>()?))
        }
        Ask::List(filter) => Ok(Answer::Listed(store.list(&filter)?.entries.into_iter().map(fact).collect())),
        Ask::Write(writes) => {
            let expect = |expect| match expect {
                Expect::Absent => StoreExpect::Absent,
                Expect::Revision(revision) => StoreExpect::Revision(revision),
            };
            let writes: Vec<Write> = writes
                .into_iter()
                .map(|write| Write { key: write.key, expect: expect(write.expect), value: write.value })
                .collect();
            Ok(Answer::Wrote(store.write(&writes).into_iter().map(outcome).collect()))
        }
    }
}

fn outcome(result: Result<tortie_facts::Revision, WriteError>) -> Outcome {
    match result {
        Ok(revision) => Outcome::Done(revision),
        Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => Outcome::Conflict,
        Err(WriteError::NotTried) => Outcome::NotTried,
        Err(error @ (WriteError::Invalid(_) | WriteError::Unavailable(_))) => Outcome::Failed(error.to_string()),
    }
}
