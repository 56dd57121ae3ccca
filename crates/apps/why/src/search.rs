//! The smallest change that turns a verdict.
//!
//! Candidates come from the rules that almost matched and from the place of the decision, smallest first. Invariant:
//! what is returned was made on facts of its own, from scratch, and the verdict turned.

use tortie_api::{Action, FelixConfiguration, Kind, Metadata, Resource};
use tortie_desired::{self as desired, EndpointId, PolicyId, PolicyKind, SetId};
use tortie_facts::Key;
use tortie_verdict::{Direction, Explanation, Place, RuleTrial, Stage, Step, explain, explain_host};

use crate::World;
use crate::change::{Change, Ends, List, Written, exact};
use crate::label::title;
use crate::own::{Own, Where};
use crate::way::{Flow, Hop, allowed, judge};

/// One change of one condition of one rule.
const STEP: usize = 10;
/// How many rules that almost match are looked at, and how many of their conditions may fail.
const NEAREST: (usize, usize) = (24, 3);
/// How many denials in a row a change may lift: egress and ingress, the stages of two hosts, and one to spare.
const ROUNDS: usize = 8;

/// The smallest change that was found to turn the verdict; `None` if there is none that policy could make.
pub fn suggest(world: &mut World, flow: &Flow) -> Option<Change> {
    let hops = judge(world, flow);
    let found = if allowed(&hops) { closing(world, flow, &hops) } else { opening(world, flow, hops.clone()) }?;
    verified(world, flow, &found, !allowed(&hops)).then_some(found)
}

/// Whether the verdict is the wanted one when everything is worked out anew from the changed facts.
fn verified(world: &World, flow: &Flow, change: &Change, wanted: bool) -> bool {
    let mut anew = world.anew();
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

/// How far the packet comes: nodes, then the point at the last one.
fn progress(hops: &[Hop]) -> (usize, usize) {
    if allowed(hops) {
        return (usize::MAX, 0);
    }
    let last = hops.last().map(|hop| &hop.verdict.steps[..]).unwrap_or_default();
    let point = match last.last() {
        Some(
            Step::Rule { endpoint, direction, .. }
            | Step::Missing { endpoint, direction, .. }
            | Step::EndOfTier { endpoint, direction, .. }
            | Step::NothingMatched { endpoint, direction }
            | Step::AtHost { endpoint, direction, .. },
        ) => match (stage_of(last, endpoint), direction) {
            (Some(Stage::Untracked), _) => 1,
            (Some(Stage::PreDnat), _) => 2,
            (Some(Stage::Forward), Direction::Ingress) => 3,
            (None, Direction::Egress) => 4,
            (None, Direction::Ingress) => 5,
            (Some(Stage::Forward), Direction::Egress) => 6,
            (Some(Stage::Normal), Direction::Egress) => 7,
            (Some(Stage::Normal), Direction::Ingress) => 8,
        },
        Some(
            Step::ToHost(_)
            | Step::Blackhole(_)
            | Step::FromHost(_)
            | Step::Failsafe(_)
            | Step::Open(_)
            | Step::Tunnel { .. }
            | Step::ServiceLoop(_)
            | Step::NotOurs,
        ) => 8,
        // No host endpoint has been asked before it.
        Some(Step::Ipv6Off(_)) => 0,
        Some(Step::MixedFamilies | Step::UnknownInterface(_) | Step::Spoofed(_) | Step::Encapsulated(_)) | None => 4,
    };
    (hops.len(), point)
}

/// The stage at which a host endpoint was asked last; `None` for a workload.
fn stage_of(steps: &[Step], id: &EndpointId) -> Option<Stage> {
    steps.iter().rev().find_map(|step| match step {
        Step::AtHost { endpoint, stage, direction: _ } if endpoint == id => Some(*stage),
        _ => None,
    })
}

/// Every direction of every endpoint, and every stage of every host endpoint, that judged the packet at this node, in
/// order.
pub(crate) fn explanations(world: &World, hop: &Hop) -> Vec<Explanation> {
    let mut judged: Vec<(EndpointId, Option<Stage>, Direction)> = Vec::new();
    let steps = &hop.verdict.steps;
    for (at, step) in steps.iter().enumerate() {
        if let Step::Rule { endpoint, direction, .. }
        | Step::Missing { endpoint, direction, .. }
        | Step::EndOfTier { endpoint, direction, .. }
        | Step::NothingMatched { endpoint, direction } = step
        {
            let one = (endpoint.clone(), stage_of(&steps[..at], endpoint), *direction);
            if !judged.contains(&one) {
                judged.push(one);
            }
        }
    }
    judged.iter().filter_map(|(id, stage, direction)| explanation(world, hop, id, *stage, *direction)).collect()
}

fn explanation(
    world: &World,
    hop: &Hop,
    id: &EndpointId,
    stage: Option<Stage>,
    direction: Direction,
) -> Option<Explanation> {
    let tables = &world.known(&hop.node)?.tables;
    match stage {
        None => explain(tables, id, direction, &hop.packet),
        Some(stage) => explain_host(tables, id, stage, direction, &hop.packet),
    }
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
        | Step::Tunnel { .. }
        | Step::Encapsulated(_)
        | Step::ServiceLoop(_)
        | Step::NotOurs => return Vec::new(),
    };
    let Some(view) = world.known(&hop.node) else { return Vec::new() };
    let stage = stage_of(&hop.verdict.steps, id);
    let Some(explanation) = explanation(world, hop, id, stage, direction) else { return Vec::new() };
    let own = Own { world, ends: ends(flow, hop), id, stage, direction };
    let describe = |set: &SetId| view.calculator().describe_set(set);
    let ends = &own.ends;
    let mut out: Vec<Change> = Vec::new();
    let near = explanation.near_misses(desired::Action::Allow);
    for (place, trial) in near.into_iter().take(NEAREST.0).filter(|(_, trial)| trial.misses() <= NEAREST.1) {
        out.extend(widen(world, ends, place, direction, trial, &describe));
    }
    match last {
        Step::Rule { place, index, .. } => {
            let before = |list: &List| list.index(world, *index).map(Some);
            out.extend(inserting(world, ends, place, direction, Action::Allow, before));
            out.extend(before_kubernetes(&own, Action::Allow, place));
        }
        Step::EndOfTier { tier, .. } => {
            let tier = explanation.tiers.iter().filter(|trial| trial.tier == *tier);
            for list in tier.flat_map(|trial| trial.policies.iter().rev()) {
                out.extend(inserting(world, ends, &list.place, direction, Action::Allow, |_| Some(None)));
            }
            out.extend(own.policies(Action::Allow, Where::Beside(None)));
        }
        _ => {
            out.extend(own.policies(Action::Allow, Where::Alone));
            out.extend(before_passes(world, ends, &explanation));
        }
    }
    out.extend(own.policies(Action::Allow, Where::Ahead));
    complete(world, out)
}

/// Policies in front of one of Kubernetes' that decided, in its tier if that is open to everybody.
fn before_kubernetes(own: &Own<'_>, action: Action, place: &Place) -> Vec<Change> {
    let Place::Policy { tier: _, policy: PolicyId { name, namespace, kind } } = place else { return Vec::new() };
    match kind {
        PolicyKind::KubernetesNetworkPolicy => {
            let found = own.world.resource(&Key::resource(Kind::KubernetesNetworkPolicy, namespace, name));
            let Some(Resource::KubernetesNetworkPolicy(policy)) = found else { return Vec::new() };
            own.policies(action, Where::Beside(policy.spec.order.or(Some(0.0))))
        }
        PolicyKind::KubernetesClusterNetworkPolicy => own.policies(action, Where::Ahead),
        PolicyKind::GlobalNetworkPolicy
        | PolicyKind::NetworkPolicy
        | PolicyKind::StagedGlobalNetworkPolicy
        | PolicyKind::StagedKubernetesNetworkPolicy
        | PolicyKind::StagedNetworkPolicy => Vec::new(),
    }
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
    let Explanation { endpoint, stage, direction, .. } = explanation;
    let (stage, direction) = (*stage, *direction);
    let own = Own { world, ends: ends(flow, hop), id: endpoint, stage, direction };
    let ends = &own.ends;
    let decided = explanation.lists().find_map(|list| {
        let rule =
            list.rules.iter().find(|rule| rule.tried && rule.action == desired::Action::Allow && rule.matches())?;
        Some((&list.place, rule.index))
    });
    let Some((place, index)) = decided else { return Vec::new() };
    let mut out = match place {
        Place::Policy { .. } => {
            inserting(world, ends, place, direction, Action::Deny, |list| list.index(world, index).map(Some))
        }
        Place::Profile(_) => own.policies(Action::Deny, Where::Alone),
    };
    out.extend(before_kubernetes(&own, Action::Deny, place));
    if matches!(place, Place::Profile(_)) {
        // A profile is for many; a policy for this endpoint alone is the smaller change.
        let in_profile =
            inserting(world, ends, place, direction, Action::Deny, |list| list.index(world, index).map(Some));
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
