//! Deleting resources, with what hangs on them: a pool is closed first, a node takes its addresses with it, a tier
//! must be empty.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use tortie_api::{IpPool, Kind, Node, Resource};
use tortie_facts::{Filter, Key, Revision};
use tortie_ipam::{Claimed, Owner, Release, ReleaseAffinities, Scope, block};
use tortie_net::IpAddr;
use tortie_store::{Expect, Store, Write, WriteError, resource as stored};

use super::{ATTEMPTS, Known, guard, initial, ipam_config, pause, refusal, with_nearest};
use crate::drive;
use crate::select::Target;

/// How long assignments under way may take to notice that a pool is closed; as upstream.
const GRACE: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Resources that are gone.
    pub(crate) handled: usize,
    /// What kept each of the others.
    pub(crate) problems: Vec<String>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

const POLICIES: [Kind; 4] =
    [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy, Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy];

/// Deletes resources. An error means that the store failed.
pub(crate) fn remove(store: &dyn Store, targets: &[Target], skip_missing: bool) -> Result<Removal> {
    let mut removal = Removal::default();
    let mut gone = BTreeSet::new();
    for attempt in 0..ATTEMPTS {
        removal = Removal { handled: gone.len(), ..Removal::default() };
        let known = Known::read(store, targets.iter().map(Target::key))?;
        let keys: BTreeSet<Key> = targets.iter().map(Target::key).collect();
        let mut writes = Vec::new();
        let (mut slow, mut also) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for target in targets.iter().filter(|target| !gone.contains(&target.key())) {
            if !seen.insert(target.key()) {
                continue;
            }
            match judge(store, target, &known, &keys)? {
                Err(Refused::Missing) if skip_missing => removal.handled += 1,
                Err(Refused::Missing) => {
                    removal.problems.push(with_nearest(store, target.kind, &target.namespace, &target.name));
                }
                Err(Refused::Because(problem)) => removal.problems.push(problem),
                Ok((resource, revision)) => match &*resource {
                    Resource::IpPool(_) | Resource::Node(_) => slow.push(resource),
                    Resource::IpamConfiguration(_) => {
                        writes.push(deletion(target.key(), revision));
                        also.extend(ipam_config::removal(store)?);
                    }
                    _ => writes.push(deletion(target.key(), revision)),
                },
            }
        }
        // Policies before the tier that they are in.
        writes.sort_by_key(|write| matches!(write.key, Key::Resource { kind: Kind::Tier, .. }));
        let count = writes.len();
        writes.extend(also);
        if !all_done(store, &writes, &mut gone)? {
            pause(attempt);
            continue;
        }
        removal.handled += count;
        for resource in slow {
            match &*resource {
                Resource::IpPool(pool) => remove_pool(store, pool, &mut removal.warnings)?,
                Resource::Node(node) => remove_node(store, node)?,
                _ => {}
            }
            removal.handled += 1;
        }
        return Ok(removal);
    }
    bail!("others changed the same resources again and again; {} were deleted", removal.handled)
}

fn deletion(key: Key, revision: Revision) -> Write {
    Write { key, expect: Expect::Revision(revision), value: None }
}

/// Does the writes; `false`: another writer was faster, look again.
fn all_done(store: &dyn Store, writes: &[Write], gone: &mut BTreeSet<Key>) -> Result<bool> {
    let results = store.write(writes);
    let mut faster = false;
    for (write, result) in writes.iter().zip(results) {
        match result {
            Ok(_) if matches!(write.key, Key::Resource { .. }) => drop(gone.insert(write.key.clone())),
            Ok(_) => {}
            Err(WriteError::NotTried) => {}
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => faster = true,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(!faster)
}

enum Refused {
    Missing,
    Because(String),
}

/// Whether a resource may be deleted, given what else is deleted in the same call.
fn judge(
    store: &dyn Store,
    target: &Target,
    known: &Known,
    deleted: &BTreeSet<Key>,
) -> Result<Result<(Arc<Resource>, Revision), Refused>> {
    let key = target.key();
    let refuse = |text: String| Ok(Err(Refused::Because(text)));
    if let Some(reason) = refusal("delete", target.kind, &target.name) {
        return refuse(format!("operation delete is not supported on {key}: {reason}"));
    }
    let (resource, revision) = match known.get(&key) {
        Ok(Some((resource, revision))) => (resource.clone(), revision),
        Ok(None) => return Ok(Err(Refused::Missing)),
        Err(unreadable) => return refuse(unreadable),
    };
    if !target.version.is_empty() && target.version != revision.to_string() {
        return refuse(format!(
            "update conflict: {key}: metadata.resourceVersion: {:?}: expected \"{revision}\", which is stored now",
            target.version
        ));
    }
    if target.kind == Kind::Tier {
        if initial::is_protected(&target.name) {
            return refuse(format!("operation delete is not supported on {key}: the tier is built in"));
        }
        let inside = policies_in(store, &target.name, deleted)?;
        if !inside.is_empty() {
            let shown: Vec<String> = inside.iter().take(3).map(Key::to_string).collect();
            let more = if inside.len() > 3 { format!(" and {} more", inside.len() - 3) } else { String::new() };
            return refuse(format!(
                "operation delete is not supported on {key}: the tier is not empty: it has {}{more}",
                shown.join(", ")
            ));
        }
    }
    Ok(Ok((resource, revision)))
}

fn policies_in(store: &dyn Store, tier: &str, deleted: &BTreeSet<Key>) -> Result<Vec<Key>> {
    let listing = store.list(&Filter::Any(POLICIES.into_iter().map(Filter::Kind).collect()))?;
    let inside = listing.entries.into_iter().filter(|entry| {
        let theirs = entry.value.as_resource().and_then(|policy| guard::tier_of(policy));
        theirs == Some(tier) && !deleted.contains(&entry.key)
    });
    Ok(inside.map(|entry| entry.key).collect())
}

/// Closes the pool, takes its blocks from their owners, deletes it.
fn remove_pool(store: &dyn Store, pool: &IpPool, warnings: &mut Vec<String>) -> Result<()> {
    let name = &pool.metadata.name;
    let key = Key::resource(Kind::IpPool, "", name);
    let mut disabled = false;
    stored::update(store, &key, |current| match current {
        Some(Resource::IpPool(current)) => {
            let mut closed = (**current).clone();
            disabled = std::mem::replace(&mut closed.spec.disabled, true);
            closed.into()
        }
        _ => pool.clone().into(),
    })?;
    if let Some(cidr) = pool.spec.cidr.net() {
        let has_nodes = !store.list(&Filter::Kind(Kind::Node))?.entries.is_empty();
        if !disabled && has_nodes {
            sleep(GRACE);
        }
        let settings = drive::settings(store)?;
        drive::run(store, ReleaseAffinities::new(Scope::Pool(cidr), false, settings, drive::now()))?;
        let (mut used, mut blocks) = (0, 0);
        for entry in store.list(&Filter::Blocks)?.entries {
            let (Key::Block(range), Some(block)) = (&entry.key, entry.value.as_block()) else { continue };
            let held = (0..block.allocations.len()).filter(|ordinal| block::holder(block, *ordinal).is_some()).count();
            if cidr.contains(range) && held > 0 {
                used += held;
                blocks += 1;
            }
        }
        if used > 0 {
            warnings.push(format!(
                "IPPool({name}): {used} of its addresses in {blocks} block(s) are still in use; they stay with their \
                 holders until those are deleted"
            ));
        }
    }
    delete_whatever(store, key)
}

fn delete_whatever(store: &dyn Store, key: Key) -> Result<()> {
    match store.write_one(Write { key, expect: Expect::Any, value: None }) {
        Ok(_) | Err(WriteError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a node and what is only there because of it: endpoints, addresses, blocks, peers and settings of its own.
fn remove_node(store: &dyn Store, node: &Node) -> Result<()> {
    let name = node.metadata.name.as_str();
    let mut addresses: Vec<IpAddr> = tunnel_addresses(node);
    let mut keys = Vec::new();
    let filter = Filter::Any(vec![Filter::Kind(Kind::WorkloadEndpoint), Filter::Kind(Kind::BgpPeer)]);
    for entry in store.list(&filter)?.entries {
        match entry.value.as_resource().map(|resource| &**resource) {
            Some(Resource::WorkloadEndpoint(endpoint)) if endpoint.spec.node == name => {
                addresses.extend(endpoint.spec.ip_networks.iter().filter_map(|net| net.addr()));
                keys.push(entry.key);
            }
            Some(Resource::BgpPeer(peer)) if peer.spec.node == name => keys.push(entry.key),
            _ => {}
        }
    }
    let settings = drive::settings(store)?;
    let claimed: Vec<Claimed> =
        addresses.into_iter().map(|address| Claimed { address, handle: None, sequence: None }).collect();
    if !claimed.is_empty() {
        drive::run(store, Release::new(claimed, settings.clone(), drive::now()))?;
    }
    drive::run(store, ReleaseAffinities::new(Scope::Owner(Owner::host(name)), false, settings, drive::now()))?;
    let own = format!("node.{name}");
    keys.push(Key::resource(Kind::FelixConfiguration, "", &own));
    keys.push(Key::resource(Kind::BgpConfiguration, "", &own));
    keys.push(Key::resource(Kind::Node, "", name));
    // The node last: whoever is interrupted can start over by its name.
    keys.into_iter().try_for_each(|key| delete_whatever(store, key))
}

/// The addresses of a node's tunnels.
pub(crate) fn tunnel_addresses(node: &Node) -> Vec<IpAddr> {
    let mut texts = vec![node.spec.ipv4_vxlan_tunnel_addr.as_str(), node.spec.ipv6_vxlan_tunnel_addr.as_str()];
    if let Some(bgp) = &node.spec.bgp {
        texts.push(&bgp.ipv4_ipip_tunnel_addr);
    }
    if let Some(wireguard) = &node.spec.wireguard {
        texts.push(&wireguard.interface_ipv4_address);
        texts.push(&wireguard.interface_ipv6_address);
    }
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}
