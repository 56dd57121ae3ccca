//! Which addresses are on link, and through which router others are reached: what makes a gateway usable.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::TunnelDevice;
use tortie_net::Family;
use tortie_netlink::{NextHop, Route, RouteKind, TABLE_MAIN};

use crate::Ownership;
use crate::links::Links;

/// How routes that are not learned by BGP lead to gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connected {
    /// The prefixes that other interfaces than workloads' and tunnels' have on link, the longest first.
    links: Vec<(IpNet, u32)>,
    /// The prefixes behind routers, by the route of the lowest metric.
    routers: BTreeMap<IpNet, Routers>,
}

/// The routers of a prefix, and the metric of the route that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Routers {
    metric: u32,
    hops: Vec<NextHop>,
}

impl Connected {
    pub(crate) fn new(routes: &[Route], known: &Links, ownership: &Ownership) -> Connected {
        let mut links: Vec<_> = routes.iter().flat_map(|route| entries(route, known, ownership)).collect();
        links.sort_unstable_by_key(|(net, interface)| (Reverse(net.prefix_len()), *net, *interface));
        links.dedup();
        let mut routers: BTreeMap<IpNet, Routers> = BTreeMap::new();
        for route in routes {
            let hops = hops(route, known, ownership);
            let better = || routers.get(&route.net).is_none_or(|other| route.metric < other.metric);
            if !hops.is_empty() && better() {
                routers.insert(route.net, Routers { metric: route.metric, hops });
            }
        }
        Connected { links, routers }
    }

    /// Whether a route says anything about what is on link.
    pub(crate) fn concerns(route: &Route, links: &Links, ownership: &Ownership) -> bool {
        entries(route, links, ownership).next().is_some()
    }

    /// Whether a route says anything about what is behind a router.
    pub(crate) fn concerns_routers(route: &Route, links: &Links, ownership: &Ownership) -> bool {
        !hops(route, links, ownership).is_empty()
    }

    /// The interface through which an address is on link, by the longest prefix. An IPv6 link-local address says
    /// nothing of its link, so it is found only where a single link has such addresses.
    pub(crate) fn interface(&self, address: IpAddr) -> Option<u32> {
        self.on_link(address).map(|(_, interface)| interface)
    }

    fn on_link(&self, address: IpAddr) -> Option<(u8, u32)> {
        let mut matching = self.links.iter().filter(|(net, _)| net.contains(&address));
        let (net, interface) = matching.next()?;
        let mut another = || matching.next().is_some_and(|(other, _)| other.prefix_len() == net.prefix_len());
        (!is_link_local(address) || !another()).then_some((net.prefix_len(), *interface))
    }

    /// How a gateway is reached, by the longest prefix: on link, or through the routers that other routes name for
    /// it, in one step (RFC 4271 5.1.3: the immediate next hop of an address that is not on link). Empty if nothing
    /// leads there.
    pub(crate) fn hops(&self, gateway: IpAddr) -> Vec<NextHop> {
        let on_link = self.on_link(gateway);
        let longer = on_link.map_or(0, |(len, _)| len + 1);
        let bits = Family::of(gateway).bits();
        let mut lengths = (longer..=bits).rev().filter(|_| !self.routers.is_empty() && !is_link_local(gateway));
        let routers = lengths.find_map(|len| self.routers.get(&IpNet::new(gateway, len).ok()?.trunc()));
        match (routers, on_link) {
            (Some(routers), _) => routers.hops.clone(),
            (None, Some((_, interface))) => vec![NextHop::via(gateway, interface)],
            (None, None) => Vec::new(),
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The routers that a route leads through, unless BGP told it to us.
fn hops(route: &Route, links: &Links, ownership: &Ownership) -> Vec<NextHop> {
    let learned = ownership.is_learned_route(route) && ownership.is_ours(route, links);
    if route.table != TABLE_MAIN || route.kind != RouteKind::Unicast || learned {
        return Vec::new();
    }
    let family = Family::of_net(route.net);
    let known = |hop: &&NextHop| hop.via.is_some_and(|via| Family::of(via) == family) && !is_own(hop, links, ownership);
    route.hops.iter().filter(known).copied().collect()
}

/// Whether a hop's interface is a workload's or a tunnel's, or unknown.
fn is_own(hop: &NextHop, links: &Links, ownership: &Ownership) -> bool {
    let own = |name| ownership.is_workload(name) || TunnelDevice::ALL.iter().any(|device| device.name() == name);
    links.name(hop.interface).is_none_or(own)
}

fn entries<'a>(route: &'a Route, links: &'a Links, ownership: &'a Ownership) -> impl Iterator<Item = (IpNet, u32)> {
    // A default route without a gateway, as tunnels have, puts nobody on link.
    let usable = route.table == TABLE_MAIN && route.kind == RouteKind::Unicast && route.net.prefix_len() > 0;
    let multicast = Family::of_net(route.net) == Family::V6 && route.net.addr().is_multicast();
    route
        .hops
        .iter()
        .filter(move |hop| usable && !multicast && hop.via.is_none())
        .filter_map(move |hop| (!is_own(hop, links, ownership)).then_some((route.net, hop.interface)))
}
