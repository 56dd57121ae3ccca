//! What must hold between resources: pools apart from each other, blocks of their pool's size, tiers before policies.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use ipnet::IpNet;
use tortie_api::{IpPool, IpPoolAllowedUse, Kind, Resource};
use tortie_facts::{Filter, Key};
use tortie_store::{Store, resource as stored};

use super::Planned;
use crate::settings::hint;

/// Judges the writes together with what is stored. The error tells every problem.
pub(super) fn check(store: &dyn Store, planned: &[Planned]) -> Result<()> {
    let mut problems = Vec::new();
    pools(store, planned, &mut problems)?;
    tiers(store, planned, &mut problems)?;
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn pools(store: &dyn Store, planned: &[Planned], problems: &mut Vec<String>) -> Result<()> {
    let pools = || {
        planned.iter().filter_map(|one| match (one.wanted(), one.old.as_deref()) {
            (Resource::IpPool(new), Some(Resource::IpPool(old))) => Some((&**new, Some(&**old))),
            (Resource::IpPool(new), None) => Some((&**new, None)),
            _ => None,
        })
    };
    for (new, old) in pools() {
        if let Some(old) = old {
            unchanged(new, old, problems);
        }
    }
    if pools().all(|(_, old)| old.is_some()) {
        return Ok(());
    }
    let mut others: Vec<(String, IpNet)> = Vec::new();
    for entry in store.list(&Filter::Kind(Kind::IpPool))?.entries {
        if let Some(Resource::IpPool(pool)) = entry.value.as_resource().map(|r| &**r)
            && let Some(cidr) = pool.spec.cidr.net()
        {
            others.push((pool.metadata.name.clone(), cidr.trunc()));
        }
    }
    let blocks = store.list(&Filter::Blocks)?.entries;
    for (new, _) in pools().filter(|(_, old)| old.is_none()) {
        let Some(cidr) = new.spec.cidr.net() else { continue };
        let name = &new.metadata.name;
        for (other, theirs) in others.iter().filter(|(other, theirs)| other != name && overlap(cidr, *theirs)) {
            problems.push(format!(
                "IPPool({name}): spec.cidr: {cidr}: expected a range apart from that of IPPool({other}), {theirs}"
            ));
        }
        others.push((name.clone(), cidr));
        let other_size = blocks.iter().find_map(|entry| match entry.key {
            Key::Block(block) if overlap(block, cidr) && block.prefix_len() != new.spec.block_size => Some(block),
            _ => None,
        });
        if let Some(block) = other_size {
            problems.push(format!(
                "IPPool({name}): spec.blockSize: {}: expected {}, the size of the blocks that exist in its range, such as {block}",
                new.spec.block_size,
                block.prefix_len()
            ));
        }
    }
    Ok(())
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn unchanged(new: &IpPool, old: &IpPool, problems: &mut Vec<String>) {
    let name = &new.metadata.name;
    // A pool of an old version may lack what is filled in today.
    let mut complete = Resource::from(old.clone());
    complete.apply_defaults();
    let Resource::IpPool(old) = &complete else { return };
    if new.spec.cidr.net().map(|net| net.trunc()) != old.spec.cidr.net().map(|net| net.trunc()) {
        problems.push(format!(
            "IPPool({name}): spec.cidr: {}: expected {}: the range of a pool cannot be modified",
            new.spec.cidr, old.spec.cidr
        ));
    }
    if new.spec.block_size != old.spec.block_size {
        problems.push(format!(
            "IPPool({name}): spec.blockSize: {}: expected {}: the block size of a pool cannot be modified",
            new.spec.block_size, old.spec.block_size
        ));
    }
    let balances = |pool: &IpPool| pool.spec.allowed_uses.contains(&IpPoolAllowedUse::LoadBalancer);
    if balances(old) && !balances(new) {
        problems.push(format!(
            "IPPool({name}): spec.allowedUses: expected LoadBalancer: a pool for load balancers cannot be given another use"
        ));
    }
}

/// The tier of a policy; `None` for other kinds.
pub(crate) fn tier_of(resource: &Resource) -> Option<&str> {
    let tier = match resource {
        Resource::NetworkPolicy(policy) => &policy.spec.tier,
        Resource::GlobalNetworkPolicy(policy) => &policy.spec.tier,
        Resource::StagedNetworkPolicy(policy) => &policy.spec.tier,
        Resource::StagedGlobalNetworkPolicy(policy) => &policy.spec.tier,
        _ => return None,
    };
    Some(if tier.is_empty() { "default" } else { tier })
}

/// A policy that is new in its tier. One that stays in its tier needs no look at the tiers.
fn moved(one: &Planned) -> Option<(&Resource, &str)> {
    let new = tier_of(one.wanted())?;
    (one.old.as_deref().and_then(tier_of) != Some(new)).then_some((one.wanted(), new))
}

fn tiers(store: &dyn Store, planned: &[Planned], problems: &mut Vec<String>) -> Result<()> {
    if planned.iter().all(|one| moved(one).is_none()) {
        return Ok(());
    }
    let mut tiers: BTreeSet<String> = BTreeSet::new();
    for entry in store.list(&Filter::Kind(Kind::Tier))?.entries {
        if let Key::Resource { name, .. } = entry.key {
            tiers.insert(name);
        }
    }
    let new_tiers = planned.iter().filter(|one| one.wanted().kind() == Kind::Tier);
    tiers.extend(new_tiers.map(|one| one.wanted().metadata().name.clone()));
    for (policy, tier) in planned.iter().filter_map(moved) {
        if !tiers.contains(tier) {
            let near = hint(tier, tiers.iter().map(String::as_str));
            problems.push(format!(
                "{}: spec.tier: {tier:?}: resource does not exist: Tier({tier}){near}",
                stored::resource_key(policy)
            ));
        }
    }
    Ok(())
}
