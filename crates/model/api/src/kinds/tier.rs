//! Tier: an ordered group of policies.

use serde::{Deserialize, Serialize};

use crate::Action;
use crate::Condition;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::json::short_float;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// An ordered group of policies.
    Tier { spec: TierSpec, status: TierStatus }
}

/// The specification of a Tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TierSpec {
    /// Position among tiers, lowest first; none comes last.
    #[serde(skip_serializing_if = "empty", serialize_with = "short_float")]
    pub order: Option<f64>,
    /// What happens to traffic that a policy of the tier selects and no rule of it decides: `Deny` or `Pass`; none
    /// means `Deny`.
    #[serde(skip_serializing_if = "empty")]
    pub default_action: Option<Action>,
}

/// What a controller observed of a Tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TierStatus {
    /// Conditions by type, such as `Ready`.
    #[serde(skip_serializing_if = "empty")]
    pub conditions: Vec<Condition>,
}

/// Tiers that upstream creates and whose settings are fixed: name, order, what happens at the end.
const FIXED: [(&str, f64, Action); 3] =
    [("default", 1e6, Action::Deny), ("kube-admin", 1e3, Action::Pass), ("kube-baseline", 1e7, Action::Pass)];

impl Checked for Tier {
    fn apply_defaults(&mut self) {
        self.spec.order.get_or_insert(1e6);
        self.spec.default_action.get_or_insert(Action::Deny);
    }

    fn check(&self, out: &mut Findings) {
        let TierSpec { order, default_action } = &self.spec;
        let path = Path::root("spec");
        if let Some(action) = default_action.filter(|a| ![Action::Deny, Action::Pass].contains(a)) {
            out.wrong(&path.field("defaultAction"), action, "Deny or Pass");
        }
        let Some((name, fixed, action)) = FIXED.iter().find(|(name, ..)| *name == self.metadata.name) else { return };
        if *order != Some(*fixed) {
            let found = order.map_or("none".to_owned(), |o| o.to_string());
            out.wrong(&path.field("order"), found, format!("{fixed} for the tier {name}"));
        }
        if *default_action != Some(*action) {
            let found = default_action.map_or("none", Action::as_str);
            out.wrong(&path.field("defaultAction"), found, format!("{action} for the tier {name}"));
        }
    }
}
