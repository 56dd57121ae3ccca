//! `calicoctl datastore migrate export`, in the form that upstream's import reads.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::Filter;
use tortie_store::Store;

use super::ipam::Ipam;
use super::{BORDER, KINDS, KUBERNETES_OWN, OF_KUBERNETES};
use crate::commands::get::shown;
use crate::commands::ipam::{cluster, is_locked};
use crate::print::{self, Format, Found};
use crate::session::Session;

/// Nodes by their old names, with the names that Kubernetes knows them by.
pub(super) type Renamed = BTreeMap<String, String>;

pub(super) fn export(session: &mut Session<'_, '_>, complete: bool) -> Result<()> {
    let store = session.store()?;
    let (info, _) = cluster(&*store)?;
    if !is_locked(&info) {
        bail!(
            "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order to begin migration"
        );
    }
    let renamed = if complete { Renamed::new() } else { names_in_kubernetes(&*store)? };
    let more = if complete { &KUBERNETES_OWN[..] } else { &[] };
    for kind in KINDS.iter().chain(more) {
        let listing = store.list(&Filter::Kind(*kind))?;
        if let Some(invalid) = listing.invalid.first() {
            bail!("{}: can't be read, and would be missing: {}", invalid.path, invalid.reason);
        }
        let revision = listing.revision.to_string();
        let mut items = Vec::new();
        for entry in &listing.entries {
            let Some(resource) = entry.value.as_resource() else { continue };
            if *kind != Kind::NetworkPolicy || complete || !resource.metadata().name.starts_with(OF_KUBERNETES) {
                let resource = moved(shown(resource.clone(), entry.revision), &renamed);
                items.push(if complete { resource } else { for_kubernetes(resource) });
            }
        }
        let list = Found::List { kind: *kind, items, revision };
        session.say(&print::render(&Format::Yaml, &[list], false, &String::new)?)?;
        session.say("---\n")?;
    }
    let info = serde_json::to_string_pretty(&Resource::from(info).to_value())?;
    session.say(&format!("{BORDER}{info}\n{BORDER}"))?;
    let mut ipam = Ipam::read(&*store, &renamed)?;
    if complete {
        ipam.add_others(&*store)?;
    }
    session.say(&format!("{}\n", serde_json::to_string_pretty(&ipam)?))
}

/// What Kubernetes calls the nodes, if it has them.
fn names_in_kubernetes(store: &dyn Store) -> Result<Renamed> {
    let mut renamed = Renamed::new();
    let mut strangers = Vec::new();
    for entry in store.list(&Filter::Kind(Kind::Node))?.entries {
        let Some(Resource::Node(node)) = entry.value.as_resource().map(|resource| &**resource) else { continue };
        let of_kubernetes = node.spec.orch_refs.iter().rfind(|reference| reference.orchestrator == "k8s");
        match of_kubernetes.map(|reference| reference.node_name.clone()).filter(|name| !name.is_empty()) {
            Some(name) => drop(renamed.insert(node.metadata.name.clone(), name)),
            None => strangers.push(node.metadata.name.clone()),
        }
    }
    if let (Some(stranger), false) = (strangers.first(), renamed.is_empty()) {
        bail!(
            "node {stranger} missing a 'k8s' orchestrator reference. Unable to export data unless every node has a \
             'k8s' orchestrator reference; --complete exports it for another datastore than Kubernetes"
        );
    }
    Ok(renamed)
}

/// A resource without what belongs to this datastore alone, under the names of the other.
fn moved(mut resource: Resource, renamed: &Renamed) -> Resource {
    let metadata = resource.metadata_mut();
    metadata.uid.clear();
    metadata.resource_version.clear();
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    match resource.kind() {
        Kind::Node => {
            let metadata = resource.metadata_mut();
            if let Some(name) = renamed.get(&metadata.name) {
                metadata.name.clone_from(name);
            }
        }
        Kind::FelixConfiguration | Kind::BgpConfiguration => {
            let metadata = resource.metadata_mut();
            if let Some(name) = metadata.name.strip_prefix("node.").and_then(|node| renamed.get(node)) {
                metadata.name = format!("node.{name}");
            }
        }
        _ => {}
    }
    resource
}

/// A resource as Kubernetes' checks of its fields want it: v1 wrote some words in capitals.
fn for_kubernetes(mut resource: Resource) -> Resource {
    if let Resource::FelixConfiguration(config) = &mut resource {
        let spec = &mut config.spec;
        for action in [
            &mut spec.default_endpoint_to_host_action,
            &mut spec.iptables_filter_allow_action,
            &mut spec.iptables_mangle_allow_action,
            &mut spec.iptables_filter_deny_action,
        ] {
            *action = capitalised(action);
        }
    }
    resource
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars.map(|c| c.to_ascii_lowercase())).collect()
}
