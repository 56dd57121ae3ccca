//! Pools, BGP peers and nodes.

use serde::Deserialize;
use tortie_api::{
    BgpPeer, BgpPeerSpec, EncapMode, FieldError, IpPool, IpPoolAllowedUse, IpPoolSpec, Metadata, Node, NodeBgpSpec,
    NodeSpec, OrchRef, default_block_size,
};
use tortie_net::{AsNumber, Family};

use crate::values::{Address, Net, wrong};
use crate::{Converted, Old, converted, names};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolMetadata {
    cidr: Net,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldPoolSpec {
    ipip: Option<OldIpip>,
    #[serde(rename = "nat-outgoing")]
    nat_outgoing: bool,
    disabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OldIpip {
    enabled: bool,
    mode: String,
}

pub(crate) fn ip_pool(old: Old<PoolMetadata, OldPoolSpec>) -> Result<Converted, FieldError> {
    let PoolMetadata { cidr: Net(cidr) } = old.metadata;
    let OldPoolSpec { ipip, nat_outgoing, disabled } = old.spec;
    let OldIpip { enabled, mode } = ipip.unwrap_or_default();
    let always = match mode.to_lowercase().as_str() {
        "" | "always" => true,
        "cross-subnet" => false,
        _ => return Err(wrong("spec.ipip.mode", format!("{mode:?}"), "always or cross-subnet")),
    };
    let ipip_mode = match (enabled, always) {
        (false, _) => EncapMode::Never,
        (true, true) => EncapMode::Always,
        (true, false) => EncapMode::CrossSubnet,
    };
    let name = cidr.to_string().replace(['.', ':', '/'], "-");
    let spec = IpPoolSpec {
        cidr: cidr.into(),
        ipip_mode: Some(ipip_mode),
        vxlan_mode: Some(EncapMode::Never),
        nat_outgoing,
        disabled,
        block_size: default_block_size(Family::of(cidr.addr())),
        node_selector: "all()".to_owned(),
        allowed_uses: vec![IpPoolAllowedUse::Workload, IpPoolAllowedUse::Tunnel],
        ..IpPoolSpec::default()
    };
    let mut new = converted(IpPool { metadata: Metadata::named(name.clone()), spec, ..IpPool::default() }, None);
    if !enabled && !mode.is_empty() {
        new.notes.push(format!("IPPool({name}): spec.ipip.mode {mode:?} is left out, since IP-in-IP is off there"));
    }
    Ok(new)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PeerMetadata {
    #[serde(default)]
    scope: String,
    #[serde(default)]
    node: String,
    #[serde(rename = "peerIP")]
    peer_ip: Address,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldPeerSpec {
    as_number: Option<AsText>,
}

/// An AS number, as a number or as text, plain or dotted.
#[derive(Clone, Copy, Debug)]
struct AsText(AsNumber);

impl<'de> Deserialize<'de> for AsText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let expected = "an AS number from 0 to 4294967295, or HIGH.LOW";
        text.parse().map(AsText).map_err(|_| serde::de::Error::custom(format!("{text}, expected {expected}")))
    }
}

pub(crate) fn bgp_peer(old: Old<PeerMetadata, OldPeerSpec>) -> Result<Converted, FieldError> {
    let PeerMetadata { scope, node, peer_ip: Address(address) } = old.metadata;
    let as_number = old.spec.as_number.map(|AsText(number)| number);
    let node = names::node(&node);
    let name = match (scope.as_str(), node.as_str()) {
        ("global", "") => names::address(address),
        ("global", _) => return Err(wrong("metadata.node", &node, "none: the scope is global")),
        ("node", "") => return Err(wrong("metadata.node", "", "the name of a node: the scope is node")),
        ("node", _) => format!("{node}.{}", names::address(address)),
        _ => return Err(wrong("metadata.scope", format!("{scope:?}"), "global or node")),
    };
    let spec = BgpPeerSpec { node, peer_ip: address.to_string(), as_number, ..BgpPeerSpec::default() };
    Ok(converted(BgpPeer { metadata: Metadata::named(name), spec }, None))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeMetadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldNodeSpec {
    bgp: Option<OldNodeBgp>,
    orch_refs: Vec<OldOrchRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct OldNodeBgp {
    as_number: Option<AsText>,
    ipv4_address: Option<Net>,
    ipv6_address: Option<Net>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct OldOrchRef {
    node_name: String,
    orchestrator: String,
}

pub(crate) fn node(old: Old<NodeMetadata, OldNodeSpec>) -> Result<Converted, FieldError> {
    let NodeMetadata { name } = old.metadata;
    let OldNodeSpec { bgp, orch_refs } = old.spec;
    let bgp = bgp.map(new_bgp).transpose()?;
    let orch_refs =
        orch_refs.into_iter().map(|OldOrchRef { node_name, orchestrator }| OrchRef { node_name, orchestrator });
    let spec = NodeSpec { bgp, orch_refs: orch_refs.collect(), ..NodeSpec::default() };
    Ok(converted(Node { metadata: Metadata::named(names::node(&name)), spec, ..Node::default() }, Some(&name)))
}

fn new_bgp(old: OldNodeBgp) -> Result<NodeBgpSpec, FieldError> {
    let OldNodeBgp { as_number, ipv4_address, ipv6_address } = old;
    if ipv4_address.is_none() && ipv6_address.is_none() {
        return Err(wrong("spec.bgp", "", "ipv4Address or ipv6Address"));
    }
    let text = |address: Option<Net>| address.map(|Net(net)| net.into()).unwrap_or_default();
    Ok(NodeBgpSpec {
        as_number: as_number.map(|AsText(number)| number),
        ipv4_address: text(ipv4_address),
        ipv6_address: text(ipv6_address),
        ..NodeBgpSpec::default()
    })
}
