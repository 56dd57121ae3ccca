//! Policies and profiles with every selector resolved to sets.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{Family, PortRange, Protocol};

use crate::SetId;

/// The kind of resource that a policy came from; its order is the tie-break order of upstream's `name/namespace/kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `GlobalNetworkPolicy`.
    GlobalNetworkPolicy,
    /// `KubernetesClusterNetworkPolicy`.
    KubernetesClusterNetworkPolicy,
    /// `KubernetesNetworkPolicy`.
    KubernetesNetworkPolicy,
    /// `NetworkPolicy`.
    NetworkPolicy,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobalNetworkPolicy,
    /// `StagedKubernetesNetworkPolicy`.
    StagedKubernetesNetworkPolicy,
    /// `StagedNetworkPolicy`.
    StagedNetworkPolicy,
}

impl PolicyKind {
    /// All kinds.
    pub const ALL: [PolicyKind; 7] = [
        PolicyKind::GlobalNetworkPolicy,
        PolicyKind::KubernetesClusterNetworkPolicy,
        PolicyKind::KubernetesNetworkPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::StagedGlobalNetworkPolicy,
        PolicyKind::StagedKubernetesNetworkPolicy,
        PolicyKind::StagedNetworkPolicy,
    ];

    /// Upstream's short form, as used in chain names: `gnp`, `np`, `knp`, …
    pub fn short(self) -> &'static str {
        match self {
            PolicyKind::GlobalNetworkPolicy => "gnp",
            PolicyKind::KubernetesClusterNetworkPolicy => "kcnp",
            PolicyKind::KubernetesNetworkPolicy => "knp",
            PolicyKind::NetworkPolicy => "np",
            PolicyKind::StagedGlobalNetworkPolicy => "sgnp",
            PolicyKind::StagedKubernetesNetworkPolicy => "sknp",
            PolicyKind::StagedNetworkPolicy => "snp",
        }
    }

    /// Whether policies of this kind are only reported, never enforced.
    pub fn staged(self) -> bool {
        match self {
            PolicyKind::StagedGlobalNetworkPolicy
            | PolicyKind::StagedKubernetesNetworkPolicy
            | PolicyKind::StagedNetworkPolicy => true,
            PolicyKind::GlobalNetworkPolicy
            | PolicyKind::KubernetesClusterNetworkPolicy
            | PolicyKind::KubernetesNetworkPolicy
            | PolicyKind::NetworkPolicy => false,
        }
    }
}

/// The identity of a policy. Ordered by name, then namespace, then kind, as upstream breaks ties of `order`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// Name of the resource.
    pub name: Arc<str>,
    /// Namespace, empty for global kinds.
    pub namespace: Arc<str>,
    /// Kind of the resource.
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyId {
    /// `<short>/<namespace>/<name>`, or `<short>/<name>` without a namespace, as in upstream's chain names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyId { name, namespace, kind } = self;
        if namespace.is_empty() {
            write!(f, "{}/{name}", kind.short())
        } else {
            write!(f, "{}/{namespace}/{name}", kind.short())
        }
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Accept; evaluation of this direction ends.
    Allow,
    /// Drop; evaluation ends.
    Deny,
    /// Leave this tier; evaluation goes on with the next tier, or with the profiles.
    Pass,
    /// Log and go on with the next rule.
    Log,
}

/// What happens at the end of a tier that applied to the endpoint and decided nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierAction {
    /// Drop.
    Deny,
    /// Go on with the next tier.
    Pass,
}

/// ICMP type and code; `code` only ever with a type, as validated in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpMatch {
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code; `None` matches every code.
    pub code: Option<u8>,
}

/// The conditions on one side (source or destination) of a packet. All non-empty conditions must hold.
///
/// The calculator never yields a `Match` that became empty by resolving to nothing: a selector without members is a
/// set without members, and matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// The address must be in one of these; empty: no condition.
    pub nets: Vec<IpNet>,
    /// The address must be in none of these.
    pub not_nets: Vec<IpNet>,
    /// The address must be in every one of these sets.
    pub sets: Vec<SetId>,
    /// The address must be in none of these sets.
    pub not_sets: Vec<SetId>,
    /// The address together with the port must be in one of these sets (services with ports); empty: no condition.
    pub service_sets: Vec<SetId>,
    /// The port must be in one of these ranges or in one of `port_sets`; both empty: no condition.
    pub ports: Vec<PortRange>,
    /// Named ports, as sets of [`crate::SetKind::Ports`]: an alternative to `ports`.
    pub port_sets: Vec<SetId>,
    /// The port must be in none of these ranges.
    pub not_ports: Vec<PortRange>,
    /// The address, protocol and port must be in none of these sets.
    pub not_port_sets: Vec<SetId>,
}

impl Match {
    /// Whether there is no condition at all.
    pub fn is_any(&self) -> bool {
        *self == Match::default()
    }

    /// Every set that the match refers to.
    pub fn set_ids(&self) -> impl Iterator<Item = &SetId> {
        let Match {
            nets: _,
            not_nets: _,
            sets,
            not_sets,
            service_sets,
            ports: _,
            port_sets,
            not_ports: _,
            not_port_sets,
        } = self;
        sets.iter().chain(not_sets).chain(service_sets).chain(port_sets).chain(not_port_sets)
    }
}

/// One rule of a policy or profile. All non-empty conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What to do with a packet that matches.
    pub action: Action,
    /// The family that packets must have, if given.
    pub family: Option<Family>,
    /// The protocol that packets must have.
    pub protocol: Option<Protocol>,
    /// The protocol that packets must not have.
    pub not_protocol: Option<Protocol>,
    /// ICMP type and code that packets must have.
    pub icmp: Option<IcmpMatch>,
    /// ICMP type and code that packets must not have.
    pub not_icmp: Option<IcmpMatch>,
    /// Conditions on the source.
    pub source: Match,
    /// Conditions on the destination.
    pub destination: Match,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn any(action: Action) -> Rule {
        Rule {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Match::default(),
            destination: Match::default(),
        }
    }
}

/// Where on a packet's way a policy is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyStage {
    /// Where packets are filtered.
    #[default]
    Normal,
    /// Before destination NAT (`preDNAT`), for host endpoints alone.
    PreDnat,
    /// Before connection tracking (`doNotTrack`), for host endpoints alone.
    Untracked,
}

/// A policy that at least one local endpoint uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The tier that the policy belongs to.
    pub tier: Arc<str>,
    /// Where it is evaluated.
    pub stage: PolicyStage,
    /// Rules for traffic towards the endpoint, in order.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint, in order.
    pub egress: Vec<Rule>,
}

/// A profile that at least one local endpoint uses. A packet that no rule decides goes on to the next profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Rules for traffic towards the endpoint, in order.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint, in order.
    pub egress: Vec<Rule>,
}
