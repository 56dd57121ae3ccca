//! StagedKubernetesNetworkPolicy: a Kubernetes NetworkPolicy that is reported on, not enforced.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::check_metadata;
use crate::check_policy;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::kinds::int_or_string::IntOrString;
use crate::kinds::policy::{PolicyType, StagedAction};
use crate::path::Path;
use crate::resource::resource;
use crate::{IpNetText, LabelMap};

resource! {
    /// A Kubernetes NetworkPolicy that is reported on, not enforced.
    StagedKubernetesNetworkPolicy { spec: StagedKubernetesNetworkPolicySpec }
}

/// The specification of a StagedKubernetesNetworkPolicy, in Kubernetes' own shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StagedKubernetesNetworkPolicySpec {
    /// What is proposed; none means `Set`.
    #[serde(skip_serializing_if = "empty")]
    pub staged_action: Option<StagedAction>,
    /// The pods; empty means all of the namespace.
    pub pod_selector: LabelSelector,
    /// Traffic that is allowed towards the pods.
    #[serde(skip_serializing_if = "empty")]
    pub ingress: Vec<KubernetesIngressRule>,
    /// Traffic that is allowed from the pods.
    #[serde(skip_serializing_if = "empty")]
    pub egress: Vec<KubernetesEgressRule>,
    /// The directions to which the policy applies.
    #[serde(skip_serializing_if = "empty")]
    pub policy_types: Vec<PolicyType>,
}

/// Allowed traffic towards pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesIngressRule {
    /// To any of these ports; empty means all.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<KubernetesPort>,
    /// From any of these; empty means anywhere.
    #[serde(skip_serializing_if = "empty")]
    pub from: Vec<KubernetesPeer>,
}

/// Allowed traffic from pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesEgressRule {
    /// To any of these ports; empty means all.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<KubernetesPort>,
    /// To any of these; empty means anywhere.
    #[serde(skip_serializing_if = "empty")]
    pub to: Vec<KubernetesPeer>,
}

/// A port of a Kubernetes rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesPort {
    /// The protocol; none means TCP.
    #[serde(skip_serializing_if = "empty")]
    pub protocol: Option<KubernetesProtocol>,
    /// The port or its name; none means all.
    #[serde(skip_serializing_if = "empty")]
    pub port: Option<IntOrString>,
    /// The last port of a range.
    #[serde(skip_serializing_if = "empty")]
    pub end_port: Option<i32>,
}

/// One end of allowed traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesPeer {
    /// Pods of these labels.
    #[serde(skip_serializing_if = "empty")]
    pub pod_selector: Option<LabelSelector>,
    /// In namespaces of these labels.
    #[serde(skip_serializing_if = "empty")]
    pub namespace_selector: Option<LabelSelector>,
    /// Or addresses of this block.
    #[serde(skip_serializing_if = "empty")]
    pub ip_block: Option<IpBlock>,
}

/// A prefix with holes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpBlock {
    /// The prefix.
    pub cidr: IpNetText,
    /// The holes.
    #[serde(skip_serializing_if = "empty")]
    pub except: Vec<IpNetText>,
}

string_enum! {
    /// A protocol of Kubernetes ports.
    KubernetesProtocol {
        /// TCP.
        #[default]
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
    }
}

/// The label selector of the Kubernetes API; all parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels of these values.
    #[serde(skip_serializing_if = "empty")]
    pub match_labels: LabelMap,
    /// Demands on single labels.
    #[serde(skip_serializing_if = "empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A demand on a single label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// What is demanded.
    pub operator: LabelSelectorOperator,
    /// Values, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "empty")]
    pub values: Vec<String>,
}

string_enum! {
    /// What is demanded of a label.
    LabelSelectorOperator {
        /// One of the values.
        #[default]
        In = "In",
        /// None of the values, or absent.
        NotIn = "NotIn",
        /// Present.
        Exists = "Exists",
        /// Absent.
        DoesNotExist = "DoesNotExist",
    }
}

impl Checked for StagedKubernetesNetworkPolicy {
    fn apply_defaults(&mut self) {
        self.spec.staged_action.get_or_insert(StagedAction::Set);
    }

    fn check(&self, out: &mut Findings) {
        let StagedKubernetesNetworkPolicySpec { staged_action, pod_selector, ingress, egress, policy_types } =
            &self.spec;
        if *staged_action == Some(StagedAction::Delete) {
            let bare = StagedKubernetesNetworkPolicySpec { staged_action: *staged_action, ..Default::default() };
            check_policy::nothing_but_tier(self.spec == bare, out);
            return;
        }
        let path = Path::root("spec");
        label_selector(pod_selector, &path.field("podSelector"), out);
        out.unique(&path.field("policyTypes"), policy_types);
        for (i, KubernetesIngressRule { ports, from }) in ingress.iter().enumerate() {
            let at = path.field("ingress");
            let at = at.index(i);
            check_ports(ports, &at.field("ports"), out);
            check_peers(from, &at.field("from"), out);
        }
        for (i, KubernetesEgressRule { ports, to }) in egress.iter().enumerate() {
            let at = path.field("egress");
            let at = at.index(i);
            check_ports(ports, &at.field("ports"), out);
            check_peers(to, &at.field("to"), out);
        }
    }
}

fn check_ports(ports: &[KubernetesPort], path: &Path<'_>, out: &mut Findings) {
    for (i, KubernetesPort { protocol: _, port, end_port }) in ports.iter().enumerate() {
        let at = path.index(i);
        let first = match port {
            Some(IntOrString::Int(port)) => Some(i64::from(*port)),
            Some(IntOrString::Text(_)) | None => None,
        };
        out.range(&at.field("port"), first, 1, 65535);
        match (end_port, first) {
            (Some(last), Some(first)) => out.range(&at.field("endPort"), Some(i64::from(*last)), first, 65535),
            (Some(last), None) => out.wrong(&at.field("endPort"), last, "none without a numeric port"),
            (None, _) => {}
        }
    }
}

fn check_peers(peers: &[KubernetesPeer], path: &Path<'_>, out: &mut Findings) {
    for (i, KubernetesPeer { pod_selector, namespace_selector, ip_block }) in peers.iter().enumerate() {
        let at = path.index(i);
        let selectors = [("podSelector", pod_selector), ("namespaceSelector", namespace_selector)];
        for (name, selector) in selectors {
            if let Some(selector) = selector {
                label_selector(selector, &at.field(name), out);
            }
        }
        let selects = pod_selector.is_some() || namespace_selector.is_some();
        if selects == ip_block.is_some() {
            out.wrong(&at, "", "either ipBlock, or podSelector and namespaceSelector");
        }
        if let Some(IpBlock { cidr, except }) = ip_block {
            out.net(&at.field("ipBlock").field("cidr"), cidr);
            out.nets(&at.field("ipBlock").field("except"), except);
        }
    }
}

fn label_selector(selector: &LabelSelector, path: &Path<'_>, out: &mut Findings) {
    let LabelSelector { match_labels, match_expressions } = selector;
    check_metadata::labels(match_labels, &path.field("matchLabels"), out);
    for (i, LabelSelectorRequirement { key: _, operator, values }) in match_expressions.iter().enumerate() {
        let wants_values = matches!(operator, LabelSelectorOperator::In | LabelSelectorOperator::NotIn);
        if wants_values == values.is_empty() {
            let at = path.field("matchExpressions");
            let at = at.index(i);
            let expected = if wants_values { "at least one value" } else { "no values with this operator" };
            out.wrong(&at.field("values"), format!("{} values", values.len()), expected);
        }
    }
}
