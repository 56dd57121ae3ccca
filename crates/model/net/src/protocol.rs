//! IP protocols by number, with the names that policy may use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Transmission Control Protocol.
    pub const TCP: Protocol = Protocol(6);
    /// User Datagram Protocol.
    pub const UDP: Protocol = Protocol(17);
    /// Internet Control Message Protocol.
    pub const ICMP: Protocol = Protocol(1);
    /// ICMP for IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Protocol = Protocol(132);
    /// Lightweight UDP (RFC 3828).
    pub const UDPLITE: Protocol = Protocol(136);

    /// The names that upstream's API knows, in its own spelling.
    pub const NAMES: [(&'static str, Protocol); 6] = [
        ("TCP", Protocol::TCP),
        ("UDP", Protocol::UDP),
        ("ICMP", Protocol::ICMP),
        ("ICMPv6", Protocol::ICMPV6),
        ("SCTP", Protocol::SCTP),
        ("UDPLite", Protocol::UDPLITE),
    ];

    /// The protocol of a name, whatever its case.
    pub fn from_name(name: &str) -> Option<Protocol> {
        Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, p)| *p)
    }

    /// The name in upstream's spelling, if the protocol has one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(_, p)| *p == self).map(|(n, _)| *n)
    }

    /// Whether packets of this protocol carry source and destination ports where TCP does.
    pub fn has_ports(self) -> bool {
        [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::UDPLITE].contains(&self)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_printed_in_upstreams() {
        assert_eq!(Protocol::from_name("udplite"), Some(Protocol::UDPLITE));
        assert_eq!(Protocol::ICMPV6.to_string(), "ICMPv6");
        assert_eq!(Protocol(47).to_string(), "47");
        assert_eq!(Protocol::from_name("gre"), None);
    }
}
