//! WireGuard of this node: its devices, one for each family, and the nodes behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{Family, PublicKey};

/// The mark of the packets that our devices send, as upstream's.
pub const WIREGUARD_MARK: u32 = 0x0020_0000;

/// A WireGuard device as this node should have it, with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    /// The interface's name.
    pub name: Arc<str>,
    /// UDP port of this and of every other node.
    pub port: u16,
    /// The routing table of its own.
    pub table: u32,
    /// The place of the rule that leads there.
    pub priority: u32,
    /// The node's own address.
    pub underlay: IpAddr,
    /// The device's address, once the node has one.
    pub address: Option<IpAddr>,
    /// MTU in bytes; `None` is what the interface below leaves.
    pub mtu: Option<u32>,
    /// Seconds between packets that keep translations on the way open; 0: none.
    pub keepalive_secs: u16,
    /// Whether the kernel handles each device's packets in threads, which spread over processors.
    pub threaded: bool,
    /// Nodes that packets are encrypted for, by name.
    pub peers: BTreeMap<Arc<str>, WireguardPeer>,
    /// Prefixes that are reached as without WireGuard: this node's own, and those of nodes without a key. No peer has
    /// them.
    pub plain: BTreeSet<IpNet>,
}

impl Wireguard {
    /// Bytes that a device adds to a packet: the outer IP and UDP headers, its own, and the tag.
    pub fn overhead(family: Family) -> u32 {
        match family {
            Family::V4 => 60,
            Family::V6 => 80,
        }
    }

    /// Name and routing table of a family's device unless settings say otherwise, as upstream's.
    pub fn default_place(family: Family) -> (&'static str, u32) {
        match family {
            Family::V4 => ("wireguard.cali", 1),
            Family::V6 => ("wg-v6.cali", 2),
        }
    }
}

/// A node behind a device. No two have the same key or share a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardPeer {
    /// The node's public key.
    pub key: PublicKey,
    /// The node's own address.
    pub endpoint: IpAddr,
    /// The address of its device, if it has one of its own.
    pub address: Option<IpAddr>,
    /// What is behind it.
    pub allowed: BTreeSet<IpNet>,
}
