//! Rules of v1: tags become selectors, single ranges join the lists, ranges lose the bits of the host.

use serde::Deserialize;
use tortie_api::{Action, EntityRule, FieldError, IcmpFields, IpNetText, Port, Rule};

use crate::values::{Net, Protocol, selector, wrong};

/// A rule as v1 writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OldRule {
    action: String,
    ip_version: Option<u8>,
    protocol: Option<Protocol>,
    icmp: Option<IcmpFields>,
    not_protocol: Option<Protocol>,
    #[serde(rename = "notICMP")]
    not_icmp: Option<IcmpFields>,
    #[serde(default)]
    source: OldEntity,
    #[serde(default)]
    destination: OldEntity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct OldEntity {
    tag: String,
    net: Option<Net>,
    nets: Vec<Net>,
    selector: String,
    ports: Vec<Port>,
    not_tag: String,
    not_net: Option<Net>,
    not_nets: Vec<Net>,
    not_selector: String,
    not_ports: Vec<Port>,
}

/// The rules of one direction; `path` is where they stand.
pub(crate) fn rules(old: Vec<OldRule>, path: &str) -> Result<Vec<Rule>, FieldError> {
    old.into_iter().enumerate().map(|(i, rule)| new(rule, &format!("{path}[{i}]"))).collect()
}

fn new(old: OldRule, path: &str) -> Result<Rule, FieldError> {
    let OldRule { action, ip_version, protocol, icmp, not_protocol, not_icmp, source, destination } = old;
    Ok(Rule {
        action: new_action(&action, path)?,
        ip_version,
        protocol: protocol.map(|protocol| protocol.0),
        icmp: icmp.filter(|icmp| *icmp != IcmpFields::default()),
        not_protocol: not_protocol.map(|protocol| protocol.0),
        not_icmp: not_icmp.filter(|icmp| *icmp != IcmpFields::default()),
        source: entity(source),
        destination: entity(destination),
        http: None,
        metadata: None,
    })
}

fn new_action(old: &str, path: &str) -> Result<Action, FieldError> {
    if old == "next-tier" {
        return Ok(Action::Pass);
    }
    let known = Action::ALL.iter().find(|action| action.as_str().eq_ignore_ascii_case(old));
    known
        .copied()
        .ok_or_else(|| wrong(&format!("{path}.action"), format!("{old:?}"), "allow, deny, log, pass or next-tier"))
}

fn entity(old: OldEntity) -> EntityRule {
    let OldEntity { tag, net, nets, selector, ports, not_tag, not_net, not_nets, not_selector, not_ports } = old;
    EntityRule {
        nets: joined(nets, net),
        selector: tagged(&selector, &tag),
        ports,
        not_nets: joined(not_nets, not_net),
        not_selector: tagged(&not_selector, &not_tag),
        not_ports,
        ..EntityRule::default()
    }
}

fn joined(list: Vec<Net>, single: Option<Net>) -> Vec<IpNetText> {
    list.into_iter().chain(single).map(|net| net.0.trunc().into()).collect()
}

/// A tag is a label without a value now.
fn tagged(old: &str, tag: &str) -> String {
    match (selector(old), tag) {
        (selector, "") => selector,
        (selector, tag) if selector.is_empty() => format!("{tag} == ''"),
        (selector, tag) => format!("({selector}) && {tag} == ''"),
    }
}
