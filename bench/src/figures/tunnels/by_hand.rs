//! Tunnels between two hosts as an administrator would set them up, without any packet filter.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tortie_net::{Mac, PublicKey};
use tortie_netlink::{
    AddressSpec, FdbEntry, Handle, Netns, NextHop, PrivateKey, Route, RouteProtocol, VxlanSpec, Wireguard,
    WireguardChange, WireguardPeer,
};

use super::{ENDS, Encapsulation, PODS, single};

const PORT: u16 = 51820;
const WIREGUARD: &str = "wg.hand";

/// Sets the tunnel up, and the routes to the pods through it.
pub(super) fn set_up(ends: &[&Netns; 2], encapsulation: Encapsulation) -> Result<()> {
    let keys = match encapsulation {
        Encapsulation::Wireguard => Some([wireguard(ends[0], 0)?, wireguard(ends[1], 1)?]),
        Encapsulation::None | Encapsulation::Vxlan | Encapsulation::Ipip | Encapsulation::WireguardInUserSpace => None,
    };
    for (at, end) in ends.iter().enumerate() {
        let other = 1 - at;
        let mut handle = Handle::open_in(end)?;
        let route = |hop| Route::via(single(PODS[other]), vec![hop], RouteProtocol::BOOT);
        let onlink = |via: Ipv4Addr, index| NextHop { onlink: true, ..NextHop::via(via.into(), index) };
        let route = match encapsulation {
            Encapsulation::Vxlan => route(onlink(inner(other), vxlan(&mut handle, at)?)),
            Encapsulation::Ipip => {
                let index = handle.create_ipip("tunl0")?;
                finish(&mut handle, index, at, encapsulation)?;
                route(onlink(ENDS[other], index))
            }
            Encapsulation::Wireguard => {
                let keys = keys.as_ref().context("a key for each end")?;
                let peer = WireguardPeer {
                    endpoint: SocketAddr::new(ENDS[other].into(), PORT),
                    allowed: [single(PODS[other]), single(inner(other))].into(),
                    keepalive_secs: 0,
                };
                let peers = BTreeMap::from([(keys[other], Some(peer))]);
                Wireguard::open_in(end)?.change(WIREGUARD, &WireguardChange { peers, ..WireguardChange::default() })?;
                Route::link(single(PODS[other]), handle.link(WIREGUARD)?.index, RouteProtocol::BOOT)
            }
            Encapsulation::None | Encapsulation::WireguardInUserSpace => {
                route(NextHop::via(ENDS[other].into(), handle.link("eth0")?.index))
            }
        };
        handle.add_route(route)?;
    }
    Ok(())
}

/// A host's address within.
fn inner(at: usize) -> Ipv4Addr {
    Ipv4Addr::from([10, 65, if at == 0 { 0 } else { 1 }, 1])
}

fn finish(handle: &mut Handle, index: u32, at: usize, encapsulation: Encapsulation) -> Result<()> {
    handle.set_link_mtu(index, encapsulation.mtu())?;
    handle.add_address(&AddressSpec::new(index, single(inner(at))))?;
    Ok(handle.set_link_up(index, true)?)
}

fn vxlan(handle: &mut Handle, at: usize) -> Result<u32> {
    let mac = |at: usize| Mac([0x66, 0, 0, 0, 0, u8::from(at > 0)]);
    let other = 1 - at;
    let below = handle.link("eth0")?.index;
    let spec = VxlanSpec { vni: 4096, port: 4789, local: ENDS[at].into(), below };
    let index = handle.create_vxlan("vxlan.hand", &spec, mac(at), Encapsulation::Vxlan.mtu())?;
    finish(handle, index, at, Encapsulation::Vxlan)?;
    handle.set_neighbour(index, inner(other).into(), mac(other))?;
    handle.set_fdb(&FdbEntry { index, mac: mac(other), remote: ENDS[other].into() })?;
    Ok(index)
}

/// A device with a key, whose public one is returned.
fn wireguard(end: &Netns, at: usize) -> Result<PublicKey> {
    let mut handle = Handle::open_in(end)?;
    let index = handle.create_wireguard(WIREGUARD)?;
    let mut devices = Wireguard::open_in(end)?;
    let (private_key, port) = (Some(PrivateKey::generate()?), Some(PORT));
    devices.change(WIREGUARD, &WireguardChange { private_key, port, ..WireguardChange::default() })?;
    finish(&mut handle, index, at, Encapsulation::Wireguard)?;
    devices.device(WIREGUARD)?.public_key.context("a device with a key has a public one")
}
