//! The desired tables of a node, as tables for people and as JSON.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};
use tortie_calc::print::rule_text;
use tortie_desired::{BgpPeer, Endpoint, Member, Policy, Route, RouteTarget, SetKind, TierPolicies};

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
    let joined = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    match table {
        Table::Endpoints => {
            let row = |(id, endpoint): (&tortie_desired::EndpointId, &std::sync::Arc<Endpoint>)| {
                let Endpoint {
                    interface,
                    addresses,
                    mac: _,
                    tiers,
                    profiles,
                    allowed_sources: _,
                    floating: _,
                    limits: _,
                } = &**endpoint;
                let list = |of: fn(&TierPolicies) -> &[tortie_desired::PolicyId]| {
                    let name = |tier: &TierPolicies| {
                        of(tier).iter().map(|id| format!("{}:{id}", tier.tier)).collect::<Vec<_>>()
                    };
                    joined(tiers.iter().flat_map(name).collect())
                };
                vec![
                    id.to_string(),
                    interface.to_string(),
                    joined(addresses.iter().map(ToString::to_string).collect()),
                    list(|tier| &tier.ingress),
                    list(|tier| &tier.egress),
                    joined(profiles.iter().map(ToString::to_string).collect()),
                ]
            };
            let headings = vec!["ENDPOINT", "INTERFACE", "ADDRESSES", "INGRESS", "EGRESS", "PROFILES"];
            (headings, tables.endpoints.iter().map(row).collect())
        }
        Table::Policies => {
            let mut out = Vec::new();
            for (id, policy) in &tables.policies {
                let Policy { tier, stage: _, ingress, egress } = &**policy;
                let start = out.len();
                for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
                    for (index, rule) in rules.iter().enumerate() {
                        let at = index.to_string();
                        out.push(vec![id.to_string(), tier.to_string(), direction.to_owned(), at, rule_text(rule)]);
                    }
                }
                if out.len() == start {
                    out.push(vec![id.to_string(), tier.to_string(), "-".into(), "-".into(), "-".into()]);
                }
            }
            (vec!["POLICY", "TIER", "DIRECTION", "RULE", "WHAT"], out)
        }
        Table::Routes => {
            let row = |(net, route): (&ipnet::IpNet, &Route)| {
                let Route { target } = route;
                let (what, to) = match target {
                    RouteTarget::Workload { interface } => ("workload", interface.to_string()),
                    RouteTarget::Blackhole => ("blackhole", "-".to_owned()),
                    RouteTarget::Node { node, via } => ("node", format!("{node} via {via}")),
                    RouteTarget::Tunnel { device, node, via } => ("tunnel", format!("{node} via {via} dev {device}")),
                };
                vec![net.to_string(), what.to_owned(), to]
            };
            (vec!["PREFIX", "KIND", "TO"], tables.routes.iter().map(row).collect())
        }
        Table::Sets => {
            let row =
                |(id, (kind, members)): (&tortie_desired::SetId, &(SetKind, std::collections::BTreeSet<Member>))| {
                    let kind = match kind {
                        SetKind::Addresses => "addresses",
                        SetKind::Nets => "nets",
                        SetKind::Ports => "ports",
                    };
                    let what = view.calculator().describe_set(id).unwrap_or_default();
                    let member = |member: &Member| match member {
                        Member::Net(net) => net.to_string(),
                        Member::Port { addr, protocol, port } => format!("{addr} {protocol} {port}"),
                    };
                    vec![id.to_string(), kind.to_owned(), what, joined(members.iter().map(member).collect())]
                };
            (vec!["SET", "KIND", "WHAT", "MEMBERS"], tables.sets.iter().map(row).collect())
        }
        Table::Peers => {
            let row = |(addr, peer): (&std::net::IpAddr, &BgpPeer)| {
                vec![
                    addr.to_string(),
                    peer.port.to_string(),
                    peer.asn.to_string(),
                    peer.origin.text().to_owned(),
                    peer.name.to_string(),
                ]
            };
            (vec!["ADDRESS", "PORT", "AS", "ORIGIN", "NAME"], tables.bgp_peers.iter().map(row).collect())
        }
    }
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
