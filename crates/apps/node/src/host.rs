//! What the node reads from its host, and what it sets there once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use regex::Regex;
use tortie_api::FelixConfigurationSpec;
use tortie_desired::Wireguard;
use tortie_net::{Family, IpNet};
use tortie_netlink::{Handle, Link, LinkKind, RouteFilter, RouteProtocol};
use tracing::warn;

use crate::autodetect::Interface;
use crate::settings_before;

/// Largest MTU of a pod: that of Ethernet, where the host's own interface allows more.
const DEFAULT_MTU: u32 = 1500;

/// Interfaces that are up, with their addresses, in the kernel's order.
pub fn interfaces() -> Result<Vec<Interface>> {
    let mut handle = Handle::open()?;
    let addresses = handle.addresses()?;
    let of = |index| addresses.iter().filter(move |address| address.index == index).map(|address| address.net);
    let links = handle.links()?;
    let leads_out = |port: &Link| match &port.kind {
        LinkKind::Plain | LinkKind::Vxlan | LinkKind::Bridge => true,
        LinkKind::Veth | LinkKind::Ipip | LinkKind::Wireguard => false,
        LinkKind::Other(kind) => kind != "tun",
    };
    let virtual_bridge = |link: &Link| {
        link.kind == LinkKind::Bridge
            && !links.iter().any(|port| port.controller == Some(link.index) && leads_out(port))
    };
    let up = links.iter().filter(|link| link.up);
    let read = |link: &Link| Interface {
        addresses: of(link.index).collect(),
        name: link.name.clone(),
        virtual_bridge: virtual_bridge(link),
    };
    Ok(up.map(read).collect())
}

/// Through which interface each prefix of the main table is reached that BGP did not bring.
pub fn interfaces_of_routes() -> Result<BTreeMap<IpNet, Arc<str>>> {
    let mut handle = Handle::open()?;
    let names: BTreeMap<u32, Arc<str>> =
        handle.links()?.into_iter().map(|link| (link.index, Arc::from(link.name))).collect();
    let routes = handle.routes(&RouteFilter::MAIN)?;
    let own = routes.iter().filter(|route| route.protocol != RouteProtocol::BIRD);
    Ok(own.filter_map(|route| Some((route.net, names.get(&route.hops.first()?.interface)?.clone()))).collect())
}

/// The source address that the kernel would use towards a host or address, in a family; no packet is sent.
pub fn source_for(destination: &str, family: Family) -> Option<IpAddr> {
    let mut found = (destination, 80).to_socket_addrs().ok()?;
    let remote = found.find(|remote| Family::of(remote.ip()) == family)?;
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Lets the host forward packets, and keeps beside the node's name how it was before. A kernel without IPv6 is told of and
/// goes on without.
pub fn prepare(node_name_file: &Path) -> Result<()> {
    if let Err(error) = settings_before::keep(&settings_before::file(node_name_file)) {
        warn!("`tortie node clean` will not know the settings of before: {error:#}");
    }
    tortie_routing::enable_forwarding(&[Family::V4])?;
    if let Err(error) = tortie_routing::enable_forwarding(&[Family::V6]) {
        warn!(%error, "IPv6 is not forwarded");
    }
    Ok(())
}

/// Whether the kernel holds routes of an earlier run of this node: learned ones, or its own blocks. They go on forwarding,
/// so peers need not turn away from this node while it starts (RFC 4724).
pub fn has_routes_of_an_earlier_run() -> Result<bool> {
    let routes = Handle::open()?.routes(&RouteFilter::default())?;
    Ok(routes.iter().any(|route| [RouteProtocol::BIRD, RouteProtocol::CALICO].contains(&route.protocol)))
}

/// The MTU for pods: the smallest of the host's own interfaces, at most that of Ethernet. Which are the host's own, a
/// pattern says (upstream's `mtuIfacePattern`); where none fits, all count that could carry packets of pods.
pub fn mtu(pattern: &str) -> Result<u32> {
    let pattern = if pattern.is_empty() { default_pattern() } else { pattern };
    let own = Regex::new(pattern).with_context(|| format!("mtuIfacePattern {pattern:?} is no regular expression"))?;
    Ok(smallest(&own, &Handle::open()?.links()?))
}

fn default_pattern() -> &'static str {
    let parameter = FelixConfigurationSpec::PARAMETERS.iter().find(|parameter| parameter.json == "mtuIfacePattern");
    parameter.map_or("", |parameter| parameter.default)
}

fn smallest(own: &Regex, links: &[Link]) -> u32 {
    let up = || links.iter().filter(|link| link.up && !link.loopback && !link.name.starts_with("cali"));
    let named = up().filter(|link| own.is_match(&link.name)).map(|link| link.mtu).min();
    let any = || {
        up().filter(|link| {
            !matches!(link.kind, LinkKind::Bridge | LinkKind::Vxlan | LinkKind::Ipip | LinkKind::Wireguard)
                && !Family::ALL.iter().any(|family| Wireguard::default_place(*family).0 == link.name)
        })
        .map(|link| link.mtu)
        .min()
    };
    named.or_else(any).unwrap_or(DEFAULT_MTU).min(DEFAULT_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_mtu_of_somebody_elses_tunnel_is_not_the_pods() {
        let link = |name: &str, mtu| Link {
            index: 1,
            name: name.to_owned(),
            kind: LinkKind::Other("device".to_owned()),
            mac: None,
            mtu,
            up: true,
            carrier: true,
            running: true,
            loopback: false,
            below: None,
            controller: None,
        };
        let own = Regex::new(default_pattern()).expect("the default");
        assert_eq!(smallest(&own, &[link("tailscale0", 1280), link("eth0", 1450), link("ens33", 9000)]), 1450);
        assert_eq!(smallest(&own, &[link("mgmt", 1400), link("cali1", 1280)]), 1400);
        assert_eq!(smallest(&own, &[link("eth0", 9000)]), 1500);
    }
}
