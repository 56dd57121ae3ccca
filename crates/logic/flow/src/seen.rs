//! A packet as the kernel tells of it.

use std::net::IpAddr;

use tortie_net::Protocol;

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, as it was where the packet ended.
    pub destination: IpAddr,
    /// IP protocol; of IPv6, that behind extension headers.
    pub protocol: Protocol,
    /// Source and destination port, where the protocol has them and the packet holds them.
    pub ports: Option<(u16, u16)>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

/// Where on its way through the node a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It had just arrived.
    Prerouting,
    /// It was for the node itself.
    Input,
    /// It was forwarded.
    Forward,
    /// The node sent it.
    Output,
    /// It was about to leave.
    Postrouting,
}

impl Hook {
    /// The kernel's number of it.
    pub fn from_number(number: u8) -> Option<Hook> {
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
            .get(usize::from(number))
            .copied()
    }

    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

/// A packet that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The text of the cause ([`tortie_ruleset::Cause::prefix`]).
    pub prefix: String,
    /// Where it was.
    pub hook: Hook,
    /// The interface that it came in by.
    pub input: Option<String>,
    /// The interface that it was to leave by.
    pub output: Option<String>,
    /// Its headers; `None`: they can't be read.
    pub flow: Option<Flow>,
}
