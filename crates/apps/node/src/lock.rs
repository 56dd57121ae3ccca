//! The lock of the datastore: `datastoreReady` of the ClusterInformation, which `calicoctl datastore migrate` sets.
//!
//! While it is false, a node changes nothing in the datastore and follows nothing that changes there: what the kernel
//! holds stays, and is kept as it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use signal_hook::iterator::Signals;
use tortie_api::{Kind, Resource};
use tortie_facts::{Key, SyncStatus, Update, Value};
use tortie_store::{Reader, Store, StoreError};
use tracing::{info, warn};

/// How often a node that waits looks at the lock.
const INTERVAL: Duration = Duration::from_secs(1);

fn key() -> Key {
    Key::resource(Kind::ClusterInformation, "", "default")
}

/// Whether a value of the ClusterInformation says so; a cluster that says nothing is not locked.
fn says_locked(value: Option<&Value>) -> bool {
    match value.and_then(Value::as_resource).map(|resource| &**resource) {
        Some(Resource::ClusterInformation(info)) => info.spec.datastore_ready == Some(false),
        _ => false,
    }
}

/// Whether the datastore is locked now.
pub fn is_locked(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(says_locked(Reader::get(store, &key())?.as_ref().map(|entry| &entry.value)))
}

/// What updates say of the lock, if anything.
pub fn told(updates: &[Update]) -> Option<bool> {
    let key = key();
    let last = updates.iter().rfind(|update| update.key == key)?;
    Some(says_locked(last.value.as_ref()))
}

/// What a follower of the datastore was told of its lock: as old as its watch is late.
pub struct Told {
    /// Whether it is asked at all: a look at a store of this machine costs less than being late.
    used: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_sync: bool,
    locked: Option<bool>,
}

impl Told {
    /// Nothing was told yet.
    pub fn of(store: &dyn Store) -> Told {
        Told { used: store.one_by_one(), state: Mutex::default() }
    }

    /// Takes what the follower was told.
    pub fn observe(&self, updates: &[Update], status: Option<SyncStatus>, trouble: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(locked) = told(updates) {
            state.locked = Some(locked);
        }
        match status {
            Some(status) => state.in_sync = status == SyncStatus::InSync,
            None => state.in_sync &= !trouble,
        }
    }

    /// Whether the datastore is locked; `None`: it has to be asked.
    pub fn told(&self) -> Option<bool> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.locked.filter(|_| self.used && state.in_sync)
    }
}

/// Waits until the datastore is not locked; `false`: a signal came first.
pub fn wait(store: &dyn Store, signals: &mut Signals) -> Result<bool> {
    if !is_locked(store)? {
        return Ok(true);
    }
    warn!("the datastore is locked: nothing is done until `calicoctl datastore migrate unlock`");
    while is_locked(store)? {
        if signals.pending().next().is_some() {
            return Ok(false);
        }
        std::thread::sleep(INTERVAL);
    }
    info!("the datastore is unlocked");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use tortie_api::{ClusterInformation, ClusterInformationSpec, Metadata};
    use tortie_facts::Revision;
    use tortie_store::{MemoryStore, resource};

    use super::*;

    fn info(ready: Option<bool>) -> Resource {
        let spec = ClusterInformationSpec { datastore_ready: ready, ..ClusterInformationSpec::default() };
        ClusterInformation { metadata: Metadata::named("default"), spec }.into()
    }

    #[test]
    fn only_what_is_told_not_ready_is_locked() {
        let store = MemoryStore::new();
        assert_eq!(is_locked(&store), Ok(false), "nothing is told");
        for (ready, locked) in [(None, false), (Some(false), true), (Some(true), false)] {
            resource::update(&store, &key(), |_| info(ready)).expect("written");
            assert_eq!(is_locked(&store), Ok(locked), "{ready:?}");
        }
    }

    #[test]
    fn what_was_told_counts_while_the_store_is_followed() {
        let told = Told { used: true, state: Mutex::default() };
        let update =
            |ready| [Update { key: key(), value: Some(Value::resource(info(Some(ready)))), revision: Revision(1) }];
        told.observe(&update(false), None, false);
        assert_eq!(told.told(), None, "the picture is not complete");
        told.observe(&[], Some(SyncStatus::InSync), false);
        assert_eq!(told.told(), Some(true));
        told.observe(&update(true), None, false);
        assert_eq!(told.told(), Some(false));
        told.observe(&[], Some(SyncStatus::WaitForDatastore), true);
        assert_eq!(told.told(), None, "nobody would tell");
        told.observe(&[], Some(SyncStatus::InSync), false);
        assert_eq!(told.told(), Some(false));
        let near = Told::of(&MemoryStore::new());
        near.observe(&update(false), Some(SyncStatus::InSync), false);
        assert_eq!(near.told(), None, "a store of this machine is asked");
    }

    #[test]
    fn the_last_update_counts() {
        let update =
            |ready| Update { key: key(), value: Some(Value::resource(info(Some(ready)))), revision: Revision(1) };
        let other = Update { key: Key::IpamConfig, value: None, revision: Revision(2) };
        assert_eq!(told(std::slice::from_ref(&other)), None);
        assert_eq!(told(&[update(false), other.clone()]), Some(true));
        assert_eq!(told(&[update(false), update(true), other]), Some(false));
        assert_eq!(told(&[update(false), Update { key: key(), value: None, revision: Revision(3) }]), Some(false));
    }
}
