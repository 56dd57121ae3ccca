//! Tunnel devices as a target. Ours are those of our names and their kinds, addresses on them included.
//!
//! The kernel keeps the IPIP device that it made by itself: that one counts as gone when it is down and bare.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tortie_dataplane::{Cause, Edit, Failures, Target};
use tortie_desired::TunnelDevice;
use tortie_net::{Mac, host_net};
use tortie_netlink::{AddressSpec, Error, Handle, LinkKind, Result, VxlanSpec};

use crate::target::cause;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// VXLAN.
    Vxlan {
        /// What it is made with; a change makes it anew.
        spec: VxlanSpec,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// IPIP without ends.
    Ipip,
}

/// All that is kept of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// What it is.
    pub kind: DeviceKind,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Its addresses, link-local ones left out.
    pub addresses: BTreeSet<IpAddr>,
}

/// The tunnel devices of a network namespace.
pub struct DeviceTable {
    kernel: Handle,
}

impl DeviceTable {
    /// Those of the handle's namespace.
    pub fn new(kernel: Handle) -> DeviceTable {
        DeviceTable { kernel }
    }

    /// A device of ours and its index; `None` if there is none, or a link of another kind has the name.
    fn read(&mut self, device: TunnelDevice) -> Result<Option<(u32, DeviceState)>> {
        let link = match self.kernel.link(device.name()) {
            Ok(link) => link,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let kind = match device {
            TunnelDevice::VxlanV4 | TunnelDevice::VxlanV6 if link.kind == LinkKind::Vxlan => {
                let Some((spec, mac)) = self.kernel.vxlan(link.index)?.zip(link.mac) else { return Ok(None) };
                DeviceKind::Vxlan { spec, mac }
            }
            TunnelDevice::Ipip if link.kind == LinkKind::Ipip => DeviceKind::Ipip,
            TunnelDevice::VxlanV4 | TunnelDevice::VxlanV6 | TunnelDevice::Ipip => return Ok(None),
        };
        let addresses = self.kernel.addresses()?.into_iter().filter(|address| address.index == link.index);
        let addresses = addresses.map(|address| address.net.addr()).filter(|addr| !is_link_local(*addr)).collect();
        Ok(Some((link.index, DeviceState { kind, mtu: link.mtu, up: link.up, addresses })))
    }

    fn create(&mut self, device: TunnelDevice, wanted: &DeviceState) -> Result<(u32, DeviceState)> {
        match &wanted.kind {
            DeviceKind::Vxlan { spec, mac } => {
                let index = self.kernel.create_vxlan(device.name(), spec, *mac, wanted.mtu)?;
                Ok((index, DeviceState { up: false, addresses: BTreeSet::new(), ..wanted.clone() }))
            }
            DeviceKind::Ipip => {
                self.kernel.create_ipip(device.name())?;
                let taken =
                    || Error::Busy { doing: format!("use {device}"), detail: "it is no IPIP device".to_owned() };
                self.read(device)?.ok_or_else(taken)
            }
        }
    }

    /// Makes a device so. What stands is changed where that can be done without making it anew.
    fn put(&mut self, device: TunnelDevice, wanted: &DeviceState) -> Result<()> {
        let standing = match self.read(device)? {
            Some((index, state)) if !made_otherwise(&state.kind, &wanted.kind) => Some((index, state)),
            Some((index, _)) => {
                self.kernel.delete_link(index)?;
                None
            }
            None => None,
        };
        let (index, state) = match standing {
            Some(standing) => standing,
            None => self.create(device, wanted)?,
        };
        let DeviceState { kind, mtu, up, addresses } = wanted;
        if let (DeviceKind::Vxlan { spec: _, mac }, DeviceKind::Vxlan { spec: _, mac: old }) = (kind, &state.kind)
            && mac != old
        {
            self.kernel.set_link_mac(index, *mac)?;
        }
        if state.mtu != *mtu {
            self.kernel.set_link_mtu(index, *mtu)?;
        }
        // The new address first, so that the node always has one to speak from.
        for addr in addresses.difference(&state.addresses) {
            self.kernel.add_address(&AddressSpec::new(index, host_net(*addr)))?;
        }
        for addr in state.addresses.difference(addresses) {
            self.kernel.delete_address(index, host_net(*addr))?;
        }
        if state.up != *up {
            self.kernel.set_link_up(index, *up)?;
        }
        Ok(())
    }

    fn remove(&mut self, device: TunnelDevice) -> Result<()> {
        match self.read(device)? {
            Some((index, _)) if device == TunnelDevice::Ipip => self.kernel.delete_ipip(index),
            Some((index, _)) => self.kernel.delete_link(index),
            None => Ok(()),
        }
    }
}

/// Whether the one can't be changed to the other.
fn made_otherwise(one: &DeviceKind, other: &DeviceKind) -> bool {
    match (one, other) {
        (DeviceKind::Vxlan { spec: one, mac: _ }, DeviceKind::Vxlan { spec: other, mac: _ }) => one != other,
        (DeviceKind::Ipip, DeviceKind::Ipip) => false,
        (DeviceKind::Vxlan { .. }, DeviceKind::Ipip) | (DeviceKind::Ipip, DeviceKind::Vxlan { .. }) => true,
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// Whether a device is as the kernel makes it by itself.
fn is_bare(state: &DeviceState) -> bool {
    !state.up && state.addresses.is_empty()
}

impl Target for DeviceTable {
    type Key = TunnelDevice;
    type Value = DeviceState;

    fn observe(&mut self) -> std::result::Result<BTreeMap<TunnelDevice, DeviceState>, Cause> {
        let mut all = BTreeMap::new();
        for device in TunnelDevice::ALL {
            let found = self.read(device).map_err(cause)?;
            let there = found.filter(|(_, state)| device != TunnelDevice::Ipip || !is_bare(state));
            all.extend(there.map(|(_, state)| (device, state)));
        }
        Ok(all)
    }

    fn commit(&mut self, edits: &[Edit<TunnelDevice, DeviceState>]) -> Failures<TunnelDevice> {
        let mut failures = Failures::new();
        for edit in edits {
            let result = match edit {
                Edit::Put { key, value, old: _ } => self.put(*key, value),
                Edit::Remove { key, old: _ } => self.remove(*key),
            };
            if let Err(error) = result {
                failures.add(*edit.key(), cause(error));
            }
        }
        failures
    }
}
