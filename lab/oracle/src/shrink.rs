//! The smallest world in which a fault still shows.
//!
//! One resource, rule or condition after the other is left out as long as the fault stays; then it starts over, until
//! nothing more can go.

use tortie_api::{EntityRule, Resource, Rule};
use tortie_facts::Value;

use crate::generate::Facts;

/// Shrinks the world; `fails` says whether the fault still shows. It is asked at most `budget` times.
pub fn shrink(facts: &Facts, budget: usize, mut fails: impl FnMut(&Facts) -> bool) -> Facts {
    let mut best = facts.clone();
    let mut asked = 0;
    loop {
        let before = best.clone();
        for key in facts.keys() {
            let mut at = 0;
            while let Some(smaller) = best.get(key).and_then(|value| nth(value, at)) {
                if asked == budget {
                    return best;
                }
                asked += 1;
                let mut candidate = best.clone();
                match smaller {
                    Some(value) => candidate.insert(key.clone(), value),
                    None => candidate.remove(key),
                };
                // What can't go stays, and the next is tried; after something went, the next has its number.
                if fails(&candidate) { best = candidate } else { at += 1 }
            }
        }
        if best == before {
            return best;
        }
    }
}

/// The resource with its `at`-th part left out; the inner `None`: without the resource. `None`: no such part.
fn nth(value: &Value, at: usize) -> Option<Option<Value>> {
    let Some(at) = at.checked_sub(1) else { return Some(None) };
    let resource = value.as_resource()?;
    let parts = smaller(resource);
    parts.into_iter().nth(at).map(|resource| Some(Value::resource(resource)))
}

/// Every resource that lacks one part of this one.
fn smaller(resource: &Resource) -> Vec<Resource> {
    let mut out: Vec<Resource> = Vec::new();
    match resource {
        Resource::NetworkPolicy(policy) => {
            for lists in lists(&policy.spec.ingress, &policy.spec.egress) {
                let mut smaller = policy.clone();
                (smaller.spec.ingress, smaller.spec.egress) = lists;
                out.push(Resource::NetworkPolicy(smaller));
            }
        }
        Resource::GlobalNetworkPolicy(policy) => {
            for lists in lists(&policy.spec.ingress, &policy.spec.egress) {
                let mut smaller = policy.clone();
                (smaller.spec.ingress, smaller.spec.egress) = lists;
                out.push(Resource::GlobalNetworkPolicy(smaller));
            }
        }
        Resource::KubernetesNetworkPolicy(policy) => {
            for lists in lists(&policy.spec.ingress, &policy.spec.egress) {
                let mut smaller = policy.clone();
                (smaller.spec.ingress, smaller.spec.egress) = lists;
                out.push(Resource::KubernetesNetworkPolicy(smaller));
            }
        }
        Resource::KubernetesClusterNetworkPolicy(policy) => {
            for lists in lists(&policy.spec.ingress, &policy.spec.egress) {
                let mut smaller = policy.clone();
                (smaller.spec.ingress, smaller.spec.egress) = lists;
                out.push(Resource::KubernetesClusterNetworkPolicy(smaller));
            }
        }
        Resource::Profile(profile) => {
            for lists in lists(&profile.spec.ingress, &profile.spec.egress) {
                let mut smaller = profile.clone();
                (smaller.spec.ingress, smaller.spec.egress) = lists;
                out.push(Resource::Profile(smaller));
            }
        }
        Resource::WorkloadEndpoint(wep) => {
            for at in 0..wep.spec.ports.len() {
                let mut smaller = wep.clone();
                smaller.spec.ports.remove(at);
                out.push(Resource::WorkloadEndpoint(smaller));
            }
            for at in 0..wep.spec.ip_networks.len() {
                let mut smaller = wep.clone();
                smaller.spec.ip_networks.remove(at);
                out.push(Resource::WorkloadEndpoint(smaller));
            }
            for at in 0..wep.spec.profiles.len() {
                let mut smaller = wep.clone();
                smaller.spec.profiles.remove(at);
                out.push(Resource::WorkloadEndpoint(smaller));
            }
        }
        Resource::NetworkSet(set) => {
            for at in 0..set.spec.nets.len() {
                let mut smaller = set.clone();
                smaller.spec.nets.remove(at);
                out.push(Resource::NetworkSet(smaller));
            }
        }
        Resource::GlobalNetworkSet(set) => {
            for at in 0..set.spec.nets.len() {
                let mut smaller = set.clone();
                smaller.spec.nets.remove(at);
                out.push(Resource::GlobalNetworkSet(smaller));
            }
        }
        Resource::HostEndpoint(host) => {
            for at in 0..host.spec.profiles.len() {
                let mut smaller = host.clone();
                smaller.spec.profiles.remove(at);
                out.push(Resource::HostEndpoint(smaller));
            }
        }
        Resource::KubernetesEndpointSlice(slice) => {
            for at in 0..slice.spec.ports.len() {
                let mut smaller = slice.clone();
                smaller.spec.ports.remove(at);
                out.push(Resource::KubernetesEndpointSlice(smaller));
            }
        }
        // Settings and tiers go whole or not at all, and staged policies have no say.
        _ => {}
    }
    out
}

/// Both lists with one rule or one condition less.
fn lists(ingress: &[Rule], egress: &[Rule]) -> Vec<(Vec<Rule>, Vec<Rule>)> {
    let fewer = fewer(ingress).into_iter().map(|ingress| (ingress, egress.to_vec()));
    let others = self::fewer(egress).into_iter().map(|egress| (ingress.to_vec(), egress));
    fewer.chain(others).collect()
}

fn fewer(rules: &[Rule]) -> Vec<Vec<Rule>> {
    let mut out = Vec::new();
    for at in 0..rules.len() {
        let mut less = rules.to_vec();
        less.remove(at);
        out.push(less);
    }
    for (at, rule) in rules.iter().enumerate() {
        for simpler in simpler(rule) {
            let mut less = rules.to_vec();
            less[at] = simpler;
            out.push(less);
        }
    }
    out
}

fn simpler(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    let mut add = |change: &dyn Fn(&mut Rule)| {
        let mut simpler = rule.clone();
        change(&mut simpler);
        if simpler != *rule {
            out.push(simpler);
        }
    };
    add(&|rule| rule.ip_version = None);
    add(&|rule| rule.protocol = None);
    add(&|rule| rule.icmp = None);
    add(&|rule| rule.not_protocol = None);
    add(&|rule| rule.not_icmp = None);
    add(&|rule| rule.metadata = None);
    for end in [source, destination] {
        add(&|rule| *end(rule) = EntityRule::default());
        add(&|rule| end(rule).nets.clear());
        add(&|rule| drop(end(rule).nets.pop()));
        add(&|rule| end(rule).not_nets.clear());
        add(&|rule| drop(end(rule).not_nets.pop()));
        add(&|rule| end(rule).selector.clear());
        add(&|rule| end(rule).not_selector.clear());
        add(&|rule| end(rule).namespace_selector.clear());
        add(&|rule| end(rule).ports.clear());
        add(&|rule| drop(end(rule).ports.pop()));
        add(&|rule| end(rule).not_ports.clear());
        add(&|rule| drop(end(rule).not_ports.pop()));
        add(&|rule| end(rule).service_accounts = None);
        add(&|rule| end(rule).services = None);
    }
    out
}

fn source(rule: &mut Rule) -> &mut EntityRule {
    &mut rule.source
}

fn destination(rule: &mut Rule) -> &mut EntityRule {
    &mut rule.destination
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn what_does_not_matter_goes() {
        let facts = generate::facts(3);
        let endpoints = |facts: &Facts| {
            facts
                .values()
                .filter(|v| matches!(v.as_resource().map(|r| &**r), Some(Resource::WorkloadEndpoint(_))))
                .count()
        };
        assert!(facts.len() > 8 && endpoints(&facts) > 1);
        let small = shrink(&facts, 10_000, |facts| endpoints(facts) >= 1);
        assert_eq!((small.len(), endpoints(&small)), (1, 1));
    }
}
