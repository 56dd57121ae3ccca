//! What is read of an object's metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use tortie_api::{LabelMap, Metadata, Timestamp};

/// The metadata of a Kubernetes object; other fields are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// The name.
    pub name: String,
    /// The prefix from which the name was made.
    pub generate_name: String,
    /// The namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// The identity of this object over its life.
    pub uid: String,
    /// The revision at which it was last written.
    pub resource_version: String,
    /// When it was created.
    pub creation_timestamp: Option<Timestamp>,
    /// Set while it is being deleted.
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: LabelMap,
    /// Notes for programs.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

impl ObjectMeta {
    /// Name, namespace, time and revision as every resource carries them; labels are the caller's.
    pub(crate) fn identity(&self, uid: String) -> Metadata {
        let mut out = Metadata::in_namespace(self.namespace.clone(), self.name.clone());
        out.uid = uid;
        out.resource_version = self.resource_version.clone();
        out.creation_timestamp = self.creation_timestamp;
        out
    }

    /// The annotation, if it is there and not empty.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// For `deserialize_with`: null counts as absent, as it does for Go.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
