//! Who this node speaks BGP with, and as whom.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tortie_net::AsNumber;

/// Why a peer is there; shown as the peer's type by `calicoctl node status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerOrigin {
    /// The node-to-node mesh.
    Mesh,
    /// A BGPPeer resource for all nodes.
    Global,
    /// A BGPPeer resource for this node.
    Node,
}

impl PeerOrigin {
    /// The text in the status table.
    pub fn text(self) -> &'static str {
        match self {
            PeerOrigin::Mesh => "node-to-node mesh",
            PeerOrigin::Global => "global",
            PeerOrigin::Node => "node specific",
        }
    }
}

/// This node's own side of every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpSpeaker {
    /// The BGP identifier.
    pub router_id: Ipv4Addr,
    /// The AS number of this node.
    pub asn: AsNumber,
    /// The TCP port to listen on.
    pub listen_port: u16,
    /// This node's IPv4 address, if it has one: source and next hop of IPv4 sessions.
    pub ipv4: Option<IpAddr>,
    /// This node's IPv6 address, if it has one.
    pub ipv6: Option<IpAddr>,
}

/// One peer of this node, keyed by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// The peer's AS number.
    pub asn: AsNumber,
    /// The TCP port to connect to.
    pub port: u16,
    /// Why the peer is there.
    pub origin: PeerOrigin,
    /// Name of the node or of the BGPPeer resource, for messages.
    pub name: Arc<str>,
    /// Whether next hops of what is sent are left as learned.
    pub keep_next_hop: bool,
    /// Restart time announced for graceful restart, seconds.
    pub max_restart_secs: u16,
}
