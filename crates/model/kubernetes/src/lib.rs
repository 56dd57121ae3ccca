//! Kubernetes objects as facts: the few fields that are read, and pure conversions to resources and back.
//!
//! Invariant: a part that is not understood never widens a policy. It is left out where that closes, it becomes a
//! `Deny` where leaving it out would open, and either way it is told as a [`ConversionError`]. An error instead of a
//! [`Converted`] says that nothing can be made of the object at all; the conversions share one signature.

mod cluster_network_policy;
mod cluster_rule;
mod endpoint_slice;
mod error;
mod meta;
mod namespace;
mod network_policy;
mod node;
mod node_patch;
mod pod;
mod pod_annotations;
mod pod_patch;
mod ports;
mod qos;
mod quantity;
mod selector;
mod service;
mod service_account;
mod uid;

pub use cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, Subject, SubjectPods, cluster_network_policy,
};
pub use endpoint_slice::{EndpointSlice, endpoint_slice};
pub use error::{ConversionError, Converted};
pub use meta::ObjectMeta;
pub use namespace::{Namespace, namespace, namespace_profile_name};
pub use network_policy::{NetworkPolicy, NetworkPolicySpec, network_policy, staged_network_policy};
pub use node::{KubernetesNode, PodCidrs, node};
pub use node_patch::node_patch;
pub use pod::{Pod, PodIp, endpoint_name, pod};
pub use pod_patch::{pod_patch, pod_removal_patch};
pub use service::{Service, service};
pub use service_account::{ServiceAccount, service_account, service_account_profile_name};
pub use uid::transformed as transformed_uid;
