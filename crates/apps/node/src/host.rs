//! What the node reads from its host, and what it sets there once.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::Result;
use tortie_net::Family;
use tortie_netlink::{Handle, LinkKind, RouteFilter, RouteKind, RouteProtocol};
use tracing::warn;

use crate::autodetect::Interface;

/// Largest MTU of a pod: that of Ethernet, where the host's own interface allows more.
const DEFAULT_MTU: u32 = 1500;

/// Interfaces that are up, with their addresses, in the kernel's order.
pub fn interfaces() -> Result<Vec<Interface>> {
    let mut handle = Handle::open()?;
    let addresses = handle.addresses()?;
    let of = |index| addresses.iter().filter(move |address| address.index == index).map(|address| address.net);
    let up = handle.links()?.into_iter().filter(|link| link.up);
    Ok(up.map(|link| Interface { addresses: of(link.index).collect(), name: link.name }).collect())
}

/// The source address that the kernel would use towards a host or address; no packet is sent.
pub fn source_for(destination: &str) -> Option<IpAddr> {
    let remote = (destination, 80).to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Lets the host forward packets. A kernel without IPv6 is told of and goes on without.
pub fn prepare() -> Result<()> {
    tortie_routing::enable_forwarding(&[Family::V4])?;
    if let Err(error) = tortie_routing::enable_forwarding(&[Family::V6]) {
        warn!(%error, "IPv6 is not forwarded");
    }
    Ok(())
}

/// Whether the kernel holds routes that an earlier run of this node learned by BGP.
pub fn has_learned_routes() -> Result<bool> {
    let routes = Handle::open()?.routes(&RouteFilter::default())?;
    let learned = |route: &tortie_netlink::Route| {
        route.protocol == RouteProtocol::BIRD
            && route.kind == RouteKind::Unicast
            && route.hops.iter().any(|hop| hop.via.is_some())
    };
    Ok(routes.iter().any(learned))
}

/// The MTU for pods: the smallest of the host's own interfaces, at most that of Ethernet.
pub fn mtu() -> Result<u32> {
    let links = Handle::open()?.links()?;
    let own = links.iter().filter(|link| link.up && !link.loopback && !link.name.starts_with("cali"));
    let carries = own.filter(|link| !matches!(link.kind, LinkKind::Bridge));
    Ok(carries.map(|link| link.mtu).min().unwrap_or(DEFAULT_MTU).min(DEFAULT_MTU))
}
