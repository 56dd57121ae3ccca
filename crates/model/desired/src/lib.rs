//! The output contract of the logic: what one node's dataplane should hold.
//!
//! [`Tables`] is the whole desired state; a [`Batch`] is an ordered change to it. Kinds are declared lowest dependency
//! first (sets, policies, profiles, endpoints, tunnels, far ends, routes): a batch commits upserts ascending and removals descending, so a
//! reference is programmed after its referent and removed before it. Empty means nothing, never anything.

mod batch;
mod bgp;
mod bgp_filter;
mod endpoint;
mod members;
mod policy;
mod route;
mod set;
mod settings;
mod tables;
mod tunnel;
mod wireguard;

pub use batch::{Batch, SetChange, Step};
pub use bgp::{BgpBfd, BgpNextHop, BgpPeer, BgpPolicy, BgpSpeaker, ExportRule, PeerOrigin, SecretKey};
pub use bgp_filter::{BgpFilter, Community, FilterOperation, FilterRule, PrefixMatch, PrefixOperator, wildcard};
pub use endpoint::{
    Bandwidth, Endpoint, EndpointId, FloatingAddress, HostEndpoint, HostInterface, Limits, PacketRate, PeakRate,
    TierPolicies,
};
pub use members::Members;
pub use policy::{Action, IcmpMatch, Match, Policy, PolicyId, PolicyKind, PolicyStage, Profile, Rule, TierAction};
pub use route::{Pool, Route, RouteTarget};
pub use set::{Member, SetId, SetKind};
pub use settings::{Failsafe, HostAction, LogLimit, NatSettings, Period, Settings};
pub use tables::Tables;
pub use tunnel::{Ipip, TunnelDevice, Vtep, Vxlan};
pub use wireguard::{WIREGUARD_MARK, Wireguard, WireguardPeer};
