//! KubernetesEndpointSlice: some of the addresses behind a Service.
//!
//! An internal kind: only a Kubernetes store yields it.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::kinds::staged_kubernetes_network_policy::KubernetesProtocol;
use crate::resource::resource;

resource! {
    /// Some of the addresses behind a Service.
    KubernetesEndpointSlice { spec: KubernetesEndpointSliceSpec }
}

/// What is kept of an EndpointSlice of `discovery.k8s.io/v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesEndpointSliceSpec {
    /// The Service of the same namespace, by the label `kubernetes.io/service-name`; empty: of none.
    #[serde(skip_serializing_if = "empty")]
    pub service: String,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(skip_serializing_if = "empty")]
    pub address_type: String,
    /// The endpoints, ready or not.
    #[serde(skip_serializing_if = "empty")]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that every endpoint has.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<SlicePort>,
}

/// One endpoint of a slice. A condition that is not stated counts as upstream's own defaults: ready, serving, staying.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SliceEndpoint {
    /// Its addresses, all of the slice's type; in slices of type `FQDN` they are names.
    #[serde(skip_serializing_if = "empty")]
    pub addresses: Vec<String>,
    /// Whether it takes new connections.
    #[serde(skip_serializing_if = "empty")]
    pub ready: Option<bool>,
    /// Whether it answers, also while it terminates.
    #[serde(skip_serializing_if = "empty")]
    pub serving: Option<bool>,
    /// Whether it terminates.
    #[serde(skip_serializing_if = "empty")]
    pub terminating: Option<bool>,
    /// The node on which it runs.
    #[serde(skip_serializing_if = "empty")]
    pub node_name: String,
    /// The zone in which it runs.
    #[serde(skip_serializing_if = "empty")]
    pub zone: String,
}

/// One port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SlicePort {
    /// The name of the Service's port.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// The protocol.
    pub protocol: KubernetesProtocol,
    /// The port number; none: every port, which a policy does not take as a port of the Service.
    #[serde(skip_serializing_if = "empty")]
    pub port: Option<u16>,
}

impl Checked for KubernetesEndpointSlice {
    fn check(&self, _: &mut Findings) {}
}
