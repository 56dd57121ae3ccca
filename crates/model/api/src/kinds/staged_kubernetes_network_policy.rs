//! StagedKubernetesNetworkPolicy: a Kubernetes NetworkPolicy that is reported on, not enforced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::kinds::int_or_string::IntOrString;
use crate::kinds::policy::{PolicyType, StagedAction};
use crate::resource::resource;

resource! {
    /// A Kubernetes NetworkPolicy that is reported on, not enforced.
    StagedKubernetesNetworkPolicy { spec: StagedKubernetesNetworkPolicySpec }
}

/// The specification of a StagedKubernetesNetworkPolicy, in Kubernetes' own shapes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels of these values.
    #[serde(skip_serializing_if = "empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Demands on single labels.
    #[serde(skip_serializing_if = "empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A demand on a single label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
