//! The chains and maps of host endpoints.
//!
//! Invariant: an interface that a host endpoint governs by name never meets the one of all interfaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_desired::{Failsafe, HostEndpoint, HostInterface, Settings, TierPolicies};
use tortie_net::{Family, PortRange};

use crate::lists::{self, End, Listed, Referents};
use crate::model::{Chain, ChoiceMap, Direction, DispatchMap, Match, Name, Rule, Side, Verdict};
use crate::names::Names;
use crate::workload::clean;

/// Where host endpoints have a say, each with a map and a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    RawIn,
    RawOut,
    BeforeNat,
    ForwardIn,
    ForwardOut,
    In,
    Out,
}

impl Point {
    pub(crate) const ALL: [Point; 7] =
        [Point::RawIn, Point::RawOut, Point::BeforeNat, Point::ForwardIn, Point::ForwardOut, Point::In, Point::Out];

    /// Upstream's prefix of chains; its tables are told apart by another prefix here.
    fn prefix(self) -> &'static str {
        match self {
            Point::RawIn => "raw-cali-fh-",
            Point::RawOut => "raw-cali-th-",
            Point::BeforeNat => "mangle-cali-fh-",
            Point::ForwardIn => "cali-fhfw-",
            Point::ForwardOut => "cali-thfw-",
            Point::In => "cali-fh-",
            Point::Out => "cali-th-",
        }
    }

    pub(crate) fn map(self) -> Name {
        Name::from(match self {
            Point::RawIn => "raw-cali-from-host-endpoint",
            Point::RawOut => "raw-cali-to-host-endpoint",
            Point::BeforeNat => "mangle-cali-from-host-endpoint",
            Point::ForwardIn => "cali-from-hep-forward",
            Point::ForwardOut => "cali-to-hep-forward",
            Point::In => "cali-from-host-endpoint",
            Point::Out => "cali-to-host-endpoint",
        })
    }

    pub(crate) fn direction(self) -> Direction {
        match self {
            Point::RawIn | Point::BeforeNat | Point::ForwardIn | Point::In => Direction::Ingress,
            Point::RawOut | Point::ForwardOut | Point::Out => Direction::Egress,
        }
    }

    pub(crate) fn side(self) -> Side {
        match self.direction() {
            Direction::Ingress => Side::Source,
            Direction::Egress => Side::Destination,
        }
    }

    fn end(self) -> End {
        match self {
            Point::RawIn | Point::RawOut | Point::BeforeNat => End::Silent,
            Point::ForwardIn | Point::ForwardOut => End::Open,
            Point::In | Point::Out => End::Deny,
        }
    }

    fn failsafe(self) -> Option<&'static str> {
        match self {
            Point::RawIn => Some("raw-cali-failsafe-in"),
            Point::RawOut => Some("raw-cali-failsafe-out"),
            Point::BeforeNat | Point::In => Some("cali-failsafe-in"),
            Point::ForwardIn | Point::ForwardOut => None,
            Point::Out => Some("cali-failsafe-out"),
        }
    }

    fn tiers(self, endpoint: &HostEndpoint) -> &[TierPolicies] {
        let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = endpoint;
        match self {
            Point::RawIn | Point::RawOut => untracked,
            Point::BeforeNat => pre_dnat,
            Point::ForwardIn | Point::ForwardOut => forward,
            Point::In | Point::Out => tiers,
        }
    }

    /// Whether the endpoint does anything here.
    fn concerns(self, endpoint: &HostEndpoint) -> bool {
        let rules = |tier: &TierPolicies| match self.direction() {
            Direction::Ingress => !tier.ingress.is_empty(),
            Direction::Egress => !tier.egress.is_empty(),
        };
        match self {
            Point::In | Point::Out => true,
            Point::RawIn | Point::RawOut | Point::BeforeNat | Point::ForwardIn | Point::ForwardOut => {
                self.tiers(endpoint).iter().any(rules)
            }
        }
    }
}

/// What is at a point.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtPoint {
    /// First chains by interface.
    pub(crate) map: DispatchMap,
    /// The first chain for all other interfaces.
    pub(crate) default: Option<Name>,
}

/// All chains of host endpoints, and the points where there are any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) points: BTreeMap<Point, AtPoint>,
    pub(crate) chains: Vec<(Name, Chain)>,
    /// The maps that their rules choose by.
    pub(crate) choices: BTreeMap<Name, Arc<ChoiceMap>>,
}

/// Renders everything but the base chains. `referents` says how to look up what lists name, for a direction.
pub(crate) fn render<'a>(
    endpoints: &BTreeMap<HostInterface, Arc<HostEndpoint>>,
    names: Names,
    settings: &Settings,
    referents: &dyn Fn(Direction) -> Referents<'a>,
) -> Host {
    let mut host = Host::default();
    for point in Point::ALL {
        let default = endpoints.get(&HostInterface::All).is_some_and(|all| point.concerns(all));
        for (interface, endpoint) in endpoints {
            // Where the endpoint of all interfaces acts, an empty chain keeps the others from it.
            if !point.concerns(endpoint) && (!default || *interface == HostInterface::All) {
                continue;
            }
            let name = |number| names.host(point.prefix(), interface, number);
            let Listed { chains, choices } = chains(point, endpoint, settings, &name, &referents(point.direction()));
            let at = host.points.entry(point).or_default();
            match interface {
                HostInterface::Named(interface) => drop(at.map.insert(interface.clone(), name(0))),
                HostInterface::All => at.default = Some(name(0)),
            }
            host.chains.extend(chains);
            host.choices.extend(choices);
        }
    }
    for point in host.points.keys() {
        let Some(name) = point.failsafe() else { continue };
        if !host.chains.iter().any(|(known, _)| **known == *name) {
            host.chains.push((Name::from(name), failsafes(*point, settings)));
        }
    }
    host
}

fn chains(
    point: Point,
    endpoint: &HostEndpoint,
    settings: &Settings,
    name: &dyn Fn(usize) -> Name,
    referents: &Referents<'_>,
) -> Listed {
    if !point.concerns(endpoint) {
        return Listed { chains: vec![(name(0), Chain::default())], ..Listed::default() };
    }
    let mut head = match point {
        // Nothing is known of flows yet.
        Point::RawIn | Point::RawOut => vec![],
        Point::BeforeNat | Point::ForwardIn | Point::ForwardOut | Point::In | Point::Out => {
            clean(point.direction(), &Settings { ipv6: true, ..settings.clone() })
        }
    };
    head.extend(point.failsafe().map(|chain| Rule::new([], Verdict::Jump(Name::from(chain)))));
    lists::chains(head, point.tiers(endpoint), &endpoint.profiles, point.end(), name, referents)
}

/// The ports that no policy closes. Before connection tracking, answers to them too: else half a flow might be left
/// untracked by a policy.
fn failsafes(point: Point, settings: &Settings) -> Chain {
    let (own, other, peer) = match point.direction() {
        Direction::Ingress => (&settings.failsafe_inbound, &settings.failsafe_outbound, Side::Source),
        Direction::Egress => (&settings.failsafe_outbound, &settings.failsafe_inbound, Side::Destination),
    };
    let rule = |failsafe: &Failsafe, side: Side| {
        let Failsafe { protocol, port, net } = *failsafe;
        let net = net.map(|net| (Family::of_net(net), net));
        let family = net.map(|(family, _)| Match::Family(family));
        let whom = net.map(|(_, net)| Match::Address { side: peer, net, negate: false });
        let port = Match::Port { side, range: PortRange::single(port), negate: false };
        let what = [Match::Protocol { protocol, negate: false }, port];
        Rule::new(family.into_iter().chain(what).chain(whom).collect::<Vec<_>>(), Verdict::Accept)
    };
    let mut rules: Vec<Rule> = own.iter().map(|failsafe| rule(failsafe, Side::Destination)).collect();
    if matches!(point, Point::RawIn | Point::RawOut) {
        rules.extend(other.iter().map(|failsafe| rule(failsafe, Side::Source)));
    }
    Chain { rules, ..Chain::default() }
}
