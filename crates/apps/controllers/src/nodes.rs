//! What is done about nodes: host endpoints, labels, and those whose node in Kubernetes is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use tortie_api::{Kind, Node, Resource};
use tortie_control::{Moment, Running, StaleNodes, host_endpoint_changes, kubernetes_name, with_labels};
use tortie_facts::{Filter, Key};
use tortie_store::{Expect, Reader, Store, Write, WriteError, resource};
use tracing::{info, warn};

use crate::picture::Picture;

fn remove(store: &dyn Store, key: Key) -> Result<()> {
    match store.write_one(Write { key, expect: Expect::Any, value: None }) {
        Ok(_) | Err(WriteError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes, changes and deletes host endpoints; how many writes that took. One that fails does not stop the others.
pub(crate) fn host_endpoints(store: &dyn Store, picture: &Picture, running: &Running) -> Result<usize> {
    let Some(settings) = running.host_endpoints() else { return Ok(0) };
    if picture.has_unreadable(Kind::Node) || picture.has_unreadable(Kind::HostEndpoint) {
        warn!("a node or host endpoint can't be read: host endpoints stay as they are");
        return Ok(0);
    }
    let existing = picture.host_endpoints();
    let changes = host_endpoint_changes(picture.nodes(), &existing, settings);
    for problem in &changes.problems {
        warn!("KubeControllersConfiguration(default): {problem}");
    }
    let (mut done, mut failed) = (0, None);
    for wanted in changes.put {
        let key = Key::resource(Kind::HostEndpoint, "", &wanted.metadata.name);
        let write = match picture.resource(&key) {
            Some((stored, revision)) => resource::replace(wanted.into(), stored, revision),
            None => resource::create(wanted.into()),
        };
        note(store.write_one(write).map(drop).map_err(Into::into), &key, &mut done, &mut failed);
    }
    for name in changes.delete {
        let key = Key::resource(Kind::HostEndpoint, "", &name);
        note(remove(store, key.clone()), &key, &mut done, &mut failed);
    }
    failed.map_or(Ok(done), Err)
}

fn note(result: Result<()>, key: &Key, done: &mut usize, failed: &mut Option<anyhow::Error>) {
    match result {
        Ok(()) => {
            info!("{key} is as it should be");
            *done += 1;
        }
        Err(error) => *failed = Some(error.context(key.to_string())),
    }
}

/// Copies labels of Kubernetes' nodes.
pub(crate) fn labels(store: &dyn Store, picture: &Picture, kubernetes: &Picture) -> Result<usize> {
    let theirs: BTreeMap<&str, &Node> = kubernetes.nodes().map(|node| (node.metadata.name.as_str(), node)).collect();
    let (mut done, mut failed) = (0, None);
    for node in picture.nodes() {
        let Some(from) = kubernetes_name(node).and_then(|name| theirs.get(name)) else { continue };
        let key = Key::resource(Kind::Node, "", &node.metadata.name);
        let (Some(wanted), Some((stored, revision))) =
            (with_labels(node, &from.metadata.labels), picture.resource(&key))
        else {
            continue;
        };
        let write = resource::replace(wanted.into(), stored, revision);
        note(store.write_one(write).map(drop).map_err(Into::into), &key, &mut done, &mut failed);
    }
    failed.map_or(Ok(done), Err)
}

/// Deletes nodes whose node in Kubernetes is gone, after a look at Kubernetes itself.
pub(crate) fn stale(
    store: &dyn Store,
    picture: &Picture,
    beside: (&dyn Store, &Picture),
    known: &mut StaleNodes,
    at: Moment,
    wait: Duration,
) -> Result<usize> {
    let (api, kubernetes) = beside;
    let names: BTreeSet<String> = kubernetes.nodes().map(|node| node.metadata.name.clone()).collect();
    // A cluster of Kubernetes without any node is a fault, not a fact.
    if names.is_empty() || kubernetes.has_unreadable(Kind::Node) {
        return Ok(0);
    }
    let due = known.look(picture.nodes(), &names, at, wait);
    let mut done = 0;
    for name in due {
        let key = Key::resource(Kind::Node, "", &name);
        let Some((Resource::Node(node), _)) = picture.resource(&key) else { continue };
        let Some(theirs) = kubernetes_name(node) else { continue };
        let there = Reader::get(api, &Key::resource(Kind::Node, "", theirs)).context("nodes of Kubernetes")?;
        if there.is_none() {
            delete(store, &name)?;
            info!("{key} is deleted: Kubernetes has no node {theirs} any more");
            done += 1;
        }
    }
    Ok(done)
}

/// Deletes a node with what is there because of it; its addresses are collected like those of any node that is gone.
fn delete(store: &dyn Store, name: &str) -> Result<()> {
    let filter = Filter::Any(vec![Filter::Kind(Kind::WorkloadEndpoint), Filter::Kind(Kind::BgpPeer)]);
    let mut keys = Vec::new();
    for entry in store.list(&filter)?.entries {
        match entry.value.as_resource().map(|resource| &**resource) {
            Some(Resource::WorkloadEndpoint(endpoint)) if endpoint.spec.node == name => keys.push(entry.key),
            Some(Resource::BgpPeer(peer)) if peer.spec.node == name => keys.push(entry.key),
            _ => {}
        }
    }
    let own = format!("node.{name}");
    keys.push(Key::resource(Kind::FelixConfiguration, "", &own));
    keys.push(Key::resource(Kind::BgpConfiguration, "", &own));
    // The node last: what is interrupted is found again by it.
    keys.push(Key::resource(Kind::Node, "", name));
    keys.into_iter().try_for_each(|key| remove(store, key))
}
