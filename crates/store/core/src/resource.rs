//! Resources through the store port: keys, identity, and the create-or-update that several programs need.

use std::time::{SystemTime, UNIX_EPOCH};

use tortie_api::{Resource, Timestamp};
use tortie_facts::{Key, Revision, Value};

use crate::{Expect, Reader, Store, StoreError, Write, WriteError};

/// The key that a resource is kept under.
pub fn resource_key(resource: &Resource) -> Key {
    let metadata = resource.metadata();
    Key::resource(resource.kind(), &metadata.namespace, &metadata.name)
}

/// Gives a new resource what upstream's client gives it: an identity and the time of its creation, where missing.
pub fn stamp_new(resource: &mut Resource) {
    let metadata = resource.metadata_mut();
    if metadata.uid.is_empty() {
        metadata.uid = uuid::Uuid::new_v4().to_string();
    }
    if metadata.creation_timestamp.is_none() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        metadata.creation_timestamp = Timestamp::from_unix_seconds(i64::try_from(now).unwrap_or(i64::MAX));
    }
}

/// The write that creates a resource: identity given, revision left to the store.
pub fn create(mut resource: Resource) -> Write {
    stamp_new(&mut resource);
    resource.metadata_mut().resource_version.clear();
    Write { key: resource_key(&resource), expect: Expect::Absent, value: Some(Value::resource(resource)) }
}

/// The write that replaces a resource as it was read at a revision; identity and creation time stay as they were.
pub fn replace(mut resource: Resource, stored: &Resource, revision: Revision) -> Write {
    let (uid, created) = (stored.metadata().uid.clone(), stored.metadata().creation_timestamp);
    let metadata = resource.metadata_mut();
    metadata.uid = uid;
    metadata.creation_timestamp = created;
    metadata.resource_version.clear();
    Write { key: resource_key(&resource), expect: Expect::Revision(revision), value: Some(Value::resource(resource)) }
}

/// Creates a resource unless it is there; `false`: it was there already.
pub fn ensure(store: &dyn Store, resource: Resource) -> Result<bool, WriteError> {
    match store.write_one(create(resource)) {
        Ok(_) => Ok(true),
        Err(WriteError::Conflict { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Why an update gave up.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// Writing failed, or others were faster too often.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads a resource, lets `change` alter it (from `None` when absent), and writes it back if it differs; starts over
/// when another writer was faster, up to ten times. Returns what is stored in the end.
pub fn update(
    store: &dyn Store,
    key: &Key,
    mut change: impl FnMut(Option<&Resource>) -> Resource,
) -> Result<Resource, UpdateError> {
    let mut last = WriteError::NotTried;
    for _ in 0..10 {
        let entry = Reader::get(store, key)?;
        let stored = entry.as_ref().and_then(|entry| Some((entry.value.as_resource()?, entry.revision)));
        let wanted = change(stored.map(|(resource, _)| &**resource));
        let write = match stored {
            Some((stored, _)) if **stored == wanted => return Ok(wanted),
            Some((stored, revision)) => replace(wanted.clone(), stored, revision),
            None => create(wanted.clone()),
        };
        match store.write_one(write) {
            Ok(_) => return Ok(wanted),
            Err(error @ (WriteError::Conflict { .. } | WriteError::Missing(_))) => last = error,
            Err(other) => return Err(other.into()),
        }
    }
    Err(last.into())
}
