//! The ends of a flow, found by what people call them.

use std::net::IpAddr;

use anyhow::{Result, bail};
use tortie_api::{IpNetText, Resource, WorkloadEndpoint};
use tortie_desired::EndpointId;
use tortie_facts::{Key, Value};
use tortie_store::resource::resource_key;

use crate::World;
use crate::label::title;

/// What an end of a flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A workload.
    Workload {
        /// Its endpoint.
        id: EndpointId,
        /// The node on which it runs.
        node: String,
        /// The host side of its interface.
        interface: String,
    },
    /// A node itself.
    Node(String),
    /// The first address of a network set.
    NetworkSet(Key),
    /// An address that belongs to nothing of the cluster, but lies in a block of this node, if of any.
    Address {
        /// The node whose block covers the address.
        block_of: Option<String>,
    },
}

/// An end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// What it is called in messages.
    pub name: String,
    /// What it is.
    pub sort: Sort,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Point {
    /// The node on which the packet leaves or arrives, if it is one of the cluster.
    pub fn node(&self) -> Option<&str> {
        match &self.sort {
            Sort::Workload { id: _, node, interface: _ } | Sort::Node(node) => Some(node),
            Sort::Address { block_of } => block_of.as_deref(),
            Sort::NetworkSet(_) => None,
        }
    }
}

fn addresses(nets: &[IpNetText]) -> Vec<IpAddr> {
    nets.iter().filter_map(IpNetText::addr).collect()
}

/// The workload's name as its orchestrator knows it.
fn workload(wep: &WorkloadEndpoint) -> &str {
    let spec = &wep.spec;
    [&spec.pod, &spec.workload, &spec.container_id].into_iter().find(|name| !name.is_empty()).map_or("", |name| name)
}

fn of_workload(wep: &WorkloadEndpoint) -> Point {
    let metadata = &wep.metadata;
    let name = if workload(wep).is_empty() { &metadata.name } else { workload(wep) };
    let id = EndpointId { namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
    let (node, interface) = (wep.spec.node.clone(), wep.spec.interface_name.clone());
    Point {
        name: format!("{}/{name}", metadata.namespace),
        sort: Sort::Workload { id, node, interface },
        addresses: addresses(&wep.spec.ip_networks),
    }
}

/// The point that a resource is, if it can be an end of a flow.
fn of_resource(resource: &Resource) -> Option<Point> {
    let key = resource_key(resource);
    match resource {
        Resource::WorkloadEndpoint(wep) => Some(of_workload(wep)),
        Resource::Node(node) => {
            let bgp = node.spec.bgp.iter().flat_map(|bgp| [&bgp.ipv4_address, &bgp.ipv6_address]);
            let others = node.spec.addresses.iter().map(|address| IpNetText(address.address.clone()));
            let mut all: Vec<IpAddr> = bgp.filter_map(IpNetText::addr).collect();
            all.extend(others.filter_map(|text| text.addr()));
            let mut unique = Vec::new();
            all.retain(|addr| {
                let new = !unique.contains(addr);
                unique.push(*addr);
                new
            });
            let name = node.metadata.name.clone();
            Some(Point { name: format!("node {name}"), sort: Sort::Node(name), addresses: all })
        }
        Resource::NetworkSet(set) => {
            Some(Point { name: title(resource), sort: Sort::NetworkSet(key), addresses: first_of(&set.spec.nets) })
        }
        Resource::GlobalNetworkSet(set) => {
            Some(Point { name: title(resource), sort: Sort::NetworkSet(key), addresses: first_of(&set.spec.nets) })
        }
        _ => None,
    }
}

/// A first address of each prefix that a packet could carry.
fn first_of(nets: &[IpNetText]) -> Vec<IpAddr> {
    nets.iter().filter_map(IpNetText::net).map(|net| net.hosts().next().unwrap_or(net.addr())).collect()
}

/// Every name by which a resource may be called.
fn names(resource: &Resource) -> Vec<String> {
    let metadata = resource.metadata();
    let mut short = vec![metadata.name.as_str()];
    if let Resource::WorkloadEndpoint(wep) = resource {
        short.insert(0, workload(wep));
    }
    short.retain(|name| !name.is_empty());
    short.dedup();
    let full = |name: &&str| format!("{}/{name}", metadata.namespace);
    let long: Vec<String> = if metadata.namespace.is_empty() { Vec::new() } else { short.iter().map(full).collect() };
    long.into_iter().chain(short.iter().map(|name| (*name).to_owned())).collect()
}

/// The end of a flow that a text names: `NAMESPACE/POD`, a pod, endpoint, node or network set by a name that only it
/// has, or an address.
pub fn find(world: &World, text: &str) -> Result<Point> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(of_address(world, addr));
    }
    if text.contains('/') && text.parse::<ipnet::IpNet>().is_ok() {
        bail!("{text:?} is a range: expected one address, such as {:?}", text.split('/').next().unwrap_or_default());
    }
    let candidates: Vec<(Point, Vec<String>)> =
        world.resources().filter_map(|resource| Some((of_resource(resource)?, names(resource)))).collect();
    let found: Vec<&Point> =
        candidates.iter().filter(|(_, names)| names.iter().any(|name| name == text)).map(|(point, _)| point).collect();
    match found[..] {
        [one] if one.addresses.is_empty() => bail!("{} has no address", one.name),
        [one] => Ok(one.clone()),
        [] => bail!("{}", unknown(text, candidates.iter().flat_map(|(_, names)| names))),
        _ => {
            let all: Vec<String> = found.iter().map(|point| described(point)).collect();
            bail!("{text:?} may be {}: name one by its namespace, its endpoint or its address", all.join(" or "))
        }
    }
}

fn described(point: &Point) -> String {
    let addrs: Vec<String> = point.addresses.iter().map(ToString::to_string).collect();
    match &point.sort {
        Sort::Workload { id, node, interface: _ } => format!("{} ({id} on {node}, {})", point.name, addrs.join(" ")),
        Sort::Node(_) | Sort::NetworkSet(_) | Sort::Address { block_of: _ } => {
            format!("{} ({})", point.name, addrs.join(" "))
        }
    }
}

fn unknown<'a>(text: &str, names: impl Iterator<Item = &'a String>) -> String {
    let short = text.rsplit('/').next().unwrap_or(text);
    let distance = |name: &str| {
        let tail = name.rsplit('/').next().unwrap_or(name);
        let whole = strsim::damerau_levenshtein(text, name);
        // The right name in the wrong namespace is near.
        if tail == short { whole.min(1) } else { whole }
    };
    let mut scored: Vec<(usize, &String)> = names.map(|name| (distance(name), name)).collect();
    scored.sort();
    scored.dedup();
    let limit = 2 + text.chars().count() / 4;
    let near: Vec<String> =
        scored.iter().filter(|(d, _)| *d <= limit).take(3).map(|(_, name)| format!("{name:?}")).collect();
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    format!("{text:?} is no workload, node, network set or address of this cluster{hint}")
}

fn of_address(world: &World, addr: IpAddr) -> Point {
    let mut points: Vec<Point> = world
        .resources()
        .filter(|resource| matches!(resource, Resource::WorkloadEndpoint(_) | Resource::Node(_)))
        .filter_map(of_resource)
        .filter(|point| point.addresses.contains(&addr))
        .collect();
    if !points.is_empty() {
        let point = points.remove(0);
        return Point { addresses: vec![addr], ..point };
    }
    let block_of = world.facts().values().filter_map(Value::as_block).find_map(|block| {
        let covers = !block.deleted && block.cidr.net()?.contains(&addr);
        let owner = block.affinity.as_deref()?.strip_prefix("host:")?;
        covers.then(|| owner.to_owned())
    });
    Point { name: addr.to_string(), sort: Sort::Address { block_of }, addresses: vec![addr] }
}
