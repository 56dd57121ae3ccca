//! By which interface a node meets the others, as far as a store can tell.
//!
//! A store knows a node's addresses and not its interfaces. A host endpoint that has one of these addresses among its
//! own names the interface, or is found by the address alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api::{HostEndpoint, Kind, Resource};
use tortie_facts::{Key, Value};

/// The interface by which a packet comes from the network or goes there, if nothing names it. No prefix of workload
/// interfaces can be its.
const NETWORK: &str = "(network)";

type Facts = BTreeMap<Key, Value>;

fn hosts<'a>(facts: &'a Facts, node: &'a str) -> impl Iterator<Item = &'a HostEndpoint> {
    facts.values().filter_map(Value::as_resource).filter_map(move |resource| match &**resource {
        Resource::HostEndpoint(host) if host.spec.node == node => Some(&**host),
        _ => None,
    })
}

fn addresses(facts: &Facts, node: &str) -> BTreeSet<IpAddr> {
    let found = facts.get(&Key::resource(Kind::Node, "", node)).and_then(Value::as_resource);
    let Some(Resource::Node(found)) = found.map(|resource| &**resource) else { return BTreeSet::new() };
    let bgp = found.spec.bgp.iter().flat_map(|bgp| [&bgp.ipv4_address, &bgp.ipv6_address]);
    bgp.filter_map(|text| text.addr()).collect()
}

fn has(host: &HostEndpoint, addresses: &BTreeSet<IpAddr>) -> bool {
    host.spec.expected_ips.iter().filter_map(|text| text.addr()).any(|addr| addresses.contains(&addr))
}

fn is_named(host: &HostEndpoint) -> bool {
    !["", "*"].contains(&host.spec.interface_name.as_str())
}

/// The interface of a node towards the network.
pub(crate) fn of(facts: &Facts, node: &str) -> String {
    let own = addresses(facts, node);
    let named = hosts(facts, node).find(|host| is_named(host) && has(host, &own));
    named.map_or_else(|| NETWORK.to_owned(), |host| host.spec.interface_name.clone())
}

/// The interfaces of a node with their addresses, for host endpoints that are found by these.
pub(crate) fn interfaces(facts: &Facts, node: &str) -> BTreeMap<Arc<str>, BTreeSet<IpAddr>> {
    [(Arc::from(of(facts, node)), addresses(facts, node))].into()
}

/// Host endpoints of a node of which it is not known whether packets of the network pass them.
pub(crate) fn unknown(facts: &Facts, node: &str) -> Vec<String> {
    let uplink = of(facts, node);
    let of_others = hosts(facts, node).filter(|host| is_named(host) && host.spec.interface_name != uplink);
    let line = |host: &HostEndpoint| {
        format!(
            "HostEndpoint {} is for interface {} of node {node}: whether the packet takes that one is not known here, \
             so it was not asked (its expectedIPs could say)",
            host.metadata.name, host.spec.interface_name
        )
    };
    of_others.map(line).collect()
}
