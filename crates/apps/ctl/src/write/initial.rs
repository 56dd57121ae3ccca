//! What every cluster has from the first write on: its identity and the built-in tiers.

use anyhow::Result;
use tortie_api::{Action, ClusterInformation, ClusterInformationSpec, Kind, Metadata, Resource, Tier, TierSpec};
use tortie_facts::Key;
use tortie_store::{Reader, Store, Write, WriteError, resource as stored};

/// The tiers that always exist: name, order, what happens at their end.
const TIERS: [(&str, f64, Action); 3] = [
    ("default", 1_000_000.0, Action::Deny),
    ("kube-admin", 1_000.0, Action::Pass),
    ("kube-baseline", 10_000_000.0, Action::Pass),
];

/// Creates what is missing; a node does the same when it starts.
pub(crate) fn ensure_initialized(store: &dyn Store) -> Result<()> {
    let mut missing: Vec<Write> = Vec::new();
    let mut want = |resource: Resource| -> Result<()> {
        if Reader::get(store, &stored::resource_key(&resource))?.is_none() {
            missing.push(stored::create(resource));
        }
        Ok(())
    };
    for (name, order, action) in TIERS {
        let spec = TierSpec { order: Some(order), default_action: Some(action) };
        want(Tier { metadata: Metadata::named(name), spec, ..Tier::default() }.into())?;
    }
    if Reader::get(store, &Key::resource(Kind::ClusterInformation, "", "default"))?.is_none() {
        let spec = ClusterInformationSpec {
            cluster_guid: uuid::Uuid::new_v4().simple().to_string(),
            datastore_ready: Some(true),
            ..ClusterInformationSpec::default()
        };
        want(ClusterInformation { metadata: Metadata::named("default"), spec }.into())?;
    }
    for write in missing {
        match store.write_one(write) {
            // Somebody else was faster.
            Ok(_) | Err(WriteError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether a tier is one of those that always exist.
pub(crate) fn is_protected(tier: &str) -> bool {
    TIERS.iter().any(|(name, ..)| *name == tier)
}
