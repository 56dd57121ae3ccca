//! The smallest change that turns a verdict.
//!
//! Candidates come from the rules that almost matched and from the place of the decision, smallest first. Invariant:
//! what is returned was made on facts of its own, from scratch, and the verdict turned.

use tortie_api::{
    Action, FelixConfiguration, Kind, Metadata, NetworkPolicy, NetworkPolicySpec, PolicyType, Resource, Rule,
};
use tortie_desired::{self as desired, EndpointId, SetId};
use tortie_facts::Key;
use tortie_verdict::{Direction, Explanation, Place, RuleTrial, Step, explain};

use crate::World;
use crate::change::{Change, Ends, List, Written, exact, takes_ports};
use crate::label::{own, selecting, title};
use crate::way::{Flow, Hop, allowed, judge};

/// One change of one condition of one rule.
const STEP: usize = 10;
/// How many rules that almost match are looked at, and how many of their conditions may fail.
const NEAREST: (usize, usize) = (24, 3);
/// How many denials in a row a change may lift: egress, ingress, the host, and one to spare.
const ROUNDS: usize = 4;

/// The smallest change that was found to turn the verdict; `None` if there is none that policy could make.
pub fn suggest(world: &mut World, flow: &Flow) -> Option<Change> {
    let hops = judge(world, flow);
    let found = if allowed(&hops) { closing(world, flow, &hops) } else { opening(world, flow, hops.clone()) }?;
    verified(world, flow, &found, !allowed(&hops)).then_some(found)
}

/// Whether the verdict is the wanted one when everything is worked out anew from the changed facts.
fn verified(world: &World, flow: &Flow, change: &Change, wanted: bool) -> bool {
    let mut anew = World::new(world.facts().clone());
    change.make(&mut anew);
    allowed(&judge(&mut anew, flow)) == wanted
}

fn opening(world: &mut World, flow: &Flow, mut hops: Vec<Hop>) -> Option<Change> {
    let mut total = Change::default();
    let mut undo = Vec::new();
    for _ in 0..ROUNDS {
        if allowed(&hops) {
            break;
        }
        let mut candidates = lifting(world, flow, &hops);
        candidates.sort_by_key(|change| change.cost);
        let better = candidates.into_iter().find_map(|change| {
            let old = change.make(world);
            let now = judge(world, flow);
            if progress(&now) > progress(&hops) {
                return Some((change, old, now));
            }
            take_back(world, old);
            None
        });
        let Some((change, old, now)) = better else { break };
        undo.push(old);
        total = total.and(change);
        hops = now;
    }
    for old in undo.into_iter().rev() {
        take_back(world, old);
    }
    allowed(&hops).then_some(total)
}

fn closing(world: &mut World, flow: &Flow, hops: &[Hop]) -> Option<Change> {
    let mut candidates = Vec::new();
    // The receiver's side first: that is where people look.
    for hop in hops.iter().rev() {
        for explanation in explanations(world, hop).iter().rev() {
            candidates.extend(shutting(world, flow, hop, explanation));
        }
    }
    candidates.sort_by_key(|change| change.cost);
    candidates.into_iter().find(|change| {
        let old = change.make(world);
        let closed = !allowed(&judge(world, flow));
        take_back(world, old);
        closed
    })
}

fn take_back(world: &mut World, old: Vec<(Key, Option<tortie_facts::Value>)>) {
    for (key, value) in old.into_iter().rev() {
        world.put(&key, value);
    }
}

/// How far the packet comes: nodes, then the stage at the last one.
fn progress(hops: &[Hop]) -> (usize, usize) {
    if allowed(hops) {
        return (usize::MAX, 0);
    }
    let stage = match hops.last().and_then(|hop| hop.verdict.steps.last()) {
        Some(
            Step::Rule { direction, .. }
            | Step::Missing { direction, .. }
            | Step::EndOfTier { direction, .. }
            | Step::NothingMatched { direction, .. }
            | Step::AtHost { direction, .. },
        ) => match direction {
            Direction::Egress => 1,
            Direction::Ingress => 2,
        },
        Some(
            Step::ToHost(_)
            | Step::Blackhole(_)
            | Step::FromHost(_)
            | Step::Failsafe(_)
            | Step::Open(_)
            | Step::Vxlan { .. }
            | Step::ServiceLoop(_)
            | Step::NotOurs,
        ) => 2,
        // The receiver's IPv6 is looked at after the sender's policy.
        Some(Step::Ipv6Off(_)) => usize::from(hops.last().is_some_and(|hop| hop.verdict.steps.len() > 1)),
        Some(Step::MixedFamilies | Step::UnknownInterface(_) | Step::Spoofed(_) | Step::Encapsulated(_)) | None => 0,
    };
    (hops.len(), stage)
}

/// Every direction of every endpoint that judged the packet at this node, in order.
pub(crate) fn explanations(world: &World, hop: &Hop) -> Vec<Explanation> {
    let mut judged: Vec<(EndpointId, Direction)> = Vec::new();
    for step in &hop.verdict.steps {
        if let Step::Rule { endpoint, direction, .. }
        | Step::Missing { endpoint, direction, .. }
        | Step::EndOfTier { endpoint, direction, .. }
        | Step::NothingMatched { endpoint, direction } = step
        {
            let pair = (endpoint.clone(), *direction);
            if !judged.contains(&pair) {
                judged.push(pair);
            }
        }
    }
    let Some(view) = world.known(&hop.node) else { return Vec::new() };
    judged.iter().filter_map(|(id, direction)| explain(&view.tables, id, *direction, &hop.packet)).collect()
}

fn ends<'a>(flow: &'a Flow, hop: &Hop) -> Ends<'a> {
    Ends { packet: hop.packet, source: &flow.source, destination: &flow.destination }
}

/// Changes that may lift the denial at which these hops end.
fn lifting(world: &World, flow: &Flow, hops: &[Hop]) -> Vec<Change> {
    let Some(hop) = hops.last() else { return Vec::new() };
    let Some(last) = hop.verdict.steps.last() else { return Vec::new() };
    let (id, direction) = match last {
        Step::ToHost(_) => {
            return settings(world, &hop.node, "defaultEndpointToHostAction to Accept", |config| {
                config.spec.default_endpoint_to_host_action = "Accept".to_owned();
            });
        }
        Step::Ipv6Off(_) => {
            return settings(world, &hop.node, "ipv6Support to true", |config| {
                config.spec.ipv6_support = Some(true);
            });
        }
        Step::Rule { endpoint, direction, .. }
        | Step::Missing { endpoint, direction, .. }
        | Step::EndOfTier { endpoint, direction, .. }
        | Step::NothingMatched { endpoint, direction } => (endpoint, *direction),
        Step::MixedFamilies
        | Step::UnknownInterface(_)
        | Step::Spoofed(_)
        | Step::Blackhole(_)
        | Step::FromHost(_)
        | Step::AtHost { .. }
        | Step::Failsafe(_)
        | Step::Open(_)
        | Step::Vxlan { .. }
        | Step::Encapsulated(_)
        | Step::ServiceLoop(_)
        | Step::NotOurs => return Vec::new(),
    };
    let Some(view) = world.known(&hop.node) else { return Vec::new() };
    let Some(explanation) = explain(&view.tables, id, direction, &hop.packet) else { return Vec::new() };
    let describe = |set: &SetId| view.calculator().describe_set(set);
    let ends = ends(flow, hop);
    let mut out: Vec<Change> = Vec::new();
    let near = explanation.near_misses(desired::Action::Allow);
    for (place, trial) in near.into_iter().take(NEAREST.0).filter(|(_, trial)| trial.misses() <= NEAREST.1) {
        out.extend(widen(world, &ends, place, direction, trial, &describe));
    }
    match last {
        Step::Rule { place, index, .. } => {
            let before = |list: &List| list.index(world, *index).map(Some);
            out.extend(inserting(world, &ends, place, direction, Action::Allow, before));
        }
        Step::EndOfTier { tier, .. } => {
            let tier = explanation.tiers.iter().filter(|trial| trial.tier == *tier);
            for list in tier.flat_map(|trial| trial.policies.iter().rev()) {
                out.extend(inserting(world, &ends, &list.place, direction, Action::Allow, |_| Some(None)));
            }
        }
        _ => {
            out.extend(admitting(world, &ends, id, direction, Action::Allow));
            out.extend(before_passes(world, &ends, &explanation));
        }
    }
    complete(world, out)
}

/// Rules in front of those that passed the packet on.
fn before_passes(world: &World, ends: &Ends<'_>, explanation: &Explanation) -> Vec<Change> {
    let mut out = Vec::new();
    for list in explanation.lists() {
        for rule in list.rules.iter().filter(|rule| rule.tried && rule.action == desired::Action::Pass) {
            let before = |list: &List| list.index(world, rule.index).map(Some);
            if rule.matches() {
                out.extend(inserting(world, ends, &list.place, explanation.direction, Action::Allow, before));
            }
        }
    }
    out
}

/// Changes that may deny what this direction allowed.
fn shutting(world: &World, flow: &Flow, hop: &Hop, explanation: &Explanation) -> Vec<Change> {
    let ends = ends(flow, hop);
    let direction = explanation.direction;
    let decided = explanation.lists().find_map(|list| {
        let rule =
            list.rules.iter().find(|rule| rule.tried && rule.action == desired::Action::Allow && rule.matches())?;
        Some((&list.place, rule.index))
    });
    let Some((place, index)) = decided else { return Vec::new() };
    let mut out = match place {
        Place::Policy { .. } => {
            inserting(world, &ends, place, direction, Action::Deny, |list| list.index(world, index).map(Some))
        }
        Place::Profile(_) => admitting(world, &ends, &explanation.endpoint, direction, Action::Deny),
    };
    if matches!(place, Place::Profile(_)) {
        // A profile is for many; a policy for this endpoint alone is the smaller change.
        let in_profile =
            inserting(world, &ends, place, direction, Action::Deny, |list| list.index(world, index).map(Some));
        out.extend(in_profile.into_iter().map(|change| Change { cost: change.cost + 2 * STEP, ..change }));
    }
    complete(world, out)
}

fn complete(world: &World, changes: Vec<Change>) -> Vec<Change> {
    changes.into_iter().filter_map(|mut change| change.complete(world).then_some(change)).collect()
}

/// The rule with each failing condition made to hold.
fn widen(
    world: &World,
    ends: &Ends<'_>,
    place: &Place,
    direction: Direction,
    trial: &RuleTrial,
    describe: &dyn Fn(&SetId) -> Option<String>,
) -> Option<Change> {
    let list = List::of(place, direction)?;
    let index = list.index(world, trial.index)?;
    let title = title(world.resource(&list.key)?);
    let rule = Written { key: list.key, direction, index, title, describe };
    let mut change = Change { cost: STEP * trial.misses(), ..Change::default() };
    for condition in trial.conditions.iter().filter(|condition| !condition.holds) {
        change.meet(world, &rule, &condition.demand, ends)?;
    }
    Some(change)
}

/// A rule for exactly this packet, put into a list: by the peer's labels, and by its address.
fn inserting(
    world: &World,
    ends: &Ends<'_>,
    place: &Place,
    direction: Direction,
    action: Action,
    at: impl Fn(&List) -> Option<Option<usize>>,
) -> Vec<Change> {
    let Some(list) = List::of(place, direction) else { return Vec::new() };
    let Some(at) = at(&list) else { return Vec::new() };
    let variant = |by_labels: bool| {
        let rule = exact(world, ends, direction, list.namespace(), by_labels, action)?;
        let mut change = Change { cost: STEP + if by_labels { 5 } else { 7 }, ..Change::default() };
        change.insert(world, &list, at, rule)?;
        Some(change)
    };
    [true, false].into_iter().filter_map(variant).collect()
}

/// A policy of its own for the endpoint, with a rule for exactly this packet. What it does not decide goes on to the
/// profiles as before, if there are any.
fn admitting(world: &World, ends: &Ends<'_>, id: &EndpointId, direction: Direction, action: Action) -> Vec<Change> {
    let Some(Resource::WorkloadEndpoint(wep)) =
        world.resource(&Key::resource(Kind::WorkloadEndpoint, &id.namespace, &id.name))
    else {
        return Vec::new();
    };
    let selector = selecting(&own(&wep.metadata));
    let whom = selector.clone().unwrap_or_else(|| "all()".to_owned());
    let word = if action == Action::Deny { "deny" } else { "allow" };
    let key = (0..).map(|n: usize| if n == 0 { format!("why-{word}") } else { format!("why-{word}-{n}") });
    let mut keys = key.map(|name| (Key::resource(Kind::NetworkPolicy, &id.namespace, &name), name));
    let Some((key, name)) = keys.find(|(key, _)| world.resource(key).is_none()) else { return Vec::new() };
    let variant = |by_labels: bool| {
        let mut rules = vec![exact(world, ends, direction, &id.namespace, by_labels, action)?];
        if !wep.spec.profiles.is_empty() {
            rules.push(Rule { action: Action::Pass, ..Rule::default() });
        }
        let mut spec = NetworkPolicySpec { selector: whom.clone(), ..NetworkPolicySpec::default() };
        match direction {
            Direction::Ingress => (spec.ingress, spec.types) = (rules, vec![PolicyType::Ingress]),
            Direction::Egress => (spec.egress, spec.types) = (rules, vec![PolicyType::Egress]),
        }
        let policy = NetworkPolicy { metadata: Metadata::in_namespace(&*id.namespace, name.clone()), spec };
        let peer = match direction {
            Direction::Ingress => format!("from {}", ends.source.name),
            Direction::Egress => format!("to {}", ends.destination.name),
        };
        let what = flow_text(ends);
        let text = format!(
            "apply a NetworkPolicy {}/{name} for {whom} that {}s {direction} {peer}, {what}",
            id.namespace,
            if action == Action::Deny { "denie" } else { "allow" },
        );
        let cost = 2 * STEP + if by_labels { 5 } else { 7 };
        Some(Change { texts: vec![text], edits: [(key.clone(), policy.into())].into(), cost })
    };
    [true, false].into_iter().filter_map(variant).collect()
}

fn flow_text(ends: &Ends<'_>) -> String {
    let protocol = ends.packet.protocol;
    if takes_ports(protocol) { format!("{protocol} port {}", ends.packet.dst_port) } else { protocol.to_string() }
}

/// A setting for all nodes, and for this one alone.
fn settings(world: &World, node: &str, what: &str, set: impl Fn(&mut FelixConfiguration)) -> Vec<Change> {
    let variant = |name: String, cost: usize| {
        let key = Key::resource(Kind::FelixConfiguration, "", &name);
        let mut config = match world.resource(&key) {
            Some(Resource::FelixConfiguration(config)) => (**config).clone(),
            _ => FelixConfiguration { metadata: Metadata::named(name.clone()), ..FelixConfiguration::default() },
        };
        set(&mut config);
        let texts = vec![format!("set {what} in FelixConfiguration {name}")];
        Change { texts, edits: [(key, Resource::from(config))].into(), cost }
    };
    complete(world, vec![variant(format!("node.{node}"), STEP + 2), variant("default".to_owned(), STEP + 4)])
}
