//! What leads to the far ends, as two targets: forwarding entries and permanent neighbours of our devices. All such
//! entries on a device of ours are ours; what the kernel learned is not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use tortie_dataplane::{Cause, Edit, Failures, Target};
use tortie_desired::TunnelDevice;
use tortie_net::Mac;
use tortie_netlink::{Error, FdbEntry, Handle, LinkKind, NeighbourState, Result};

use crate::target::cause;

/// A forwarding entry: frames to this Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardingKey {
    /// On which device.
    pub device: TunnelDevice,
    /// The Ethernet address.
    pub mac: Mac,
}

impl fmt::Display for ForwardingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.mac, self.device)
    }
}

/// A neighbour: packets to this next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourKey {
    /// On which device.
    pub device: TunnelDevice,
    /// The next hop.
    pub addr: IpAddr,
}

impl fmt::Display for NeighbourKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.addr, self.device)
    }
}

/// The indices of our devices, those that are there.
fn indices(kernel: &mut Handle) -> Result<BTreeMap<u32, TunnelDevice>> {
    let mut all = BTreeMap::new();
    for device in TunnelDevice::ALL {
        match kernel.link(device.name()) {
            Ok(link) if link.kind == LinkKind::Vxlan => drop(all.insert(link.index, device)),
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Makes each edit on its device. Without the device, entries are gone already and can't be put.
fn commit<K: Copy + Ord, V>(
    kernel: &mut Handle,
    edits: &[Edit<K, V>],
    device_of: impl Fn(&K) -> TunnelDevice,
    write: impl Fn(&mut Handle, u32, &Edit<K, V>) -> Result<()>,
) -> Failures<K> {
    let mut failures = Failures::new();
    let devices = match indices(kernel) {
        Ok(devices) => devices,
        Err(error) => {
            let cause = cause(error);
            edits.iter().for_each(|edit| failures.add(*edit.key(), cause.clone()));
            return failures;
        }
    };
    for edit in edits {
        let device = device_of(edit.key());
        let index = devices.iter().find(|(_, found)| **found == device).map(|(index, _)| *index);
        let removes = matches!(edit, Edit::Remove { .. });
        match index.map(|index| write(kernel, index, edit)) {
            Some(Ok(())) => {}
            None if removes => {}
            Some(Err(Error::NotFound { .. })) if removes => {}
            Some(Err(error)) => failures.add(*edit.key(), cause(error)),
            None => failures.add(*edit.key(), Cause::Missing(format!("the device {device} is not there"))),
        }
    }
    failures
}

/// The forwarding entries of our devices: Ethernet address to the other node's own address.
pub struct ForwardingTable {
    kernel: Handle,
}

impl ForwardingTable {
    /// Those of the handle's namespace.
    pub fn new(kernel: Handle) -> ForwardingTable {
        ForwardingTable { kernel }
    }
}

impl Target for ForwardingTable {
    type Key = ForwardingKey;
    type Value = IpAddr;

    fn observe(&mut self) -> std::result::Result<BTreeMap<ForwardingKey, IpAddr>, Cause> {
        let devices = indices(&mut self.kernel).map_err(cause)?;
        if devices.is_empty() {
            return Ok(BTreeMap::new());
        }
        let entries = self.kernel.fdb().map_err(cause)?.into_iter();
        let ours = entries.filter_map(|FdbEntry { index, mac, remote }| {
            devices.get(&index).map(|device| (ForwardingKey { device: *device, mac }, remote))
        });
        Ok(ours.collect())
    }

    fn commit(&mut self, edits: &[Edit<ForwardingKey, IpAddr>]) -> Failures<ForwardingKey> {
        commit(
            &mut self.kernel,
            edits,
            |key| key.device,
            |kernel, index, edit| match edit {
                Edit::Put { key, value, old: _ } => kernel.set_fdb(&FdbEntry { index, mac: key.mac, remote: *value }),
                Edit::Remove { key, old: _ } => kernel.delete_fdb(index, key.mac),
            },
        )
    }
}

/// The permanent neighbours of our devices: next hop to its Ethernet address.
pub struct NeighbourTable {
    kernel: Handle,
}

impl NeighbourTable {
    /// Those of the handle's namespace.
    pub fn new(kernel: Handle) -> NeighbourTable {
        NeighbourTable { kernel }
    }
}

impl Target for NeighbourTable {
    type Key = NeighbourKey;
    type Value = Mac;

    fn observe(&mut self) -> std::result::Result<BTreeMap<NeighbourKey, Mac>, Cause> {
        let devices = indices(&mut self.kernel).map_err(cause)?;
        if devices.is_empty() {
            return Ok(BTreeMap::new());
        }
        let entries = self.kernel.neighbours().map_err(cause)?.into_iter();
        let permanent = entries.filter(|entry| entry.state == NeighbourState::Permanent);
        let ours = permanent.filter_map(|entry| {
            let device = *devices.get(&entry.index)?;
            Some((NeighbourKey { device, addr: entry.addr }, entry.mac?))
        });
        Ok(ours.collect())
    }

    fn commit(&mut self, edits: &[Edit<NeighbourKey, Mac>]) -> Failures<NeighbourKey> {
        commit(
            &mut self.kernel,
            edits,
            |key| key.device,
            |kernel, index, edit| match edit {
                Edit::Put { key, value, old: _ } => kernel.set_neighbour(index, key.addr, *value),
                Edit::Remove { key, old: _ } => kernel.delete_neighbour(index, key.addr),
            },
        )
    }
}
