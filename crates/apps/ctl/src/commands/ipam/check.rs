//! `calicoctl ipam check`: blocks, handles and affinities against each other and against who uses addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tortie_api::ipam::Block;
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Key, OwnerKind};
use tortie_ipam::{Problem, block, describe};
use tortie_store::{Entry, Store};

use super::report::{Allocation, LeakedHandle, Report};
use super::{as_blocks, cluster, is_locked};
use crate::session::Session;
use crate::write::tunnel_addresses;
use crate::{VERSION, drive};

type InUse = BTreeMap<IpAddr, Vec<String>>;

pub(super) fn check(
    session: &mut Session<'_, '_>,
    show_all: bool,
    show_problems: bool,
    output: Option<&str>,
) -> Result<()> {
    let store = session.store()?;
    let settings = drive::settings(&*store)?;
    let filter = Filter::Any(vec![
        Filter::Blocks,
        Filter::Handles,
        Filter::AllAffinities(OwnerKind::Host),
        Filter::AllAffinities(OwnerKind::Virtual),
    ]);
    let listing = store.list(&filter)?;
    for one in &listing.invalid {
        session.warn(&format!("left out, since it can't be read: {}", one.reason));
    }
    let in_use = users(&*store)?;
    let facts: Vec<_> = listing.entries.iter().cloned().map(drive::fact).collect();
    let found = tortie_ipam::check(&settings, &facts, Some(&in_use));
    let mut text = String::from("Checking IPAM for inconsistencies...\n\n");
    text.push_str(&format!("Found {} IPAM blocks.\n", found.blocks));
    text.push_str(&format!("IPAM blocks record {} allocations.\n", found.assigned));
    if show_all {
        for (cidr, one) in as_blocks(&listing.entries) {
            for (address, holder) in held(cidr, one) {
                text.push_str(&format!("  {address} allocated; {holder}\n"));
            }
        }
    }
    let active = settings.pools.iter().filter(|pool| pool.closed.is_none()).count();
    text.push_str(&format!("Found {active} active IP pools.\n"));
    text.push_str(&format!("Workloads and nodes are using {} IPs.\n", found.in_use));
    if show_all {
        for (address, users) in &in_use {
            text.push_str(&format!("  {address} belongs to {}\n", users.join(", ")));
        }
    }
    text.push_str(&format!("Found {} handles.\n\n", found.handles));
    let count = |is: fn(&Problem) -> bool| found.problems.iter().filter(|problem| is(problem)).count();
    for (number, what) in [
        (count(|p| matches!(p, Problem::Leaked { .. })), "IPs that are allocated in IPAM but not actually in use"),
        (count(|p| matches!(p, Problem::NotInPool { .. })), "in-use IPs that are not in active IP pools"),
        (
            count(|p| matches!(p, Problem::NotAssigned { .. })),
            "in-use IPs that are in active IP pools but have no corresponding IPAM allocation",
        ),
        (count(|p| matches!(p, Problem::Shared { .. })), "IPs with multiple owners"),
        (count(|p| matches!(p, Problem::LeakedHandle { .. })), "handles with no matching IPs"),
        (
            count(|p| matches!(p, Problem::MissingHandle { .. })),
            "handles mentioned in blocks with no matching handle resource",
        ),
        (count(|p| matches!(p, Problem::WrongCount { .. })), "handles that count other IPs than their blocks hold"),
        (count(|p| matches!(p, Problem::BrokenBlock { .. })), "invalid IPAM blocks"),
        (
            count(|p| matches!(p, Problem::StaleAffinity { .. } | Problem::MissingAffinity { .. })),
            "affinities that do not fit their blocks",
        ),
    ] {
        text.push_str(&format!("Found {number} {what}.\n"));
    }
    if show_problems {
        found.problems.iter().for_each(|problem| text.push_str(&format!("  {problem}\n")));
    }
    text.push_str(&format!("Check complete; found {} problems.\n", found.problems.len()));
    session.say(&text)?;
    if let Some(path) = output {
        let report = report(&*store, &listing.entries, &in_use, &found.problems)?;
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("can't write the report {path}"))?;
    }
    Ok(())
}

/// Who uses which address: endpoints, and nodes for their tunnels.
fn users(store: &dyn Store) -> Result<InUse> {
    let mut users = InUse::new();
    let filter = Filter::Any(vec![Filter::Kind(Kind::WorkloadEndpoint), Filter::Kind(Kind::Node)]);
    for entry in store.list(&filter)?.entries {
        let (addresses, user): (Vec<IpAddr>, String) = match entry.value.as_resource().map(|resource| &**resource) {
            Some(Resource::WorkloadEndpoint(endpoint)) => (
                endpoint.spec.ip_networks.iter().filter_map(|net| net.addr()).collect(),
                format!("Workload({}/{})", endpoint.metadata.namespace, endpoint.metadata.name),
            ),
            Some(Resource::Node(node)) => (tunnel_addresses(node), format!("Node({})", node.metadata.name)),
            _ => continue,
        };
        for address in addresses {
            users.entry(address).or_default().push(user.clone());
        }
    }
    Ok(users)
}

/// The assigned addresses of a block, with their holders in words.
fn held(cidr: IpNet, one: &Block) -> impl Iterator<Item = (IpAddr, String)> {
    (0..one.allocations.len())
        .filter_map(move |ordinal| Some((block::address(cidr, ordinal), describe(block::holder(one, ordinal)?))))
}

fn report(store: &dyn Store, entries: &[Entry], in_use: &InUse, problems: &[Problem]) -> Result<Report> {
    let (info, revision) = cluster(store)?;
    let mut allocations: BTreeMap<String, Vec<Allocation>> = BTreeMap::new();
    for (cidr, one) in as_blocks(entries) {
        for ordinal in 0..one.allocations.len() {
            let Some(found) = allocation(cidr, one, ordinal, in_use) else { continue };
            allocations.entry(found.ip.clone()).or_default().push(found);
        }
    }
    let leaked: BTreeSet<&str> = problems
        .iter()
        .filter_map(|problem| if let Problem::LeakedHandle { handle } = problem { Some(handle.as_str()) } else { None })
        .collect();
    let leaked_handles = entries.iter().filter_map(|entry| match &entry.key {
        Key::Handle(id) if leaked.contains(id.as_str()) => {
            Some(LeakedHandle { id: id.clone(), uid: None, revision: entry.revision.to_string() })
        }
        _ => None,
    });
    Ok(Report {
        version: VERSION.to_owned(),
        datastore_locked: is_locked(&info),
        cluster_guid: info.spec.cluster_guid,
        cluster_info_revision: revision,
        cluster_type: info.spec.cluster_type,
        allocations,
        leaked_handles: leaked_handles.collect(),
    })
}

fn allocation(cidr: IpNet, one: &Block, ordinal: usize, in_use: &InUse) -> Option<Allocation> {
    let attribute = block::attribute(one, ordinal)?;
    let attr = |key: &str| attribute.secondary.get(key).cloned().unwrap_or_default();
    let address = block::address(cidr, ordinal);
    let owner = block::owner(one).filter(|owner| owner.kind == OwnerKind::Host).map(|owner| owner.name);
    let owner = owner.unwrap_or_default();
    let node = if attr("node").is_empty() { owner.clone() } else { attr("node") };
    let users = in_use.get(&address).cloned();
    Some(Allocation {
        ip: address.to_string(),
        handle: attribute.handle_id.clone().unwrap_or_default(),
        sequence_number: Some(block::sequence(one, ordinal)),
        pod: attr("pod"),
        namespace: attr("namespace"),
        borrowed: node != owner,
        node,
        kind: attr("type"),
        creation_timestamp: attr("timestamp"),
        in_use: users.is_some(),
        cooling_down: attribute.released_at.is_some(),
        owners: users,
    })
}
