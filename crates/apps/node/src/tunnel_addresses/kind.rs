//! The kinds of tunnel devices that have an address: what upstream calls each in IPAM and in the Node resource.

use std::fmt;

use tortie_api::{EncapMode, FelixConfigurationSpec, IpPoolSpec, Node, NodeWireguardSpec};
use tortie_desired::{TunnelDevice, Wireguard};
use tortie_net::Family;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VXLAN for a family's pods.
    Vxlan(Family),
    /// IPIP.
    Ipip,
    /// WireGuard for a family's pods.
    Wireguard(Family),
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [
        Kind::Vxlan(Family::V4),
        Kind::Vxlan(Family::V6),
        Kind::Ipip,
        Kind::Wireguard(Family::V4),
        Kind::Wireguard(Family::V6),
    ];

    /// The family of the packets in the tunnel, and around it.
    pub fn family(self) -> Family {
        match self {
            Kind::Vxlan(family) | Kind::Wireguard(family) => family,
            Kind::Ipip => Family::V4,
        }
    }

    /// Whether packets of a pool go through it. `encrypted`: whether WireGuard is on, IPv4 first.
    pub fn carries(self, pool: &IpPoolSpec, encrypted: [bool; 2]) -> bool {
        let on = |mode| matches!(mode, Some(EncapMode::Always | EncapMode::CrossSubnet));
        let on = match self {
            Kind::Vxlan(_) => on(pool.vxlan_mode),
            Kind::Ipip => on(pool.ipip_mode),
            Kind::Wireguard(Family::V4) => encrypted[0],
            Kind::Wireguard(Family::V6) => encrypted[1],
        };
        on && pool.cidr.family() == Some(self.family())
    }

    /// The handle under which its address is held.
    pub fn handle(self, node: &str) -> String {
        let prefix = match self {
            Kind::Vxlan(Family::V4) => "vxlan",
            Kind::Vxlan(Family::V6) => "vxlan-v6",
            Kind::Ipip => "ipip",
            Kind::Wireguard(Family::V4) => "wireguard",
            Kind::Wireguard(Family::V6) => "wireguard-v6",
        };
        format!("{prefix}-tunnel-addr-{node}")
    }

    /// The type of its address in IPAM.
    pub fn attribute(self) -> &'static str {
        match self {
            Kind::Vxlan(Family::V4) => "vxlanTunnelAddress",
            Kind::Vxlan(Family::V6) => "vxlanV6TunnelAddress",
            Kind::Ipip => "ipipTunnelAddress",
            Kind::Wireguard(Family::V4) => "wireguardTunnelAddress",
            Kind::Wireguard(Family::V6) => "wireguardV6TunnelAddress",
        }
    }

    /// Publishes its address, or none.
    pub fn set_address(self, node: &mut Node, addr: &str) {
        let field = match self {
            Kind::Vxlan(Family::V4) => Some(&mut node.spec.ipv4_vxlan_tunnel_addr),
            Kind::Vxlan(Family::V6) => Some(&mut node.spec.ipv6_vxlan_tunnel_addr),
            // A node without a BGP specification has no address of its own, and so no tunnel.
            Kind::Ipip => node.spec.bgp.as_mut().map(|bgp| &mut bgp.ipv4_ipip_tunnel_addr),
            Kind::Wireguard(family) if !addr.is_empty() || node.spec.wireguard.is_some() => {
                let wireguard = node.spec.wireguard.get_or_insert_default();
                Some(match family {
                    Family::V4 => &mut wireguard.interface_ipv4_address,
                    Family::V6 => &mut wireguard.interface_ipv6_address,
                })
            }
            Kind::Wireguard(_) => None,
        };
        if let Some(field) = field {
            addr.clone_into(field);
        }
        if node.spec.wireguard.as_ref().is_some_and(|wireguard| *wireguard == NodeWireguardSpec::default()) {
            node.spec.wireguard = None;
        }
    }

    /// The largest packet by configuration, bytes; `None` leaves it to the host.
    pub fn configured_mtu(self, felix: &FelixConfigurationSpec) -> Option<u32> {
        let mtu = match self {
            Kind::Vxlan(Family::V4) => felix.vxlan_mtu,
            Kind::Vxlan(Family::V6) => felix.vxlan_mtu_v6,
            Kind::Ipip => felix.ipip_mtu,
            Kind::Wireguard(Family::V4) => felix.wireguard_mtu,
            Kind::Wireguard(Family::V6) => felix.wireguard_mtu_v6,
        };
        mtu.and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| *mtu > 0)
    }

    /// Bytes that it adds to a packet.
    pub fn overhead(self) -> u32 {
        match self {
            Kind::Vxlan(family) => TunnelDevice::vxlan(family).overhead(),
            Kind::Ipip => TunnelDevice::Ipip.overhead(),
            Kind::Wireguard(family) => Wireguard::overhead(family),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Vxlan(family) => write!(f, "VXLAN {family}"),
            Kind::Ipip => f.write_str("IPIP"),
            Kind::Wireguard(family) => write!(f, "WireGuard {family}"),
        }
    }
}
