//! The kinds of tunnel devices that have an address: what upstream calls each in IPAM and in the Node resource.

use std::fmt;

use tortie_api::{EncapMode, FelixConfigurationSpec, IpPoolSpec, Node};
use tortie_desired::TunnelDevice;
use tortie_net::Family;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VXLAN for a family's pods.
    Vxlan(Family),
    /// IPIP.
    Ipip,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Vxlan(Family::V4), Kind::Vxlan(Family::V6), Kind::Ipip];

    /// The family of the packets in the tunnel, and around it.
    pub fn family(self) -> Family {
        match self {
            Kind::Vxlan(family) => family,
            Kind::Ipip => Family::V4,
        }
    }

    /// Whether packets of a pool go through it.
    pub fn carries(self, pool: &IpPoolSpec) -> bool {
        let mode = match self {
            Kind::Vxlan(_) => pool.vxlan_mode,
            Kind::Ipip => pool.ipip_mode,
        };
        let on = matches!(mode, Some(EncapMode::Always | EncapMode::CrossSubnet));
        on && pool.cidr.family() == Some(self.family())
    }

    /// The handle under which its address is held.
    pub fn handle(self, node: &str) -> String {
        let prefix = match self {
            Kind::Vxlan(Family::V4) => "vxlan",
            Kind::Vxlan(Family::V6) => "vxlan-v6",
            Kind::Ipip => "ipip",
        };
        format!("{prefix}-tunnel-addr-{node}")
    }

    /// The type of its address in IPAM.
    pub fn attribute(self) -> &'static str {
        match self {
            Kind::Vxlan(Family::V4) => "vxlanTunnelAddress",
            Kind::Vxlan(Family::V6) => "vxlanV6TunnelAddress",
            Kind::Ipip => "ipipTunnelAddress",
        }
    }

    /// Publishes its address, or none.
    pub fn set_address(self, node: &mut Node, addr: &str) {
        let field = match self {
            Kind::Vxlan(Family::V4) => Some(&mut node.spec.ipv4_vxlan_tunnel_addr),
            Kind::Vxlan(Family::V6) => Some(&mut node.spec.ipv6_vxlan_tunnel_addr),
            // A node without a BGP specification has no address of its own, and so no tunnel.
            Kind::Ipip => node.spec.bgp.as_mut().map(|bgp| &mut bgp.ipv4_ipip_tunnel_addr),
        };
        if let Some(field) = field {
            addr.clone_into(field);
        }
    }

    /// The largest packet by configuration, bytes; `None` leaves it to the host.
    pub fn configured_mtu(self, felix: &FelixConfigurationSpec) -> Option<u32> {
        let mtu = match self {
            Kind::Vxlan(Family::V4) => felix.vxlan_mtu,
            Kind::Vxlan(Family::V6) => felix.vxlan_mtu_v6,
            Kind::Ipip => felix.ipip_mtu,
        };
        mtu.and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| *mtu > 0)
    }

    /// Bytes that it adds to a packet.
    pub fn overhead(self) -> u32 {
        match self {
            Kind::Vxlan(family) => TunnelDevice::vxlan(family).overhead(),
            Kind::Ipip => TunnelDevice::Ipip.overhead(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Vxlan(family) => write!(f, "VXLAN {family}"),
            Kind::Ipip => f.write_str("IPIP"),
        }
    }
}
