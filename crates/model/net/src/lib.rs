//! Addresses, prefixes, ports and protocols as values.
//!
//! Invariant: `Family` is data. No type here exists twice, once per family.

mod asn;
mod family;
mod mac;
mod ports;
mod protocol;
mod public_key;

pub use asn::{AsNumber, AsNumberError};
pub use family::{Family, host_net};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::{Mac, MacError};
pub use ports::{PortRange, PortRangeError};
pub use protocol::Protocol;
pub use public_key::{PublicKey, PublicKeyError};
pub use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
