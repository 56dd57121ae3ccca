//! The store: a runtime of its own, around which the port's calls block.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};
use tortie_facts::{Filter, Key, Revision};
use tortie_store::{Entry, Listing, Reader, Store, StoreError, Watch, WatchError, Write, WriteError};

use crate::api::Api;
use crate::types::Type;
use crate::watch::{self, Positions};
use crate::{Group, Options, derived, read, write};

/// A client of the Kubernetes API as a store. Cheap to make: nothing is asked before the first call.
pub struct KubernetesStore {
    shared: Arc<Shared>,
}

/// What the store and its watches share. It lives outside the runtime, so that dropping it never blocks a task.
pub(crate) struct Shared {
    runtime: Option<Runtime>,
    pub(crate) api: Arc<Api>,
    /// Where watches that ended stood; the newest last.
    ended: Mutex<Vec<(u64, Positions)>>,
}

/// How many ended watches are remembered: more than one process has followers.
const REMEMBERED: usize = 64;

impl KubernetesStore {
    /// A store with these settings.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn open(options: Options) -> std::io::Result<KubernetesStore> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("kubernetes").enable_all().build()?;
        let api = Api::new(options);
        let shared = Shared { runtime: Some(runtime), api, ended: Mutex::default() };
        Ok(KubernetesStore { shared: Arc::new(shared) })
    }

    /// The group of the custom resources: the one that was set, or the one that the server has.
    ///
    /// # Errors
    /// If the API server can't be asked.
    pub fn group(&self) -> Result<Group, StoreError> {
        let found = self.wait(|api| async move { api.group().await });
        found.map_err(|fault| fault.of_read(Type::Custom(tortie_api::Kind::ClusterInformation), Group::V1))
    }

    /// Waits for what is asked of the API.
    pub(crate) fn wait<T, F: Future<Output = T>>(&self, ask: impl FnOnce(Arc<Api>) -> F) -> T {
        self.shared.runtime().block_on(ask(Arc::clone(&self.shared.api)))
    }
}

impl Shared {
    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken away when this is dropped, and not before")
    }

    /// Remembers where a watch stood that had told changes up to `seen`.
    pub(crate) fn remember(&self, seen: u64, positions: Positions) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push((seen, positions));
        let surplus = ended.len().saturating_sub(REMEMBERED);
        ended.drain(..surplus);
    }

    /// Where to go on from a revision: for each type the earliest place of an ended watch that had seen it.
    pub(crate) fn recall(&self, seen: u64) -> Positions {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Positions::new();
        for (ty, position) in ended.iter().filter(|(at, _)| *at == seen).flat_map(|(_, positions)| positions) {
            let place = found.entry(*ty).or_insert(*position);
            *place = (*place).min(*position);
        }
        found
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Reader for KubernetesStore {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.shared.runtime().block_on(read::get(&self.shared.api, key))
    }

    fn get_recent(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let lens = self.shared.runtime().block_on(self.shared.api.lens());
        match lens.ok().and_then(|lens| derived::recent(&self.shared.api, &lens, key)) {
            Some(entry) => Ok(Some(entry)),
            None => self.get(key),
        }
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        self.shared.runtime().block_on(read::list(&self.shared.api, filter))
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(watch::open(Arc::clone(&self.shared), filter, from)?))
    }
}

impl Store for KubernetesStore {
    /// One request after the other: the API knows no transaction over several objects.
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        let api = &self.shared.api;
        self.shared.runtime().block_on(async {
            let mut failed = false;
            let mut results = Vec::with_capacity(writes.len());
            for one in writes {
                let result = if failed { Err(WriteError::NotTried) } else { write::write(api, one).await };
                failed |= result.is_err();
                results.push(result);
            }
            results
        })
    }

    fn one_by_one(&self) -> bool {
        true
    }

    fn write_each(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        let api = &self.shared.api;
        let all = futures_util::future::join_all(writes.iter().map(|one| write::write(api, one)));
        self.shared.runtime().block_on(all)
    }
}
