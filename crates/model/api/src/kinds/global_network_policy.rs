//! GlobalNetworkPolicy: rules for endpoints of any namespace and for host endpoints.

use serde::{Deserialize, Serialize};

use crate::Rule;
use crate::check::{Checked, Findings};
use crate::check_policy::{self, Common, Global};
use crate::empty::empty;
use crate::json::short_float;
use crate::kinds::policy::{PolicyPerformanceHint, PolicyType};
use crate::resource::resource;

resource! {
    /// Rules for endpoints of any namespace and for host endpoints.
    GlobalNetworkPolicy { spec: GlobalNetworkPolicySpec }
}

/// The specification of a GlobalNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GlobalNetworkPolicySpec {
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
    /// Applies before connection tracking; what it allows is not tracked.
    #[serde(skip_serializing_if = "empty")]
    pub do_not_track: bool,
    /// Applies before destination NAT.
    #[serde(rename = "preDNAT", skip_serializing_if = "empty")]
    pub pre_dnat: bool,
    /// Applies to forwarded traffic of host endpoints too.
    #[serde(skip_serializing_if = "empty")]
    pub apply_on_forward: bool,
    /// Selects by the labels of the endpoint's service account.
    #[serde(skip_serializing_if = "empty")]
    pub service_account_selector: String,
    /// Selects by the labels of the endpoint's namespace.
    #[serde(skip_serializing_if = "empty")]
    pub namespace_selector: String,
    /// Hints to the policy engine.
    #[serde(skip_serializing_if = "empty")]
    pub performance_hints: Vec<PolicyPerformanceHint>,
}

impl Checked for GlobalNetworkPolicy {
    fn apply_defaults(&mut self) {
        let GlobalNetworkPolicy { metadata, spec } = self;
        check_policy::default_tier(&mut spec.tier, metadata);
        check_policy::default_types(&mut spec.types, &spec.ingress, &spec.egress);
    }

    fn check(&self, out: &mut Findings) {
        let GlobalNetworkPolicySpec {
            tier,
            order,
            ingress,
            egress,
            selector,
            types,
            do_not_track,
            pre_dnat,
            apply_on_forward,
            service_account_selector,
            namespace_selector,
            performance_hints,
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
                namespaced: false,
            },
            out,
        );
        check_policy::global(
            Global {
                do_not_track: *do_not_track,
                pre_dnat: *pre_dnat,
                apply_on_forward: *apply_on_forward,
                namespace_selector,
                egress,
                types,
            },
            out,
        );
    }
}
