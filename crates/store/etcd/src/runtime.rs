//! The runtime that all stores of a process share: one thread, made at the first call.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::fault::Fault;

static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();

/// Waits for a future on the calling thread, which must not be a thread of a runtime.
pub(crate) fn wait<T, E: From<Fault>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let made = RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).thread_name("etcd").enable_all().build().ok());
    match made {
        Some(runtime) => runtime.block_on(future),
        None => Err(Fault::Unavailable("this process gets no thread to talk to etcd with".to_owned()).into()),
    }
}
