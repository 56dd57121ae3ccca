//! IPAM's operations, with the store's faults and IPAM's as one error.

use anyhow::Result;
pub(crate) use tortie_datastore::ipam::{fact, now, settings};
use tortie_ipam::Plan;
use tortie_store::Store;

/// Runs an operation to its end.
pub(crate) fn run<P: Plan>(store: &dyn Store, plan: P) -> Result<P::Output> {
    Ok(tortie_datastore::ipam::run(store, plan)??)
}
