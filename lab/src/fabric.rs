//! Making the machines' namespaces and the bridges that join them, by netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tortie_net::Family;
use tortie_netlink::{
    AddressSpec, Handle, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec, sysctl_write_if_different,
};

use crate::state::Record;
use crate::teardown::netns_name;
use crate::topology::{Machine, Topology};

/// Makes everything that the record's topology names.
pub(crate) fn build(record: &Record) -> Result<()> {
    let Record { id, topology, owner: _, binary: _, netns_dir: _ } = record;
    let fabric = Netns::create_named(&netns_name(id, "fabric"))?;
    // The bridges carry frames only; addresses of their own would put noise on them.
    fabric.run(|| sysctl_write_if_different(&["ipv6", "conf", "default", "disable_ipv6"], "1"))??;
    let mut wires = Handle::open_in(&fabric)?;
    let bridges: Vec<u32> =
        (0..topology.subnets.len()).map(|n| wires.create_bridge(&format!("br{n}"))).collect::<Result<_, _>>()?;
    for machine in topology.machines() {
        join(id, topology, machine, &mut wires, &bridges).with_context(|| format!("make {}", machine.name))?;
    }
    for router in &topology.routers {
        Netns::named(&netns_name(id, &router.name))?.run(forward)??;
    }
    Ok(())
}

fn join(id: &str, topology: &Topology, machine: &Machine, wires: &mut Handle, bridges: &[u32]) -> Result<()> {
    let netns = Netns::create_named(&netns_name(id, &machine.name))?;
    netns.run(quick_ipv6)??;
    let mut handle = Handle::open_in(&netns)?;
    handle.set_loopback_up()?;
    for (number, attachment) in machine.interfaces.iter().enumerate() {
        let name = format!("eth{number}");
        let port = format!("{}.{number}", machine.name);
        let peer = VethPeer { name: &name, mac: None, netns: Some(netns.as_fd()) };
        let index = wires.create_veth(&VethSpec { name: &port, mac: None, mtu: None, up: true, peer })?;
        wires.set_link_controller(index, Some(bridges[attachment.subnet]))?;
        handle.set_link_up(name.as_str(), true)?;
        let link = handle.link(name.as_str())?;
        for net in &attachment.addresses {
            handle.add_address(&AddressSpec::new(link.index, *net))?;
        }
        let is_node = topology.nodes.iter().any(|node| node.name == machine.name);
        for gateway in topology.gateways(attachment.subnet).into_iter().filter(|_| is_node) {
            let hop = NextHop::via(gateway, link.index);
            handle.add_route(Route::via(everywhere(gateway), vec![hop], RouteProtocol::BOOT))?;
        }
    }
    Ok(())
}

/// The prefix of all addresses of an address's family.
pub(crate) fn everywhere(addr: IpAddr) -> IpNet {
    let zero = match Family::of(addr) {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new(zero, 0).expect("a prefix of no bits is one")
}

/// IPv6 on, without the second that duplicate address detection takes.
pub(crate) fn quick_ipv6() -> tortie_netlink::Result<()> {
    for (scope, name, value) in [
        ("all", "disable_ipv6", "0"),
        ("default", "disable_ipv6", "0"),
        ("default", "accept_dad", "0"),
        ("default", "dad_transmits", "0"),
        ("default", "accept_ra", "0"),
    ] {
        match sysctl_write_if_different(&["ipv6", "conf", scope, name], value) {
            Err(e) if !e.is_not_found() => return Err(e),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Turns the calling thread's namespace into a router.
pub(crate) fn forward() -> tortie_netlink::Result<()> {
    sysctl_write_if_different(&["ipv4", "ip_forward"], "1")?;
    match sysctl_write_if_different(&["ipv6", "conf", "all", "forwarding"], "1") {
        Err(e) if !e.is_not_found() => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}
