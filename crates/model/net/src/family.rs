//! The address family as a value.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6, as data: components loop over families instead of being instantiated per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The family of a prefix.
    pub fn of_net(net: IpNet) -> Family {
        match net {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// Bytes that packets of the family may have on every way: 1280 with IPv6, which the kernel takes off links of a
    /// smaller MTU (RFC 8200, 5), and 576 with IPv4, which every host takes (RFC 791, 3.1).
    pub fn least_mtu(self) -> u32 {
        match self {
            Family::V4 => 576,
            Family::V6 => 1280,
        }
    }

    /// The digit of the IP version: 4 or 6.
    pub fn version(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    /// The family of an IP version number, if it is 4 or 6.
    pub fn from_version(version: u8) -> Option<Family> {
        match version {
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", self.version())
    }
}

/// The prefix that holds just this address: /32 or /128.
pub fn host_net(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_prefix_has_all_bits_of_its_family() {
        for text in ["10.0.0.1", "fd00::1"] {
            let addr: IpAddr = text.parse().expect("literal");
            let net = host_net(addr);
            assert_eq!(net.prefix_len(), Family::of(addr).bits());
            assert_eq!(net.addr(), addr);
        }
    }
}
