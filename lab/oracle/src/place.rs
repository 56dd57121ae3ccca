//! The little world: a node, its pods, and everything outside of it. Few addresses, so that things meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tortie_net::Family;

/// The node under test.
pub const NODE: &str = "n1";
/// Interfaces on the node's side, one for each pod. Not every one belongs to an endpoint in every world.
pub const INTERFACES: [&str; 5] = ["cali0a", "cali0b", "cali0c", "cali0d", "cali0e"];
/// The node's interface towards everything that is not on it.
pub const OUTSIDE: &str = "eth9";

/// The interface by which the node speaks to itself.
pub const LOOPBACK: &str = "lo";

/// Where packets enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The pod behind the interface of this index.
    Pod(usize),
    /// The network outside of the node.
    Outside,
    /// The node itself.
    Host,
}

impl Origin {
    /// The node's interface by which packets from here come in; for the node's own, the one of its packets to itself.
    pub fn interface(self) -> &'static str {
        match self {
            Origin::Pod(index) => INTERFACES[index],
            Origin::Outside => OUTSIDE,
            Origin::Host => LOOPBACK,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface())
    }
}

/// The node's own address.
pub fn node_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from(Ipv4Addr::new(198, 51, 100, 1)),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
    }
}

/// The interfaces of the node by which a host endpoint may be found, with their addresses.
pub fn node_interfaces() -> BTreeMap<Arc<str>, BTreeSet<IpAddr>> {
    [(Arc::from(OUTSIDE), Family::ALL.map(node_address).into())].into()
}

/// The addresses that a pod may have: two of each family.
pub fn pod_addresses(pod: usize, family: Family) -> [IpAddr; 2] {
    let low = pod as u16 * 2 + 1;
    [low, low + 1].map(|low| near(family, 0, low))
}

/// Addresses outside of the node: of other nodes' endpoints, of network sets and their neighbours, and of nobody.
pub fn outside_addresses(family: Family) -> Vec<IpAddr> {
    let remote = (0..6).map(|low| near(family, 1, low));
    let set = (0..10).map(|low| set_address(family, low));
    let nobody = match family {
        Family::V4 => IpAddr::from([203, 0, 113, 9]),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9)),
    };
    remote.chain(set).chain([nobody]).collect()
}

/// Prefixes that rules and network sets name; they nest, overlap and touch.
pub fn nets(family: Family) -> &'static [&'static str] {
    match family {
        Family::V4 => &[
            "10.0.0.0/30",
            "10.0.0.1",
            "10.0.0.3",
            "10.0.0.6/32",
            "10.0.0.2/31",
            "10.0.0.4/30",
            "10.0.0.7/29",
            "10.0.0.0/24",
            "10.0.1.0/30",
            "10.0.1.3/32",
            "10.0.0.0/8",
            "192.0.2.0/29",
            "192.0.2.4/30",
            "192.0.2.7",
            "192.0.2.8",
            "128.0.0.0/1",
            "0.0.0.0/1",
            "0.0.0.0/0",
        ],
        Family::V6 => &[
            "fd00::/126",
            "fd00::1",
            "fd00::3",
            "fd00::6/128",
            "fd00::2/127",
            "fd00::4/126",
            "fd00::7/125",
            "fd00::/112",
            "fd00::1:0/126",
            "fd00::1:3/128",
            "fd00::/8",
            "2001:db8::/125",
            "2001:db8::4/126",
            "2001:db8::7",
            "2001:db8::8",
            "8000::/1",
            "::/1",
            "::/0",
        ],
    }
}

fn near(family: Family, third: u8, low: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, third, low as u8]),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, u16::from(third), low)),
    }
}

fn set_address(family: Family, low: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, low as u8]),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low)),
    }
}
