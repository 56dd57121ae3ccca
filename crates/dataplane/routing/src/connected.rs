//! Which addresses are on link, and through which interface: what makes a gateway usable.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::TunnelDevice;
use tortie_net::Family;
use tortie_netlink::{Route, RouteKind, TABLE_MAIN};

use crate::Ownership;
use crate::links::Links;

/// The prefixes that other interfaces than workloads' and tunnels' have on link, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connected(Vec<(IpNet, u32)>);

impl Connected {
    pub(crate) fn new(routes: &[Route], links: &Links, ownership: &Ownership) -> Connected {
        let mut all: Vec<_> = routes.iter().flat_map(|route| entries(route, links, ownership)).collect();
        all.sort_unstable_by_key(|(net, interface)| (Reverse(net.prefix_len()), *net, *interface));
        all.dedup();
        Connected(all)
    }

    /// Whether a route says anything about what is on link.
    pub(crate) fn concerns(route: &Route, links: &Links, ownership: &Ownership) -> bool {
        entries(route, links, ownership).next().is_some()
    }

    /// The interface through which an address is on link, by the longest prefix. An IPv6 link-local address says
    /// nothing of its link, so it is found only where a single link has such addresses.
    pub(crate) fn interface(&self, address: IpAddr) -> Option<u32> {
        let mut matching = self.0.iter().filter(|(net, _)| net.contains(&address));
        let (net, interface) = matching.next()?;
        let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let mut another = || matching.next().is_some_and(|(other, _)| other.prefix_len() == net.prefix_len());
        (!link_local || !another()).then_some(*interface)
    }
}

fn entries<'a>(route: &'a Route, links: &'a Links, ownership: &'a Ownership) -> impl Iterator<Item = (IpNet, u32)> {
    // A default route without a gateway, as tunnels have, puts nobody on link.
    let usable = route.table == TABLE_MAIN && route.kind == RouteKind::Unicast && route.net.prefix_len() > 0;
    let multicast = Family::of_net(route.net) == Family::V6 && route.net.addr().is_multicast();
    route.hops.iter().filter(move |hop| usable && !multicast && hop.via.is_none()).filter_map(move |hop| {
        let ours = |name| ownership.is_workload(name) || TunnelDevice::ALL.iter().any(|device| device.name() == name);
        let ours = links.name(hop.interface).is_none_or(ours);
        (!ours).then_some((route.net, hop.interface))
    })
}
