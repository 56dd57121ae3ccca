//! Node: what the node publishes of itself, kept in annotations of the Kubernetes Node.
//!
//! An annotation that can't be read counts as absent, as upstream, and is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tortie_api::{
    IpNetText, LabelMap, Node, NodeAddress, NodeBgpSpec, NodeInterface, NodeSpec, NodeStatus, NodeWireguardSpec,
    OrchRef, go_json,
};
use tortie_net::{Family, Mac};

use crate::ObjectMeta;
use crate::error::{ConversionError, Converted, Object};
use crate::meta::or_default;

/// A Node of `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KubernetesNode {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: KubernetesNodeSpec,
    /// What was observed.
    #[serde(deserialize_with = "or_default")]
    pub status: KubernetesNodeStatus,
}

/// The specification of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KubernetesNodeSpec {
    /// The first range for its pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// The ranges for its pods.
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pub pod_cidrs: Vec<String>,
}

/// The status of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KubernetesNodeStatus {
    /// Its addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<KubernetesNodeAddress>,
}

/// An address of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KubernetesNodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    #[serde(rename = "type")]
    pub address_type: String,
    /// The address.
    pub address: String,
}

/// Where the addresses of pods come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCidrs {
    /// From pools: tunnel addresses are assigned, and noted in annotations.
    Unused,
    /// From the node's range in its specification: its first address is that of the tunnels.
    Used,
}

/// Keys of annotations, shared with the way back.
pub(crate) mod keys {
    pub(crate) const IPV4: &str = "projectcalico.org/IPv4Address";
    pub(crate) const IPV6: &str = "projectcalico.org/IPv6Address";
    pub(crate) const IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
    pub(crate) const VXLAN4: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
    pub(crate) const VXLAN6: &str = "projectcalico.org/IPv6VXLANTunnelAddr";
    pub(crate) const VXLAN4_MAC: &str = "projectcalico.org/VXLANTunnelMACAddr";
    pub(crate) const VXLAN6_MAC: &str = "projectcalico.org/VXLANTunnelMACAddrV6";
    pub(crate) const ASN: &str = "projectcalico.org/ASNumber";
    pub(crate) const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";
    pub(crate) const WIREGUARD4: &str = "projectcalico.org/IPv4WireguardInterfaceAddr";
    pub(crate) const WIREGUARD6: &str = "projectcalico.org/IPv6WireguardInterfaceAddr";
    pub(crate) const WIREGUARD4_KEY: &str = "projectcalico.org/WireguardPublicKey";
    pub(crate) const WIREGUARD6_KEY: &str = "projectcalico.org/WireguardPublicKeyV6";
    pub(crate) const INTERFACES: &str = "projectcalico.org/Interfaces";
    /// The Calico node's own labels, as JSON.
    pub(crate) const LABELS: &str = "projectcalico.org/labels";
    /// The Calico node's own annotations, as JSON.
    pub(crate) const ANNOTATIONS: &str = "projectcalico.org/annotations";
    /// On the Calico node: which of its labels are Kubernetes', as JSON.
    pub(crate) const KUBE_LABELS: &str = "projectcalico.org/kube-labels";
}

/// The node as a fact.
pub fn node(from: &KubernetesNode, pod_cidrs: PodCidrs) -> Result<Converted, ConversionError> {
    let KubernetesNode { metadata: meta, spec, status } = from;
    let object = Object { kind: "Node", namespace: "", name: &meta.name };
    let mut notes = Notes { meta, object, problems: Vec::new() };
    let mut bgp = NodeBgpSpec {
        as_number: notes.parsed(keys::ASN, "an AS number", |text| text.parse().ok()),
        ipv4_address: IpNetText(notes.addr(keys::IPV4, Family::V4)),
        ipv6_address: IpNetText(notes.addr(keys::IPV6, Family::V6)),
        route_reflector_cluster_id: notes.addr(keys::CLUSTER_ID, Family::V4),
        ..NodeBgpSpec::default()
    };
    let mut wireguard = NodeWireguardSpec::default();
    let key4 = notes.raw(keys::WIREGUARD4_KEY);
    if pod_cidrs == PodCidrs::Used && !spec.pod_cidr.is_empty() {
        let first = first_address(&spec.pod_cidr, &notes.object)?;
        if !key4.is_empty() {
            wireguard.interface_ipv4_address = first.clone();
        }
        bgp.ipv4_ipip_tunnel_addr = first;
    } else {
        bgp.ipv4_ipip_tunnel_addr = notes.addr(keys::IPIP, Family::V4);
        wireguard.interface_ipv4_address = notes.addr(keys::WIREGUARD4, Family::V4);
        wireguard.interface_ipv6_address = notes.addr(keys::WIREGUARD6, Family::V6);
    }
    let addresses = addresses(&bgp, status);
    let spec = NodeSpec {
        ipv4_vxlan_tunnel_addr: notes.addr(keys::VXLAN4, Family::V4),
        vxlan_tunnel_mac_addr: notes.mac(keys::VXLAN4_MAC),
        ipv6_vxlan_tunnel_addr: notes.addr(keys::VXLAN6, Family::V6),
        vxlan_tunnel_mac_addr_v6: notes.mac(keys::VXLAN6_MAC),
        orch_refs: vec![OrchRef { node_name: meta.name.clone(), orchestrator: "k8s".to_owned() }],
        bgp: (bgp != NodeBgpSpec::default()).then_some(bgp),
        wireguard: (wireguard != NodeWireguardSpec::default()).then_some(wireguard),
        addresses,
        interfaces: notes.interfaces(),
    };
    let status = NodeStatus {
        wireguard_public_key: key4,
        wireguard_public_key_v6: notes.raw(keys::WIREGUARD6_KEY),
        pod_cidrs: from.spec.pod_cidrs.iter().map(|text| IpNetText(text.clone())).collect(),
    };
    // Where both have a label, Kubernetes' counts; which ones are Kubernetes' is noted for the way back.
    let mut labels: LabelMap = notes.json(keys::LABELS);
    labels.extend(&meta.labels);
    let mut annotations: BTreeMap<String, String> = notes.json(keys::ANNOTATIONS);
    let ours = if meta.labels.is_empty() { "null".to_owned() } else { go_json(&meta.labels) };
    annotations.insert(keys::KUBE_LABELS.to_owned(), ours);
    let mut metadata = meta.identity(meta.uid.clone());
    metadata.labels = labels;
    metadata.annotations = annotations;
    Ok(Converted::of(Node { metadata, spec, status }, notes.problems))
}

/// The addresses for BGP, then those of Kubernetes.
fn addresses(bgp: &NodeBgpSpec, status: &KubernetesNodeStatus) -> Vec<NodeAddress> {
    let one = |address: &str, kind: &str| NodeAddress { address: address.to_owned(), address_type: kind.to_owned() };
    let own = [&bgp.ipv4_address, &bgp.ipv6_address].into_iter().filter(|text| !text.is_empty());
    let own = own.map(|text| one(text.as_str(), "CalicoNodeIP"));
    let others = status.addresses.iter().filter(|found| ["InternalIP", "ExternalIP"].contains(&&*found.address_type));
    own.chain(others.map(|KubernetesNodeAddress { address_type, address }| one(address, address_type))).collect()
}

/// The address after the range's own; empty for a range of IPv6.
fn first_address(pod_cidr: &str, object: &Object<'_>) -> Result<String, ConversionError> {
    let net = IpNetText::from(pod_cidr).interface().filter(|_| pod_cidr.contains('/'));
    let net =
        net.ok_or_else(|| object.error("spec.podCIDR", format!("{pod_cidr:?}"), "a prefix such as 10.0.0.0/24"))?;
    Ok(match net.addr() {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            Ipv4Addr::from([a, b, c, d.wrapping_add(1)]).to_string()
        }
        IpAddr::V6(_) => String::new(),
    })
}

struct Notes<'a> {
    meta: &'a ObjectMeta,
    object: Object<'a>,
    problems: Vec<ConversionError>,
}

impl Notes<'_> {
    fn raw(&self, key: &str) -> String {
        self.meta.annotation(key).unwrap_or_default().to_owned()
    }

    fn wrong(&mut self, key: &str, text: &str, expected: &str) {
        self.problems.push(self.object.error(format!("metadata.annotations[{key}]"), format!("{text:?}"), expected));
    }

    fn parsed<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.raw(key);
        if text.is_empty() {
            return None;
        }
        let parsed = parse(&text);
        if parsed.is_none() {
            self.wrong(key, &text, expected);
        }
        parsed
    }

    /// An address with or without prefix length, as written.
    fn addr(&mut self, key: &str, family: Family) -> String {
        let good = |text: &str| (IpNetText::from(text).family() == Some(family)).then(|| text.to_owned());
        self.parsed(key, &format!("an {family} address"), good).unwrap_or_default()
    }

    fn mac(&mut self, key: &str) -> String {
        let good = |text: &str| text.parse::<Mac>().is_ok().then(|| text.to_owned());
        self.parsed(key, "an Ethernet address", good).unwrap_or_default()
    }

    fn json<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        let parse = |text: &str| serde_json::from_str::<Option<T>>(text).ok();
        self.parsed(key, "JSON of its shape", parse).flatten().unwrap_or_default()
    }

    /// Interfaces without the addresses that are none.
    fn interfaces(&mut self) -> Vec<NodeInterface> {
        let mut found: Vec<NodeInterface> = self.json(keys::INTERFACES);
        for interface in &mut found {
            let (good, bad) = std::mem::take(&mut interface.addresses)
                .into_iter()
                .partition(|text: &String| text.parse::<IpAddr>().is_ok());
            interface.addresses = good;
            let bad: Vec<String> = bad;
            for text in bad {
                self.wrong(keys::INTERFACES, &text, "an address");
            }
        }
        found
    }
}
