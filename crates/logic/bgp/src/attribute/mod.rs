//! Path attributes: what is known about a route besides its prefix.
//!
//! Invariant: attributes are immutable once shared; equal sets are one allocation (`store`).

pub mod as_path;
pub mod encode;
pub mod parse;
mod store;

use std::net::{IpAddr, Ipv4Addr};

pub use as_path::{AsPath, Segment, SegmentKind};
pub(crate) use store::AttributeStore;
use tortie_net::AsNumber;

/// Community that forbids any further advertisement (RFC 1997).
pub const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Community that forbids advertisement beyond the AS (RFC 1997).
pub const NO_EXPORT: u32 = 0xffff_ff01;
/// Community that forbids advertisement to any external peer (RFC 1997).
pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// Community of routes that are kept for long after their sender was lost (RFC 9494).
pub const LLGR_STALE: u32 = 0xffff_0006;
/// Community that forbids to keep a route for long (RFC 9494).
pub const NO_LLGR: u32 = 0xffff_0007;

/// How a route got into BGP; lower is preferred (RFC 4271 section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// By the originating AS's own routing.
    Igp,
    /// By the protocol EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

/// Who aggregated a route (RFC 4271 section 5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aggregator {
    /// The AS that did.
    pub asn: AsNumber,
    /// The router that did.
    pub router: Ipv4Addr,
}

/// A transitive attribute that we pass on without knowing it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// Type code.
    pub code: u8,
    /// The value, as received.
    pub value: Box<[u8]>,
}

/// The attributes of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// Where packets for the prefix go; unspecified for routes of our own.
    pub next_hop: IpAddr,
    /// How the route got into BGP.
    pub origin: Origin,
    /// The ASes on the way.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC: lower is preferred among routes of one neighbouring AS.
    pub med: Option<u32>,
    /// LOCAL_PREF: higher is preferred; 100 where absent.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE is set.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, if any.
    pub aggregator: Option<Aggregator>,
    /// Communities, as received (RFC 1997).
    pub communities: Box<[u32]>,
    /// Large communities, as received (RFC 8092).
    pub large_communities: Box<[[u32; 3]]>,
    /// The router that brought the route into the AS (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// Reflection clusters passed, nearest first (RFC 4456).
    pub cluster_list: Box<[u32]>,
    /// Unknown transitive attributes, by code.
    pub unknown: Box<[Unknown]>,
}

impl Attributes {
    /// The local preference that counts.
    pub fn preference(&self) -> u32 {
        self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }

    /// Whether the community is carried.
    pub fn has_community(&self, community: u32) -> bool {
        self.communities.contains(&community)
    }
}

impl Default for Attributes {
    /// An empty IGP route without a next hop.
    fn default() -> Self {
        Attributes {
            next_hop: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            origin: Origin::Igp,
            as_path: AsPath::default(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Box::default(),
            large_communities: Box::default(),
            originator_id: None,
            cluster_list: Box::default(),
            unknown: Box::default(),
        }
    }
}

/// LOCAL_PREF where a route carries none; the value of nearly all routers.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Type codes (IANA "BGP Path Attributes").
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Attribute flag: not well-known.
pub(crate) const OPTIONAL: u8 = 0x80;
/// Attribute flag: passed on even by those who do not know it.
pub(crate) const TRANSITIVE: u8 = 0x40;
/// Attribute flag: somebody on the way did not know it.
pub(crate) const PARTIAL: u8 = 0x20;
/// Attribute flag: the length has two bytes.
pub(crate) const EXTENDED: u8 = 0x10;
