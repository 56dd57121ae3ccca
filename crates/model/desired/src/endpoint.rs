//! The endpoints of this node: its workloads, and its own interfaces.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::Mac;

use crate::{PolicyId, TierAction};

/// The identity of an endpoint of this node: namespace and name of its resource; a HostEndpoint has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// Namespace of the resource; empty for a HostEndpoint.
    pub namespace: Arc<str>,
    /// Name of the resource.
    pub name: Arc<str>,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EndpointId { namespace, name } = self;
        if namespace.is_empty() { f.write_str(name) } else { write!(f, "{namespace}/{name}") }
    }
}

/// The policies of one tier that select an endpoint, in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Sources that it may use besides its own addresses, sorted.
    pub allowed_sources: Vec<IpNet>,
    /// Addresses by which others reach it, besides its own; sorted, without repeats.
    pub floating: Vec<FloatingAddress>,
    /// Limits on its traffic.
    pub limits: Limits,
}

/// An address that stands for one of a workload's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FloatingAddress {
    /// What others send to.
    pub external: IpAddr,
    /// What that is translated to; an address of the workload, of the same family.
    pub internal: IpAddr,
}

/// A rate of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketRate {
    /// Packets a second, at least 1.
    pub per_second: u32,
    /// Packets at once before the rate counts, at least 1.
    pub burst: u32,
}

/// A limit on bytes, by a bucket of tokens; what is over waits, and is dropped when too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes per second, at least 1.
    pub rate: u64,
    /// What the bucket holds, bytes; no less than a packet.
    pub burst: u32,
    /// How fast a full bucket may empty; `None`: as fast as the link takes it.
    pub peak: Option<PeakRate>,
}

/// How fast a bucket may empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakRate {
    /// Bytes per second, more than the rate of the bucket.
    pub rate: u64,
    /// What may pass at once at that rate, bytes; no less than a packet.
    pub burst: u32,
}

/// Limits on a workload's traffic. Policy is asked besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets to it; what is over is dropped.
    pub ingress_packets: Option<PacketRate>,
    /// Packets from it.
    pub egress_packets: Option<PacketRate>,
    /// Connections to it at a time; a new one over it is rejected.
    pub ingress_connections: Option<u32>,
    /// Connections from it at a time.
    pub egress_connections: Option<u32>,
    /// What packets from it that leave the cluster are marked with (RFC 2474), below 64.
    pub dscp: Option<u8>,
    /// Bytes to it.
    pub ingress_bandwidth: Option<Bandwidth>,
    /// Bytes from it.
    pub egress_bandwidth: Option<Bandwidth>,
}

/// Which of the node's own interfaces (those that are no workload's) a host endpoint governs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostInterface {
    /// The one of this name, whether or not it is there now.
    Named(Arc<str>),
    /// Every one that no other host endpoint governs, the loopback included.
    All,
}

impl HostInterface {
    /// The name of the interface; `None`: all.
    pub fn name(&self) -> Option<&str> {
        match self {
            HostInterface::Named(name) => Some(name),
            HostInterface::All => None,
        }
    }
}

impl fmt::Display for HostInterface {
    /// `*` stands for all, as in the resource.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("*"))
    }
}

/// The policy of one of the node's own interfaces, or of all of them.
///
/// Ingress is what comes in by the interface, egress what leaves by it. The four lists are evaluated at different
/// points of a packet's way; a tier stands in a list only with policies of that list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Name of the HostEndpoint resource.
    pub name: Arc<str>,
    /// Before connection tracking, both directions, forwarded or not. What is allowed passes all that follows without
    /// being tracked; what no rule decides goes on. Always empty for [`HostInterface::All`], as upstream.
    pub untracked: Vec<TierPolicies>,
    /// Before destination NAT, ingress only, forwarded or not. What is allowed skips `forward` ingress and `tiers`;
    /// what no rule decides goes on.
    pub pre_dnat: Vec<TierPolicies>,
    /// For what is forwarded. Allowed where no tier applies, or all that apply were passed.
    pub forward: Vec<TierPolicies>,
    /// For what the node itself sends or receives; then the profiles, then it is denied.
    pub tiers: Vec<TierPolicies>,
    /// Profiles, in order; evaluated after `tiers`. Only profiles that exist are listed.
    pub profiles: Vec<Arc<str>>,
}

impl HostEndpoint {
    /// The identity, as steps of verdicts name it.
    pub fn id(&self) -> EndpointId {
        EndpointId { namespace: Arc::from(""), name: self.name.clone() }
    }
}
