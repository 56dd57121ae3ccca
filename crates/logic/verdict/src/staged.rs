//! The would-be verdict: what would happen if staged policies were enforced.
//!
//! A staged policy takes the place that an enforced one of its tier, order and name would have, and is asked beside the
//! enforced ones: it does not stand for the policy of the same name that it may be meant to replace.

use std::sync::Arc;

use tortie_desired::{Endpoint, Tables};

/// The tables as they were if every staged policy were enforced: with them, every other function here tells of that.
pub fn with_staged(tables: &Tables) -> Tables {
    let mut out = tables.clone();
    out.policies.append(&mut out.staged);
    for (id, tiers) in std::mem::take(&mut out.previews) {
        if let Some(endpoint) = out.endpoints.get_mut(&id) {
            *endpoint = Arc::new(Endpoint { tiers: tiers.to_vec(), ..Endpoint::clone(endpoint) });
        }
    }
    out.host_endpoints.append(&mut out.host_previews);
    out
}
