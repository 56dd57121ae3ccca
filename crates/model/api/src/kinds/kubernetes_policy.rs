//! Kubernetes' own policies in the shape of Calico's: what a Kubernetes store yields for them.
//!
//! Internal kinds: nobody writes them as such, so nothing is filled in and nothing is checked here.

use crate::check::{Checked, Findings};
use crate::kinds::global_network_policy::GlobalNetworkPolicySpec;
use crate::kinds::network_policy::NetworkPolicySpec;
use crate::resource::resource;

resource! {
    /// A NetworkPolicy of `networking.k8s.io/v1`.
    KubernetesNetworkPolicy { spec: NetworkPolicySpec }
}

resource! {
    /// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
    KubernetesClusterNetworkPolicy { spec: GlobalNetworkPolicySpec }
}

impl Checked for KubernetesNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}

impl Checked for KubernetesClusterNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
