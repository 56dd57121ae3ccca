//! BGP speakers in namespaces: Tortie's over real TCP, and others as its peers of the same run.

pub mod bird;
pub mod clients;
pub mod node;
pub mod others;
pub mod speaker;
pub mod star;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The AS of all speakers.
pub const AS: u32 = 64512;

/// The prefixes that the sending speaker originates: single addresses from 11.0.0.0 on.
pub fn prefixes(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(|n| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n))))
}

/// A block of a node: 64 addresses, four blocks a node at most.
pub fn block(node: usize, block: usize) -> IpNet {
    let first = 0x0a60_0000 + u32::try_from(node * 256 + block * 64).expect("few nodes");
    IpNet::new(Ipv4Addr::from(first).into(), 26).expect("26 bits fit")
}

/// A neighbour of a speaker.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether we reflect for it.
    pub client: bool,
    /// Whether it is to connect.
    pub passive: bool,
    /// Whether BFD watches it, as an annotation without numbers has it: 50 ms, 3 packets.
    pub bfd: bool,
}

impl Neighbour {
    /// One that is an equal.
    pub fn plain(address: Ipv4Addr) -> Neighbour {
        Neighbour { address, client: false, passive: false, bfd: false }
    }
}
