//! Which tunnel devices does this node have, and where do they lead?
//!
//! A device for each family that some pool encapsulates and the node has an address of; a far end for every other node
//! that published its device's address. Worked out anew when nodes, pools or settings change, which is rare.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use tortie_desired::{Ipip, TunnelDevice, Vtep, Vxlan};
use tortie_net::{Family, IpNet, Mac};

use crate::config::{ClusterRoutes, IpipSettings, VxlanSettings};
use crate::remote::Encap;

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

/// A node's sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeEnds {
    /// Of VXLAN, IPv4 first.
    pub(crate) vxlan: [NodeEnd; 2],
    /// The address of its IPIP device.
    pub(crate) ipip: Option<IpAddr>,
}

impl NodeEnds {
    pub(crate) fn of(&self, family: Family) -> &NodeEnd {
        match family {
            Family::V4 => &self.vxlan[0],
            Family::V6 => &self.vxlan[1],
        }
    }
}

/// What tunnels depend on besides nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) vxlan: VxlanSettings,
    pub(crate) ipip: IpipSettings,
    /// Which routes are worked out from blocks.
    pub(crate) blocks: ClusterRoutes,
    /// Which learned routes the kernel gets.
    pub(crate) learned: ClusterRoutes,
    /// The pools that are encapsulated.
    pub(crate) pools: BTreeMap<IpNet, Encap>,
}

impl Wanted {
    fn has_vxlan(&self, family: Family) -> bool {
        let of_family = |(net, encap): (&IpNet, &Encap)| {
            Family::of_net(*net) == family && matches!(encap, Encap::Vxlan { beyond_subnet_only: _ })
        };
        self.pools.iter().any(of_family)
    }
}

/// The ends of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    nodes: BTreeMap<Arc<str>, NodeEnds>,
    devices: BTreeMap<TunnelDevice, Vxlan>,
    vteps: BTreeMap<IpAddr, Vtep>,
    ipip: Option<Ipip>,
    wanted: Option<Wanted>,
    dirty: bool,
}

/// The way to another node.
pub(crate) enum Way {
    /// Without encapsulation.
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

    /// The settings of this node, and the pools.
    pub(crate) fn set_wanted(&mut self, wanted: Wanted) {
        let wanted = Some(wanted);
        if self.wanted != wanted {
            (self.wanted, self.dirty) = (wanted, true);
        }
    }

    /// Works devices and far ends out anew, if they may have changed since the last call; whether that was so.
    pub(crate) fn settle(&mut self, me: &str) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        (self.devices, self.vteps, self.ipip) = (BTreeMap::new(), BTreeMap::new(), None);
        let Some((wanted, own)) = self.wanted.clone().zip(self.nodes.get(me).copied()) else { return true };
        self.ipip = self.ipip(me, &own, &wanted);
        let settings = wanted.vxlan;
        for family in Family::ALL {
            let wanted = match (settings.enabled, family) {
                (Some(false), _) => false,
                (Some(true), Family::V4) => true,
                (Some(true), Family::V6) | (None, _) => wanted.has_vxlan(family),
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

    fn ipip(&self, me: &str, own: &NodeEnds, wanted: &Wanted) -> Option<Ipip> {
        let Wanted { vxlan: _, ipip: IpipSettings { enabled, mtu }, blocks: _, learned, pools } = wanted;
        let underlay = own.of(Family::V4).underlay?;
        let of_pools = pools.iter().filter_map(|(net, encap)| match encap {
            Encap::Ipip { beyond_subnet_only } => Some((*net, beyond_subnet_only.then(|| underlay.trunc()))),
            Encap::Plain | Encap::Vxlan { beyond_subnet_only: _ } => None,
        });
        let of_pools: BTreeMap<IpNet, Option<IpNet>> = of_pools.collect();
        let others = self.nodes.iter().filter(|(name, _)| &***name != me);
        let others = others.filter_map(|(name, ends)| Some((ends.of(Family::V4).underlay?.addr(), name, ends.ipip)));
        let peers = others.clone().map(|(underlay, name, _)| (underlay, name.clone()));
        enabled.unwrap_or(!of_pools.is_empty()).then(|| Ipip {
            underlay: underlay.addr(),
            address: own.ipip,
            mtu: *mtu,
            peers: peers.collect(),
            ends: others.filter_map(|(underlay, _, end)| Some((underlay, end?))).collect(),
            learned: if learned.ipip { of_pools } else { BTreeMap::new() },
        })
    }

    pub(crate) fn ipip_device(&self) -> Option<&Ipip> {
        self.ipip.as_ref()
    }

    pub(crate) fn devices(&self) -> &BTreeMap<TunnelDevice, Vxlan> {
        &self.devices
    }

    pub(crate) fn vteps(&self) -> &BTreeMap<IpAddr, Vtep> {
        &self.vteps
    }

    /// The way to another node for packets of a pool; none while there can't be one, and where routes are BGP's.
    pub(crate) fn way(&self, me: &str, node: &str, family: Family, encap: Encap) -> Option<Way> {
        let own = self.nodes.get(me)?.of(family).underlay?;
        let theirs = self.nodes.get(node)?.of(family);
        let addr = theirs.underlay?.addr();
        let blocks = self.wanted.as_ref()?.blocks;
        match encap {
            Encap::Plain => return blocks.plain.then_some(Way::Direct(addr)),
            Encap::Ipip { beyond_subnet_only: _ } if !blocks.ipip => return None,
            Encap::Vxlan { beyond_subnet_only } | Encap::Ipip { beyond_subnet_only }
                if beyond_subnet_only && own.contains(&addr) =>
            {
                return Some(Way::Direct(addr));
            }
            Encap::Ipip { beyond_subnet_only: _ } => {
                let there = self.ipip.as_ref().is_some_and(|ipip| ipip.peers.contains_key(&addr));
                return there.then_some(Way::Tunnel(TunnelDevice::Ipip, addr));
            }
            Encap::Vxlan { beyond_subnet_only: _ } => {}
        }
        let device = TunnelDevice::vxlan(family);
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
