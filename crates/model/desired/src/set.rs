//! Sets of addresses that rules refer to by id.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{Family, Protocol};

/// The identity of a set: the hash id of its selector (`s:…`), service (`svc:…`) or named port (`n:…`).
/// One id covers both families; a backend splits the members.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub Arc<str>);

impl SetId {
    /// The addresses of all nodes; there while something asks for it.
    pub const ALL_HOSTS: &str = "all-hosts-net";

    /// A set id of this text.
    pub fn new(text: &str) -> SetId {
        SetId(Arc::from(text))
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a set's members look like; fixed for the life of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Members are single addresses only ([`Member::Net`] with all bits): a hash lookup suffices.
    Addresses,
    /// Members are prefixes of any length, possibly nested.
    Nets,
    /// Members are address, protocol and port ([`Member::Port`]).
    Ports,
}

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A prefix, host bits zero; a single address has all bits.
    Net(IpNet),
    /// A port of an address.
    Port {
        /// The address.
        addr: IpAddr,
        /// The protocol that the port belongs to.
        protocol: Protocol,
        /// The port number.
        port: u16,
    },
}

impl Member {
    /// The family that the member belongs to.
    pub fn family(&self) -> Family {
        match self {
            Member::Net(net) => Family::of_net(*net),
            Member::Port { addr, protocol: _, port: _ } => Family::of(*addr),
        }
    }
}
