//! Keeps copies of Kubernetes' policies, namespaces, service accounts and pods' labels where the facts are kept apart.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use tortie_control::{Change, Copied, Running, copied_filter, copies, source_of};
use tortie_facts::Key;
use tortie_store::{Expect, Reader, Store, Write, WriteError, resource};
use tracing::info;

use crate::picture::Picture;

/// Which copies the configuration asks for.
fn wanted(running: &Running) -> Copied {
    let on = &running.spec.controllers;
    Copied {
        policies: on.policy.is_some(),
        namespaces: on.namespace.is_some(),
        accounts: on.service_account.is_some(),
        pods: on.workload_endpoint.is_some(),
    }
}

/// Writes what differs. One write that fails does not stop the others; `go_on`: whether this process still leads.
/// What seems to be gone is deleted once Kubernetes says so itself, asked anew.
pub(crate) fn keep(
    store: &dyn Store,
    picture: &Picture,
    (api, kubernetes): (&dyn Store, &Picture),
    running: &Running,
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    let unreadable = |kind| kubernetes.has_unreadable(kind);
    let changes = copies(wanted(running), kubernetes.resources(), picture.resources(), unreadable);
    let mut there: Option<BTreeSet<Key>> = None;
    let mut failed = None;
    for change in changes {
        if !go_on() {
            break;
        }
        let (key, done) = match change {
            Change::Create(copy) => {
                let write = resource::create(copy);
                (write.key.clone(), store.write_one(write).map(drop))
            }
            Change::Replace(copy) => {
                let key = Key::resource(copy.kind(), &copy.metadata().namespace, &copy.metadata().name);
                let Some((stored, revision)) = picture.resource(&key) else { continue };
                (key, store.write_one(resource::replace(copy, stored, revision)).map(drop))
            }
            Change::Delete(key) => {
                if there.is_none() {
                    let entries = Reader::list(api, &copied_filter()).context("objects of Kubernetes")?;
                    // What can't be read is there all the same.
                    let unread = entries.invalid.iter().filter_map(|one| Key::from_path(&one.path).ok());
                    there = Some(entries.entries.iter().map(|entry| entry.key.clone()).chain(unread).collect());
                }
                let known = there.as_ref().zip(source_of(&key));
                let Some((_, revision)) = picture.resource(&key) else { continue };
                if known.is_none_or(|(there, source)| there.contains(&source)) {
                    continue;
                }
                let write = Write { key: key.clone(), expect: Expect::Revision(revision), value: None };
                (key, store.write_one(write).map(drop))
            }
        };
        match done {
            Ok(()) => info!("{key} is as Kubernetes has it"),
            // Somebody was faster: the picture will tell, and this is looked at again.
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => {}
            Err(error) => failed = Some(anyhow::Error::from(error).context(key.to_string())),
        }
    }
    failed.map_or(Ok(()), Err)
}
