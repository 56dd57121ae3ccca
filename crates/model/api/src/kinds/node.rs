//! Node: a host of the cluster.

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::IpNetText;
use crate::asn;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;
use tortie_net::{Family, Mac};

resource! {
    /// A host of the cluster.
    Node { spec: NodeSpec, status: NodeStatus }
}

/// The specification of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeSpec {
    /// How the node speaks BGP; none if it does not.
    #[serde(skip_serializing_if = "empty")]
    pub bgp: Option<NodeBgpSpec>,
    /// Address of the node's IPv4 VXLAN device.
    #[serde(rename = "ipv4VXLANTunnelAddr", skip_serializing_if = "empty")]
    pub ipv4_vxlan_tunnel_addr: String,
    /// Ethernet address of the node's IPv4 VXLAN device.
    #[serde(rename = "vxlanTunnelMACAddr", skip_serializing_if = "empty")]
    pub vxlan_tunnel_mac_addr: String,
    /// Address of the node's IPv6 VXLAN device.
    #[serde(rename = "ipv6VXLANTunnelAddr", skip_serializing_if = "empty")]
    pub ipv6_vxlan_tunnel_addr: String,
    /// Ethernet address of the node's IPv6 VXLAN device.
    #[serde(rename = "vxlanTunnelMACAddrV6", skip_serializing_if = "empty")]
    pub vxlan_tunnel_mac_addr_v6: String,
    /// What orchestrators call the node.
    #[serde(skip_serializing_if = "empty")]
    pub orch_refs: Vec<OrchRef>,
    /// Addresses of the node's WireGuard devices.
    #[serde(skip_serializing_if = "empty")]
    pub wireguard: Option<NodeWireguardSpec>,
    /// Every known address of the node.
    #[serde(skip_serializing_if = "empty")]
    pub addresses: Vec<NodeAddress>,
    /// The node's interfaces and their addresses.
    #[serde(skip_serializing_if = "empty")]
    pub interfaces: Vec<NodeInterface>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeAddress {
    /// The address, with or without a prefix length.
    pub address: String,
    /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub address_type: String,
}

/// An interface of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeInterface {
    /// The interface's name.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// Its addresses.
    #[serde(skip_serializing_if = "empty")]
    pub addresses: Vec<String>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeStatus {
    /// Public key of its IPv4 WireGuard device, in base64.
    #[serde(skip_serializing_if = "empty")]
    pub wireguard_public_key: String,
    /// Public key of its IPv6 WireGuard device, in base64.
    #[serde(skip_serializing_if = "empty")]
    pub wireguard_public_key_v6: String,
    /// The ranges that Kubernetes gave to it.
    #[serde(rename = "podCIDRs", skip_serializing_if = "empty")]
    pub pod_cidrs: Vec<IpNetText>,
}

/// What an orchestrator calls a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OrchRef {
    /// The orchestrator's name for the node.
    #[serde(skip_serializing_if = "empty")]
    pub node_name: String,
    /// The orchestrator, such as `k8s`.
    pub orchestrator: String,
}

/// How a node speaks BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeBgpSpec {
    /// Its AS number; none means that of the default BGPConfiguration.
    #[serde(default, skip_serializing_if = "empty", deserialize_with = "asn::some")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub as_number: Option<AsNumber>,
    /// Its IPv4 address with the prefix length of its subnet.
    #[serde(skip_serializing_if = "empty")]
    pub ipv4_address: IpNetText,
    /// Its IPv6 address with the prefix length of its subnet.
    #[serde(skip_serializing_if = "empty")]
    pub ipv6_address: IpNetText,
    /// Address of its IP-in-IP device.
    #[serde(rename = "ipv4IPIPTunnelAddr", skip_serializing_if = "empty")]
    pub ipv4_ipip_tunnel_addr: String,
    /// Its cluster id, if it is a route reflector.
    #[serde(rename = "routeReflectorClusterID", skip_serializing_if = "empty")]
    pub route_reflector_cluster_id: String,
}

/// Addresses of a node's WireGuard devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeWireguardSpec {
    /// Of the IPv4 device.
    #[serde(rename = "interfaceIPv4Address", skip_serializing_if = "empty")]
    pub interface_ipv4_address: String,
    /// Of the IPv6 device.
    #[serde(rename = "interfaceIPv6Address", skip_serializing_if = "empty")]
    pub interface_ipv6_address: String,
}

impl Checked for Node {
    fn check(&self, out: &mut Findings) {
        let NodeSpec {
            bgp,
            ipv4_vxlan_tunnel_addr,
            vxlan_tunnel_mac_addr,
            ipv6_vxlan_tunnel_addr,
            vxlan_tunnel_mac_addr_v6,
            orch_refs: _,
            wireguard,
            addresses,
            interfaces: _,
        } = &self.spec;
        let path = Path::root("spec");
        out.ip(&path.field("ipv4VXLANTunnelAddr"), ipv4_vxlan_tunnel_addr, Some(Family::V4));
        out.ip(&path.field("ipv6VXLANTunnelAddr"), ipv6_vxlan_tunnel_addr, Some(Family::V6));
        for (name, mac) in
            [("vxlanTunnelMACAddr", vxlan_tunnel_mac_addr), ("vxlanTunnelMACAddrV6", vxlan_tunnel_mac_addr_v6)]
        {
            if !mac.is_empty() && mac.parse::<Mac>().is_err() {
                out.wrong(&path.field(name), format!("{mac:?}"), "an Ethernet address such as 66:00:00:00:00:01");
            }
        }
        if let Some(bgp) = bgp {
            check_bgp(bgp, &path.field("bgp"), out);
        }
        if let Some(NodeWireguardSpec { interface_ipv4_address, interface_ipv6_address }) = wireguard {
            let at = path.field("wireguard");
            out.ip(&at.field("interfaceIPv4Address"), interface_ipv4_address, Some(Family::V4));
            out.ip(&at.field("interfaceIPv6Address"), interface_ipv6_address, Some(Family::V6));
        }
        for (i, NodeAddress { address, address_type }) in addresses.iter().enumerate() {
            let at = path.field("addresses");
            let at = at.index(i);
            out.net(&at.field("address"), &IpNetText(address.clone()));
            out.word(&at.field("type"), address_type, &["CalicoNodeIP", "InternalIP", "ExternalIP"]);
        }
    }
}

fn check_bgp(bgp: &NodeBgpSpec, path: &Path<'_>, out: &mut Findings) {
    let NodeBgpSpec { as_number: _, ipv4_address, ipv6_address, ipv4_ipip_tunnel_addr, route_reflector_cluster_id } =
        bgp;
    if *bgp == NodeBgpSpec::default() {
        out.wrong(path, "empty", "at least one field");
    }
    out.net_of(&path.field("ipv4Address"), ipv4_address, Family::V4);
    out.net_of(&path.field("ipv6Address"), ipv6_address, Family::V6);
    out.ip(&path.field("ipv4IPIPTunnelAddr"), ipv4_ipip_tunnel_addr, Some(Family::V4));
    out.ip(&path.field("routeReflectorClusterID"), route_reflector_cluster_id, Some(Family::V4));
}
