//! The metadata that every resource carries, and the condition that several report in their status.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::empty::empty;
use crate::{LabelMap, Newer, Timestamp};

/// Name, identity, revision and labels. Fields that only a Kubernetes API server uses are accepted and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metadata {
    /// Unique within the kind, and for namespaced kinds within the namespace.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// Prefix from which a Kubernetes API server makes a name.
    #[serde(skip_serializing_if = "empty")]
    pub generate_name: String,
    /// The namespace; empty for kinds that have none.
    #[serde(skip_serializing_if = "empty")]
    pub namespace: String,
    /// Identity of this object over its life, set when it is created.
    #[serde(skip_serializing_if = "empty")]
    pub uid: String,
    /// The revision at which it was last written, set by the store.
    #[serde(skip_serializing_if = "empty")]
    pub resource_version: String,
    /// How often the specification changed.
    #[serde(skip_serializing_if = "empty")]
    pub generation: i64,
    /// When it was created.
    #[serde(skip_serializing_if = "empty")]
    pub creation_timestamp: Option<Timestamp>,
    /// Set while deletion waits for the finalizers.
    #[serde(skip_serializing_if = "empty")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Seconds that deletion may take.
    #[serde(skip_serializing_if = "empty")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels, which selectors match.
    #[serde(skip_serializing_if = "empty")]
    pub labels: LabelMap,
    /// Free notes for programs.
    #[serde(skip_serializing_if = "empty")]
    pub annotations: BTreeMap<String, String>,
    /// Objects on which this one depends.
    #[serde(skip_serializing_if = "empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who must let go before the object is deleted.
    #[serde(skip_serializing_if = "empty")]
    pub finalizers: Vec<String>,
    /// What a newer version stored beside all this, in any part of the resource.
    #[serde(skip)]
    pub newer: Newer,
    #[serde(skip_serializing, rename = "managedFields")]
    dropped_managed_fields: Dropped,
    #[serde(skip_serializing, rename = "selfLink")]
    dropped_self_link: Dropped,
}

impl Metadata {
    /// Metadata of a cluster-wide resource of this name.
    pub fn named(name: impl Into<String>) -> Metadata {
        Metadata { name: name.into(), ..Metadata::default() }
    }

    /// Metadata of a namespaced resource.
    pub fn in_namespace(namespace: impl Into<String>, name: impl Into<String>) -> Metadata {
        Metadata { namespace: namespace.into(), ..Metadata::named(name) }
    }
}

/// A field that is read and forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dropped;

impl<'de> Deserialize<'de> for Dropped {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Dropped)
    }
}

/// An object that another depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerReference {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's identity.
    pub uid: String,
    /// Whether the owner manages this object.
    #[serde(default, skip_serializing_if = "empty")]
    pub controller: Option<bool>,
    /// Whether the owner stays until this object is gone.
    #[serde(default, skip_serializing_if = "empty")]
    pub block_owner_deletion: Option<bool>,
}

/// One observed condition of an object (the common Kubernetes shape).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Condition {
    /// What is judged, such as `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the specification that was judged.
    #[serde(skip_serializing_if = "empty")]
    pub observed_generation: i64,
    /// When the status last changed.
    pub last_transition_time: Option<Timestamp>,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}
