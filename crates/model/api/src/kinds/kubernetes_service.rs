//! KubernetesService: the addresses and ports of a Service.
//!
//! An internal kind: only a Kubernetes store yields it.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::kinds::int_or_string::IntOrString;
use crate::kinds::staged_kubernetes_network_policy::KubernetesProtocol;
use crate::resource::resource;

resource! {
    /// The addresses and ports of a Service.
    KubernetesService { spec: KubernetesServiceSpec }
}

/// What is kept of a Service of `v1`, addresses of its status included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub service_type: String,
    /// The addresses inside the cluster; `None` for a headless Service stays as it is written.
    #[serde(rename = "clusterIPs", skip_serializing_if = "empty")]
    pub cluster_ips: Vec<String>,
    /// Addresses of outside that lead to the Service.
    #[serde(rename = "externalIPs", skip_serializing_if = "empty")]
    pub external_ips: Vec<String>,
    /// The address that was asked of the load balancer.
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "empty")]
    pub load_balancer_ip: String,
    /// Who is to balance the load.
    #[serde(skip_serializing_if = "empty")]
    pub load_balancer_class: String,
    /// Sources from which the load balancer's addresses may be used; empty: all.
    #[serde(skip_serializing_if = "empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// The load balancer's addresses, from the status.
    #[serde(skip_serializing_if = "empty")]
    pub load_balancer_ingress: Vec<String>,
    /// The ports.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<ServicePort>,
    /// `Cluster` or `Local`, for traffic from outside.
    #[serde(skip_serializing_if = "empty")]
    pub external_traffic_policy: String,
    /// `Cluster` or `Local`, for traffic from inside.
    #[serde(skip_serializing_if = "empty")]
    pub internal_traffic_policy: String,
    /// `None` or `ClientIP`.
    #[serde(skip_serializing_if = "empty")]
    pub session_affinity: String,
    /// The port on which nodes answer whether they have endpoints; 0 for none.
    #[serde(skip_serializing_if = "empty")]
    pub health_check_node_port: u16,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServicePort {
    /// The name; empty if the Service has one port only.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// The protocol.
    pub protocol: KubernetesProtocol,
    /// The port of the Service's addresses.
    pub port: u16,
    /// The port of every node that leads here; 0 for none.
    #[serde(skip_serializing_if = "empty")]
    pub node_port: u16,
    /// The port of the endpoints, or its name.
    #[serde(skip_serializing_if = "empty")]
    pub target_port: Option<IntOrString>,
}

impl Checked for KubernetesService {
    fn check(&self, _: &mut Findings) {}
}
