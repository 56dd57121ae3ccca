//! One rule of a ClusterNetworkPolicy.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tortie_api::{Action, EntityRule, LabelSelector, Port, Rule, RuleMetadata, RuleProtocol};
use tortie_net::{PortRange, Protocol};

use crate::cluster_network_policy::SubjectPods;
use crate::error::{Wrong, read};
use crate::network_policy::prefix;
use crate::ports::PortsByProtocol;
use crate::selector;

/// Which way the traffic of a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) fn field(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClusterRule {
    #[serde(default)]
    name: String,
    action: String,
    #[serde(default)]
    from: Vec<Peer>,
    #[serde(default)]
    to: Vec<Peer>,
    #[serde(default)]
    protocols: Vec<ProtocolMatch>,
}

/// Exactly one is given.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[derive(Default)]
struct Peer {
    namespaces: Option<LabelSelector>,
    pods: Option<SubjectPods>,
    networks: Vec<String>,
}

/// Exactly one is given.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ProtocolMatch {
    tcp: Option<PortMatch>,
    udp: Option<PortMatch>,
    sctp: Option<PortMatch>,
    destination_named_port: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PortMatch {
    destination_port: Option<NumberOrRange>,
}

/// Exactly one is given.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct NumberOrRange {
    number: Option<u16>,
    range: Option<FirstAndLast>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstAndLast {
    start: u16,
    end: u16,
}

/// The rule as rules: one for each protocol and peer, protocols by name.
pub(crate) fn rules(value: &Value, direction: Direction) -> Result<Vec<Rule>, Wrong> {
    let ClusterRule { name, action, from, to, protocols } = read(value)?;
    let action = match action.as_str() {
        "Accept" => Action::Allow,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        other => return Err(Wrong::new("action", format!("{other:?}"), "Accept, Deny or Pass")),
    };
    let (field, peers, other) = match direction {
        Direction::Ingress => ("from", from, to),
        Direction::Egress => ("to", to, from),
    };
    if peers.is_empty() || !other.is_empty() {
        return Err(Wrong::new(
            field,
            format!("{} peers", peers.len()),
            "at least one, and none of the other direction",
        ));
    }
    let ports = ports(&protocols)?;
    let mut entities = Vec::with_capacity(peers.len());
    for (at, one) in peers.iter().enumerate() {
        entities.push(peer(one, direction).map_err(|wrong| wrong.below(&format!("{field}[{at}]")))?);
    }
    let annotations = || BTreeMap::from([("name".to_owned(), name.clone())]);
    let metadata = (!name.is_empty()).then(|| RuleMetadata { annotations: annotations() });
    let mut out = Vec::new();
    for (protocol, ports) in ports.rules() {
        for entity in entities.iter().cloned() {
            let protocol = protocol.map(RuleProtocol::Name);
            let base = Rule { action, protocol, metadata: metadata.clone(), ..Rule::default() };
            out.push(match direction {
                Direction::Ingress => {
                    let destination = EntityRule { ports: ports.clone(), ..EntityRule::default() };
                    Rule { source: entity, destination, ..base }
                }
                Direction::Egress => Rule { destination: EntityRule { ports: ports.clone(), ..entity }, ..base },
            });
        }
    }
    Ok(out)
}

fn peer(from: &Peer, direction: Direction) -> Result<EntityRule, Wrong> {
    let Peer { namespaces, pods, networks } = from;
    match (namespaces, pods, networks.as_slice()) {
        (Some(namespaces), None, []) => Ok(EntityRule {
            namespace_selector: selector::namespaces(namespaces).map_err(|wrong| wrong.below("namespaces"))?,
            ..EntityRule::default()
        }),
        (None, Some(pods), []) => {
            let (namespace_selector, selector) = pods.selectors().map_err(|wrong| wrong.below("pods"))?;
            Ok(EntityRule { selector, namespace_selector, ..EntityRule::default() })
        }
        (None, None, [_, ..]) if direction == Direction::Egress => {
            let net =
                |(at, text): (usize, &String)| prefix(text).map_err(|wrong| wrong.below(&format!("networks[{at}]")));
            let nets = networks.iter().enumerate().map(net).collect::<Result<_, _>>()?;
            Ok(EntityRule { nets, ..EntityRule::default() })
        }
        (_, _, _) => Err(Wrong::new("", "no peer, or two", "one of namespaces, pods and, for egress, networks")),
    }
}

fn ports(protocols: &[ProtocolMatch]) -> Result<PortsByProtocol, Wrong> {
    if protocols.is_empty() {
        return Ok(PortsByProtocol::any());
    }
    let mut out = PortsByProtocol::default();
    for (at, one) in protocols.iter().enumerate() {
        let (protocol, port) = protocol(one).map_err(|wrong| wrong.below(&format!("protocols[{at}]")))?;
        out.add(protocol, port);
    }
    Ok(out)
}

fn protocol(from: &ProtocolMatch) -> Result<(Option<Protocol>, Option<Port>), Wrong> {
    let ProtocolMatch { tcp, udp, sctp, destination_named_port: name } = from;
    let (protocol, field, found) = match (tcp, udp, sctp, name.as_str()) {
        (Some(found), None, None, "") => (Protocol::TCP, "tcp", found),
        (None, Some(found), None, "") => (Protocol::UDP, "udp", found),
        (None, None, Some(found), "") => (Protocol::SCTP, "sctp", found),
        (None, None, None, name) if matches!(Port::parse(name), Some(Port::Named(_))) => {
            return Ok((None, Some(Port::Named(name.to_owned()))));
        }
        (_, _, _, name) => {
            let found = format!("none, two, or the name {name:?}");
            return Err(Wrong::new("", found, "one of tcp, udp, sctp and destinationNamedPort"));
        }
    };
    let PortMatch { destination_port } = found;
    let wrong =
        |value: String| Wrong::new(&format!("{field}.destinationPort"), value, "a number, or a range from 1 up");
    let range = match destination_port {
        None => return Ok((Some(protocol), None)),
        Some(NumberOrRange { number: Some(number), range: None }) => Some((*number, *number)),
        Some(NumberOrRange { number: None, range: Some(FirstAndLast { start, end }) }) => Some((*start, *end)),
        Some(NumberOrRange { number: Some(_), range: Some(_) } | NumberOrRange { number: None, range: None }) => None,
    };
    let (first, last) = range.ok_or_else(|| wrong("none, or two".to_owned()))?;
    let range = PortRange::new(first, last).ok().filter(|range| range.first() > 0);
    range.map(|range| (Some(protocol), Some(Port::Range(range)))).ok_or_else(|| wrong(format!("{first}:{last}")))
}
