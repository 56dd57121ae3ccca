//! What is written back to a Kubernetes Node: what the node publishes of itself, as annotations.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use tortie_api::{LabelMap, Node, NodeBgpSpec, NodeSpec, NodeStatus, NodeWireguardSpec, go_json};

use crate::error::{ConversionError, Object};
use crate::node::keys;

/// The merge patch of the Node's `status` subresource: every annotation that is ours, null where it is to go. Labels
/// and annotations of the resource go into two of them, without those that are Kubernetes' own.
pub fn node_patch(node: &Node) -> Result<Value, ConversionError> {
    let Node { metadata, spec, status } = node;
    let NodeSpec {
        bgp,
        ipv4_vxlan_tunnel_addr,
        vxlan_tunnel_mac_addr,
        ipv6_vxlan_tunnel_addr,
        vxlan_tunnel_mac_addr_v6,
        orch_refs: _,
        wireguard,
        addresses: _,
        interfaces,
    } = spec;
    let NodeStatus { wireguard_public_key, wireguard_public_key_v6, pod_cidrs: _ } = status;
    let bgp = bgp.clone().unwrap_or_default();
    let NodeBgpSpec { as_number, ipv4_address, ipv6_address, ipv4_ipip_tunnel_addr, route_reflector_cluster_id } = &bgp;
    let wireguard = wireguard.clone().unwrap_or_default();
    let NodeWireguardSpec { interface_ipv4_address, interface_ipv6_address } = &wireguard;

    let mut labels = metadata.labels.clone();
    let mut annotations = metadata.annotations.clone();
    if let Some(text) = annotations.remove(keys::KUBE_LABELS).filter(|text| !text.is_empty()) {
        let object = Object { kind: "Node", namespace: "", name: &metadata.name };
        let field = format!("metadata.annotations[{}]", keys::KUBE_LABELS);
        let theirs: Option<LabelMap> = serde_json::from_str(&text)
            .map_err(|_| object.error(field, format!("{text:?}"), "a JSON mapping of labels"))?;
        for key in theirs.unwrap_or_default().keys() {
            labels.remove(key);
        }
    }
    let table = [
        (keys::LABELS, if labels.is_empty() { String::new() } else { go_json(&labels) }),
        (keys::ANNOTATIONS, if annotations.is_empty() { String::new() } else { go_json(&annotations) }),
        (keys::VXLAN4, ipv4_vxlan_tunnel_addr.clone()),
        (keys::VXLAN4_MAC, vxlan_tunnel_mac_addr.clone()),
        (keys::VXLAN6, ipv6_vxlan_tunnel_addr.clone()),
        (keys::VXLAN6_MAC, vxlan_tunnel_mac_addr_v6.clone()),
        (keys::IPV4, ipv4_address.as_str().to_owned()),
        (keys::IPV6, ipv6_address.as_str().to_owned()),
        (keys::IPIP, ipv4_ipip_tunnel_addr.clone()),
        (keys::ASN, as_number.map(|number| number.to_string()).unwrap_or_default()),
        (keys::CLUSTER_ID, route_reflector_cluster_id.clone()),
        (keys::WIREGUARD4, interface_ipv4_address.clone()),
        (keys::WIREGUARD6, interface_ipv6_address.clone()),
        (keys::WIREGUARD4_KEY, wireguard_public_key.clone()),
        (keys::WIREGUARD6_KEY, wireguard_public_key_v6.clone()),
        (keys::INTERFACES, if interfaces.is_empty() { String::new() } else { go_json(interfaces) }),
    ];
    let value = |text: String| if text.is_empty() { Value::Null } else { Value::String(text) };
    let annotations: BTreeMap<&str, Value> = table.into_iter().map(|(key, text)| (key, value(text))).collect();
    Ok(json!({ "metadata": { "annotations": annotations } }))
}
