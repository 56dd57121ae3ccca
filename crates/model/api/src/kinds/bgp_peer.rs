//! BGPPeer: a BGP neighbour of one, some or all nodes.

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::GoDuration;
use crate::asn;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::enums::string_enum;
use crate::path::Path;
use crate::resource::resource;
use std::net::{IpAddr, SocketAddr};
use tortie_net::Family;

resource! {
    /// A BGP neighbour of one, some or all nodes.
    BgpPeer { spec: BgpPeerSpec }
}

/// The specification of a BGPPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The node that peers; empty together with `nodeSelector` means all.
    #[serde(skip_serializing_if = "empty")]
    pub node: String,
    /// The nodes that peer.
    #[serde(skip_serializing_if = "empty")]
    pub node_selector: String,
    /// The neighbour's address, with `:PORT` (IPv6 in brackets) if the port is not 179.
    #[serde(rename = "peerIP", skip_serializing_if = "empty")]
    pub peer_ip: String,
    /// The neighbour's AS number.
    #[serde(default, skip_serializing_if = "empty", deserialize_with = "asn::some")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub as_number: Option<AsNumber>,
    /// The AS number to show to the neighbour.
    #[serde(default, rename = "localASNumber", skip_serializing_if = "empty", deserialize_with = "asn::some")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub local_as_number: Option<AsNumber>,
    /// Nodes that are the neighbours, in place of `peerIP`.
    #[serde(skip_serializing_if = "empty")]
    pub peer_selector: String,
    /// Deprecated; use `nextHopMode`.
    #[serde(skip_serializing_if = "empty")]
    pub keep_original_next_hop: bool,
    /// Which next hop is announced; none means `Auto`.
    #[serde(skip_serializing_if = "empty")]
    pub next_hop_mode: Option<NextHopMode>,
    /// The session's password.
    #[serde(skip_serializing_if = "empty")]
    pub password: Option<BgpPassword>,
    /// From which address to connect; none means `UseNodeIP`.
    #[serde(skip_serializing_if = "empty")]
    pub source_address: Option<SourceAddress>,
    /// How long the neighbour keeps routes while the node restarts.
    #[serde(skip_serializing_if = "empty")]
    pub max_restart_time: Option<GoDuration>,
    /// How often keepalives are sent.
    #[serde(skip_serializing_if = "empty")]
    pub keepalive_time: Option<GoDuration>,
    /// How often the own AS number may stand in a received path.
    #[serde(rename = "numAllowedLocalASNumbers", skip_serializing_if = "empty")]
    pub num_allowed_local_as_numbers: Option<i32>,
    /// Hops to the neighbour, for TTL security; none switches it off.
    #[serde(skip_serializing_if = "empty")]
    pub ttl_security: Option<u8>,
    /// Gateway towards the neighbour.
    #[serde(skip_serializing_if = "empty")]
    pub reachable_by: String,
    /// Names of BGPFilters that apply.
    #[serde(skip_serializing_if = "empty")]
    pub filters: Vec<String>,
    /// Local workloads that are the neighbours.
    #[serde(skip_serializing_if = "empty")]
    pub local_workload_selector: String,
    /// Whether selected nodes peer back on their own; none means `Auto`.
    #[serde(skip_serializing_if = "empty")]
    pub reverse_peering: Option<ReversePeering>,
}

string_enum! {
    /// From which address a session is opened.
    SourceAddress {
        /// The node's own.
        #[default]
        UseNodeIp = "UseNodeIP",
        /// Whatever the kernel picks.
        None = "None",
    }
}

/// Where a password is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpPassword {
    /// The secret that holds it.
    #[serde(skip_serializing_if = "empty")]
    pub secret_key_ref: Option<SecretKeySelector>,
}

/// A key of a Kubernetes secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretKeySelector {
    /// The secret.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// The key within it.
    pub key: String,
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "empty")]
    pub optional: Option<bool>,
}

string_enum! {
    /// Which next hop is announced.
    NextHopMode {
        /// As the protocol says.
        #[default]
        Auto = "Auto",
        /// The node itself.
        Self_ = "Self",
        /// The one that was received.
        Keep = "Keep",
    }
}

string_enum! {
    /// Whether selected nodes peer back.
    ReversePeering {
        /// They do.
        #[default]
        Auto = "Auto",
        /// Only by a BGPPeer of their own.
        Manual = "Manual",
    }
}

impl BgpPeerSpec {
    /// The neighbour's address and, where it is not 179, its port. None if `peerIP` is empty or wrong.
    pub fn peer_address(&self) -> Option<(IpAddr, Option<u16>)> {
        if let Ok(addr) = self.peer_ip.parse::<IpAddr>() {
            return Some((addr, None));
        }
        let socket: SocketAddr = self.peer_ip.parse().ok()?;
        (socket.port() != 0).then_some((socket.ip(), Some(socket.port())))
    }
}

impl Checked for BgpPeer {
    fn apply_defaults(&mut self) {}

    fn check(&self, out: &mut Findings) {
        let spec = &self.spec;
        let path = Path::root("spec");
        out.name(&path.field("node"), &spec.node);
        out.selector(&path.field("nodeSelector"), &spec.node_selector);
        out.selector(&path.field("peerSelector"), &spec.peer_selector);
        out.selector(&path.field("localWorkloadSelector"), &spec.local_workload_selector);
        if !spec.peer_ip.is_empty() && spec.peer_address().is_none() {
            out.wrong(&path.field("peerIP"), format!("{:?}", spec.peer_ip), "ADDRESS, IPV4:PORT or [IPV6]:PORT");
        }
        out.ip(&path.field("reachableBy"), &spec.reachable_by, None);
        exclusions(spec, &path, out);
        if let (Ok(gateway), Some((peer, _))) = (spec.reachable_by.parse::<IpAddr>(), spec.peer_address())
            && Family::of(gateway) != Family::of(peer)
        {
            out.wrong(&path.field("reachableBy"), gateway, format!("an {} address, as peerIP", Family::of(peer)));
        }
        out.names(&path.field("filters"), &spec.filters);
    }
}

fn exclusions(spec: &BgpPeerSpec, path: &Path<'_>, out: &mut Findings) {
    let as_number = spec.as_number.is_some_and(|n| n.0 != 0);
    let workloads = !spec.local_workload_selector.is_empty();
    let not_both = [
        ("nodeSelector", !spec.node.is_empty() && !spec.node_selector.is_empty(), "node or nodeSelector, not both"),
        (
            "peerSelector",
            !spec.peer_ip.is_empty() && !spec.peer_selector.is_empty(),
            "peerIP or peerSelector, not both",
        ),
        ("asNumber", !spec.peer_selector.is_empty() && as_number, "none together with peerSelector"),
        ("peerIP", workloads && !spec.peer_ip.is_empty(), "none together with localWorkloadSelector"),
        ("peerSelector", workloads && !spec.peer_selector.is_empty(), "none together with localWorkloadSelector"),
        ("asNumber", workloads && !as_number, "an AS number together with localWorkloadSelector"),
        ("reachableBy", !spec.reachable_by.is_empty() && spec.peer_ip.is_empty(), "none without peerIP"),
        (
            "keepOriginalNextHop",
            spec.keep_original_next_hop && spec.next_hop_mode.is_some(),
            "nextHopMode alone, which replaces keepOriginalNextHop",
        ),
    ];
    for (field, _, expected) in not_both.iter().filter(|(_, wrong, _)| *wrong) {
        out.wrong(&path.field(field), "", *expected);
    }
}
