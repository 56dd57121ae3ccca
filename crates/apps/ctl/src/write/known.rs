//! What the store holds under some keys, read with few calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Key, Revision};
use tortie_store::{Listing, Reader, Store, StoreError, resource as stored};

use crate::settings::hint;

/// More keys of one kind than this are read by one listing.
const MANY: usize = 64;

/// What is stored.
#[derive(Default)]
pub(crate) struct Known {
    found: BTreeMap<Key, Result<(Arc<Resource>, Revision), String>>,
}

impl Known {
    /// Reads what is stored under these keys.
    pub(crate) fn read(store: &dyn Store, keys: impl Iterator<Item = Key>) -> Result<Known> {
        let mut by_kind: BTreeMap<Kind, Vec<Key>> = BTreeMap::new();
        for key in keys {
            if let Key::Resource { kind, .. } = &key {
                by_kind.entry(*kind).or_default().push(key);
            }
        }
        let mut known = Known::default();
        for (kind, keys) in by_kind {
            if keys.len() > MANY {
                let wanted: BTreeSet<Key> = keys.into_iter().collect();
                known.keep(store.list(&Filter::Kind(kind))?, |key| wanted.contains(key));
            } else {
                for key in keys {
                    known.read_one(store, key)?;
                }
            }
        }
        Ok(known)
    }

    fn read_one(&mut self, store: &dyn Store, key: Key) -> Result<()> {
        match Reader::get(store, &key) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                if let Some(resource) = entry.value.as_resource() {
                    self.found.insert(key, Ok((resource.clone(), entry.revision)));
                }
            }
            Err(StoreError::Invalid(reason)) => drop(self.found.insert(key, Err(reason))),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn keep(&mut self, listing: Listing, wanted: impl Fn(&Key) -> bool) {
        for entry in listing.entries {
            let Some(resource) = entry.value.as_resource() else { continue };
            let known = (resource.clone(), entry.revision);
            // A policy that older versions keep under another key is known by its name too.
            let named = stored::resource_key(resource);
            if named != entry.key && wanted(&named) {
                self.found.entry(named).or_insert_with(|| Ok(known.clone()));
            }
            if wanted(&entry.key) {
                self.found.insert(entry.key, Ok(known));
            }
        }
        for invalid in listing.invalid {
            if let Some(key) = Key::from_path(&invalid.path).ok().filter(&wanted) {
                self.found.insert(key, Err(invalid.reason));
            }
        }
    }

    /// What is stored under a key; an error if it can't be read.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<(&Arc<Resource>, Revision)>, String> {
        match self.found.get(key) {
            None => Ok(None),
            Some(Ok((resource, revision))) => Ok(Some((resource, *revision))),
            Some(Err(reason)) => Err(reason.clone()),
        }
    }

    /// Takes out what is stored under a key; an error if it can't be read.
    pub(crate) fn take(&mut self, key: &Key) -> Result<Option<(Arc<Resource>, Revision)>, String> {
        self.found.remove(key).transpose()
    }
}

/// `resource does not exist: KEY`, with the name of one that does if it is close.
pub(crate) fn with_nearest(store: &dyn Store, kind: Kind, namespace: &str, name: &str) -> String {
    let key = Key::resource(kind, namespace, name);
    let filter = if namespace.is_empty() { Filter::Kind(kind) } else { Filter::Namespace(kind, namespace.to_owned()) };
    let listing = store.list(&filter).unwrap_or_default();
    let names: Vec<&str> = listing
        .entries
        .iter()
        .filter_map(|entry| if let Key::Resource { name, .. } = &entry.key { Some(name.as_str()) } else { None })
        .collect();
    format!("resource does not exist: {key}{}", hint(name, names))
}
