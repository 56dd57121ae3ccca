//! What identifies a route of ours in the main table.

use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use tortie_net::Family;
use tortie_netlink::Route;

/// Destination and metric: the kernel has one route for both, and several metrics of one destination side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Destination, host bits zero.
    pub net: IpNet,
    /// Metric as the kernel reports it.
    pub metric: u32,
}

impl RouteKey {
    /// The key of a destination without a metric of its own: none for IPv4, the kernel's default of 1024 for IPv6.
    pub fn of_net(net: IpNet) -> RouteKey {
        let metric = match Family::of_net(net) {
            Family::V4 => 0,
            Family::V6 => 1024,
        };
        RouteKey { net: net.trunc(), metric }
    }

    /// All keys of a destination whose host bits are zero.
    pub(crate) fn all_of(net: IpNet) -> RangeInclusive<RouteKey> {
        let key = |metric| RouteKey { net, metric };
        key(0)..=key(u32::MAX)
    }

    /// The key of a route as the kernel has it.
    pub fn of_route(route: &Route) -> RouteKey {
        RouteKey { net: route.net, metric: route.metric }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteKey { net, metric } = self;
        if *self == RouteKey::of_net(*net) { write!(f, "{net}") } else { write!(f, "{net} metric {metric}") }
    }
}
