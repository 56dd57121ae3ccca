//! What was decided on the way, by whom.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{Action, EndpointId, HostAction, PolicyId, TierAction};

/// Which side of an endpoint a rule list guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In a policy of a tier.
    Policy {
        /// Name of the tier.
        tier: Arc<str>,
        /// The policy.
        policy: PolicyId,
    },
    /// In a profile.
    Profile(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Policy { tier, policy } => write!(f, "policy {policy} of tier {tier}"),
            Place::Profile(name) => write!(f, "profile {name}"),
        }
    }
}

/// Which of a host endpoint's policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Those before connection tracking.
    Untracked,
    /// Those before destination NAT.
    PreDnat,
    /// Those for what is forwarded.
    Forward,
    /// Those for what the node itself sends or receives.
    Normal,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Untracked => "untracked",
            Stage::PreDnat => "pre-DNAT",
            Stage::Forward => "forward",
            Stage::Normal => "normal",
        })
    }
}

/// What carries packets between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan,
    /// IPIP.
    Ipip,
    /// WireGuard.
    Wireguard,
}

/// One thing that happened to the packet. The last step of a verdict is the one that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Source and destination are of different families: no such packet exists. Denied.
    MixedFamilies,
    /// The interface is a workload's by name, but belongs to no endpoint. Denied.
    UnknownInterface(Arc<str>),
    /// IPv6 is not managed, so the workload has none. Denied.
    Ipv6Off(EndpointId),
    /// The source is not an address of the endpoint that sent it. Denied.
    Spoofed(EndpointId),
    /// The destination is an unused address of a block of this node. Denied.
    Blackhole(IpNet),
    /// A rule matched. `Allow` and `Deny` end the direction, `Pass` ends the tier, `Log` goes on.
    Rule {
        /// The endpoint whose rules are looked at.
        endpoint: EndpointId,
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// Where the rule stands.
        place: Place,
        /// Index of the rule within its list, from 0.
        index: usize,
        /// What the rule does.
        action: Action,
    },
    /// The tables name a policy or profile that they do not hold. Denied.
    Missing {
        /// The endpoint that refers to it.
        endpoint: EndpointId,
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// What is missing.
        place: Place,
    },
    /// A tier had policies for the endpoint, and none of them decided.
    EndOfTier {
        /// The endpoint.
        endpoint: EndpointId,
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// Name of the tier.
        tier: Arc<str>,
        /// What the tier does then.
        action: TierAction,
    },
    /// No tier and no profile decided. Denied.
    NothingMatched {
        /// The endpoint.
        endpoint: EndpointId,
        /// The direction, as seen from the endpoint.
        direction: Direction,
    },
    /// Policy let a workload's packet to the node itself through; this is what happens then.
    ToHost(HostAction),
    /// The node itself speaks to its workload, which no policy of the workload hinders. Allowed.
    FromHost(EndpointId),
    /// The policies of a host endpoint are asked from here on.
    AtHost {
        /// The host endpoint.
        endpoint: EndpointId,
        /// Which policies.
        stage: Stage,
        /// The direction, as seen from the node.
        direction: Direction,
    },
    /// The port is one that policies of host endpoints never close. Goes on, or is allowed at the last stage.
    Failsafe(Stage),
    /// No policy of a host endpoint's stage decided, which leaves it to what follows; allowed if nothing does.
    Open(Stage),
    /// A tunnel's packet to or from the node itself: allowed with the nodes that it leads to, and with nobody else.
    Tunnel {
        /// What it is.
        kind: TunnelKind,
        /// Whether it is allowed.
        allowed: bool,
    },
    /// The workload sent a packet in a tunnel of its own. Denied.
    Encapsulated(EndpointId),
    /// A packet to a service that nobody translated would loop. Denied.
    ServiceLoop(IpNet),
    /// No endpoint of this node is concerned. Allowed.
    NotOurs,
}

impl fmt::Display for Step {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MixedFamilies => f.write_str("source and destination are of different families"),
            Step::UnknownInterface(name) => write!(f, "interface {name} belongs to no endpoint"),
            Step::Ipv6Off(endpoint) => write!(f, "IPv6 is off, {endpoint} may not use it"),
            Step::Spoofed(endpoint) => write!(f, "the source is not an address of {endpoint}"),
            Step::Blackhole(net) => write!(f, "nothing uses this address of block {net}"),
            Step::Rule { endpoint, direction, place, index, action } => {
                write!(f, "{direction} of {endpoint}: {action:?} by rule {index} of {place}")
            }
            Step::Missing { endpoint, direction, place } => {
                write!(f, "{direction} of {endpoint}: {place} is missing")
            }
            Step::EndOfTier { endpoint, direction, tier, action } => {
                write!(f, "{direction} of {endpoint}: {action:?} at the end of tier {tier}")
            }
            Step::NothingMatched { endpoint, direction } => {
                write!(f, "{direction} of {endpoint}: no policy or profile decided")
            }
            Step::ToHost(action) => write!(f, "to the node itself: {action:?}"),
            Step::FromHost(endpoint) => write!(f, "the node itself speaks to {endpoint}"),
            Step::AtHost { endpoint, stage, direction } => {
                write!(f, "{stage} {direction} of host endpoint {endpoint}")
            }
            Step::Failsafe(stage) => write!(f, "a failsafe port, which no {stage} policy closes"),
            Step::Open(stage) => write!(f, "no {stage} policy decided"),
            Step::Tunnel { kind, allowed } => {
                f.write_str(match kind {
                    TunnelKind::Vxlan => "VXLAN",
                    TunnelKind::Ipip => "IPIP",
                    TunnelKind::Wireguard => "WireGuard",
                })?;
                f.write_str(if *allowed { " of a node with a tunnel" } else { " of a stranger" })
            }
            Step::Encapsulated(endpoint) => write!(f, "{endpoint} may not send tunnelled packets of its own"),
            Step::ServiceLoop(net) => write!(f, "nobody translated this address of service prefix {net}"),
            Step::NotOurs => f.write_str("no endpoint of this node is concerned"),
        }
    }
}

/// What happens to a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the packet goes on.
    pub allowed: bool,
    /// What happened on the way; the last step decided.
    pub steps: Vec<Step>,
}
