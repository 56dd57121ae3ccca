//! The file that `ipam check` writes and `ipam release` reads, in upstream's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
