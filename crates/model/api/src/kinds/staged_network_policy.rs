//! StagedNetworkPolicy: a NetworkPolicy that is reported on, not enforced.

use serde::{Deserialize, Serialize};

use crate::Rule;
use crate::check::{Checked, Findings};
use crate::check_policy::{self, Common};
use crate::empty::empty;
use crate::json::short_float;
use crate::kinds::policy::{PolicyPerformanceHint, PolicyType, StagedAction};
use crate::resource::resource;

resource! {
    /// A NetworkPolicy that is reported on, not enforced.
    StagedNetworkPolicy { spec: StagedNetworkPolicySpec }
}

/// The specification of a StagedNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StagedNetworkPolicySpec {
    /// What is proposed; none means `Set`.
    #[serde(skip_serializing_if = "empty")]
    pub staged_action: Option<StagedAction>,
    /// The tier it belongs to; empty means `default`.
    #[serde(skip_serializing_if = "empty")]
    pub tier: String,
    /// Position within the tier, lowest first; none comes last.
    #[serde(skip_serializing_if = "empty", serialize_with = "short_float")]
    pub order: Option<f64>,
    /// Rules for traffic towards the endpoints, in order.
    #[serde(skip_serializing_if = "empty")]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoints, in order.
    #[serde(skip_serializing_if = "empty")]
    pub egress: Vec<Rule>,
    /// Selects the endpoints; empty means all.
    #[serde(skip_serializing_if = "empty")]
    pub selector: String,
    /// The directions to which the policy applies; filled in from the rules if empty.
    #[serde(skip_serializing_if = "empty")]
    pub types: Vec<PolicyType>,
    /// Selects by the labels of the endpoint's service account.
    #[serde(skip_serializing_if = "empty")]
    pub service_account_selector: String,
    /// Hints to the policy engine.
    #[serde(skip_serializing_if = "empty")]
    pub performance_hints: Vec<PolicyPerformanceHint>,
}

impl Checked for StagedNetworkPolicy {
    fn apply_defaults(&mut self) {
        let StagedNetworkPolicy { metadata, spec } = self;
        let action = *spec.staged_action.get_or_insert(StagedAction::Set);
        check_policy::default_tier(&mut spec.tier, metadata);
        if action != StagedAction::Delete {
            check_policy::default_types(&mut spec.types, &spec.ingress, &spec.egress);
        }
    }

    fn check(&self, out: &mut Findings) {
        if self.spec.staged_action == Some(StagedAction::Delete) {
            let bare = StagedNetworkPolicySpec {
                staged_action: self.spec.staged_action,
                tier: self.spec.tier.clone(),
                ..StagedNetworkPolicySpec::default()
            };
            check_policy::nothing_but_tier(self.spec == bare, out);
            return;
        }
        let StagedNetworkPolicySpec {
            tier,
            order,
            ingress,
            egress,
            selector,
            types,
            service_account_selector,
            performance_hints,
            staged_action: _,
        } = &self.spec;
        check_policy::common(
            Common {
                tier,
                order: *order,
                ingress,
                egress,
                selector,
                types,
                service_account_selector,
                performance_hints,
                namespaced: true,
            },
            out,
        );
    }
}
