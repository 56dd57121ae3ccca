//! Host endpoints that are made for nodes: one for all interfaces, and more by templates.
//!
//! Names, labels and addresses are upstream's, so that either's controllers go on with what the other made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::Regex;
use sha2::{Digest, Sha256};
use tortie_api::kinds::{AutoHostEndpointConfig, HostEndpointTemplate, Toggle};
use tortie_api::{HostEndpoint, HostEndpointSpec, IpNetText, Metadata, Node};
use tortie_selector::Selector;

/// The label by which an endpoint that was made is known.
const CREATED_BY: (&str, &str) = ("projectcalico.org/created-by", "calico-kube-controllers");

/// The profile that allows everything, so that a host stays reachable until a policy says otherwise.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

const SUFFIX: &str = "auto-hep";

/// The longest name of a resource.
const LONGEST_NAME: usize = 253;

/// Whether the endpoint was made by a controller: others are never touched.
pub fn is_made(endpoint: &HostEndpoint) -> bool {
    let (key, value) = CREATED_BY;
    endpoint.metadata.labels.get(key).is_some_and(|found| found == value)
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEndpointChanges {
    /// Endpoints to create, or to replace.
    pub put: Vec<HostEndpoint>,
    /// Endpoints to delete, by name.
    pub delete: Vec<String>,
    /// Templates that can't be used, and why; what they made before stays.
    pub problems: Vec<String>,
}

/// What makes the endpoints those that the settings ask for. `existing`: all host endpoints, those of others too.
pub fn changes<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    existing: &BTreeMap<String, HostEndpoint>,
    settings: &AutoHostEndpointConfig,
) -> HostEndpointChanges {
    let mut changes = HostEndpointChanges::default();
    let mut wanted: BTreeMap<String, HostEndpoint> = BTreeMap::new();
    let mut all_known = true;
    if settings.auto_create == Some(Toggle::Enabled) {
        let (templates, problems) = compile(&settings.templates);
        all_known = problems.is_empty();
        changes.problems = problems;
        for node in nodes {
            let made = of_node(node, settings, &templates);
            wanted.extend(made.into_iter().map(|endpoint| (endpoint.metadata.name.clone(), endpoint)));
        }
    }
    for (name, endpoint) in existing.iter().filter(|(_, endpoint)| is_made(endpoint)) {
        if all_known && !wanted.contains_key(name) {
            changes.delete.push(name.clone());
        } else if let Some(want) = wanted.get(name)
            && differs(endpoint, want)
        {
            let mut next = want.clone();
            next.metadata.uid.clone_from(&endpoint.metadata.uid);
            next.metadata.creation_timestamp = endpoint.metadata.creation_timestamp;
            next.metadata.finalizers.clone_from(&endpoint.metadata.finalizers);
            changes.put.push(next);
        }
    }
    // One of the same name that somebody else made stays as it is.
    changes.put.extend(wanted.into_values().filter(|want| !existing.contains_key(&want.metadata.name)));
    changes
}

fn differs(is: &HostEndpoint, want: &HostEndpoint) -> bool {
    is.metadata.labels != want.metadata.labels
        || is.metadata.annotations != want.metadata.annotations
        || is.spec.expected_ips != want.spec.expected_ips
        || is.spec.interface_name != want.spec.interface_name
        || is.spec.node != want.spec.node
}

/// A template whose texts were understood.
struct Template<'a> {
    from: &'a HostEndpointTemplate,
    nodes: Selector,
    interface: Option<Regex>,
}

fn compile(templates: &[HostEndpointTemplate]) -> (Vec<Template<'_>>, Vec<String>) {
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for from in templates {
        let interface = match from.interface_pattern.as_str() {
            "" => Ok(None),
            pattern => Regex::new(pattern).map(Some),
        };
        match (Selector::parse(&from.node_selector), interface) {
            (Ok(nodes), Ok(interface)) => good.push(Template { from, nodes, interface }),
            (Err(error), _) => {
                problems.push(format!("the nodeSelector of template {:?}: {error}", from.generate_name));
            }
            (_, Err(error)) => {
                problems.push(format!("the interfacePattern of template {:?}: {error}", from.generate_name));
            }
        }
    }
    (good, problems)
}

fn of_node(node: &Node, settings: &AutoHostEndpointConfig, templates: &[Template<'_>]) -> Vec<HostEndpoint> {
    let name = node.metadata.name.as_str();
    let expected = expected_ips(node);
    let mut made = Vec::new();
    if settings.create_default_host_endpoint != Some(Toggle::Disabled) {
        made.push(endpoint(node, None, name_of(&[name]), expected.clone(), "*"));
    }
    for Template { from, nodes, interface } in templates {
        if !nodes.matches(&node.metadata.labels) {
            continue;
        }
        let inside = |text: &String| {
            let address = address(text);
            address.is_some_and(|addr| from.interface_cidrs.iter().any(|c| c.net().is_some_and(|n| n.contains(&addr))))
        };
        let matching: Vec<String> = expected.iter().filter(|text| inside(text)).cloned().collect();
        match interface {
            None if matching.is_empty() => {}
            None => made.push(endpoint(node, Some(from), name_of(&[name, &from.generate_name]), matching, "")),
            Some(pattern) => {
                for found in node.spec.interfaces.iter().filter(|interface| pattern.is_match(&interface.name)) {
                    let mut ips = matching.clone();
                    let new = found.addresses.iter().filter(|text| !matching.contains(text));
                    ips.extend(new.cloned());
                    let called = name_of(&[name, &from.generate_name, &found.name]);
                    made.push(endpoint(node, Some(from), called, ips, &found.name));
                }
            }
        }
    }
    made
}

fn endpoint(
    node: &Node,
    template: Option<&HostEndpointTemplate>,
    name: String,
    ips: Vec<String>,
    interface: &str,
) -> HostEndpoint {
    let mut metadata = Metadata::named(name);
    metadata.labels.clone_from(&node.metadata.labels);
    if let Some(template) = template {
        metadata.labels.extend(&template.labels);
        metadata.annotations.clone_from(&template.annotations);
    }
    let (key, value) = CREATED_BY;
    metadata.labels.insert(key, value);
    let spec = HostEndpointSpec {
        node: node.metadata.name.clone(),
        interface_name: interface.to_owned(),
        expected_ips: ips.into_iter().map(IpNetText).collect(),
        profiles: vec![DEFAULT_ALLOW.to_owned()],
        ..HostEndpointSpec::default()
    };
    HostEndpoint { metadata, spec }
}

/// The name of an endpoint; one that is too long becomes a hash, as upstream makes it.
fn name_of(parts: &[&str]) -> String {
    let name = format!("{}-{SUFFIX}", parts.join("-"));
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(name.as_bytes()));
    let hash: String = hash.chars().filter(|c| !"-_.".contains(*c)).collect();
    format!("{hash}-{SUFFIX}").to_lowercase()
}

fn address(text: &str) -> Option<IpAddr> {
    IpNetText(text.to_owned()).addr()
}

/// A node's addresses in upstream's order, each once.
fn expected_ips(node: &Node) -> Vec<String> {
    let spec = &node.spec;
    let mut found: Vec<String> = Vec::new();
    if let Some(bgp) = &spec.bgp {
        let own = [&bgp.ipv4_address, &bgp.ipv6_address].into_iter().filter_map(IpNetText::addr);
        found.extend(own.map(|addr| addr.to_string()));
        found.push(bgp.ipv4_ipip_tunnel_addr.clone());
    }
    found.extend([spec.ipv4_vxlan_tunnel_addr.clone(), spec.ipv6_vxlan_tunnel_addr.clone()]);
    if let Some(wireguard) = &spec.wireguard {
        found.extend([wireguard.interface_ipv4_address.clone(), wireguard.interface_ipv6_address.clone()]);
    }
    let internal = spec.addresses.iter().filter(|address| address.address_type == "InternalIP");
    found.extend(internal.map(|address| address.address.clone()));
    found.extend(spec.interfaces.iter().flat_map(|interface| interface.addresses.iter().cloned()));
    let mut seen = BTreeSet::new();
    found.retain(|text| address(text).is_some() && seen.insert(text.clone()));
    found
}

#[cfg(test)]
mod tests;
