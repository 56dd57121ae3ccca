//! Tier: an ordered group of policies.

use serde::{Deserialize, Serialize};

use crate::Action;
use crate::Condition;
use crate::empty::empty;
use crate::json::short_float;
use crate::resource::resource;

resource! {
    /// An ordered group of policies.
    Tier { spec: TierSpec, status: TierStatus }
}

/// The specification of a Tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TierSpec {
    /// Position among tiers, lowest first; none comes last.
    #[serde(skip_serializing_if = "empty", serialize_with = "short_float")]
    pub order: Option<f64>,
    /// What happens to traffic that a policy of the tier selects and no rule of it decides: `Deny` or `Pass`; none means `Deny`.
    #[serde(skip_serializing_if = "empty")]
    pub default_action: Option<Action>,
}

/// What a controller observed of a Tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TierStatus {
    /// Conditions by type, such as `Ready`.
    #[serde(skip_serializing_if = "empty")]
    pub conditions: Vec<Condition>,
}
