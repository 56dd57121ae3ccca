//! Datastores that benchmarks run against, and the programs that work on them in processes of their own.

pub mod addresses;
pub mod etcd;
pub mod kubernetes;
pub mod manifests;
pub mod snapshot;

use std::time::Duration;

use anyhow::Result;
use tortie_store_etcd::{EtcdStore, Options, Setting};

/// A client of etcd at these endpoints.
pub fn open(endpoints: &str) -> Result<EtcdStore> {
    let endpoints = Some(Setting::new(endpoints.to_owned(), "the benchmark".to_owned()));
    Ok(EtcdStore::open(Options { endpoints, patience: Duration::from_secs(30), ..Options::default() })?)
}
