//! The file that `ipam check` writes and `ipam release` reads, in upstream's form.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tortie_api::ipam::Block;
use tortie_facts::{Key, OwnerKind};
use tortie_ipam::{Problem, block};
use tortie_store::{Entry, Store};

use super::check::InUse;
use super::{as_blocks, cluster, is_locked};
use crate::VERSION;

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    /// The program that made it.
    pub(super) version: String,
    /// The cluster.
    #[serde(rename = "clusterGUID")]
    pub(super) cluster_guid: String,
    /// Whether the datastore was locked.
    pub(super) datastore_locked: bool,
    /// Revision of the cluster's information.
    #[serde(rename = "clusterInformationRevision")]
    pub(super) cluster_info_revision: String,
    /// The cluster's kind.
    pub(super) cluster_type: String,
    /// Every assigned address.
    pub(super) allocations: BTreeMap<String, Vec<Allocation>>,
    /// Handles without addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leaked_handles: Vec<LeakedHandle>,
}

/// An assigned address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Allocation {
    pub(super) ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) handle: String,
    pub(super) sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) creation_timestamp: String,
    /// Whether anything uses it.
    pub(super) in_use: bool,
    /// Whether its block is another node's.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) borrowed: bool,
    /// Whether it was released a short time ago.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) cooling_down: bool,
    /// Who uses it.
    pub(super) owners: Option<Vec<String>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A handle without addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LeakedHandle {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "UID")]
    pub(super) uid: Option<String>,
    pub(super) revision: String,
}

/// The report on these blocks and handles.
pub(super) fn report(store: &dyn Store, entries: &[Entry], in_use: &InUse, problems: &[Problem]) -> Result<Report> {
    let (info, revision) = cluster(store)?;
    let mut allocations: BTreeMap<String, Vec<Allocation>> = BTreeMap::new();
    for (cidr, one) in as_blocks(entries) {
        for ordinal in 0..one.allocations.len() {
            let Some(found) = allocation(cidr, one, ordinal, in_use) else { continue };
            allocations.entry(found.ip.clone()).or_default().push(found);
        }
    }
    let leaked: BTreeSet<&str> = problems
        .iter()
        .filter_map(|problem| if let Problem::LeakedHandle { handle } = problem { Some(handle.as_str()) } else { None })
        .collect();
    let leaked_handles = entries.iter().filter_map(|entry| match &entry.key {
        Key::Handle(id) if leaked.contains(id.as_str()) => {
            Some(LeakedHandle { id: id.clone(), uid: None, revision: entry.revision.to_string() })
        }
        _ => None,
    });
    Ok(Report {
        version: VERSION.to_owned(),
        datastore_locked: is_locked(&info),
        cluster_guid: info.spec.cluster_guid,
        cluster_info_revision: revision,
        cluster_type: info.spec.cluster_type,
        allocations,
        leaked_handles: leaked_handles.collect(),
    })
}

fn allocation(cidr: IpNet, one: &Block, ordinal: usize, in_use: &InUse) -> Option<Allocation> {
    let attribute = block::attribute(one, ordinal)?;
    let attr = |key: &str| attribute.secondary.get(key).cloned().unwrap_or_default();
    let address = block::address(cidr, ordinal);
    let owner = block::owner(one).filter(|owner| owner.kind == OwnerKind::Host).map(|owner| owner.name);
    let owner = owner.unwrap_or_default();
    let node = if attr("node").is_empty() { owner.clone() } else { attr("node") };
    let users = in_use.get(&address).cloned();
    Some(Allocation {
        ip: address.to_string(),
        handle: attribute.handle_id.clone().unwrap_or_default(),
        sequence_number: Some(block::sequence(one, ordinal)),
        pod: attr("pod"),
        namespace: attr("namespace"),
        borrowed: node != owner,
        node,
        kind: attr("type"),
        creation_timestamp: attr("timestamp"),
        in_use: users.is_some(),
        cooling_down: attribute.released_at.is_some(),
        owners: users,
    })
}
