//! How routes are written and recognised.

use std::sync::Arc;

use tortie_netlink::RouteProtocol;

/// Settings of route programming. What changes at run time (interface prefixes, whether BGP runs) comes with the
/// desired tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Protocol of workload routes: `deviceRouteProtocol`, by default 3 (boot).
    pub workload_protocol: RouteProtocol,
    /// Whether routes that others made through workload interfaces are removed: `removeExternalRoutes`.
    pub remove_external: bool,
    /// Whether the speaker of this node is ours: then every route of protocol 12 is. Otherwise they belong to a BIRD.
    pub own_bgp: bool,
    /// Prefixes of workload interface names until the desired tables say otherwise.
    pub interface_prefixes: Vec<Arc<str>>,
}

impl Default for Options {
    /// Upstream's defaults.
    fn default() -> Self {
        Options {
            workload_protocol: RouteProtocol::BOOT,
            remove_external: true,
            own_bgp: true,
            interface_prefixes: vec![Arc::from("cali")],
        }
    }
}
