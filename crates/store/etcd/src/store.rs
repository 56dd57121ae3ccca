//! The store itself: the port's calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tortie_facts::{Filter, Key, Revision};
use tortie_store::{
    Entry, Listing, Reader, Store, StoreError, TextWrite, Watch, WatchError, Write, WriteError, encode, spans,
};

use crate::client::Client;
use crate::options::Options;
use crate::watch::EtcdWatch;
use crate::{older, read, runtime, tls, write};

/// The etcd store. Clones share its connection, which is made at the first call.
#[derive(Clone)]
pub struct EtcdStore {
    client: Arc<Client>,
    /// How long the report that a node is alive stays, seconds; zero: for ever.
    report_seconds: Arc<AtomicI64>,
}

impl EtcdStore {
    /// A store by these settings; connects to nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if a setting or a file that it names can't be used.
    pub fn open(options: Options) -> Result<EtcdStore, StoreError> {
        let client = Client::new(options).map_err(|error| StoreError::Unusable(error.to_string()))?;
        tls::check(&client.options)?;
        Ok(EtcdStore { client: Arc::new(client), report_seconds: Arc::new(AtomicI64::new(write::REPORT_SECONDS)) })
    }

    /// The revision now.
    ///
    /// # Errors
    /// If no member can be reached, or the user may not read.
    pub fn revision(&self) -> Result<Revision, StoreError> {
        runtime::wait(read::now(&self.client)).map(read::revision).map_err(StoreError::from)
    }

    /// Makes etcd forget the history up to and including a revision; watches from before are gone. What is forgotten
    /// already is no error.
    ///
    /// # Errors
    /// If no member can be reached, or the user may not do so.
    pub fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        // etcd's compaction keeps the revision that it names, for readers.
        let upto = i64::try_from(upto.0).unwrap_or(i64::MAX).saturating_add(1);
        runtime::wait(async {
            let now = read::now(&self.client).await?;
            self.client.compact(upto.min(now)).await
        })
        .map_err(StoreError::from)
    }
}

impl Reader for EtcdStore {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        runtime::wait(older::get(&self.client, key))
    }

    fn list(&self, filter: &Filter) -> Result<Listing, StoreError> {
        Ok(runtime::wait(read::list(&self.client, &spans(filter)))?)
    }

    fn list_in_parts(&self, filter: &Filter, each: &mut dyn FnMut(Listing)) -> Result<(), StoreError> {
        Ok(runtime::wait(read::list_in_parts(&self.client, &spans(filter), each))?)
    }

    fn watch(&self, filter: &Filter, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(EtcdWatch::open(&self.client, spans(filter), from.0)?))
    }
}

impl Store for EtcdStore {
    fn write(&self, writes: &[Write]) -> Vec<Result<Revision, WriteError>> {
        let encoded: Vec<Result<TextWrite, WriteError>> = writes.iter().map(encode).collect();
        if encoded.iter().any(Result::is_err) {
            // Nothing is written of a call that can't be written whole.
            let first = encoded.iter().position(Result::is_err);
            let one = |(at, write): (usize, Result<TextWrite, WriteError>)| match write {
                Err(error) if Some(at) == first => Err(error),
                Ok(_) | Err(_) => Err(WriteError::NotTried),
            };
            return encoded.into_iter().enumerate().map(one).collect();
        }
        let texts: Vec<TextWrite> = encoded.into_iter().flatten().collect();
        let stay = self.report_seconds.load(Ordering::Relaxed);
        let done = runtime::wait(async { Ok::<_, WriteError>(older::write(&self.client, writes, texts, stay).await) });
        done.unwrap_or_else(|error| vec![Err(error); writes.len()])
    }

    fn expire_reports_after(&self, age: Duration) {
        // etcd counts whole seconds.
        let seconds = i64::try_from(age.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        self.report_seconds.store(seconds, Ordering::Relaxed);
    }
}
