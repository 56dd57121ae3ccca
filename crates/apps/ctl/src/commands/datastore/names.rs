//! `calicoctl datastore migrate-policy-names`: policies of the default tier that old versions keep as `default.NAME`
//! are kept by their name.
//!
//! Each is created anew and deleted under its old key in one call, so that one is there at any time and a second run goes
//! on where a first one ended.

use anyhow::Result;
use tortie_api::Kind;
use tortie_facts::{Filter, Key};
use tortie_store::{Entry, Expect, Store, Write, WriteError};

use crate::session::Session;
use crate::write::tier_of;

const KINDS: [Kind; 4] =
    [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy, Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy];

pub(super) fn migrate(session: &mut Session<'_, '_>) -> Result<()> {
    let store = session.store()?;
    let mut migrated = 0;
    for kind in KINDS {
        for entry in store.list(&Filter::Kind(kind))?.entries {
            migrated += usize::from(one(&*store, entry)?);
        }
    }
    session.say(&format!("Policy name migration complete, migrated {migrated} policies.\n"))
}

/// Moves a policy whose key is not that of its name; whether it was one.
fn one(store: &dyn Store, entry: Entry) -> Result<bool> {
    let Entry { key, value, revision } = entry;
    let (Key::Resource { kind, namespace, name: old }, Some(policy)) = (&key, value.as_resource()) else {
        return Ok(false);
    };
    let name = &policy.metadata().name;
    if name == old || tier_of(policy) != Some("default") {
        return Ok(false);
    }
    let new = Write { key: Key::resource(*kind, namespace, name), expect: Expect::Absent, value: Some(value.clone()) };
    let gone = Write { key, expect: Expect::Revision(revision), value: None };
    match store.write_all(&[new, gone.clone()]) {
        Ok(_) => return Ok(true),
        // It is there under its name from an earlier run, or somebody made it meanwhile.
        Err(WriteError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match store.write_one(gone) {
        Ok(_) | Err(WriteError::Missing(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
