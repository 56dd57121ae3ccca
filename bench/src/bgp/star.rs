//! Many hosts around one router, each on a link of its own: on one bridge a hundred of them would need more neighbour
//! entries than the kernel keeps.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tortie_net::Mac;
use tortie_netlink::{
    AddressSpec, Handle, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec, sysctl_write_if_different,
};

use crate::bed::Bed;

/// The router, as every host sees it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A host's address.
pub fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a50_0001 + u32::try_from(host).expect("few hosts"))
}

/// Makes the hosts; the namespaces go with the bed.
pub fn star(bed: &mut Bed, count: usize) -> Result<Vec<Netns>> {
    let (hub, _) = bed.namespace("hub")?;
    hub.run(|| sysctl_write_if_different(&["ipv4", "ip_forward"], "1"))??;
    let mut near = Handle::open_in(&hub)?;
    (0..count).map(|host| spoke(bed, &mut near, host)).collect()
}

fn spoke(bed: &mut Bed, near: &mut Handle, host: usize) -> Result<Netns> {
    let (netns, _) = bed.namespace(&format!("host{host}"))?;
    let own = address(host);
    // Both ends have the same address of the link layer; no other is on the link.
    let mac = Mac::WORKLOAD_HOST_SIDE;
    let peer = VethPeer { name: "eth0", mac: Some(mac), netns: Some(netns.as_fd()) };
    let device = format!("host{host}");
    let index = near.create_veth(&VethSpec { name: &device, mac: Some(mac), mtu: None, up: true, peer })?;
    let mut far = Handle::open_in(&netns)?;
    let link = far.link("eth0")?.index;
    far.add_address(&AddressSpec::new(link, single(own)))?;
    far.set_link_up(link, true)?;
    far.set_neighbour(link, GATEWAY.into(), mac)?;
    far.add_route(Route::link(single(GATEWAY), link, RouteProtocol::BOOT))?;
    let everywhere = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).context("a length")?;
    far.add_route(Route::via(everywhere, vec![NextHop::via(GATEWAY.into(), link)], RouteProtocol::BOOT))?;
    near.set_neighbour(index, own.into(), mac)?;
    near.add_route(Route::link(single(own), index, RouteProtocol::BOOT))?;
    Ok(netns)
}

fn single(address: Ipv4Addr) -> IpNet {
    IpNet::from(std::net::IpAddr::from(address))
}
