//! What the caller configures: the speaker, its peers, the routes that it originates.
//!
//! Invariant: all values are plain data; comparing two of them tells whether a session must be restarted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tortie_desired::BgpFilter;
use tortie_net::{AsNumber, Family};

use crate::family::Families;

/// A peer's name: its address.
pub type PeerId = IpAddr;

/// What holds for the whole speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Router id, unique in the network, never zero.
    pub router_id: Ipv4Addr,
    /// Our AS.
    pub local_as: AsNumber,
    /// Hold time to propose: 0 (no keepalives) or at least 3 seconds.
    pub hold_time_secs: u16,
    /// How long peers shall keep our routes after a loss (RFC 4724); at most 4095 seconds.
    /// Also how long we wait for End-of-RIB after our own restart.
    pub restart_time_secs: u16,
    /// We restarted and the kernel kept our routes: set the R and F bits, and defer (RFC 4724 section 4.1).
    pub restarting: bool,
}

impl SpeakerConfig {
    /// Usual values: hold time 90 s, restart time 120 s, not restarting.
    pub fn new(router_id: Ipv4Addr, local_as: AsNumber) -> SpeakerConfig {
        SpeakerConfig { router_id, local_as, hold_time_secs: 90, restart_time_secs: 120, restarting: false }
    }
}

/// What next hop a peer is told for routes that we did not originate. Our own always carry our address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    /// Ours towards other ASes, the received one within our AS.
    #[default]
    Auto,
    /// Always ours.
    SelfAddress,
    /// Always the received one.
    Keep,
}

/// The password of a session; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Arc<str>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// TCP port that the peer listens on.
    pub port: u16,
    /// Address to connect from; `None` lets the kernel choose.
    pub local: Option<IpAddr>,
    /// The peer's AS; equal to ours means internal.
    pub remote_as: AsNumber,
    /// Another AS to pose as towards this peer.
    pub local_as: Option<AsNumber>,
    /// Families to offer.
    pub families: Families,
    /// Never connect, only accept.
    pub passive: bool,
    /// Next hop of routes passed on.
    pub next_hop: NextHopMode,
    /// Our IPv4 address to announce as next hop if the session itself runs over IPv6.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our IPv6 address to announce as next hop if the session itself runs over IPv4.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Set: the peer is our route reflector client in this cluster (RFC 4456).
    pub reflector_cluster: Option<Ipv4Addr>,
    /// Hold time to propose instead of the speaker's.
    pub hold_time_secs: Option<u16>,
    /// Interval of keepalives instead of a third of the negotiated hold time; never above that third.
    pub keepalive_secs: Option<u16>,
    /// Restart time to announce instead of the speaker's (upstream's `maxRestartTime`).
    pub restart_time_secs: Option<u16>,
    /// How often our own AS may be on the path of a route that we accept (upstream's `numAllowedLocalASNumbers`).
    pub allowed_local_as: u8,
    /// Filters, asked in this order.
    pub filters: Vec<Arc<BgpFilter>>,
    /// More prefixes than this from the peer end the session (RFC 4486).
    pub max_prefixes: Option<u32>,
    /// How long the peer shall keep our routes after its restart timer, seconds (RFC 9494); 0: not at all, and we keep
    /// its routes no longer either.
    pub long_lived_secs: u32,
    /// When it is no peer any more, or no client of ours, that takes effect only once others tell its routes, or a
    /// minute later: for sessions that come and go with elected reflectors.
    pub lingers: bool,
    /// Password of the TCP session (RFC 2385); for the I/O layer.
    pub password: Option<Password>,
    /// Routers that the peer's packets may pass, at least 1 (RFC 5082); for the I/O layer.
    pub ttl_hops: Option<u8>,
    /// What kind of peer it is, for status tables: "node-to-node mesh", "global", "node specific".
    pub kind: String,
}

impl PeerConfig {
    /// An active peer on port 179 of the address's own family; everything else at its default.
    pub fn new(remote: PeerId, remote_as: AsNumber) -> PeerConfig {
        PeerConfig {
            port: 179,
            local: None,
            remote_as,
            local_as: None,
            families: Families::only(Family::of(remote)),
            passive: false,
            next_hop: NextHopMode::Auto,
            next_hop_v4: None,
            next_hop_v6: None,
            reflector_cluster: None,
            hold_time_secs: None,
            keepalive_secs: None,
            restart_time_secs: None,
            allowed_local_as: 0,
            filters: Vec::new(),
            max_prefixes: None,
            long_lived_secs: 0,
            lingers: false,
            password: None,
            ttl_hops: None,
            kind: String::new(),
        }
    }

    /// Whether going from `self` to `new` needs no new session: what only decides which routes pass, and how, is free
    /// to change.
    pub(crate) fn same_session(&self, new: &PeerConfig) -> bool {
        let PeerConfig {
            port: _,
            local: _,
            remote_as: _,
            local_as: _,
            families: _,
            passive: _,
            next_hop,
            next_hop_v4,
            next_hop_v6,
            reflector_cluster,
            hold_time_secs: _,
            keepalive_secs: _,
            restart_time_secs: _,
            allowed_local_as,
            filters,
            max_prefixes,
            long_lived_secs: _,
            lingers,
            password: _,
            ttl_hops: _,
            kind,
        } = self;
        let soft = PeerConfig {
            next_hop: *next_hop,
            next_hop_v4: *next_hop_v4,
            next_hop_v6: *next_hop_v6,
            reflector_cluster: *reflector_cluster,
            allowed_local_as: *allowed_local_as,
            filters: filters.clone(),
            max_prefixes: *max_prefixes,
            lingers: *lingers,
            kind: kind.clone(),
            ..new.clone()
        };
        *self == soft
    }

    /// Whether a filter looks at the interface of a route.
    pub(crate) fn filters_interfaces(&self) -> bool {
        self.filters.iter().any(|filter| filter.looks_at_interfaces())
    }

    /// Whether a filter has rules for received routes.
    pub(crate) fn filters_imports(&self) -> bool {
        self.filters.iter().any(|filter| !filter.import_v4.is_empty() || !filter.import_v6.is_empty())
    }
}

/// A route that we originate. The next hop is our own address on each session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoute {
    /// Communities to attach (RFC 1997).
    pub communities: Vec<u32>,
    /// Large communities to attach (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// LOCAL_PREF within our AS; 100 if absent.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// The interface that it leads to, for filters.
    pub interface: Option<Arc<str>>,
    /// A learned path of a higher priority wins over it, as it is the address of a workload that may have moved.
    pub yields: bool,
}
