//! What policy means, read straight from the resources: slow, and without any of the calculator's ideas.

mod rules;

use std::collections::BTreeMap;

use tortie_api::{
    Action, GlobalNetworkPolicySpec, Metadata, NetworkPolicySpec, PolicyType, Resource, Rule, StagedAction, Tier,
};
use tortie_desired::EndpointId;
use tortie_facts::{Key, Value};
use tortie_verdict::{Direction, Packet};

#[allow(unused_imports, reason = "each test program uses its own part")]
pub(crate) use rules::{Owner, owners, with_inherited};
use rules::{decide, endpoint_labels, in_namespaces, of_accounts, profile, selects};

type Facts = BTreeMap<Key, Value>;
pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn resources(facts: &Facts) -> impl Iterator<Item = &Resource> {
    facts.values().filter_map(Value::as_resource).map(|resource| &**resource)
}

/// A policy that selects the endpoint: tier, order, tie-break, namespace, rules of the direction.
pub(crate) struct Applies<'a> {
    tier: &'a str,
    order: f64,
    tie: String,
    namespace: &'a str,
    rules: &'a [Rule],
}

fn goes(types: &[PolicyType], ingress: &[Rule], egress: &[Rule], direction: Direction) -> bool {
    match direction {
        Direction::Ingress if types.is_empty() => !ingress.is_empty() || egress.is_empty(),
        Direction::Egress if types.is_empty() => !egress.is_empty(),
        Direction::Ingress => types.contains(&PolicyType::Ingress),
        Direction::Egress => types.contains(&PolicyType::Egress),
    }
}

fn side<'a>(ingress: &'a [Rule], egress: &'a [Rule], direction: Direction) -> &'a [Rule] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

fn namespaced<'a>(
    kind: &str,
    metadata: &'a Metadata,
    spec: &'a NetworkPolicySpec,
    labels: &Labels,
    direction: Direction,
) -> Option<Applies<'a>> {
    let selected = selects(&spec.selector, labels)
        && labels["projectcalico.org/namespace"] == metadata.namespace
        && (spec.service_account_selector.is_empty() || of_accounts(&spec.service_account_selector, labels));
    (selected && goes(&spec.types, &spec.ingress, &spec.egress, direction)).then(|| Applies {
        tier: &spec.tier,
        order: spec.order.unwrap_or(f64::INFINITY),
        tie: format!("{}/{}/{kind}", metadata.name, metadata.namespace),
        namespace: &metadata.namespace,
        rules: side(&spec.ingress, &spec.egress, direction),
    })
}

pub(crate) fn global<'a>(
    kind: &str,
    metadata: &'a Metadata,
    spec: &'a GlobalNetworkPolicySpec,
    labels: &Labels,
    direction: Direction,
) -> Option<Applies<'a>> {
    let selected = selects(&spec.selector, labels)
        && (spec.namespace_selector.is_empty() || in_namespaces(&spec.namespace_selector, labels))
        && (spec.service_account_selector.is_empty() || of_accounts(&spec.service_account_selector, labels));
    (selected && goes(&spec.types, &spec.ingress, &spec.egress, direction)).then(|| Applies {
        tier: &spec.tier,
        order: spec.order.unwrap_or(f64::INFINITY),
        tie: format!("{}//{kind}", metadata.name),
        namespace: "",
        rules: side(&spec.ingress, &spec.egress, direction),
    })
}

fn tier<'a>(facts: &'a Facts, name: &str) -> Option<&'a Tier> {
    resources(facts).find_map(|resource| match resource {
        Resource::Tier(tier) if tier.metadata.name == name => Some(&**tier),
        _ => None,
    })
}

/// A tier's place among tiers, and whether its end passes.
fn tier_place(facts: &Facts, name: &str) -> ((bool, f64, String), bool) {
    let found = tier(facts, name);
    let order = match found {
        Some(tier) => tier.spec.order.unwrap_or(f64::INFINITY),
        None => match name {
            "kube-admin" => 1_000.0,
            "default" => 1_000_000.0,
            "kube-baseline" => 10_000_000.0,
            _ => f64::INFINITY,
        },
    };
    let missing = found.is_none() && !["default", "kube-admin", "kube-baseline"].contains(&name);
    let passes = found.map_or(name.starts_with("kube-"), |tier| tier.spec.default_action == Some(Action::Pass));
    ((missing, order, name.to_owned()), passes)
}

/// Staged policies as what they propose.
fn proposals(facts: &Facts) -> Vec<(&Metadata, NetworkPolicySpec)> {
    let proposed = resources(facts).filter_map(|resource| match resource {
        Resource::StagedNetworkPolicy(policy) if policy.spec.staged_action != Some(StagedAction::Delete) => {
            let spec = policy.spec.clone();
            let proposed = NetworkPolicySpec {
                tier: spec.tier,
                order: spec.order,
                ingress: spec.ingress,
                egress: spec.egress,
                selector: spec.selector,
                types: spec.types,
                service_account_selector: spec.service_account_selector,
                performance_hints: spec.performance_hints,
            };
            Some((&policy.metadata, proposed))
        }
        _ => None,
    });
    proposed.collect()
}

/// Whether policy and profiles let the packet through in one direction of a local endpoint; with `staged`, if staged
/// policies were enforced as well.
pub fn allowed(facts: &Facts, id: &EndpointId, direction: Direction, packet: &Packet, staged: bool) -> bool {
    let wep = resources(facts).find_map(|resource| match resource {
        Resource::WorkloadEndpoint(wep)
            if *wep.metadata.namespace == *id.namespace && *wep.metadata.name == *id.name =>
        {
            Some(&**wep)
        }
        _ => None,
    });
    let wep = wep.expect("only endpoints that exist are in the tables");
    let labels = endpoint_labels(facts, wep);
    let all = owners(facts);
    let mut applies: Vec<Applies<'_>> = resources(facts)
        .filter_map(|resource| match resource {
            Resource::NetworkPolicy(p) => namespaced("NetworkPolicy", &p.metadata, &p.spec, &labels, direction),
            // What comes before connection tracking or NAT is for host endpoints.
            Resource::GlobalNetworkPolicy(p) if !p.spec.do_not_track && !p.spec.pre_dnat => {
                global("GlobalNetworkPolicy", &p.metadata, &p.spec, &labels, direction)
            }
            Resource::KubernetesNetworkPolicy(p) => {
                namespaced("KubernetesNetworkPolicy", &p.metadata, &p.spec, &labels, direction)
            }
            Resource::KubernetesClusterNetworkPolicy(p) => {
                global("KubernetesClusterNetworkPolicy", &p.metadata, &p.spec, &labels, direction)
            }
            _ => None,
        })
        .collect();
    let proposals = if staged { proposals(facts) } else { Vec::new() };
    let proposed = proposals
        .iter()
        .filter_map(|(metadata, spec)| namespaced("StagedNetworkPolicy", metadata, spec, &labels, direction));
    applies.extend(proposed);
    tiers_say(facts, &all, applies, packet, true)
        .unwrap_or_else(|| profiles_say(facts, &all, &wep.spec.profiles, direction, packet))
}

/// What tiers say, the policies of each in order; with `ends`, so does the end of a tier. `None`: none decided.
pub(crate) fn tiers_say(
    facts: &Facts,
    all: &[Owner],
    mut applies: Vec<Applies<'_>>,
    packet: &Packet,
    ends: bool,
) -> Option<bool> {
    applies.iter_mut().filter(|policy| policy.tier.is_empty()).for_each(|policy| policy.tier = "default");
    applies.sort_by(|a, b| a.order.total_cmp(&b.order).then_with(|| a.tie.cmp(&b.tie)));
    let mut tiers: Vec<&str> = applies.iter().map(|policy| policy.tier).collect();
    tiers.sort_by(|a, b| tier_place(facts, a).0.partial_cmp(&tier_place(facts, b).0).expect("no order is NaN"));
    tiers.dedup();
    for name in tiers {
        let policies = applies.iter().filter(|policy| policy.tier == name);
        match policies.filter_map(|policy| decide(facts, all, policy.namespace, policy.rules, packet)).next() {
            Some(Action::Allow) => return Some(true),
            Some(Action::Deny) => return Some(false),
            Some(Action::Pass | Action::Log) => {}
            None if !ends || tier_place(facts, name).1 => {}
            None => return Some(false),
        }
    }
    None
}

/// Whether the profiles, in order, allow it; what none decides is denied.
pub(crate) fn profiles_say(
    facts: &Facts,
    all: &[Owner],
    profiles: &[String],
    direction: Direction,
    packet: &Packet,
) -> bool {
    for name in profiles {
        let Some(profile) = profile(facts, name) else { return false };
        let rules = side(&profile.spec.ingress, &profile.spec.egress, direction);
        if let Some(action) = decide(facts, all, "", rules, packet) {
            return action == Action::Allow;
        }
    }
    false
}
