//! Profile: rules and labels that endpoints take on by name.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::check_metadata;
use crate::check_rule::{self, Setting};
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;
use crate::{LabelMap, Rule};

resource! {
    /// Rules and labels that endpoints take on by naming the profile.
    Profile { spec: ProfileSpec }
}

/// The specification of a Profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProfileSpec {
    /// Rules for traffic towards the endpoints, after all policy.
    #[serde(skip_serializing_if = "empty")]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoints, after all policy.
    #[serde(skip_serializing_if = "empty")]
    pub egress: Vec<Rule>,
    /// Labels that the endpoints inherit; an endpoint's own label wins.
    #[serde(skip_serializing_if = "empty")]
    pub labels_to_apply: LabelMap,
}

impl Checked for Profile {
    fn check(&self, out: &mut Findings) {
        let ProfileSpec { ingress, egress, labels_to_apply } = &self.spec;
        let path = Path::root("spec");
        // Upstream asks for a service's namespace in global policies only.
        check_rule::rules(ingress, &path.field("ingress"), Setting { ingress: true, namespaced: true }, out);
        check_rule::rules(egress, &path.field("egress"), Setting { ingress: false, namespaced: true }, out);
        check_metadata::labels(labels_to_apply, &path.field("labelsToApply"), out);
    }
}
