//! Policies, profiles and tiers.

use std::collections::BTreeMap;

use serde::Deserialize;
use tortie_api::{
    FieldError, GlobalNetworkPolicy, GlobalNetworkPolicySpec, LabelMap, Metadata, PolicyType, Profile, ProfileSpec,
    Tier, TierSpec,
};

use crate::rule::{OldRule, rules};
use crate::values::{selector, wrong};
use crate::{Converted, Old, converted, names};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyMetadata {
    name: String,
    #[serde(default)]
    tier: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldPolicySpec {
    order: Option<f64>,
    ingress: Vec<OldRule>,
    egress: Vec<OldRule>,
    selector: String,
    do_not_track: bool,
    #[serde(rename = "preDNAT")]
    pre_dnat: bool,
    types: Vec<String>,
}

pub(crate) fn policy(old: Old<PolicyMetadata, OldPolicySpec>) -> Result<Converted, FieldError> {
    let PolicyMetadata { name, tier, annotations } = old.metadata;
    let OldPolicySpec { order, ingress, egress, selector: selects, do_not_track, pre_dnat, types } = old.spec;
    let types = if types.is_empty() { implied(&ingress, &egress) } else { new_types(&types)? };
    let mut metadata = Metadata::named(names::policy(&name));
    metadata.annotations = annotations;
    let spec = GlobalNetworkPolicySpec {
        tier: if tier.is_empty() { tier } else { names::name(&tier) },
        order,
        ingress: rules(ingress, "spec.ingress")?,
        egress: rules(egress, "spec.egress")?,
        selector: selector(&selects),
        types,
        do_not_track,
        pre_dnat,
        // Such policies always did apply to forwarded traffic.
        apply_on_forward: do_not_track || pre_dnat,
        ..GlobalNetworkPolicySpec::default()
    };
    Ok(converted(GlobalNetworkPolicy { metadata, spec }, Some(&name)))
}

/// A direction without rules is left alone, but for ingress where neither has any.
fn implied(ingress: &[OldRule], egress: &[OldRule]) -> Vec<PolicyType> {
    match (ingress.is_empty(), egress.is_empty()) {
        (_, true) => vec![PolicyType::Ingress],
        (true, false) => vec![PolicyType::Egress],
        (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
    }
}

fn new_types(old: &[String]) -> Result<Vec<PolicyType>, FieldError> {
    let new = |(i, old): (usize, &String)| {
        let known = PolicyType::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(old));
        known.copied().ok_or_else(|| wrong(&format!("spec.types[{i}]"), format!("{old:?}"), "ingress or egress"))
    };
    old.iter().enumerate().map(new).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileMetadata {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    labels: LabelMap,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OldProfileSpec {
    ingress: Vec<OldRule>,
    egress: Vec<OldRule>,
}

pub(crate) fn profile(old: Old<ProfileMetadata, OldProfileSpec>) -> Result<Converted, FieldError> {
    let ProfileMetadata { name, tags, labels: mut labels_to_apply } = old.metadata;
    for (i, tag) in tags.into_iter().enumerate() {
        if labels_to_apply.contains_key(&tag) {
            let path = format!("metadata.tags[{i}]");
            return Err(wrong(&path, format!("{tag:?}"), "a tag that is no label as well: tags are labels in v3"));
        }
        labels_to_apply.insert(tag, String::new());
    }
    let OldProfileSpec { ingress, egress } = old.spec;
    let spec = ProfileSpec {
        ingress: rules(ingress, "spec.ingress")?,
        egress: rules(egress, "spec.egress")?,
        labels_to_apply,
    };
    let new = names::profile(&name);
    Ok(converted(Profile { metadata: Metadata::named(new), spec }, Some(&name)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierMetadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OldTierSpec {
    order: Option<f64>,
}

pub(crate) fn tier(old: Old<TierMetadata, OldTierSpec>) -> Result<Converted, FieldError> {
    let (TierMetadata { name }, OldTierSpec { order }) = (old.metadata, old.spec);
    let spec = TierSpec { order, default_action: None };
    let tier = Tier { metadata: Metadata::named(names::name(&name)), spec, ..Tier::default() };
    Ok(converted(tier, Some(&name)))
}
