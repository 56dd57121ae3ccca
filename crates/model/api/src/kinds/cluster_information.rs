//! ClusterInformation: what the cluster is; the one object is named `default`.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::resource::resource;

resource! {
    /// What the cluster is; the one object is named `default`.
    ClusterInformation { spec: ClusterInformationSpec }
}

/// The specification of a ClusterInformation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterInformationSpec {
    /// A unique id of the cluster.
    #[serde(rename = "clusterGUID", skip_serializing_if = "empty")]
    pub cluster_guid: String,
    /// Words that describe the cluster, joined by commas.
    #[serde(skip_serializing_if = "empty")]
    pub cluster_type: String,
    /// The version that started last.
    #[serde(skip_serializing_if = "empty")]
    pub calico_version: String,
    /// Whether programs may rely on the datastore; false while it is being migrated.
    #[serde(skip_serializing_if = "empty")]
    pub datastore_ready: Option<bool>,
    /// The product's variant.
    #[serde(skip_serializing_if = "empty")]
    pub variant: String,
}

impl Checked for ClusterInformation {
    /// Every field is free text or a flag.
    fn check(&self, _: &mut Findings) {}
}
