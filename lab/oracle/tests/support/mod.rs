//! Questions to `tortie why` about the worlds and flows of the oracle.

#![allow(dead_code, reason = "each test program uses its own part")]

use tortie_api::{Resource, WorkloadEndpoint};
use tortie_desired::Tables;
use tortie_facts::{Key, Value};
use tortie_oracle::expect::tables_of;
use tortie_oracle::place::{NODE, OUTSIDE, Origin};
use tortie_oracle::{Facts, Flow};
use tortie_verdict::{Source, Target, Way, evaluate_way};
use tortie_why::{Report, World, find};

/// The endpoint that owns an address.
pub fn owner(facts: &Facts, addr: std::net::IpAddr) -> Option<&WorkloadEndpoint> {
    facts.values().filter_map(Value::as_resource).find_map(|resource| match &**resource {
        Resource::WorkloadEndpoint(wep) if wep.spec.ip_networks.iter().any(|net| net.addr() == Some(addr)) => {
            Some(&**wep)
        }
        _ => None,
    })
}

/// The flow as `why` is asked about it; `None` for what it is not asked about: sources that are not the sender's
/// own, packets from and to the node, those that no connection begins with, and those that no endpoint sends or gets.
pub fn question(world: &World, flow: &Flow) -> Option<tortie_why::Flow> {
    let facts = world.facts();
    let sender = owner(facts, flow.packet.src);
    let honest = match flow.origin {
        Origin::Pod(_) => sender.is_some_and(|wep| wep.spec.interface_name == flow.origin.interface()),
        Origin::Outside => sender.is_none_or(|wep| wep.spec.node != NODE),
        Origin::Host => false,
    };
    // Which interface packets take is known to the network here, and to `why` only by addresses of host endpoints.
    let unknown = facts.values().filter_map(Value::as_resource).any(|resource| {
        matches!(&**resource, Resource::HostEndpoint(host)
            if host.spec.interface_name == OUTSIDE && host.spec.expected_ips.is_empty())
    });
    let concerns = sender.is_some() || owner(facts, flow.packet.dst).is_some();
    if !honest || unknown || !concerns || flow.to_host() || flow.is_invalid() {
        return None;
    }
    let point = |addr: std::net::IpAddr| find(world, &addr.to_string()).expect("an address");
    let (source, destination) = (point(flow.packet.src), point(flow.packet.dst));
    Some(tortie_why::Flow { source, destination, packet: flow.packet })
}

/// The nodes' tables of a world: the verdict over every node on the way, without anything of `why`.
pub struct Oracle<'a> {
    facts: &'a Facts,
    tables: [(&'static str, Tables); 2],
}

impl Oracle<'_> {
    /// The oracle of a world.
    pub fn of(facts: &Facts) -> Oracle<'_> {
        Oracle { facts, tables: [NODE, "n2"].map(|node| (node, tables_of(facts, node))) }
    }

    /// Whether the flow's packet arrives.
    pub fn allows(&self, flow: &Flow) -> bool {
        let place =
            |addr| owner(self.facts, addr).map(|wep| (wep.spec.node.as_str(), wep.spec.interface_name.as_str()));
        let (from, to) = (place(flow.packet.src), place(flow.packet.dst));
        let judge = |node: &str, interface: &str| {
            let (_, tables) = self.tables.iter().find(|(name, _)| *name == node).expect("there are two nodes");
            let way = Way::new(&flow.packet, Source::Interface(interface), Target::Routed);
            evaluate_way(tables, &flow.packet, &Way { leaves_by: Some(OUTSIDE), ..way }).allowed
        };
        let leaves = from.is_none_or(|(node, interface)| judge(node, interface));
        let same = from.zip(to).is_some_and(|((a, _), (b, _))| a == b);
        leaves && (same || to.is_none_or(|(node, _)| judge(node, OUTSIDE)))
    }
}

/// The facts after a change, of which the report holds the resources.
pub fn changed(facts: &Facts, report: &Report) -> Option<Facts> {
    let mut facts = facts.clone();
    for value in &report.change.as_ref()?.resources {
        let resource = Resource::from_value(value.clone()).expect("a resource");
        let metadata = resource.metadata();
        let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
        facts.insert(key, Value::resource(resource));
    }
    Some(facts)
}
