//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`: a policy of the tier `kube-admin` or `kube-baseline`.
//!
//! A rule that is not understood is left out if it accepts; if it denies or passes it becomes a `Deny` of everything,
//! as upstream. A policy whose tier or subject is not understood is refused as a whole, as upstream.

use serde::Deserialize;
use serde_json::Value;
use tortie_api::{Action, GlobalNetworkPolicySpec, KubernetesClusterNetworkPolicy, LabelSelector, PolicyType, Rule};

use crate::cluster_rule::{self, Direction};
use crate::error::{ConversionError, Converted, Object, Wrong, read};
use crate::meta::or_default;
use crate::namespace::new_uid;
use crate::{ObjectMeta, selector};

/// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`. Rules stay unread until they are converted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: ClusterNetworkPolicySpec,
}

/// The specification of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// Its place within the tier, lowest first.
    pub priority: i32,
    /// Whom it is about: namespaces or pods.
    pub subject: Value,
    /// Rules for traffic towards them, in order.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<Value>,
    /// Rules for traffic from them, in order.
    #[serde(deserialize_with = "or_default")]
    pub egress: Vec<Value>,
}

/// Whom a policy or a rule is about; exactly one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Subject {
    /// Every pod of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<SubjectPods>,
}

/// Some pods of some namespaces; both must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SubjectPods {
    /// The namespaces; empty means all.
    pub namespace_selector: LabelSelector,
    /// The pods; empty means all.
    pub pod_selector: LabelSelector,
}

impl SubjectPods {
    /// The selectors of namespaces and of pods.
    pub(crate) fn selectors(&self) -> Result<(String, String), Wrong> {
        let SubjectPods { namespace_selector, pod_selector } = self;
        let namespaces = selector::namespaces(namespace_selector).map_err(|wrong| wrong.below("namespaceSelector"))?;
        let pods = selector::pods(Some(pod_selector)).map_err(|wrong| wrong.below("podSelector"))?;
        Ok((namespaces, pods))
    }
}

/// The policy as a fact.
pub fn cluster_network_policy(from: &ClusterNetworkPolicy) -> Result<Converted, ConversionError> {
    let ClusterNetworkPolicy { metadata: meta, spec } = from;
    let object = Object { kind: "ClusterNetworkPolicy", namespace: "", name: &meta.name };
    let tier = match spec.tier.as_str() {
        "Admin" => "kube-admin",
        "Baseline" => "kube-baseline",
        other => return Err(object.error("spec.tier", format!("{other:?}"), "Admin or Baseline")),
    };
    let whom = read::<Subject>(&spec.subject).and_then(|subject| whom(&subject));
    let (namespace_selector, selector) = whom.map_err(|wrong| object.wrong(wrong.below("spec.subject")))?;
    let mut problems = Vec::new();
    let ingress = rules(&spec.ingress, Direction::Ingress, &mut problems);
    let egress = rules(&spec.egress, Direction::Egress, &mut problems);
    let directions = [(PolicyType::Ingress, !ingress.is_empty()), (PolicyType::Egress, !egress.is_empty())];
    let types = directions.into_iter().filter(|(_, has)| *has).map(|(direction, _)| direction).collect();
    let spec = GlobalNetworkPolicySpec {
        tier: tier.to_owned(),
        order: Some(f64::from(spec.priority)),
        selector,
        namespace_selector,
        types,
        ingress,
        egress,
        ..GlobalNetworkPolicySpec::default()
    };
    let mut problems = problems.into_iter().map(|wrong| object.wrong(wrong)).collect();
    let metadata = meta.identity(new_uid(&object, &meta.uid, &mut problems));
    Ok(Converted::of(KubernetesClusterNetworkPolicy { metadata, spec }, problems))
}

/// The selectors of namespaces and of pods of a subject; host endpoints are never meant.
fn whom(subject: &Subject) -> Result<(String, String), Wrong> {
    match subject {
        Subject { namespaces: Some(namespaces), pods: None } => {
            let namespaces = selector::namespaces(namespaces).map_err(|wrong| wrong.below("namespaces"))?;
            Ok((namespaces, selector::pods(None)?))
        }
        Subject { namespaces: None, pods: Some(pods) } => pods.selectors().map_err(|wrong| wrong.below("pods")),
        Subject { namespaces: Some(_), pods: Some(_) } | Subject { namespaces: None, pods: None } => {
            Err(Wrong::new("", "no subject, or two", "either namespaces or pods"))
        }
    }
}

fn rules(values: &[Value], direction: Direction, problems: &mut Vec<Wrong>) -> Vec<Rule> {
    let mut out = Vec::new();
    for (at, value) in values.iter().enumerate() {
        match cluster_rule::rules(value, direction) {
            Ok(rules) => out.extend(rules),
            Err(wrong) => {
                problems.push(wrong.below(&format!("spec.{}[{at}]", direction.field())));
                if matches!(value.get("action").and_then(Value::as_str), Some("Deny" | "Pass")) {
                    out.push(Rule { action: Action::Deny, ..Rule::default() });
                }
            }
        }
    }
    out
}
