//! The desired tables of a node, as tables for people and as JSON.

use std::fmt::Write as _;
use std::net::IpAddr;

use clap::ValueEnum;
use ipnet::IpNet;
use serde_json::{Value, json};
use tortie_calc::print::rule_text;
use tortie_desired::{
    BgpPeer, Endpoint, EndpointId, Member, Members, Policy, PolicyId, Route, RouteTarget, SetId, SetKind, TierPolicies,
};

use crate::world::NodeView;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Workloads of the node, with the policies that select them.
    Endpoints,
    /// Policies that select a workload of the node, with their rules.
    Policies,
    /// Routes that the node should have.
    Routes,
    /// Sets that rules refer to.
    Sets,
    /// BGP peers.
    Peers,
}

/// Headings and rows of a table.
pub(crate) fn rows(view: &NodeView, table: Table) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let tables = &view.tables;
    match table {
        Table::Endpoints => {
            let headings = vec!["ENDPOINT", "INTERFACE", "ADDRESSES", "INGRESS", "EGRESS", "PROFILES"];
            (headings, tables.endpoints.iter().map(|(id, endpoint)| endpoint_row(id, endpoint)).collect())
        }
        Table::Policies => {
            let rows = tables.policies.iter().flat_map(|(id, policy)| policy_rows(id, policy)).collect();
            (vec!["POLICY", "TIER", "DIRECTION", "RULE", "WHAT"], rows)
        }
        Table::Routes => {
            let rows = tables.routes.iter().map(|(net, route)| route_row(net, route)).collect();
            (vec!["PREFIX", "KIND", "TO"], rows)
        }
        Table::Sets => {
            let what = |id: &SetId| view.calculator().describe_set(id).unwrap_or_default();
            let row = |(id, (kind, members)): (&SetId, &(SetKind, Members))| set_row(id, *kind, what(id), members);
            (vec!["SET", "KIND", "WHAT", "MEMBERS"], tables.sets.iter().map(row).collect())
        }
        Table::Peers => {
            let rows = tables.bgp_peers.iter().map(|(addr, peer)| peer_row(addr, peer)).collect();
            (vec!["ADDRESS", "PORT", "AS", "ORIGIN", "NAME", "SETTINGS"], rows)
        }
    }
}

/// A list in one cell.
fn joined(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

fn endpoint_row(id: &EndpointId, endpoint: &Endpoint) -> Vec<String> {
    let Endpoint { interface, addresses, mac: _, tiers, profiles, allowed_sources: _, floating: _, limits: _ } =
        endpoint;
    let list = |of: fn(&TierPolicies) -> &[PolicyId]| {
        joined(tiers.iter().flat_map(|tier| of(tier).iter().map(|id| format!("{}:{id}", tier.tier))))
    };
    vec![
        id.to_string(),
        interface.to_string(),
        joined(addresses.iter().map(ToString::to_string)),
        list(|tier| &tier.ingress),
        list(|tier| &tier.egress),
        joined(profiles.iter().map(ToString::to_string)),
    ]
}

/// One row a rule; one row for a policy without any.
fn policy_rows(id: &PolicyId, policy: &Policy) -> Vec<Vec<String>> {
    let Policy { tier, stage: _, ingress, egress } = policy;
    let row = |direction: &str, at: String, what: String| {
        vec![id.to_string(), tier.to_string(), direction.to_owned(), at, what]
    };
    let mut rows = Vec::new();
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        rows.extend(rules.iter().enumerate().map(|(at, rule)| row(direction, at.to_string(), rule_text(rule))));
    }
    if rows.is_empty() {
        rows.push(row("-", "-".to_owned(), "-".to_owned()));
    }
    rows
}

fn route_row(net: &IpNet, route: &Route) -> Vec<String> {
    let Route { target } = route;
    let (what, to) = match target {
        RouteTarget::Workload { interface } => ("workload", interface.to_string()),
        RouteTarget::Blackhole => ("blackhole", "-".to_owned()),
        RouteTarget::Node { node, via } => ("node", format!("{node} via {via}")),
        RouteTarget::Tunnel { device, node, via } => ("tunnel", format!("{node} via {via} dev {device}")),
    };
    vec![net.to_string(), what.to_owned(), to]
}

fn set_row(id: &SetId, kind: SetKind, what: String, members: &Members) -> Vec<String> {
    let kind = match kind {
        SetKind::Addresses => "addresses",
        SetKind::Nets => "nets",
        SetKind::Ports => "ports",
    };
    let member = |member: &Member| match member {
        Member::Net(net) => net.to_string(),
        Member::Port { addr, protocol, port } => format!("{addr} {protocol} {port}"),
    };
    vec![id.to_string(), kind.to_owned(), what, joined(members.iter().map(member))]
}

fn peer_row(addr: &IpAddr, peer: &BgpPeer) -> Vec<String> {
    vec![
        addr.to_string(),
        peer.port.to_string(),
        peer.asn.to_string(),
        peer.origin.text().to_owned(),
        peer.name.to_string(),
        tortie_calc::print::peer_text(peer),
    ]
}

/// Columns as wide as their widest cell; the last one has no end.
pub(crate) fn text(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([headings[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut out = String::new();
    let head: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}   ").expect("writing to a string never fails");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The rows as objects; the headings in small letters are the names.
pub(crate) fn objects(headings: &[&str], rows: Vec<Vec<String>>) -> Value {
    let object = |row: Vec<String>| {
        let fields = headings.iter().zip(row).map(|(heading, cell)| (heading.to_lowercase(), json!(cell)));
        Value::Object(fields.collect())
    };
    rows.into_iter().map(object).collect()
}
