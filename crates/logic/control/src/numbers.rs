//! Upstream's metrics of address management, as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_facts::OwnerKind;
use tortie_ipam::{Settings, block, usage};

use crate::leaks::Leaks;
use crate::ledger::Ledger;
use crate::users::node_of;

/// Upstream's words for what lies in no pool, names no node, or is owned by none.
const NO_POOL: &str = "no_ippool";
const NO_NODE: &str = "unknown_node";
const NO_AFFINITY: &str = "no_affinity";

/// A number for each pool and node.
type ByPoolAndNode = BTreeMap<(String, String), u64>;

/// Addresses that controllers released since the process started.
#[derive(Clone, Debug, Default)]
pub struct Reclaimed(ByPoolAndNode);

fn pool_name(settings: &Settings, address: IpAddr) -> String {
    settings.pool_of(address).map_or(NO_POOL, |pool| &pool.name).to_owned()
}

impl Reclaimed {
    /// Counts an address that was released.
    pub fn count(&mut self, settings: &Settings, address: IpAddr, node: &str) {
        let node = if node.is_empty() { NO_NODE } else { node };
        *self.0.entry((pool_name(settings, address), node.to_owned())).or_default() += 1;
    }
}

#[derive(Default)]
struct Counts {
    in_use: ByPoolAndNode,
    borrowed: ByPoolAndNode,
    blocks: ByPoolAndNode,
    candidates: ByPoolAndNode,
}

fn add(to: &mut ByPoolAndNode, pool: &str, node: &str, count: u64) {
    *to.entry((pool.to_owned(), node.to_owned())).or_default() += count;
}

fn owner_of(ledger: &Ledger, cidr: IpNet) -> Option<String> {
    let owner = ledger.blocks.get(&cidr).and_then(|found| block::owner(found))?;
    (owner.kind == OwnerKind::Host).then_some(owner.name)
}

impl Counts {
    fn new(ledger: &Ledger, nodes: &BTreeSet<String>, settings: &Settings, leaks: &Leaks) -> Counts {
        let mut counts = Counts::default();
        for pool in &settings.pools {
            for node in nodes {
                for to in [&mut counts.in_use, &mut counts.borrowed, &mut counts.candidates] {
                    add(to, &pool.name, node, 0);
                }
            }
        }
        for cidr in ledger.blocks.keys() {
            let owner = owner_of(ledger, *cidr).unwrap_or_else(|| NO_AFFINITY.to_owned());
            add(&mut counts.blocks, &pool_name(settings, cidr.network()), &owner, 1);
        }
        let suspected: BTreeSet<_> = leaks.suspected().collect();
        for (one, attribute) in ledger.allocations() {
            let pool = pool_name(settings, one.address);
            let node = match node_of(attribute) {
                "" => NO_NODE,
                node => node,
            };
            add(&mut counts.in_use, &pool, node, 1);
            if node != NO_NODE && owner_of(ledger, one.block).as_deref() != Some(node) {
                add(&mut counts.borrowed, &pool, node, 1);
            }
            if suspected.contains(&one) {
                add(&mut counts.candidates, &pool, node, 1);
            }
        }
        counts
    }
}

fn by_node(counts: &ByPoolAndNode) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::new();
    for ((_, node), count) in counts.iter().filter(|(_, count)| **count > 0) {
        *sums.entry(node.as_str()).or_default() += count;
    }
    sums
}

/// A label's value as the format wants it.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a text takes anything");
}

fn table(out: &mut String, name: &str, kind: &str, help: &str, counts: &ByPoolAndNode) {
    head(out, name, kind, help);
    for ((pool, node), count) in counts {
        let (pool, node) = (quoted(pool), quoted(node));
        writeln!(out, "{name}{{ippool=\"{pool}\",node=\"{node}\"}} {count}").expect("a text takes anything");
    }
}

fn lines<'a>(out: &mut String, name: &str, label: &str, help: &str, counts: impl IntoIterator<Item = (&'a str, u128)>) {
    head(out, name, "gauge", help);
    for (value, count) in counts {
        writeln!(out, "{name}{{{label}=\"{}\"}} {count}", quoted(value)).expect("a text takes anything");
    }
}

/// The metrics.
pub fn metrics(
    ledger: &Ledger,
    nodes: &BTreeSet<String>,
    settings: &Settings,
    leaks: &Leaks,
    reclaimed: &Reclaimed,
) -> String {
    let counts = Counts::new(ledger, nodes, settings, leaks);
    let Counts { in_use, borrowed, blocks, candidates } = &counts;
    let mut out = String::new();
    table(&mut out, "ipam_allocations_in_use", "gauge", "Addresses that are held.", in_use);
    let help = "Addresses that a node holds in blocks of others.";
    table(&mut out, "ipam_allocations_borrowed", "gauge", help, borrowed);
    table(&mut out, "ipam_blocks", "gauge", "Blocks by owner.", blocks);
    let help = "Addresses that seem leaked.";
    table(&mut out, "ipam_allocations_gc_candidates", "gauge", help, candidates);
    let help = "Leaked addresses that were released.";
    table(&mut out, "ipam_allocations_gc_reclamations", "counter", help, &reclaimed.0);
    let pools = usage(settings, std::iter::empty());
    let size = |reserved: bool| {
        pools.iter().map(move |pool| (pool.name.as_str(), if reserved { pool.reserved } else { pool.capacity }))
    };
    lines(&mut out, "ipam_ippool_size", "ippool", "Addresses of a pool.", size(false));
    lines(&mut out, "ipam_ippool_reserved", "ippool", "Addresses of a pool that are reserved.", size(true));
    for (name, help, counts) in [
        ("ipam_allocations_per_node", "Addresses that a node holds.", in_use),
        ("ipam_allocations_borrowed_per_node", "Addresses that a node holds in blocks of others.", borrowed),
        ("ipam_blocks_per_node", "Blocks that a node owns.", blocks),
    ] {
        let sums = by_node(counts).into_iter().filter(|(node, _)| *node != NO_NODE);
        lines(&mut out, name, "node", help, sums.map(|(node, count)| (node, u128::from(count))));
    }
    out
}
