//! GlobalNetworkSet: named prefixes outside any namespace, matched by label.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::check::{Checked, Findings};
use crate::check_metadata;
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// Prefixes that rules can match by this resource's labels.
    GlobalNetworkSet { spec: GlobalNetworkSetSpec }
}

/// The specification of a GlobalNetworkSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GlobalNetworkSetSpec {
    /// The prefixes.
    #[serde(skip_serializing_if = "empty")]
    pub nets: Vec<IpNetText>,
}

impl Checked for GlobalNetworkSet {
    fn check(&self, out: &mut Findings) {
        let GlobalNetworkSetSpec { nets } = &self.spec;
        let path = Path::root("spec");
        out.nets(&path.field("nets"), nets);
        out.unique(&path.field("nets"), nets);
        check_metadata::no_namespace_label(&self.metadata, out);
    }
}
