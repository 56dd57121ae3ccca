//! Which tunnel devices does this node have, and where do they lead?
//!
//! A device for each family that some pool encapsulates and the node has an address of; a far end for every other node
//! that published its device's address. Worked out anew when nodes, pools or settings change, which is rare.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use tortie_desired::{TunnelDevice, Vtep, Vxlan};
use tortie_net::{Family, IpNet, Mac};

use crate::config::VxlanSettings;

/// A node's side of the tunnels of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeEnd {
    /// The node's address with its subnet's prefix length.
    pub(crate) underlay: Option<IpNet>,
    /// The address of its VXLAN device.
    pub(crate) vtep: Option<IpAddr>,
    /// That device's Ethernet address, if the node publishes one of its own.
    pub(crate) mac: Option<Mac>,
}

/// A node's sides, IPv4 first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeEnds(pub(crate) [NodeEnd; 2]);

impl NodeEnds {
    pub(crate) fn of(&self, family: Family) -> &NodeEnd {
        match family {
            Family::V4 => &self.0[0],
            Family::V6 => &self.0[1],
        }
    }
}

/// The ends of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    nodes: BTreeMap<Arc<str>, NodeEnds>,
    devices: BTreeMap<TunnelDevice, Vxlan>,
    vteps: BTreeMap<IpAddr, Vtep>,
    settings: Option<VxlanSettings>,
    encapsulated: BTreeSet<Family>,
    dirty: bool,
}

/// The way to another node.
pub(crate) enum Way {
    /// The node is in this node's subnet.
    Direct(IpAddr),
    /// Through a tunnel, to this end.
    Tunnel(TunnelDevice, IpAddr),
}

impl Tunnels {
    pub(crate) fn set_node(&mut self, name: &str, node: Option<NodeEnds>) {
        let old = match node {
            Some(node) => self.nodes.insert(Arc::from(name), node),
            None => self.nodes.remove(name),
        };
        self.dirty |= old != node;
    }

    /// The settings of this node, and the families of the pools that are encapsulated.
    pub(crate) fn set_wanted(&mut self, settings: VxlanSettings, encapsulated: BTreeSet<Family>) {
        self.dirty |= self.settings != Some(settings) || self.encapsulated != encapsulated;
        (self.settings, self.encapsulated) = (Some(settings), encapsulated);
    }

    /// Works devices and far ends out anew, if they may have changed since the last call; whether that was so.
    pub(crate) fn settle(&mut self, me: &str) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        (self.devices, self.vteps) = (BTreeMap::new(), BTreeMap::new());
        let Some((settings, own)) = self.settings.zip(self.nodes.get(me).copied()) else { return true };
        for family in Family::ALL {
            let wanted = match (settings.enabled, family) {
                (Some(false), _) => false,
                (Some(true), Family::V4) => true,
                (Some(true), Family::V6) | (None, _) => self.encapsulated.contains(&family),
            };
            let NodeEnd { underlay, vtep, mac } = *own.of(family);
            let Some(underlay) = underlay.filter(|_| wanted) else { continue };
            let mtu = match family {
                Family::V4 => settings.mtu4,
                Family::V6 => settings.mtu6,
            };
            let device = Vxlan {
                vni: settings.vni,
                port: settings.port,
                underlay: underlay.addr(),
                address: vtep,
                mac: mac.unwrap_or_else(|| derived_mac(me, family)),
                mtu,
            };
            self.devices.insert(TunnelDevice::vxlan(family), device);
            self.add_vteps(me, family, vtep);
        }
        true
    }

    fn add_vteps(&mut self, me: &str, family: Family, own: Option<IpAddr>) {
        for (name, ends) in self.nodes.iter().filter(|(name, _)| &***name != me) {
            let NodeEnd { underlay, vtep, mac } = *ends.of(family);
            let Some((underlay, vtep)) = underlay.zip(vtep.filter(|vtep| Some(*vtep) != own)) else { continue };
            let mac = mac.unwrap_or_else(|| derived_mac(name, family));
            // Of two nodes that claim one address the first has it.
            self.vteps.entry(vtep).or_insert(Vtep { node: name.clone(), mac, underlay: underlay.addr() });
        }
    }

    pub(crate) fn devices(&self) -> &BTreeMap<TunnelDevice, Vxlan> {
        &self.devices
    }

    pub(crate) fn vteps(&self) -> &BTreeMap<IpAddr, Vtep> {
        &self.vteps
    }

    /// The way to another node for packets of a pool that is encapsulated; none while there can't be one.
    pub(crate) fn way(&self, me: &str, node: &str, family: Family, cross_subnet_only: bool) -> Option<Way> {
        let device = TunnelDevice::vxlan(family);
        let own = self.nodes.get(me)?.of(family).underlay?;
        let theirs = self.nodes.get(node)?.of(family);
        let addr = theirs.underlay?.addr();
        if cross_subnet_only && own.contains(&addr) {
            return Some(Way::Direct(addr));
        }
        let vtep = theirs.vtep?;
        let there = self.devices.contains_key(&device) && self.vteps.get(&vtep).is_some_and(|v| &*v.node == node);
        there.then_some(Way::Tunnel(device, vtep))
    }
}

/// The Ethernet address that upstream gives to a node's device: locally administered, the same at every start.
fn derived_mac(node: &str, family: Family) -> Mac {
    let suffix = match family {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let hash = Sha1::digest(format!("{node}{suffix}"));
    Mac([0x66, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derived_address_is_the_hash_of_the_name() {
        // echo -n node1 | sha1sum; echo -n node1-v6 | sha1sum
        assert_eq!(derived_mac("node1", Family::V4).to_string(), "66:f9:37:c3:7e:94");
        assert_eq!(derived_mac("node1", Family::V6).to_string(), "66:0f:35:f2:60:df");
    }
}
