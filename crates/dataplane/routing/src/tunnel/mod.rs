//! Tunnels of a node: devices, forwarding entries and neighbours, in this order, from what is wanted and what is there.
//!
//! Invariant: a device that stands is never taken away because the interface below is not to be found just now.

mod device;
mod ends;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tortie_dataplane::{Applier, Cause, Target as _};
use tortie_desired::{Batch, Ipip, Tables, TunnelDevice, Vtep, Vxlan};
use tortie_net::{Family, Mac};
use tortie_netlink::{Address, Event, Handle, Link, Result, VxlanSpec};

pub use device::{DeviceKind, DeviceState, DeviceTable};
pub use ends::{ForwardingKey, ForwardingTable, NeighbourKey, NeighbourTable};
pub use report::TunnelReport;

use crate::target::cause;

/// After links and addresses could not be read, the next attempt comes this much later.
const RETRY: Duration = Duration::from_secs(1);

/// A device as it is wanted, before the kernel's links are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// VXLAN's own; without, it is IPIP.
    vxlan: Option<(VxlanKey, Mac)>,
    underlay: IpAddr,
    address: Option<IpAddr>,
    mtu: Option<u32>,
}

/// VXLAN's identifier and port.
type VxlanKey = (u32, u16);

impl Wanted {
    fn vxlan(Vxlan { vni, port, underlay, address, mac, mtu }: &Vxlan) -> Wanted {
        Wanted { vxlan: Some(((*vni, *port), *mac)), underlay: *underlay, address: *address, mtu: *mtu }
    }

    fn ipip(Ipip { underlay, address, mtu, peers: _, ends: _, learned: _ }: &Ipip) -> Wanted {
        Wanted { vxlan: None, underlay: *underlay, address: *address, mtu: *mtu }
    }
}

/// The one writer of a node's tunnel devices and of what lies on them. Writes nothing before the first
/// [`Tunnels::apply`]: call that once what is wanted is complete.
pub struct Tunnels {
    kernel: Handle,
    devices: Applier<DeviceTable>,
    forwarding: Applier<ForwardingTable>,
    neighbours: Applier<NeighbourTable>,
    wanted: BTreeMap<TunnelDevice, Wanted>,
    waiting: BTreeMap<TunnelDevice, String>,
    /// Links below our devices, with the MTU that was last seen.
    below: BTreeMap<u32, u32>,
    /// The largest outer packets that arrive, where that is less than the interface takes; IPv4 first.
    path_mtu: [Option<u32>; 2],
    stale: bool,
    /// Whether reading failed: the next attempt is not made at once.
    blind: bool,
}

impl Tunnels {
    /// Tunnels of a network namespace, with nothing wanted yet. `open` opens it; it is called several times.
    pub fn new(open: impl Fn() -> Result<Handle>) -> Result<Tunnels> {
        Ok(Tunnels {
            kernel: open()?,
            devices: Applier::new(DeviceTable::new(open()?)),
            forwarding: Applier::new(ForwardingTable::new(open()?)),
            neighbours: Applier::new(NeighbourTable::new(open()?)),
            wanted: BTreeMap::new(),
            waiting: BTreeMap::new(),
            below: BTreeMap::new(),
            path_mtu: [None; 2],
            stale: true,
            blind: false,
        })
    }

    /// Replaces everything that is wanted.
    pub fn set_desired(&mut self, tables: &Tables) {
        let wanted = tables.tunnels.iter().map(|(device, vxlan)| (*device, Wanted::vxlan(vxlan)));
        let ipip = tables.ipip.iter().map(|ipip| (TunnelDevice::Ipip, Wanted::ipip(ipip)));
        let wanted = wanted.chain(ipip).collect();
        self.stale |= self.wanted != wanted;
        self.wanted = wanted;
        let mut forwarding = BTreeMap::new();
        let mut neighbours = BTreeMap::new();
        for (addr, Vtep { node: _, mac, underlay }) in &tables.vteps {
            let device = TunnelDevice::vxlan(Family::of(*addr));
            forwarding.insert(ForwardingKey { device, mac: *mac }, *underlay);
            neighbours.insert(NeighbourKey { device, addr: *addr }, *mac);
        }
        self.forwarding.want_all(forwarding);
        self.neighbours.want_all(neighbours);
    }

    /// Makes devices of a family no larger than packets of this size have room for, IPv4 first; nothing leaves them as
    /// large as the interface below allows.
    pub fn set_path_mtu(&mut self, path: [Option<u32>; 2]) {
        self.stale |= self.path_mtu != path;
        self.path_mtu = path;
    }

    /// Takes a change that was applied to the tables.
    pub fn change_desired(&mut self, batch: &Batch, tables: &Tables) {
        if !batch.tunnels.is_empty() || batch.ipip.is_some() || !batch.vteps.is_empty() {
            self.set_desired(tables);
        }
    }

    /// Reads the kernel anew with the next [`Tunnels::apply`].
    pub fn resync(&mut self) {
        self.stale = true;
        self.devices.resync();
        self.forwarding.resync();
        self.neighbours.resync();
    }

    /// Takes what the kernel told of a change.
    pub fn on_event(&mut self, event: &Event) {
        let ours = |link: &Link| TunnelDevice::ALL.iter().any(|device| device.name() == link.name);
        let concerned = match event {
            Event::LinkSet(link) => ours(link) || self.below.get(&link.index).is_some_and(|mtu| *mtu != link.mtu),
            Event::LinkGone(link) => ours(link) || self.below.contains_key(&link.index),
            Event::AddressSet(address) | Event::AddressGone(address) => {
                let of_ours = |device: &Wanted| device.underlay == address.net.addr();
                self.wanted.values().any(of_ours) || self.wanted.values().any(|d| d.address == Some(address.net.addr()))
            }
            Event::Resync => true,
            Event::RouteSet(_) | Event::RouteGone(_) | Event::NeighbourSet(_) | Event::NeighbourGone(_) => false,
        };
        if concerned {
            self.resync();
        }
    }

    /// Reads the kernel if that is due, then writes what differs: devices first, then what lies on them.
    pub fn apply(&mut self, now: Instant) -> TunnelReport {
        let blind = if self.stale { self.render().err() } else { None };
        self.blind = blind.is_some();
        let devices = self.devices.flush(now);
        if devices.wrote() {
            // A device that was made anew lost what lay on it.
            self.forwarding.resync();
            self.neighbours.resync();
        }
        let forwarding = self.forwarding.flush(now);
        let neighbours = self.neighbours.flush(now);
        TunnelReport { blind, devices, forwarding, neighbours, waiting: self.waiting.clone() }
    }

    /// When the next [`Tunnels::apply`] has something to do by itself.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let parts = [self.devices.wake_at(now), self.forwarding.wake_at(now), self.neighbours.wake_at(now)];
        let read = self.stale.then(|| if self.blind { now + RETRY } else { now });
        parts.into_iter().flatten().chain(read).min()
    }

    /// What becomes of each wanted device: nothing, or why it is not as wanted.
    pub fn state(&self) -> BTreeMap<TunnelDevice, Option<String>> {
        let why = |device: &TunnelDevice| {
            let settled = self.devices.settled(device);
            self.waiting.get(device).cloned().or_else(|| (!settled).then(|| "not programmed yet".to_owned()))
        };
        self.wanted.keys().map(|device| (*device, why(device))).collect()
    }

    /// From what is wanted and the kernel's links and addresses to the devices as they should be.
    fn render(&mut self) -> std::result::Result<(), Cause> {
        let links = self.kernel.links().map_err(cause)?;
        let addresses = self.kernel.addresses().map_err(cause)?;
        self.waiting.clear();
        self.below.clear();
        for device in TunnelDevice::ALL {
            let Some(wanted) = self.wanted.get(&device) else {
                self.devices.want(device, None);
                continue;
            };
            match state(device, wanted, &links, &addresses, self.path_mtu) {
                Some(state) => {
                    let below = links.iter().find(|link| Some(link.index) == holder(wanted, &addresses));
                    self.below.extend(below.map(|link| (link.index, link.mtu)));
                    self.devices.want(device, Some(state));
                }
                None => {
                    let underlay = wanted.underlay;
                    self.waiting.insert(device, format!("no interface of this host has the address {underlay}"));
                    // What stands goes on as it is.
                    let standing = self.devices.target_mut().observe()?.remove(&device);
                    self.devices.want(device, standing);
                }
            }
        }
        self.stale = false;
        Ok(())
    }
}

/// The index of the link that has the address which outer packets come from.
fn holder(wanted: &Wanted, addresses: &[Address]) -> Option<u32> {
    addresses.iter().find(|held| held.net.addr() == wanted.underlay).map(|held| held.index)
}

/// What the link below and the way to other nodes leave of an MTU. A way so small that nothing would be left of the family
/// leaves the least that it needs: what found that may be wrong.
fn room(family: Family, below: u32, path: Option<u32>, overhead: u32) -> u32 {
    let passes = path.map_or(u32::MAX, |path| path.saturating_sub(overhead).max(family.least_mtu()));
    below.saturating_sub(overhead).min(passes)
}

/// A device as it should be; `None` while no link has the address that its outer packets come from.
fn state(
    device: TunnelDevice,
    wanted: &Wanted,
    links: &[Link],
    addresses: &[Address],
    path_mtu: [Option<u32>; 2],
) -> Option<DeviceState> {
    let Wanted { vxlan, underlay, address, mtu } = wanted;
    let holder = holder(wanted, addresses)?;
    let below = links.iter().find(|link| link.index == holder)?;
    let family = Family::of(*underlay);
    let room = room(family, below.mtu, path_mtu[family as usize], device.overhead());
    Some(DeviceState {
        kind: match vxlan {
            Some(((vni, port), mac)) => DeviceKind::Vxlan {
                spec: VxlanSpec { vni: *vni, port: *port, local: *underlay, below: below.index },
                mac: *mac,
            },
            None => DeviceKind::Ipip,
        },
        mtu: mtu.map_or(room, |mtu| mtu.min(room)),
        up: true,
        addresses: address.iter().copied().collect::<BTreeSet<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leaves_a_tunnel_what_its_family_needs() {
        for (family, below, path, room_left) in [
            (Family::V4, 1500, None, 1450),
            (Family::V4, 1500, Some(1400), 1350),
            (Family::V4, 1500, Some(128), 576),
            (Family::V6, 1500, Some(1400), 1350),
            (Family::V6, 1500, Some(1300), 1280),
            // The interface's own MTU is no guess.
            (Family::V4, 600, Some(128), 550),
            (Family::V6, 1300, Some(1290), 1250),
        ] {
            assert_eq!(room(family, below, path, 50), room_left, "{family} {below} {path:?}");
        }
    }
}
