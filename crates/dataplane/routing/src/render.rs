//! From what is wanted for a prefix, and what the kernel has, to the kernel route. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_netlink::{NextHop, Route, RouteProtocol};

use crate::connected::Connected;
use crate::links::Links;
use crate::wants::Wanted;
use crate::{Options, Waiting};

/// What is known of the kernel that routes depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) links: Links,
    pub(crate) connected: Connected,
    pub(crate) bgp: bool,
}

/// The kernel route, if there can be one now, and what is lacking.
pub(crate) fn render(
    net: IpNet,
    wanted: Wanted<'_>,
    view: &View,
    options: &Options,
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
        Wanted::Node(via) => through(net, &[via], RouteProtocol::CALICO, view),
        // The far end's address is in no prefix on link; that it is behind the device is for us to know.
        Wanted::Tunnel(device, via) => match view.links.up_index(device.name()) {
            Some(interface) => {
                let hop = NextHop { onlink: true, ..NextHop::via(via, interface) };
                (Some(Route::via(net, vec![hop], RouteProtocol::CALICO)), None)
            }
            None => (None, Some(Waiting::Interface(device.name().into()))),
        },
        Wanted::Learned(hops) => through(net, hops, RouteProtocol::BIRD, view),
    }
}

fn through(net: IpNet, gateways: &[IpAddr], protocol: RouteProtocol, view: &View) -> (Option<Route>, Option<Waiting>) {
    let mut hops = Vec::new();
    let mut off_link = Vec::new();
    for gateway in gateways {
        match view.connected.interface(*gateway) {
            Some(interface) => hops.push(NextHop::via(*gateway, interface)),
            None => off_link.push(*gateway),
        }
    }
    let waiting = (!off_link.is_empty()).then_some(Waiting::OffLink(off_link));
    let route = (!hops.is_empty()).then(|| Route::via(net, hops, protocol));
    (route, waiting)
}
