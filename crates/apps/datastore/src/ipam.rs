//! Runs IPAM's pure steps against a store: each question becomes its reads or writes, and their results its answer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tortie_facts::{Key, Revision};
use tortie_ipam::{Answer, Ask, CasWrite, Expect, Fact, IpamError, Machine, Now, Outcome, Plan, Settings, View, drive};
use tortie_store::{Entry, Expect as StoreExpect, Reader, Store, StoreError, Write, WriteError};

/// The time, as IPAM counts it.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Pools, reservations and settings, read from the store.
pub fn settings(store: &dyn Store) -> Result<Arc<Settings>, StoreError> {
    let listing = store.list(&Settings::filter())?;
    let config = Reader::get(store, &Key::IpamConfig)?;
    let facts = listing.entries.iter().chain(&config).map(|entry| (&entry.key, &entry.value));
    Ok(Arc::new(Settings::from_facts(facts)))
}

/// Runs an operation to its end. The outer error is the store's, the inner one IPAM's.
pub fn run<P: Plan>(store: &dyn Store, plan: P) -> Result<Result<P::Output, IpamError>, StoreError> {
    drive(&mut Machine::new(plan, View::default()), |ask| answer(store, ask))
}

/// Answers one question of a plan.
pub fn answer(store: &dyn Store, ask: Ask) -> Result<Answer, StoreError> {
    Ok(match ask {
        Ask::Get(keys) => {
            let got = keys.iter().map(|key| Ok(Reader::get(store, key)?.map(fact)));
            Answer::Got(got.collect::<Result<_, StoreError>>()?)
        }
        Ask::List(filter) => Answer::Listed(store.list(&filter)?.entries.into_iter().map(fact).collect()),
        Ask::Write(writes) => {
            let writes: Vec<Write> = writes.into_iter().map(write).collect();
            Answer::Wrote(store.write(&writes).into_iter().map(outcome).collect())
        }
    })
}

/// An entry as IPAM wants it.
pub fn fact(Entry { key, value, revision }: Entry) -> Fact {
    Fact { key, value, revision }
}

/// A write as the store wants it.
pub fn write(CasWrite { key, expect, value }: CasWrite) -> Write {
    let expect = match expect {
        Expect::Absent => StoreExpect::Absent,
        Expect::Revision(revision) => StoreExpect::Revision(revision),
    };
    Write { key, expect, value }
}

/// What a write came to.
pub fn outcome(result: Result<Revision, WriteError>) -> Outcome {
    match result {
        Ok(revision) => Outcome::Done(revision),
        Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => Outcome::Conflict,
        Err(WriteError::NotTried) => Outcome::NotTried,
        Err(error @ (WriteError::Invalid(_) | WriteError::Unavailable(_))) => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tortie_api::{IpPool, IpPoolAllowedUse, IpPoolSpec, Metadata, Resource};
    use tortie_facts::{Filter, Value};
    use tortie_ipam::{Assign, Client, Holder, ReleaseHandle, Request};
    use tortie_store::MemoryStore;

    use super::*;

    #[test]
    fn an_address_is_given_and_taken_back() {
        let store = MemoryStore::new();
        let spec = IpPoolSpec {
            cidr: "10.7.0.0/24".into(),
            allowed_uses: vec![IpPoolAllowedUse::Workload],
            ..IpPoolSpec::default()
        };
        let pool = Resource::from(IpPool { metadata: Metadata::named("pool"), spec, status: None });
        let key = Key::resource(pool.kind(), "", "pool");
        let made = Write { key, expect: StoreExpect::Absent, value: Some(Value::resource(pool)) };
        store.write_one(made).expect("written");
        let holder = Holder { handle: Some("h".to_owned()), attrs: [].into() };
        let request = Request::one(Client::workload("n"), holder, tortie_net::Family::V4);
        let settings = settings(&store).expect("read");
        let given = run(&store, Assign::new(request, settings, now())).expect("read").expect("there is room");
        assert_eq!(given.addresses[0].address.to_string(), "10.7.0.0");
        assert_eq!(store.list(&Filter::Handles).expect("listed").entries.len(), 1);
        run(&store, ReleaseHandle::new("h", 0, now())).expect("read").expect("released");
        assert!(store.list(&Filter::Handles).expect("listed").entries.is_empty());
    }

    #[test]
    fn a_lost_race_is_a_conflict() {
        let store = MemoryStore::new();
        let value = Value::Handle(Arc::default());
        let made = |expect| CasWrite { key: Key::Handle("h".to_owned()), expect, value: Some(value.clone()) };
        let asked = || {
            let answer = answer(&store, Ask::Write(vec![made(Expect::Absent)])).expect("tried");
            let Answer::Wrote(outcomes) = answer else { panic!("a write is answered with its outcome") };
            outcomes
        };
        assert!(matches!(asked()[..], [Outcome::Done(_)]));
        assert!(matches!(asked()[..], [Outcome::Conflict]));
    }
}
