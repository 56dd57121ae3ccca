//! One host out of namespaces: an uplink to an outside host, as in every benchmark's workload.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::Result;
use ipnet::IpNet;
use tortie_net::Mac;
use tortie_netlink::{
    AddressSpec, Handle, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec, sysctl_write,
    sysctl_write_if_different,
};

use crate::bed::Bed;

/// The host's address on its uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The outside host's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The gateway of every pod.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A host and what is at the other end of its uplink.
pub struct Host {
    /// The host.
    pub netns: Netns,
    /// The outside host: it keeps the uplink's other end.
    pub outside: Netns,
}

/// Makes a host.
pub fn host(bed: &mut Bed, name: &str) -> Result<Host> {
    let (netns, _) = bed.namespace(name)?;
    let (outside, _) = bed.namespace(&format!("{name}-outside"))?;
    let (mut near, mut far) = (Handle::open_in(&netns)?, Handle::open_in(&outside)?);
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(outside.as_fd()) };
    let uplink = near.create_veth(&VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer })?;
    near.add_address(&AddressSpec::new(uplink, net(HOST, 24)))?;
    let link = far.link("eth0")?.index;
    far.add_address(&AddressSpec::new(link, net(OUTSIDE, 24)))?;
    far.set_link_up(link, true)?;
    far.add_route(Route::via(
        net(Ipv4Addr::new(10, 65, 0, 0), 16),
        vec![NextHop::via(HOST.into(), link)],
        RouteProtocol::BOOT,
    ))?;
    near.add_route(Route::via(
        net(Ipv4Addr::UNSPECIFIED, 0),
        vec![NextHop::via(OUTSIDE.into(), uplink)],
        RouteProtocol::BOOT,
    ))?;
    netns.run(|| sysctl_write_if_different(&["ipv4", "ip_forward"], "1"))??;
    Ok(Host { netns, outside })
}

/// Makes a pod on the bare routed path, by hand and without any policy: what every policy is compared with.
pub fn bare_pod(bed: &mut Bed, host: &Netns, name: &str, device: &str, address: Ipv4Addr) -> Result<PathBuf> {
    let (pod, path) = bed.namespace(name)?;
    let (mut near, mut inside) = (Handle::open_in(host)?, Handle::open_in(&pod)?);
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(pod.as_fd()) };
    let mac = Some(Mac::WORKLOAD_HOST_SIDE);
    let index = near.create_veth(&VethSpec { name: device, mac, mtu: None, up: true, peer })?;
    host.run(|| {
        sysctl_write(&["ipv4", "conf", device, "proxy_arp"], "1")?;
        sysctl_write(&["ipv4", "neigh", device, "proxy_delay"], "0")
    })??;
    near.add_route(Route::link(net(address, 32), index, RouteProtocol::BOOT))?;
    let link = inside.link("eth0")?.index;
    inside.add_address(&AddressSpec::new(link, net(address, 32)))?;
    inside.set_link_up(link, true)?;
    inside.add_route(Route::link(net(GATEWAY, 32), link, RouteProtocol::BOOT))?;
    inside.add_route(Route::via(
        net(Ipv4Addr::UNSPECIFIED, 0),
        vec![NextHop::via(GATEWAY.into(), link)],
        RouteProtocol::BOOT,
    ))?;
    Ok(path)
}

/// The address with that prefix length.
fn net(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::new(address.into(), length).expect("the lengths here are at most 32")
}
