//! `calicoctl ipam check`: blocks, handles and affinities against each other and against who uses addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tortie_api::ipam::{Attribute, Block};
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, OwnerKind};
use tortie_ipam::{Problem, Settings, block, describe};
use tortie_store::{Entry, Store};

use super::as_blocks;
use super::report::report;
use crate::drive;
use crate::session::Session;
use crate::write::tunnel_addresses;

pub(in crate::commands) type InUse = BTreeMap<IpAddr, Vec<String>>;

/// Nodes whose numbers of addresses are told.
const NODES_TOLD: usize = 20;

/// Everything that a check looks at, and what it found.
struct Checked {
    settings: Arc<Settings>,
    entries: Vec<Entry>,
    in_use: InUse,
    found: tortie_ipam::Report,
}

fn look(session: &mut Session<'_, '_>, store: &dyn Store) -> Result<Checked> {
    let settings = drive::settings(store)?;
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
    let in_use = users(store, &listing.entries)?;
    let facts: Vec<_> = listing.entries.iter().cloned().map(drive::fact).collect();
    let found = tortie_ipam::check(&settings, &facts, Some(&in_use));
    Ok(Checked { settings, entries: listing.entries, in_use, found })
}

pub(super) fn check(
    session: &mut Session<'_, '_>,
    show_all: bool,
    show_problems: bool,
    output: Option<&str>,
) -> Result<()> {
    let store = session.store()?;
    let checked = look(session, &*store)?;
    session.say(&text(&checked, show_all, show_problems))?;
    if let Some(path) = output {
        let report = report(&*store, &checked.entries, &checked.in_use, &checked.found.problems)?;
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("can't write the report {path}"))?;
    }
    Ok(())
}

/// What a check of all says, for a bundle of diagnostics.
pub(super) fn summary(session: &mut Session<'_, '_>, store: &dyn Store) -> Result<String> {
    Ok(text(&look(session, store)?, true, true))
}

fn text(checked: &Checked, show_all: bool, show_problems: bool) -> String {
    let Checked { settings, entries, in_use, found } = checked;
    let mut text = String::from("Checking IPAM for inconsistencies...\n\n");
    text.push_str(&format!("Found {} IPAM blocks.\n", found.blocks));
    text.push_str(&format!("IPAM blocks record {} allocations.\n", found.assigned));
    let mut by_node: BTreeMap<String, usize> = BTreeMap::new();
    for (cidr, one) in as_blocks(entries) {
        for (address, holder) in held(cidr, one).filter(|_| show_all) {
            text.push_str(&format!("  {address} allocated; {holder}\n"));
        }
        for ordinal in 0..one.allocations.len() {
            if let Some(node) = block::attribute(one, ordinal).and_then(|attribute| attribute.secondary.get("node")) {
                *by_node.entry(node.clone()).or_default() += 1;
            }
        }
    }
    let active: Vec<_> = settings.pools.iter().filter(|pool| pool.closed.is_none()).collect();
    active.iter().for_each(|pool| text.push_str(&format!("  {}\n", pool.cidr)));
    text.push_str(&format!("Found {} active IP pools.\n", active.len()));
    for (what, start) in
        [("node tunnel IPs", "Node("), ("service load balancer IPs", "Service("), ("workload IPs", "Workload(")]
    {
        let count = in_use.values().filter(|users| users.iter().any(|user| user.starts_with(start))).count();
        text.push_str(&format!("Found {count} {what}.\n"));
    }
    text.push_str(&format!("Workloads and nodes are using {} IPs.\n", found.in_use));
    if show_all {
        for (address, users) in in_use {
            text.push_str(&format!("  {address} belongs to {}\n", users.join(", ")));
        }
    }
    text.push_str(&nodes(by_node));
    text.push_str(&format!("Found {} handles.\n\n", found.handles));
    text.push_str(&counts(found));
    if show_problems {
        found.problems.iter().for_each(|problem| text.push_str(&format!("  {problem}\n")));
    }
    text.push_str(&format!("Check complete; found {} problems.\n", found.problems.len()));
    text
}

/// The nodes with most addresses.
fn nodes(by_node: BTreeMap<String, usize>) -> String {
    let mut all: Vec<(String, usize)> = by_node.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = format!("Looking for top (up to {NODES_TOLD}) nodes by allocations...\n");
    for (node, count) in all.iter().take(NODES_TOLD) {
        text.push_str(&format!("  {node} has {count} allocations\n"));
    }
    if let (Some((_, most)), Some((_, median))) = (all.first(), all.get(all.len() / 2)) {
        text.push_str(&format!("Node with most allocations has {most}; median is {median}\n"));
    }
    text
}

/// How many problems of each sort there are, in upstream's sentences where upstream has one.
fn counts(found: &tortie_ipam::Report) -> String {
    let count = |is: fn(&Problem) -> bool| found.problems.iter().filter(|problem| is(problem)).count();
    let leaked_handles = count(|p| matches!(p, Problem::LeakedHandle { .. }));
    let with_matches = found.handles.saturating_sub(leaked_handles);
    let handles = format!("handles with no matching IPs (and {with_matches} handles with matches)");
    let mut text = String::new();
    for (number, what) in [
        (count(|p| matches!(p, Problem::Leaked { .. })), "IPs that are allocated in IPAM but not actually in use"),
        (count(|p| matches!(p, Problem::NotInPool { .. })), "in-use IPs that are not in active IP pools"),
        (
            count(|p| matches!(p, Problem::NotAssigned { .. })),
            "in-use IPs that are in active IP pools but have no corresponding IPAM allocation",
        ),
        (count(|p| matches!(p, Problem::Shared { .. })), "IPs with multiple owners"),
        (leaked_handles, &handles),
        (
            count(|p| matches!(p, Problem::MissingHandle { .. })),
            "handles mentioned in blocks with no matching handle resource",
        ),
        (count(|p| matches!(p, Problem::WrongCount { .. })), "handles that count other IPs than their blocks hold"),
        (count(|p| matches!(p, Problem::BrokenBlock { .. })), "invalid IPAMBlocks"),
        (
            count(|p| matches!(p, Problem::StaleAffinity { .. } | Problem::MissingAffinity { .. })),
            "affinities that do not fit their blocks",
        ),
    ] {
        text.push_str(&format!("Found {number} {what}.\n"));
    }
    text
}

/// Who uses which address: endpoints, nodes for their tunnels, and those of whose use this program can't know.
pub(super) fn users(store: &dyn Store, entries: &[Entry]) -> Result<InUse> {
    let mut users = InUse::new();
    let filter = Filter::Any(vec![Filter::Kind(Kind::WorkloadEndpoint), Filter::Kind(Kind::Node)]);
    let listing = store.list(&filter)?;
    if let Some(invalid) = listing.invalid.first() {
        // Its addresses would seem to be leaked.
        bail!("{} can't be read, and its addresses must not count as unused: {}", invalid.path, invalid.reason);
    }
    for entry in listing.entries {
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
    for (cidr, one) in as_blocks(entries) {
        for ordinal in 0..one.allocations.len() {
            if let Some(user) = block::attribute(one, ordinal).and_then(beyond_us) {
                users.entry(block::address(cidr, ordinal)).or_default().push(user);
            }
        }
    }
    Ok(users)
}

/// Services are Kubernetes' to know, and Windows nodes reserve addresses for themselves: both count as in use.
fn beyond_us(attribute: &Attribute) -> Option<String> {
    let of = |key: &str| attribute.secondary.get(key).map(String::as_str);
    if attribute.handle_id.as_deref() == Some(RESERVED_BY_WINDOWS) {
        return Some("Windows(reserved)".to_owned());
    }
    let service = of("service").or_else(|| (of("type") == Some("LoadBalancer")).then_some("unknown"))?;
    Some(format!("Service({}/{service})", of("namespace").unwrap_or_default()))
}

/// Handle of the addresses that a Windows node keeps for itself.
const RESERVED_BY_WINDOWS: &str = "windows-reserved-ipam-handle";

/// The assigned addresses of a block, with their holders in words.
fn held(cidr: IpNet, one: &Block) -> impl Iterator<Item = (IpAddr, String)> {
    (0..one.allocations.len())
        .filter_map(move |ordinal| Some((block::address(cidr, ordinal), describe(block::holder(one, ordinal)?))))
}
