//! Tunnel devices of this node, and the far ends that they lead to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{Family, Mac};

/// A tunnel device, by what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelDevice {
    /// IPv4 pods' packets in VXLAN over IPv4.
    VxlanV4,
    /// IPv6 pods' packets in VXLAN over IPv6.
    VxlanV6,
    /// IPv4 pods' packets in IPv4, one header more (RFC 2003).
    Ipip,
}

impl TunnelDevice {
    /// All devices.
    pub const ALL: [TunnelDevice; 3] = [TunnelDevice::VxlanV4, TunnelDevice::VxlanV6, TunnelDevice::Ipip];

    /// The VXLAN device of a family.
    pub fn vxlan(family: Family) -> TunnelDevice {
        match family {
            Family::V4 => TunnelDevice::VxlanV4,
            Family::V6 => TunnelDevice::VxlanV6,
        }
    }

    /// The interface's name, as upstream's.
    pub fn name(self) -> &'static str {
        match self {
            TunnelDevice::VxlanV4 => "vxlan.calico",
            TunnelDevice::VxlanV6 => "vxlan-v6.calico",
            TunnelDevice::Ipip => "tunl0",
        }
    }

    /// Bytes that the encapsulation adds to a packet: Ethernet, outer IP, UDP and VXLAN headers (RFC 7348), or an outer
    /// IPv4 header alone.
    pub fn overhead(self) -> u32 {
        match self {
            TunnelDevice::VxlanV4 => 50,
            TunnelDevice::VxlanV6 => 70,
            TunnelDevice::Ipip => 20,
        }
    }
}

impl fmt::Display for TunnelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A VXLAN device as this node should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of this and of every other end.
    pub port: u16,
    /// The node's own address, the source of the outer packets.
    pub underlay: IpAddr,
    /// The device's address, once the node has one: the source of what the node itself sends to pods.
    pub address: Option<IpAddr>,
    /// The device's Ethernet address.
    pub mac: Mac,
    /// MTU in bytes; `None` is what the interface below leaves.
    pub mtu: Option<u32>,
}

/// The IPIP device as this node should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipip {
    /// The node's own address, the source of the outer packets.
    pub underlay: IpAddr,
    /// The device's address, once the node has one.
    pub address: Option<IpAddr>,
    /// MTU in bytes; `None` is what the interface below leaves.
    pub mtu: Option<u32>,
    /// The other nodes by their own addresses: with them alone packets are exchanged.
    pub peers: BTreeMap<IpAddr, Arc<str>>,
    /// The addresses of their devices, of those that have one, by their own addresses.
    pub ends: BTreeMap<IpAddr, IpAddr>,
    /// Prefixes whose routes BGP learns and that go through the device, each with the prefix whose gateways are
    /// reached directly all the same.
    pub learned: BTreeMap<IpNet, Option<IpNet>>,
}

/// The far end of a tunnel on another node, known by the address of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Name of the node.
    pub node: Arc<str>,
    /// Ethernet address of its device.
    pub mac: Mac,
    /// The node's own address, where the outer packets go.
    pub underlay: IpAddr,
}
