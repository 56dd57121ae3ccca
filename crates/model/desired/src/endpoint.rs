//! The workload endpoints of this node.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_net::Mac;

use crate::{PolicyId, TierAction};

/// The identity of a local workload endpoint: namespace and name of its resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// Namespace of the WorkloadEndpoint resource.
    pub namespace: Arc<str>,
    /// Name of the WorkloadEndpoint resource.
    pub name: Arc<str>,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The policies of one tier that select an endpoint, in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPolicies {
    /// Name of the tier.
    pub tier: Arc<str>,
    /// What happens when the tier applied and decided nothing.
    pub default_action: TierAction,
    /// Enforced policies that have ingress rules to apply; empty: the tier is skipped for ingress.
    pub ingress: Vec<PolicyId>,
    /// Enforced policies that have egress rules to apply; empty: the tier is skipped for egress.
    pub egress: Vec<PolicyId>,
}

/// A workload endpoint of this node.
///
/// With no policy in a direction, and no profile that decides, packets of that direction are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host side of the workload's interface, such as `cali1a2b3c4d5e6`; at most 15 bytes.
    pub interface: Arc<str>,
    /// The addresses of the workload, sorted: the only sources that it may use.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address of the workload's side, if known.
    pub mac: Option<Mac>,
    /// The tiers that apply, in order.
    pub tiers: Vec<TierPolicies>,
    /// Profiles, in order; evaluated after the tiers. Only profiles that exist are listed.
    pub profiles: Vec<Arc<str>>,
}
