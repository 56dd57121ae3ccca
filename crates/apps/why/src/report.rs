//! The whole answer as one value, which is printed as text or as JSON.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;
use tortie_api::{Kind, Resource};
use tortie_desired::{self as desired, PolicyId, PolicyKind, TierAction};
use tortie_net::PortRange;
use tortie_verdict::{Condition, Demand, Direction, Explanation, ListTrial, Place, RuleTrial, Side, Stage, Target};

use crate::change::{Change, List, labels_of};
use crate::label::{labels_text, owners};
use crate::point::{Point, Sort};
use crate::search::{explanations, suggest};
use crate::way::{self, Flow, Hop, Origin, allowed, judge};
use crate::world::NodeView;
use crate::{World, uplink};

/// The answer to why a flow is allowed or denied.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the first packet of the flow arrives.
    pub allowed: bool,
    /// Whether it would arrive if staged policies were enforced, where there are any.
    pub allowed_if_staged: Option<bool>,
    /// Where it comes from.
    pub source: End,
    /// Where it goes.
    pub destination: End,
    /// IP protocol, by name where it has one.
    pub protocol: String,
    /// Destination port, for protocols that have ports.
    pub port: Option<u16>,
    /// The nodes that judge the packet, in order, up to the first that denies it.
    pub hops: Vec<HopReport>,
    /// The rule that almost allowed what was denied.
    pub nearest: Option<Nearest>,
    /// The smallest change that turns the verdict; it was tried on the tables.
    pub change: Option<ChangeReport>,
    /// What could not be taken into account.
    pub notes: Vec<String>,
}

/// One end of the flow.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// Its name.
    pub name: String,
    /// `workload`, `node`, `networkSet` or `address`.
    pub kind: &'static str,
    /// The address of the packet.
    pub address: IpAddr,
    /// The node on which it is.
    pub node: Option<String>,
    /// Its labels, as selectors see them.
    pub labels: Option<String>,
}

/// What one node does.
#[derive(Clone, Debug, Serialize)]
pub struct HopReport {
    /// The node.
    pub node: String,
    /// Where the packet comes from.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Whether it goes on.
    pub allowed: bool,
    /// Every step that decided something; the last one decided.
    pub steps: Vec<String>,
    /// The endpoints' directions that judged it.
    pub directions: Vec<DirectionReport>,
}

/// One direction of one endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct DirectionReport {
    /// The endpoint.
    pub endpoint: String,
    /// `untracked`, `pre-DNAT`, `forward` or `normal`: which policies of a host endpoint; none for a workload.
    pub stage: Option<String>,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Whether the packet goes on.
    pub allowed: bool,
    /// What happens to packets that no rule decides, and which policies made it so.
    pub default: String,
    /// The policies that select the endpoint in this direction.
    pub selected_by: Vec<String>,
    /// Policies by tier, then profiles, in order of evaluation.
    pub lists: Vec<ListReport>,
}

/// A policy or profile.
#[derive(Clone, Debug, Serialize)]
pub struct ListReport {
    /// The tier, for policies.
    pub tier: Option<String>,
    /// Kind and name.
    pub name: String,
    /// Whether the evaluation came here.
    pub reached: bool,
    /// Its rules.
    pub rules: Vec<RuleReport>,
    /// After the last policy of a tier: what the tier does, and whether that was reached.
    pub end_of_tier: Option<(String, bool)>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its index as written.
    pub index: usize,
    /// Its action.
    pub action: String,
    /// Whether the evaluation came to it.
    pub tried: bool,
    /// Whether it matches.
    pub matches: bool,
    /// Its conditions.
    pub conditions: Vec<ConditionReport>,
}

/// A condition of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct ConditionReport {
    /// Whether it holds.
    pub holds: bool,
    /// What is demanded.
    pub demand: String,
    /// What was found.
    pub found: String,
}

/// The rule that almost matched.
#[derive(Clone, Debug, Serialize)]
pub struct Nearest {
    /// Direction, index and name of the policy.
    pub rule: String,
    /// How many conditions it has.
    pub conditions: usize,
    /// Those that fail.
    pub failing: Vec<ConditionReport>,
}

/// A change that turns the verdict.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeReport {
    /// What to do, one line a step.
    pub steps: Vec<String>,
    /// The resources as they are afterwards.
    pub resources: Vec<Value>,
    /// The verdict afterwards.
    pub then_allowed: bool,
}

/// Judges a flow and says why.
pub fn explain_flow(world: &mut World, flow: &Flow) -> Report {
    let hops = judge(world, flow);
    let change = suggest(world, flow);
    let allowed = allowed(&hops);
    let change = change.map(|Change { texts, edits, cost: _ }| ChangeReport {
        steps: texts,
        resources: edits.values().map(Resource::to_value).collect(),
        then_allowed: !allowed,
    });
    let packet = &flow.packet;
    let staged = world.is_staged() || world.resources().any(is_staged);
    Report {
        allowed,
        allowed_if_staged: staged.then(|| way::allowed(&judge(&mut world.with_staged(), flow))),
        source: end(world, &flow.source, packet.src),
        destination: end(world, &flow.destination, packet.dst),
        protocol: packet.protocol.to_string(),
        port: packet.protocol.has_ports().then_some(packet.dst_port),
        nearest: if allowed { None } else { hops.last().and_then(|hop| nearest(world, hop)) },
        change,
        notes: notes(world, &hops),
        hops: hops.iter().map(|hop| hop_report(world, hop)).collect(),
    }
}

fn is_staged(resource: &Resource) -> bool {
    matches!(
        resource.kind(),
        Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
    )
}

fn notes(world: &World, hops: &[Hop]) -> Vec<String> {
    let mut out = Vec::new();
    if hops.is_empty() {
        out.push("no node of this cluster is on the way, so nothing here hinders the packet".to_owned());
    }
    out.extend(hops.iter().flat_map(|hop| uplink::unknown(world.facts(), &hop.node)));
    for view in hops.iter().filter_map(|hop| world.known(&hop.node)) {
        for (key, lines) in view.calculator().problems() {
            out.extend(lines.into_iter().map(|line| format!("{key}: {line}")));
        }
    }
    out.sort();
    out.dedup();
    out
}

fn end(world: &World, point: &Point, address: IpAddr) -> End {
    let (kind, labels) = match &point.sort {
        Sort::Workload { id, .. } => {
            let key = tortie_facts::Key::resource(tortie_api::Kind::WorkloadEndpoint, &id.namespace, &id.name);
            ("workload", labels_of(world, &key))
        }
        Sort::Node(_) => ("node", None),
        Sort::NetworkSet(key) => ("networkSet", labels_of(world, key)),
        Sort::Address { .. } => ("address", None),
    };
    let node = match &point.sort {
        Sort::Workload { node, .. } | Sort::Node(node) => Some(node.clone()),
        Sort::NetworkSet(_) | Sort::Address { .. } => None,
    };
    End { name: point.name.clone(), kind, address, node, labels }
}

fn hop_report(world: &World, hop: &Hop) -> HopReport {
    let from = match &hop.origin {
        Origin::Workload(interface) => format!("interface {interface}"),
        Origin::Network => "the network".to_owned(),
        Origin::Host => "the node itself".to_owned(),
    };
    let to = match hop.target {
        Target::Routed => "where the routes say",
        Target::Host => "the node itself",
    };
    let directions = world.known(&hop.node).map_or_else(Vec::new, |view| {
        explanations(world, hop).iter().map(|told| direction(world, view, hop, told)).collect()
    });
    HopReport {
        node: hop.node.clone(),
        from,
        to: to.to_owned(),
        allowed: hop.verdict.allowed,
        steps: hop.verdict.steps.iter().map(ToString::to_string).collect(),
        directions,
    }
}

fn direction(world: &World, view: &NodeView, hop: &Hop, told: &Explanation) -> DirectionReport {
    let lists = |trial: &ListTrial, tier: Option<String>| {
        let rule = |rule: &RuleTrial| rule_report(world, view, hop, &trial.place, told.direction, rule);
        ListReport {
            tier,
            name: place_text(&trial.place),
            reached: trial.reached,
            rules: trial.rules.iter().map(rule).collect(),
            end_of_tier: None,
        }
    };
    let mut all = Vec::new();
    for tier in &told.tiers {
        all.extend(tier.policies.iter().map(|trial| lists(trial, Some(tier.tier.to_string()))));
        if let Some(last) = all.last_mut() {
            last.end_of_tier = Some((format!("{:?}", tier.default_action), tier.end_reached));
        }
    }
    all.extend(told.profiles.iter().map(|trial| lists(trial, None)));
    let selecting = |tier: &tortie_verdict::TierTrial| {
        tier.policies.iter().map(|trial| place_text(&trial.place)).collect::<Vec<_>>()
    };
    let denying = told.tiers.iter().find(|tier| tier.default_action == TierAction::Deny);
    let direction = told.direction;
    let default = match denying {
        None if told.stage.is_some_and(|stage| stage != Stage::Normal) => {
            "what no rule decides goes on to what follows".to_owned()
        }
        Some(_) if matches!(told.stage, Some(Stage::Untracked | Stage::PreDnat)) => {
            "what no rule decides goes on to what follows".to_owned()
        }
        Some(tier) => format!(
            "what no rule decides is denied at the end of tier {}, because it is selected for {direction} by {}",
            tier.tier,
            selecting(tier).join(", ")
        ),
        None if told.profiles.is_empty() && told.tiers.is_empty() => {
            format!("everything is denied: no policy selects it for {direction} and it has no profile that exists")
        }
        None => format!("no policy makes it deny {direction} by default; its profiles decide, and then it is denied"),
    };
    DirectionReport {
        endpoint: told.endpoint.to_string(),
        stage: told.stage.map(|stage| stage.to_string()),
        direction: direction.to_string(),
        allowed: told.allowed,
        default,
        selected_by: told.tiers.iter().flat_map(selecting).collect(),
        lists: all,
    }
}

fn rule_report(
    world: &World,
    view: &NodeView,
    hop: &Hop,
    place: &Place,
    direction: Direction,
    rule: &RuleTrial,
) -> RuleReport {
    let RuleTrial { index, action, tried, conditions } = rule;
    let written = List::of(place, direction).and_then(|list| list.index(world, *index));
    RuleReport {
        index: written.unwrap_or(*index),
        action: format!("{action:?}"),
        tried: *tried,
        matches: rule.matches(),
        conditions: conditions.iter().map(|one| condition(world, view, hop, one)).collect(),
    }
}

fn nearest(world: &World, hop: &Hop) -> Option<Nearest> {
    let view = world.known(&hop.node)?;
    let told = explanations(world, hop).pop().filter(|told| !told.allowed)?;
    let (place, rule) = told.near_misses(desired::Action::Allow).into_iter().next()?;
    let shown = rule_report(world, view, hop, place, told.direction, rule);
    let conditions = shown.conditions.len();
    Some(Nearest {
        rule: format!("{} rule {} of {}", told.direction, shown.index, place_text(place)),
        conditions,
        failing: shown.conditions.into_iter().filter(|condition| !condition.holds).collect(),
    })
}

/// Kind and name of a policy or profile, as people write them.
fn place_text(place: &Place) -> String {
    let Place::Policy { tier: _, policy: PolicyId { name, namespace, kind } } = place else {
        return place.to_string();
    };
    let kind = match kind {
        PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        PolicyKind::KubernetesClusterNetworkPolicy => "ClusterNetworkPolicy",
        PolicyKind::KubernetesNetworkPolicy => "Kubernetes NetworkPolicy",
        PolicyKind::NetworkPolicy => "NetworkPolicy",
        PolicyKind::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
        PolicyKind::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        PolicyKind::StagedNetworkPolicy => "StagedNetworkPolicy",
    };
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn condition(world: &World, view: &NodeView, hop: &Hop, one: &Condition) -> ConditionReport {
    let packet = &hop.packet;
    let describe = |id: &desired::SetId| view.calculator().describe_set(id).unwrap_or_else(|| id.to_string());
    let sets = |ids: &[desired::SetId]| ids.iter().map(describe).collect::<Vec<_>>();
    let addr = |side: &Side| match side {
        Side::Source => packet.src,
        Side::Destination => packet.dst,
    };
    let port = |side: &Side| match side {
        _ if !packet.protocol.has_ports() => format!("{} has no ports", packet.protocol),
        Side::Source => format!("it is {}", packet.src_port),
        Side::Destination => format!("it is {}", packet.dst_port),
    };
    let owner = |side: &Side| {
        let found = owners(world, addr(side));
        let all: Vec<String> =
            found.iter().map(|owner| format!("{} has {}", owner.title, labels_text(&owner.labels))).collect();
        if all.is_empty() { format!("nothing in the cluster has {}", addr(side)) } else { all.join("; ") }
    };
    let is = |text: String| format!("it is {text}");
    let icmp =
        || packet.icmp.map_or_else(|| is(packet.protocol.to_string()), |(t, c)| format!("it is type {t} code {c}"));
    let icmp_text = |m: &desired::IcmpMatch| match m.code {
        Some(code) => format!("ICMP type {} code {code}", m.icmp_type),
        None => format!("ICMP type {}", m.icmp_type),
    };
    let ranges = |ports: &[PortRange]| joined(ports);
    let (demand, found) = match &one.demand {
        Demand::Family(family) => (format!("packet is {family}"), is(packet.family().to_string())),
        Demand::Protocol(protocol) => (format!("protocol is {protocol}"), is(packet.protocol.to_string())),
        Demand::NotProtocol(protocol) => (format!("protocol is not {protocol}"), is(packet.protocol.to_string())),
        Demand::Icmp(wanted) => (format!("packet is {}", icmp_text(wanted)), icmp()),
        Demand::NotIcmp(wanted) => (format!("packet is not {}", icmp_text(wanted)), icmp()),
        Demand::Nets(side, nets) => (format!("{side} is in {}", joined(nets)), is(addr(side).to_string())),
        Demand::NotNets(side, nets) => (format!("{side} is not in {}", joined(nets)), is(addr(side).to_string())),
        Demand::Set(side, set) => (format!("{side} matches {}", describe(set)), owner(side)),
        Demand::NotSet(side, set) => (format!("{side} does not match {}", describe(set)), owner(side)),
        Demand::Services(side, ids) => (format!("{side} is one of {}", joined(&sets(ids))), port(side)),
        Demand::Ports(side, numbers, named) => {
            let all: Vec<String> = numbers.iter().map(ToString::to_string).chain(sets(named)).collect();
            (format!("{side} port is {}", all.join(" or ")), port(side))
        }
        Demand::NotPorts(side, numbers) => (format!("{side} port is not {}", ranges(numbers)), port(side)),
        Demand::NotPortSets(side, ids) => (format!("{side} is not {}", joined(&sets(ids))), port(side)),
    };
    ConditionReport { holds: one.holds, demand, found }
}
