//! BGP speakers in namespaces: Tortie's over real TCP, and BIRD as its peer of the same run.

pub mod bird;
pub mod speaker;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The AS of all speakers.
pub const AS: u32 = 64512;

/// The prefixes that the sending speaker originates: single addresses from 11.0.0.0 on.
pub fn prefixes(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(|n| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n))))
}
