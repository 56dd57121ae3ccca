//! What the four Calico policy kinds have in common: defaults and checks.

use crate::Rule;
use crate::check::Findings;
use crate::check_rule::{self, Setting};
use crate::kinds::{PolicyPerformanceHint, PolicyType};
use crate::metadata::Metadata;
use crate::path::Path;
use crate::text;

const TIER_LABEL: &str = "projectcalico.org/tier";

/// Names the tier in the specification and in a label, by which policies are listed.
pub(crate) fn default_tier(tier: &mut String, metadata: &mut Metadata) {
    if tier.is_empty() {
        "default".clone_into(tier);
    }
    metadata.labels.insert(TIER_LABEL, tier);
}

/// Without types, a policy applies to the directions for which it has rules, and to ingress if it has none.
pub(crate) fn default_types(types: &mut Vec<PolicyType>, ingress: &[Rule], egress: &[Rule]) {
    if types.is_empty() {
        *types = match (ingress.is_empty(), egress.is_empty()) {
            (_, true) => vec![PolicyType::Ingress],
            (true, false) => vec![PolicyType::Egress],
            (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
        };
    }
}

/// The fields that all four have.
pub(crate) struct Common<'a> {
    pub(crate) tier: &'a str,
    pub(crate) order: Option<f64>,
    pub(crate) ingress: &'a [Rule],
    pub(crate) egress: &'a [Rule],
    pub(crate) selector: &'a str,
    pub(crate) types: &'a [PolicyType],
    pub(crate) service_account_selector: &'a str,
    pub(crate) performance_hints: &'a [PolicyPerformanceHint],
    pub(crate) namespaced: bool,
}

pub(crate) fn common(spec: Common<'_>, out: &mut Findings) {
    let Common {
        tier,
        order,
        ingress,
        egress,
        selector,
        types,
        service_account_selector,
        performance_hints,
        namespaced,
    } = spec;
    let path = Path::root("spec");
    if !tier.is_empty() && !text::is_dns_label(tier) {
        out.wrong(&path.field("tier"), format!("{tier:?}"), text::DNS_LABEL);
    }
    if order.is_some_and(|order| !order.is_finite()) {
        out.wrong(&path.field("order"), "not finite", "a number");
    }
    check_rule::rules(ingress, &path.field("ingress"), Setting { ingress: true, namespaced }, out);
    check_rule::rules(egress, &path.field("egress"), Setting { ingress: false, namespaced }, out);
    out.selector(&path.field("selector"), selector);
    out.selector(&path.field("serviceAccountSelector"), service_account_selector);
    out.unique(&path.field("types"), types);
    out.unique(&path.field("performanceHints"), performance_hints);
}

/// What only global policies have.
pub(crate) struct Global<'a> {
    pub(crate) do_not_track: bool,
    pub(crate) pre_dnat: bool,
    pub(crate) apply_on_forward: bool,
    pub(crate) namespace_selector: &'a str,
    pub(crate) egress: &'a [Rule],
    pub(crate) types: &'a [PolicyType],
}

pub(crate) fn global(spec: Global<'_>, out: &mut Findings) {
    let Global { do_not_track, pre_dnat, apply_on_forward, namespace_selector, egress, types } = spec;
    let path = Path::root("spec");
    out.selector(&path.field("namespaceSelector"), namespace_selector);
    if do_not_track && pre_dnat {
        out.wrong(&path.field("preDNAT"), true, "not both preDNAT and doNotTrack");
    }
    if (do_not_track || pre_dnat) && !apply_on_forward {
        out.wrong(&path.field("applyOnForward"), false, "true together with preDNAT or doNotTrack");
    }
    if pre_dnat && !egress.is_empty() {
        out.wrong(&path.field("egress"), format!("{} rules", egress.len()), "no egress rules together with preDNAT");
    }
    if pre_dnat && types.contains(&PolicyType::Egress) {
        out.wrong(&path.field("types"), "Egress", "not Egress together with preDNAT");
    }
}

/// A staged deletion says nothing but which policy it means.
pub(crate) fn nothing_but_tier(rest_is_default: bool, out: &mut Findings) {
    if !rest_is_default {
        out.wrong(&Path::root("spec"), "fields besides tier", "none but tier together with stagedAction Delete");
    }
}
