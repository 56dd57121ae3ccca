//! How routes are written and recognised.

use std::sync::Arc;

use tortie_netlink::RouteProtocol;

/// Whose the routes of protocol 12 are, which is BIRD's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BgpRoutes {
    /// Ours: the speaker of this node is.
    Ours,
    /// Those in pools are left from a time when this node spoke BGP; all others are somebody else's.
    LeftInPools,
    /// Somebody else's.
    Others,
}

/// Settings of route programming. What changes at run time (interface prefixes, whether BGP runs) comes with the
/// desired tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Protocol of workload routes: `deviceRouteProtocol`, by default 3 (boot).
    pub workload_protocol: RouteProtocol,
    /// Whether routes that others made through workload interfaces are removed: `removeExternalRoutes`.
    pub remove_external: bool,
    /// Whose the routes of protocol 12 are.
    pub bgp_routes: BgpRoutes,
    /// Prefixes of workload interface names until the desired tables say otherwise.
    pub interface_prefixes: Vec<Arc<str>>,
}

impl Default for Options {
    /// Upstream's defaults.
    fn default() -> Self {
        Options {
            workload_protocol: RouteProtocol::BOOT,
            remove_external: true,
            bgp_routes: BgpRoutes::Ours,
            interface_prefixes: vec![Arc::from("cali")],
        }
    }
}
