//! Pools and tiers where the API server keeps their deletion waiting (`projectcalico.org/v3`): a finalizer holds a pool
//! until its blocks are gone and a tier until its policies are, and a condition says how each is. As upstream.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ipnet::IpNet;
use tortie_api::{Condition, IpPool, IpPoolStatus, Kind, Resource, Tier, Timestamp};
use tortie_facts::Filter;

const POOL: &str = "projectcalico.org/ippool-finalizer";
const TIER: &str = "projectcalico.org/tier-controller";
const ALLOCATABLE: &str = "Allocatable";

/// Kinds of policies that belong to a tier, with their names in a sentence.
const POLICIES: [(Kind, &str); 4] = [
    (Kind::GlobalNetworkPolicy, "GlobalNetworkPolic"),
    (Kind::NetworkPolicy, "NetworkPolic"),
    (Kind::StagedGlobalNetworkPolicy, "StagedGlobalNetworkPolic"),
    (Kind::StagedNetworkPolicy, "StagedNetworkPolic"),
];

/// What is to be done for a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolTask {
    /// The pool as it should be: its condition, or its finalizer.
    Put(Box<IpPool>),
    /// It is on its way out: owners give its blocks up.
    Free(IpNet),
}

/// What to follow for tiers.
pub fn tiers_filter() -> Filter {
    Filter::Any([Kind::Tier].into_iter().chain(POLICIES.map(|(kind, _)| kind)).map(Filter::Kind).collect())
}

/// The kinds that count for tiers; what can't be read of them keeps a tier.
pub fn counted() -> [Kind; 4] {
    POLICIES.map(|(kind, _)| kind)
}

fn condition(kind: &str, (status, reason, message): (bool, &str, String), now: Option<Timestamp>) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        observed_generation: 0,
        last_transition_time: now,
        reason: reason.to_owned(),
        message,
    }
}

/// Sets a condition; whether it was another one before.
fn set(all: &mut Vec<Condition>, wanted: Condition) -> bool {
    match all.iter_mut().find(|one| one.kind == wanted.kind) {
        Some(one) if one.status == wanted.status && one.reason == wanted.reason && one.message == wanted.message => {
            false
        }
        Some(one) => {
            *one = wanted;
            true
        }
        None => {
            all.push(wanted);
            true
        }
    }
}

/// Those that may be used go first, then the dying ones, those that may not, and new ones: of two that overlap, the
/// first keeps its place.
fn rank(pool: &IpPool) -> (u8, Option<i64>, &str) {
    let is = |wanted: &str| {
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|one| one.kind == ALLOCATABLE && one.status == wanted)
    };
    let class = match (&pool.metadata.deletion_timestamp, is("True"), is("False")) {
        (Some(_), _, _) => 1,
        (None, true, _) => 0,
        (None, false, true) => 2,
        (None, false, false) => 3,
    };
    let created = pool.metadata.creation_timestamp.as_ref().map(|time| time.unix_seconds());
    (class, created, &pool.metadata.name)
}

/// Whether each pool may be used, with reason and sentence; pools whose range can't be read have no place.
fn verdicts<'a>(pools: &[&'a IpPool]) -> BTreeMap<&'a str, (bool, &'static str, String)> {
    let mut sorted: Vec<&IpPool> = pools.to_vec();
    sorted.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(Ordering::Equal));
    let (mut taken, mut all): (Vec<IpNet>, _) = (Vec::new(), BTreeMap::new());
    for pool in sorted {
        let Some(cidr) = pool.spec.cidr.net() else { continue };
        let verdict = if pool.spec.disabled {
            (false, "PoolDisabled", "spec.disabled is true".to_owned())
        } else if pool.metadata.deletion_timestamp.is_some() {
            taken.push(cidr);
            (false, "Terminating", "the pool is being deleted".to_owned())
        } else if taken.iter().any(|other| other.contains(&cidr) || cidr.contains(other)) {
            (false, "CIDROverlap", "its range overlaps that of another pool, which keeps it".to_owned())
        } else {
            taken.push(cidr);
            (true, "OK", "addresses may be taken from the pool".to_owned())
        };
        all.insert(pool.metadata.name.as_str(), verdict);
    }
    all
}

/// What is to be done for pools. `blocks`: the ranges of all blocks.
pub fn pool_tasks(pools: &[&IpPool], blocks: &[IpNet], now: Option<Timestamp>) -> Vec<PoolTask> {
    let verdicts = verdicts(pools);
    let mut tasks = Vec::new();
    for pool in pools {
        let (Some(verdict), Some(cidr)) = (verdicts.get(pool.metadata.name.as_str()), pool.spec.cidr.net()) else {
            continue;
        };
        let dying = pool.metadata.deletion_timestamp.is_some();
        let held = pool.metadata.finalizers.iter().any(|one| one == POOL);
        let empty = !blocks.iter().any(|block| cidr.contains(block));
        let mut wanted = (*pool).clone();
        let status = wanted.status.get_or_insert_with(IpPoolStatus::default);
        let told = set(&mut status.conditions, condition(ALLOCATABLE, verdict.clone(), now));
        let hold = if dying { held && !empty } else { verdict.0 };
        wanted.metadata.finalizers.retain(|one| one != POOL);
        if hold {
            wanted.metadata.finalizers.push(POOL.to_owned());
        }
        if dying && held && !empty {
            tasks.push(PoolTask::Free(cidr));
        }
        if told || hold != held {
            tasks.push(PoolTask::Put(Box::new(wanted)));
        }
    }
    tasks
}

/// How many policies of each kind a tier holds, as a sentence; `None` for none.
fn holds<'a>(tier: &str, policies: impl IntoIterator<Item = &'a Resource>) -> Option<String> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for policy in policies {
        let of = match policy {
            Resource::GlobalNetworkPolicy(policy) => &policy.spec.tier,
            Resource::NetworkPolicy(policy) => &policy.spec.tier,
            Resource::StagedGlobalNetworkPolicy(policy) => &policy.spec.tier,
            Resource::StagedNetworkPolicy(policy) => &policy.spec.tier,
            _ => continue,
        };
        let of = if of.is_empty() { "default" } else { of };
        let place = POLICIES.iter().position(|(kind, _)| *kind == policy.kind());
        if let (Some(place), true) = (place, of == tier) {
            *counts.entry(place).or_default() += 1;
        }
    }
    let parts = counts.iter().map(|(place, count)| {
        let ending = if *count == 1 { "y" } else { "ies" };
        format!("{count} {}{ending}", POLICIES[*place].1)
    });
    let text = parts.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

/// The tier as it should be; `None` if it is. `policies`: everything that may be one.
pub fn tier_change<'a>(
    tier: &Tier,
    policies: impl IntoIterator<Item = &'a Resource>,
    now: Option<Timestamp>,
) -> Option<Tier> {
    let held = tier.metadata.finalizers.iter().any(|one| one == TIER);
    let mut wanted = tier.clone();
    if tier.metadata.deletion_timestamp.is_none() {
        wanted.metadata.finalizers.push(TIER.to_owned());
        return (!held).then_some(wanted);
    }
    if !held {
        return None;
    }
    match holds(&tier.metadata.name, policies) {
        Some(left) => {
            let message = format!("Waiting for policies to be removed: {left}");
            let waits = condition("Ready", (false, "Terminating", message), now);
            set(&mut wanted.status.conditions, waits).then_some(wanted)
        }
        None => {
            wanted.metadata.finalizers.retain(|one| one != TIER);
            Some(wanted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::{IpPoolSpec, Metadata, NetworkPolicy, NetworkPolicySpec};

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_unix_seconds(seconds)
    }

    fn pool(name: &str, cidr: &str, created: i64) -> IpPool {
        let mut metadata = Metadata::named(name);
        metadata.creation_timestamp = at(created);
        IpPool { metadata, spec: IpPoolSpec { cidr: cidr.into(), ..IpPoolSpec::default() }, status: None }
    }

    /// Does all tasks but those that need IPAM.
    fn done(mut pools: Vec<IpPool>, blocks: &[IpNet]) -> Vec<IpPool> {
        let tasks = pool_tasks(&pools.iter().collect::<Vec<_>>(), blocks, at(9));
        for task in tasks {
            if let PoolTask::Put(wanted) = task {
                let there = pools.iter_mut().find(|pool| pool.metadata.name == wanted.metadata.name);
                *there.expect("it is one of them") = *wanted;
            }
        }
        pools
    }

    fn said(pool: &IpPool) -> (String, bool) {
        let status = pool.status.as_ref().expect("it was told");
        (format!("{}{}", status.conditions[0].status, status.conditions[0].reason), pool.metadata.finalizers == [POOL])
    }

    #[test]
    fn of_pools_that_overlap_the_first_one_stays_in_use() {
        let disabled = {
            let mut pool = pool("d", "10.9.0.0/16", 1);
            pool.spec.disabled = true;
            pool
        };
        let pools =
            vec![pool("a", "10.0.0.0/16", 2), pool("b", "10.0.1.0/24", 1), pool("c", "10.1.0.0/16", 3), disabled];
        let pools = done(pools, &[]);
        let all: Vec<_> = pools.iter().map(said).collect();
        let expected = [("FalseCIDROverlap", false), ("TrueOK", true), ("TrueOK", true), ("FalsePoolDisabled", false)];
        assert_eq!(all, expected.map(|(text, held)| (text.to_owned(), held)));
        assert_eq!(pool_tasks(&pools.iter().collect::<Vec<_>>(), &[], at(10)), [], "a second pass writes nothing");
        let mut later = pools.clone();
        later.insert(0, pool("e", "10.1.0.0/24", 0));
        assert_eq!(said(&done(later, &[])[3]).0, "TrueOK", "one that is in use is not put out of use by an older one");
        let without: Vec<_> = pools.into_iter().filter(|pool| pool.metadata.name != "b").collect();
        assert_eq!(said(&done(without, &[])[0]), ("TrueOK".to_owned(), true));
    }

    #[test]
    fn a_pool_goes_when_its_blocks_are_gone() {
        let mut dying = done(vec![pool("a", "10.0.0.0/16", 1)], &[]).remove(0);
        dying.metadata.finalizers.push("another.example/finalizer".into());
        dying.metadata.deletion_timestamp = at(5);
        let block: IpNet = "10.0.3.0/26".parse().expect("a prefix");
        let tasks = pool_tasks(&[&dying], &[block], at(9));
        assert_eq!(tasks[0], PoolTask::Free("10.0.0.0/16".parse().expect("a prefix")));
        let dying = done(vec![dying], &[block]).remove(0);
        assert!(dying.metadata.finalizers.iter().any(|one| one == POOL) && said(&dying).0 == "FalseTerminating");
        let gone = done(vec![dying], &["10.1.0.0/26".parse().expect("a prefix")]).remove(0);
        assert_eq!(gone.metadata.finalizers, ["another.example/finalizer"]);
    }

    #[test]
    fn a_tier_waits_for_its_policies() {
        let tier = Tier { metadata: Metadata::named("t"), ..Tier::default() };
        let mut tier = tier_change(&tier, [], at(1)).expect("it has no finalizer");
        assert_eq!(
            (tier_change(&tier, [], at(1)), tier.metadata.finalizers.as_slice()),
            (None, &[TIER.to_owned()][..])
        );
        tier.metadata.deletion_timestamp = at(2);
        let policy = |name: &str, tier: &str| -> Resource {
            let spec = NetworkPolicySpec { tier: tier.into(), ..NetworkPolicySpec::default() };
            NetworkPolicy { metadata: Metadata::in_namespace("ns", name), spec }.into()
        };
        let policies = [policy("a", "t"), policy("b", ""), policy("c", "t")];
        let waits = tier_change(&tier, &policies, at(3)).expect("it is told why");
        assert_eq!(waits.status.conditions[0].message, "Waiting for policies to be removed: 2 NetworkPolicies");
        assert_eq!(tier_change(&waits, &policies, at(4)), None);
        let gone = tier_change(&waits, &policies[1..2], at(5)).expect("nothing is left");
        assert!(gone.metadata.finalizers.is_empty());
    }
}
