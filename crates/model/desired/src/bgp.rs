//! Who this node speaks BGP with, and as whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tortie_net::{AsNumber, IpNet};

use crate::bgp_filter::{BgpFilter, Community};

/// Why a peer is there; shown as the peer's type by `calicoctl node status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerOrigin {
    /// The node-to-node mesh.
    Mesh,
    /// A BGPPeer resource for all nodes.
    Global,
    /// A BGPPeer resource for this node.
    Node,
    /// A BGPPeer resource for workloads of this node.
    Workload,
}

impl PeerOrigin {
    /// The text in the status table.
    pub fn text(self) -> &'static str {
        match self {
            PeerOrigin::Mesh => "node-to-node mesh",
            PeerOrigin::Global => "global",
            PeerOrigin::Node => "node specific",
            PeerOrigin::Workload => "local workload",
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

/// Which next hop a peer is told for routes that this node did not originate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BgpNextHop {
    /// As the protocol says: ours towards other ASes, the received one within our AS.
    #[default]
    Auto,
    /// Always ours.
    Own,
    /// Always the received one.
    Keep,
}

/// A key of a secret. What it holds is not part of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// Name of the secret.
    pub name: Arc<str>,
    /// The key within it.
    pub key: Arc<str>,
}

/// How fast a silent peer is noticed (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BgpBfd {
    /// Interval of our packets, and the shortest that we accept, milliseconds.
    pub interval_ms: u32,
    /// So many intervals of silence mean that the peer is gone.
    pub multiplier: u8,
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
    /// Another AS number to show to the peer.
    pub local_asn: Option<AsNumber>,
    /// Which next hop it is told.
    pub next_hop: BgpNextHop,
    /// The address to connect from; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// Only wait for the peer to connect.
    pub passive: bool,
    /// Set: the peer is our route reflector client in this cluster.
    pub cluster: Option<Ipv4Addr>,
    /// Restart time announced for graceful restart, seconds.
    pub max_restart_secs: u16,
    /// Interval of keepalives, seconds, if not the usual one.
    pub keepalive_secs: Option<u16>,
    /// How often our own AS may be on the path of a route that is accepted.
    pub allowed_local_asn: u8,
    /// Set: packets of the peer are refused if they passed more routers than this, 1 to 255 (RFC 5082).
    pub ttl_hops: Option<u8>,
    /// Gateway of a route to the peer's address that this node makes.
    pub reachable_by: Option<IpAddr>,
    /// Where the session's password is.
    pub password: Option<SecretKey>,
    /// Filters, in the order in which they are asked.
    pub filters: Vec<Arc<BgpFilter>>,
    /// Whether and how BFD watches the peer.
    pub bfd: Option<BgpBfd>,
    /// A peer that sends more prefixes than this is cut off.
    pub max_prefixes: Option<u32>,
    /// How long peers shall keep our routes after the restart time, seconds (RFC 9494); 0: not at all.
    pub long_lived_secs: u32,
    /// It came with elected reflectors, or may go with them: it ends without a gap.
    pub lingers: bool,
}

impl BgpPeer {
    /// A peer with nothing but what every peer has.
    pub fn new(asn: AsNumber, port: u16, origin: PeerOrigin, name: Arc<str>) -> BgpPeer {
        BgpPeer {
            asn,
            port,
            origin,
            name,
            local_asn: None,
            next_hop: BgpNextHop::Auto,
            source: None,
            passive: false,
            cluster: None,
            max_restart_secs: 120,
            keepalive_secs: None,
            allowed_local_asn: 0,
            ttl_hops: None,
            reachable_by: None,
            password: None,
            filters: Vec::new(),
            bfd: None,
            max_prefixes: None,
            long_lived_secs: 0,
            lingers: false,
        }
    }
}

/// What happens to a route on its way to any peer, after the peer's own filters have not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportRule {
    /// Prefixes within this one are not told.
    Refuse(IpNet),
    /// A block of this node: the block itself is told; within it only what has a priority above the normal one.
    Block(IpNet),
    /// Prefixes within this one are told.
    Tell(IpNet),
}

/// What holds for all sessions besides who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPolicy {
    /// What may be told to peers: the first rule that matches decides, without one nothing is told.
    pub export: Vec<ExportRule>,
    /// Communities that routes within a prefix get on their way out.
    pub communities: Vec<(IpNet, Vec<Community>)>,
    /// Addresses of local workloads and their interfaces, for filters that let them out one by one.
    pub workloads: BTreeMap<IpNet, Arc<str>>,
    /// Learned routes within these do not go to the kernel: others make those routes, or nobody may.
    pub unprogrammed: Vec<IpNet>,
    /// Metric of ordinary routes: IPv4, IPv6.
    pub normal_priority: [u32; 2],
    /// Listen on the node's own addresses only.
    pub bind_to_node: bool,
    /// Interfaces whose subnets are never told, whatever a filter says; `*` is a wildcard.
    pub ignored_interfaces: Vec<Arc<str>>,
    /// Ranges whose hosts may connect as peers.
    pub ranges: BTreeMap<IpNet, BgpPeer>,
    /// Addresses of this node on interfaces of workloads that are its peers: where they connect to.
    pub peering: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

impl Default for BgpPolicy {
    /// Nothing is told; the usual metric.
    fn default() -> Self {
        BgpPolicy {
            export: Vec::new(),
            communities: Vec::new(),
            workloads: BTreeMap::new(),
            unprogrammed: Vec::new(),
            normal_priority: [1024; 2],
            bind_to_node: false,
            ignored_interfaces: Vec::new(),
            ranges: BTreeMap::new(),
            peering: BTreeMap::new(),
        }
    }
}
