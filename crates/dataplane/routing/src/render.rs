//! From what is wanted for a prefix, and what the kernel has, to the kernel route. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_desired::TunnelDevice;
use tortie_netlink::{NextHop, Route, RouteProtocol};

use crate::connected::Connected;
use crate::links::Links;
use crate::wants::Wanted;
use crate::{Learned, Options, Waiting};

/// What is known of the kernel that routes depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) links: Links,
    pub(crate) connected: Connected,
    pub(crate) bgp: bool,
    /// Prefixes whose learned routes go through the IPIP device, each with the prefix whose gateways are reached
    /// directly.
    pub(crate) ipip: BTreeMap<IpNet, Option<IpNet>>,
    /// A gateway with an address of a pool is never looked for behind a router: its packets would leave the network.
    pub(crate) pools: BTreeSet<IpNet>,
}

impl View {
    fn on_link(&self, gateway: IpAddr) -> Vec<NextHop> {
        self.connected.interface(gateway).map(|interface| NextHop::via(gateway, interface)).into_iter().collect()
    }

    fn hops(&self, gateway: IpAddr) -> Vec<NextHop> {
        if self.pools.iter().any(|pool| pool.contains(&gateway)) {
            self.on_link(gateway)
        } else {
            self.connected.hops(gateway)
        }
    }
}

/// The kernel route, if there can be one now, and what is lacking. `workload`: the interface of the workload that has an
/// address; one that is a router is the gateway of what it told.
pub(crate) fn render(
    net: IpNet,
    wanted: Wanted<'_>,
    view: &View,
    options: &Options,
    workload: impl Fn(IpAddr) -> Option<u32>,
) -> (Option<Route>, Option<Waiting>) {
    match wanted {
        Wanted::Workload(interface) => match view.links.up_index(interface) {
            Some(index) => (Some(Route::link(net, index, options.workload_protocol)), None),
            None => (None, Some(Waiting::Interface(interface.clone()))),
        },
        Wanted::Blackhole => {
            // Beside BGP it reads as BIRD's blackholes do; without it, as those of upstream Felix.
            let protocol = if view.bgp { RouteProtocol::BIRD } else { RouteProtocol::CALICO };
            (Some(Route::blackhole(net, protocol)), None)
        }
        Wanted::Node(via) => {
            let hops = |gateway: IpAddr| view.on_link(gateway);
            through(net, &[via], RouteProtocol::CALICO, hops)
        }
        // The far end's address is in no prefix on link; that it is behind the device is for us to know.
        Wanted::Tunnel(device, via) => tunnelled(net, device, &[via], RouteProtocol::CALICO, view),
        Wanted::Learned(Learned { next_hops, metric, over_workloads: _ }) => {
            let (route, waiting) = match in_ipip(net, next_hops, view) {
                true => tunnelled(net, TunnelDevice::Ipip, next_hops, RouteProtocol::BIRD, view),
                false => {
                    // The route to a workload itself may come after this one.
                    let behind =
                        |gateway| workload(gateway).map(|i| NextHop { onlink: true, ..NextHop::via(gateway, i) });
                    let hops = |gateway| behind(gateway).map_or_else(|| view.hops(gateway), |hop| vec![hop]);
                    through(net, next_hops, RouteProtocol::BIRD, hops)
                }
            };
            (route.map(|route| Route { metric: *metric, ..route }.normal()), waiting)
        }
    }
}

/// Whether a learned route goes through the IPIP device.
fn in_ipip(net: IpNet, hops: &[IpAddr], view: &View) -> bool {
    let pool = view.ipip.iter().filter(|(pool, _)| pool.contains(&net)).max_by_key(|(pool, _)| pool.prefix_len());
    pool.is_some_and(|(_, direct)| !direct.is_some_and(|direct| hops.iter().all(|hop| direct.contains(hop))))
}

fn tunnelled(
    net: IpNet,
    device: TunnelDevice,
    ends: &[IpAddr],
    protocol: RouteProtocol,
    view: &View,
) -> (Option<Route>, Option<Waiting>) {
    let Some(interface) = view.links.up_index(device.name()) else {
        return (None, Some(Waiting::Interface(device.name().into())));
    };
    let hop = |end: &IpAddr| NextHop { onlink: true, ..NextHop::via(*end, interface) };
    (Some(Route::via(net, ends.iter().map(hop).collect(), protocol)), None)
}

fn through(
    net: IpNet,
    gateways: &[IpAddr],
    protocol: RouteProtocol,
    hops_to: impl Fn(IpAddr) -> Vec<NextHop>,
) -> (Option<Route>, Option<Waiting>) {
    let mut hops: Vec<NextHop> = Vec::with_capacity(gateways.len());
    let mut off_link = Vec::new();
    for gateway in gateways {
        let found = hops_to(*gateway);
        if found.is_empty() {
            off_link.push(*gateway);
        }
        for hop in found {
            // Gateways may be behind one router.
            if !hops.contains(&hop) {
                hops.push(hop);
            }
        }
    }
    let waiting = (!off_link.is_empty()).then_some(Waiting::OffLink(off_link));
    let route = (!hops.is_empty()).then(|| Route::via(net, hops, protocol));
    (route, waiting)
}
