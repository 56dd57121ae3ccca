//! VXLAN devices as a target. Ours are those of kind VXLAN with one of our two names, addresses on them included.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tortie_dataplane::{Cause, Edit, Failures, Target};
use tortie_desired::TunnelDevice;
use tortie_net::{Mac, host_net};
use tortie_netlink::{AddressSpec, Error, Handle, LinkKind, Result, VxlanSpec};

use crate::target::cause;

/// All that is kept of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// What it is made with; a change makes it anew.
    pub spec: VxlanSpec,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Its addresses, link-local ones left out.
    pub addresses: BTreeSet<IpAddr>,
}

/// The VXLAN devices of a network namespace.
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
            Ok(link) if link.kind == LinkKind::Vxlan => link,
            Ok(_) | Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((spec, mac)) = self.kernel.vxlan(link.index)?.zip(link.mac) else { return Ok(None) };
        let addresses = self.kernel.addresses()?.into_iter().filter(|address| address.index == link.index);
        let addresses = addresses.map(|address| address.net.addr()).filter(|addr| !is_link_local(*addr)).collect();
        Ok(Some((link.index, DeviceState { spec, mac, mtu: link.mtu, up: link.up, addresses })))
    }

    /// Makes a device so. What stands is changed where that can be done without making it anew.
    fn put(&mut self, device: TunnelDevice, wanted: &DeviceState) -> Result<()> {
        let DeviceState { spec, mac, mtu, up, addresses } = wanted;
        let standing = match self.read(device)? {
            Some((index, state)) if state.spec == *spec => Some((index, state)),
            Some((index, _)) => {
                self.kernel.delete_link(index)?;
                None
            }
            None => None,
        };
        let (index, state) = match standing {
            Some(standing) => standing,
            None => {
                let index = self.kernel.create_vxlan(device.name(), spec, *mac, *mtu)?;
                (index, DeviceState { mac: *mac, mtu: *mtu, up: false, addresses: BTreeSet::new(), ..wanted.clone() })
            }
        };
        if state.mac != *mac {
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
            Some((index, _)) => self.kernel.delete_link(index),
            None => Ok(()),
        }
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

impl Target for DeviceTable {
    type Key = TunnelDevice;
    type Value = DeviceState;

    fn observe(&mut self) -> std::result::Result<BTreeMap<TunnelDevice, DeviceState>, Cause> {
        let mut all = BTreeMap::new();
        for device in TunnelDevice::ALL {
            let found = self.read(device).map_err(cause)?;
            all.extend(found.map(|(_, state)| (device, state)));
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
