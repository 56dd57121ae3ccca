//! The packet's way: egress of the workload that sent it, then ingress of the workload that receives it.

use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{Action, Endpoint, EndpointId, HostAction, PolicyId, RouteTarget, Rule, Tables, TierAction};
use tortie_net::Family;

use crate::matching::rule_matches;
use crate::{Direction, Packet, Place, Source, Step, Target, Verdict};

/// Judges the first packet of a connection under these tables.
///
/// What is not policed is allowed: packets between the network and the node, and from the node to its workloads.
/// Neighbour discovery, which backends let through for every workload, is not to be asked about here.
pub fn evaluate(tables: &Tables, packet: &Packet, source: Source<'_>, target: Target) -> Verdict {
    let mut steps = Vec::new();
    let allowed = walk(tables, packet, source, target, &mut steps);
    Verdict { allowed, steps }
}

/// Judges a packet by the rules of one direction of one endpoint alone; `None` if there is no such endpoint.
pub fn evaluate_endpoint(tables: &Tables, id: &EndpointId, direction: Direction, packet: &Packet) -> Option<Verdict> {
    let endpoint = tables.endpoints.get(id)?;
    let mut steps = Vec::new();
    let allowed = one_direction(tables, id, endpoint, direction, packet, &mut steps);
    Some(Verdict { allowed, steps })
}

fn walk(tables: &Tables, packet: &Packet, source: Source<'_>, target: Target, steps: &mut Vec<Step>) -> bool {
    if packet.family() != Family::of(packet.dst) {
        steps.push(Step::MixedFamilies);
        return false;
    }
    let sender = match source {
        Source::Host => None,
        Source::Interface(name) => match by_interface(tables, name) {
            Some(found) => Some(found),
            None if tables.settings.interface_prefixes.iter().any(|prefix| name.starts_with(&**prefix)) => {
                steps.push(Step::UnknownInterface(Arc::from(name)));
                return false;
            }
            None => None,
        },
    };
    if let Some((id, endpoint)) = sender {
        if packet.family() == Family::V6 && !tables.settings.ipv6 {
            steps.push(Step::Ipv6Off(id.clone()));
            return false;
        }
        if !endpoint.addresses.contains(&packet.src) {
            steps.push(Step::Spoofed(id.clone()));
            return false;
        }
        if !one_direction(tables, id, endpoint, Direction::Egress, packet, steps) {
            return false;
        }
    }
    match target {
        Target::Host => to_host(tables, sender.is_some(), steps),
        Target::Routed => routed(tables, packet, source, sender.is_some(), steps),
    }
}

fn to_host(tables: &Tables, from_workload: bool, steps: &mut Vec<Step>) -> bool {
    if !from_workload {
        steps.push(Step::NotOurs);
        return true;
    }
    let action = tables.settings.endpoint_to_host;
    steps.push(Step::ToHost(action));
    match action {
        HostAction::Drop => false,
        HostAction::Accept | HostAction::Return => true,
    }
}

fn routed(tables: &Tables, packet: &Packet, source: Source<'_>, from_workload: bool, steps: &mut Vec<Step>) -> bool {
    if let Some((net, true)) = best_route(tables, packet) {
        steps.push(Step::Blackhole(net));
        return false;
    }
    let Some((id, endpoint)) = receiver(tables, packet) else {
        if !from_workload {
            steps.push(Step::NotOurs);
        }
        return true;
    };
    if packet.family() == Family::V6 && !tables.settings.ipv6 {
        steps.push(Step::Ipv6Off(id.clone()));
        return false;
    }
    match source {
        Source::Host => {
            steps.push(Step::FromHost(id.clone()));
            true
        }
        Source::Interface(_) => one_direction(tables, id, endpoint, Direction::Ingress, packet, steps),
    }
}

fn by_interface<'a>(tables: &'a Tables, name: &str) -> Option<(&'a EndpointId, &'a Endpoint)> {
    let found = tables.endpoints.iter().find(|(_, endpoint)| &*endpoint.interface == name);
    found.map(|(id, endpoint)| (id, &**endpoint))
}

/// The most specific route for the destination, and whether it is a black hole.
fn best_route(tables: &Tables, packet: &Packet) -> Option<(IpNet, bool)> {
    let covering = tables.routes.iter().filter(|(net, _)| net.contains(&packet.dst));
    let (net, route) = covering.max_by_key(|(net, _)| net.prefix_len())?;
    Some((*net, route.target == RouteTarget::Blackhole))
}

/// The endpoint to which the packet is delivered: the one that its route leads to, or else the one with its address.
fn receiver<'a>(tables: &'a Tables, packet: &Packet) -> Option<(&'a EndpointId, &'a Endpoint)> {
    let routed = tables.routes.get(&IpNet::from(packet.dst)).and_then(|route| match &route.target {
        RouteTarget::Workload { interface } => by_interface(tables, interface),
        RouteTarget::Blackhole
        | RouteTarget::Node { node: _, via: _ }
        | RouteTarget::Tunnel { device: _, node: _, via: _ } => None,
    });
    routed.or_else(|| {
        let found = tables.endpoints.iter().find(|(_, endpoint)| endpoint.addresses.contains(&packet.dst));
        found.map(|(id, endpoint)| (id, &**endpoint))
    })
}

/// How a rule list ended.
enum Outcome {
    Allowed,
    Denied,
    Passed,
    Undecided,
}

/// Tiers in order, then profiles in order, then drop.
fn one_direction(
    tables: &Tables,
    id: &EndpointId,
    endpoint: &Endpoint,
    direction: Direction,
    packet: &Packet,
    steps: &mut Vec<Step>,
) -> bool {
    let mut look = Look { tables, id, direction, packet, steps };
    for tier in &endpoint.tiers {
        let policies = match direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if policies.is_empty() {
            continue;
        }
        match look.tier(&tier.tier, policies) {
            Outcome::Allowed => return true,
            Outcome::Denied => return false,
            Outcome::Passed => continue,
            Outcome::Undecided => {}
        }
        let (tier, action) = (tier.tier.clone(), tier.default_action);
        look.steps.push(Step::EndOfTier { endpoint: id.clone(), direction, tier, action });
        match action {
            TierAction::Deny => return false,
            TierAction::Pass => {}
        }
    }
    match look.profiles(&endpoint.profiles) {
        Outcome::Allowed => true,
        Outcome::Denied => false,
        Outcome::Passed | Outcome::Undecided => {
            look.steps.push(Step::NothingMatched { endpoint: id.clone(), direction });
            false
        }
    }
}

struct Look<'a> {
    tables: &'a Tables,
    id: &'a EndpointId,
    direction: Direction,
    packet: &'a Packet,
    steps: &'a mut Vec<Step>,
}

impl Look<'_> {
    fn tier(&mut self, tier: &Arc<str>, policies: &[PolicyId]) -> Outcome {
        for policy in policies {
            let place = Place::Policy { tier: tier.clone(), policy: policy.clone() };
            let Some(found) = self.tables.policies.get(policy) else { return self.missing(place) };
            let outcome = self.rules(&place, self.side(&found.ingress, &found.egress));
            if !matches!(outcome, Outcome::Undecided) {
                return outcome;
            }
        }
        Outcome::Undecided
    }

    fn profiles(&mut self, profiles: &[Arc<str>]) -> Outcome {
        for name in profiles {
            let place = Place::Profile(name.clone());
            let Some(found) = self.tables.profiles.get(name) else { return self.missing(place) };
            // A `Pass` in a profile has no next tier: it ends the profiles, and nothing decided.
            let outcome = self.rules(&place, self.side(&found.ingress, &found.egress));
            if !matches!(outcome, Outcome::Undecided) {
                return outcome;
            }
        }
        Outcome::Undecided
    }

    fn side<'r>(&self, ingress: &'r [Rule], egress: &'r [Rule]) -> &'r [Rule] {
        match self.direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }

    fn missing(&mut self, place: Place) -> Outcome {
        self.steps.push(Step::Missing { endpoint: self.id.clone(), direction: self.direction, place });
        Outcome::Denied
    }

    fn rules(&mut self, place: &Place, rules: &[Rule]) -> Outcome {
        for (index, rule) in rules.iter().enumerate() {
            if !rule_matches(self.tables, rule, self.packet) {
                continue;
            }
            let Look { tables: _, id, direction, packet: _, steps } = self;
            let (endpoint, direction, place) = ((*id).clone(), *direction, place.clone());
            steps.push(Step::Rule { endpoint, direction, place, index, action: rule.action });
            match rule.action {
                Action::Allow => return Outcome::Allowed,
                Action::Deny => return Outcome::Denied,
                Action::Pass => return Outcome::Passed,
                Action::Log => {}
            }
        }
        Outcome::Undecided
    }
}
