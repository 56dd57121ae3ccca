//! The backend-neutral ruleset: chains of rules, sets and interface dispatch maps.
//!
//! Invariant: everything here can be said in nf_tables and in iptables with ipset, unless it is said to be for one of
//! them; what else only one of them can do stays in its backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::Period;
use tortie_net::{Family, PortRange, Protocol};

/// The name of a chain, set or map; legal in every backend.
pub type Name = Arc<str>;

/// Direction of traffic, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the workload.
    Ingress,
    /// From the workload.
    Egress,
}

/// Where the kernel enters a chain. In declaration order of those that a packet passes: accepting it in one does not
/// spare it the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Packets that arrive, before connection tracking.
    RawPrerouting,
    /// Packets that the host sends, before connection tracking.
    RawOutput,
    /// Packets that arrive, before destination NAT.
    BeforeNat,
    /// Packets that arrive, where their destination may be translated.
    DestinationNat,
    /// Packets that the host sends, where their destination may be translated.
    DestinationNatOutput,
    /// Forwarded packets, judged by the host's interface that they come from.
    FromHost,
    /// Forwarded packets, judged by the workload that they come from.
    FromWorkload,
    /// Forwarded packets, judged by the workload that they go to.
    ToWorkload,
    /// Forwarded packets, judged by the host's interface that they go to.
    ToHost,
    /// Packets to this host itself.
    Input,
    /// Packets that the host sends.
    Output,
    /// Packets that leave, whose way NAT may have changed after `Output`.
    Postrouting,
    /// Packets that leave, where their header may be marked.
    Marking,
    /// Packets that leave, where their source may be translated.
    SourceNat,
}

/// Which end of a packet a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Source address or port; the interface that the packet came in by.
    Source,
    /// Destination address or port; the interface that the packet goes out by.
    Destination,
}

/// Conntrack states as a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CtState {
    /// Established or related.
    EstablishedOrRelated,
    /// Invalid.
    Invalid,
}

/// One condition. All conditions of a rule must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Conntrack knows the packet's flow to be in this state.
    Conntrack(CtState),
    /// The packet's flow has [`crate::REVOKED_MARK`], or has not with `negate`. Neither holds of a packet without a flow.
    Revoked {
        /// Whether it must not have it.
        negate: bool,
    },
    /// The destination of the packet's flow is translated. There is no negation: of a packet without a flow the kernel
    /// knows neither.
    Translated,
    /// The packet is of this family.
    Family(Family),
    /// The transport protocol is this one, or is not with `negate`.
    Protocol {
        /// The protocol.
        protocol: Protocol,
        /// Whether it must differ.
        negate: bool,
    },
    /// The interface's name starts with these bytes.
    InterfacePrefix {
        /// Incoming or outgoing interface.
        side: Side,
        /// The first bytes of the name; never empty.
        prefix: Arc<str>,
    },
    /// The interface's name is in a set of [`SetType::Interfaces`].
    InterfaceIn {
        /// Incoming or outgoing interface.
        side: Side,
        /// The set.
        set: Name,
    },
    /// The incoming interface together with the source address is in a set of [`SetType::InterfaceAddresses`], or is
    /// not with `negate`. The rule also has [`Match::Family`].
    InterfaceAddressIn {
        /// Family of the set.
        family: Family,
        /// The set.
        set: Name,
        /// Whether they must not be in it.
        negate: bool,
    },
    /// The address lies in a prefix, or does not with `negate`. The rule also has [`Match::Family`].
    Address {
        /// Which address.
        side: Side,
        /// The prefix.
        net: IpNet,
        /// Whether it must lie outside.
        negate: bool,
    },
    /// The address is in a set of [`SetType::Addresses`] or [`SetType::Nets`]. The rule also has [`Match::Family`].
    AddressIn {
        /// Which address.
        side: Side,
        /// Family of the set.
        family: Family,
        /// The set.
        set: Name,
        /// Whether it must not be in it.
        negate: bool,
    },
    /// Address, protocol and port are in a set of [`SetType::AddressPorts`]. The rule also has [`Match::Family`].
    AddressPortIn {
        /// Which address and port.
        side: Side,
        /// Family of the set.
        family: Family,
        /// The set.
        set: Name,
        /// Whether they must not be in it.
        negate: bool,
    },
    /// The port lies in a range, or does not with `negate`. The rule also has a protocol with ports.
    Port {
        /// Which port.
        side: Side,
        /// The range.
        range: PortRange,
        /// Whether it must lie outside.
        negate: bool,
    },
    /// The port is in a set of [`SetType::Ports`]. The rule also has a protocol with ports.
    PortIn {
        /// Which port.
        side: Side,
        /// The set.
        set: Name,
        /// Whether it must not be in it.
        negate: bool,
    },
    /// ICMP or ICMPv6 type and code. The rule also has that protocol.
    Icmp {
        /// The type.
        icmp_type: u8,
        /// The code; `None`: any.
        code: Option<u8>,
        /// Whether type and code together must differ.
        negate: bool,
    },
    /// The packet leaves by this interface, and its source is an address of this host, but not of the interface. Only in
    /// [`Base::SourceNat`].
    BorrowedSource {
        /// The interface.
        interface: Arc<str>,
    },
    /// One of these bits is set in the packet's mark.
    Mark(u32),
    /// The packets that come to this condition come at a rate up to this, or over it with `over`. Goes last.
    Rate {
        /// The rate.
        rate: Rate,
        /// Whether the condition holds for what is over the rate, instead of what is within.
        over: bool,
    },
    /// There are more connections than this among the packets that come to this condition. Goes last.
    ConnectionsOver(u32),
}

/// A rate of packets, by a bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Packets in a period, at least 1.
    pub packets: u32,
    /// The period.
    pub period: Period,
    /// Size of the bucket, packets.
    pub burst: u32,
}

/// What a rule does before its verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statement {
    /// Write a line to the kernel log.
    Log {
        /// What the line starts with.
        prefix: Arc<str>,
    },
    /// Tell listeners of the packet (NFLOG).
    Record {
        /// The group that is told.
        group: u16,
        /// Why the packet ends: [`crate::Cause::prefix`].
        prefix: Arc<str>,
    },
    /// Count packets.
    Count,
    /// Set these bits of the packet's mark.
    SetMark(u32),
    /// Clear these bits of the packet's mark.
    ClearMark(u32),
    /// Leave the packet out of connection tracking. Only in the raw bases.
    NoTrack,
    /// Set the differentiated services field (RFC 2474). The rule also has [`Match::Family`].
    SetDscp {
        /// Family of the packet.
        family: Family,
        /// The value, below 64.
        value: u8,
    },
}

/// What becomes of a packet that a rule matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Done with this base chain: the packet goes on.
    Accept,
    /// The packet ends here, silently.
    Drop,
    /// The packet ends here, and its sender is told.
    Reject,
    /// Back to the chain that jumped here.
    Return,
    /// Into a chain, and back here if it decides nothing.
    Jump(Name),
    /// Into a chain, not back here.
    Goto(Name),
    /// Into the chain that a map names for the interface; the next rule if the map names none.
    Dispatch {
        /// Incoming or outgoing interface.
        side: Side,
        /// The map.
        map: Name,
    },
    /// Into the chain that a map names for the packet's key, and back here if it decides nothing; the next rule if the
    /// map names none. Only in nf_tables.
    Choose {
        /// What of the packet is looked up.
        key: ChoiceKey,
        /// The map.
        map: Name,
    },
    /// The packet ends here, and its sender gets a TCP reset. The rule also has the protocol TCP.
    Reset,
    /// Give the flow a source: an address, or else that of the interface that it leaves by.
    SourceNat {
        /// The address; the rule also has its family.
        address: Option<IpAddr>,
        /// Ports to choose from; then the rule also has a protocol with ports.
        ports: Option<PortRange>,
    },
    /// Give the flow a destination. The rule also has its family.
    DestinationNat(IpAddr),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rule {
    /// Conditions; none: every packet.
    pub matches: Vec<Match>,
    /// What is done to packets that match, in order.
    pub statements: Vec<Statement>,
    /// What becomes of them; `None`: the next rule.
    pub verdict: Option<Verdict>,
}

impl Rule {
    /// A rule with conditions and a verdict.
    pub fn new(matches: impl Into<Vec<Match>>, verdict: Verdict) -> Rule {
        Rule { matches: matches.into(), statements: Vec::new(), verdict: Some(verdict) }
    }
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where the kernel enters it; `None`: only other chains do. What no rule of a base chain decides is accepted.
    pub base: Option<Base>,
    /// The rules in order.
    pub rules: Vec<Rule>,
    /// The literal sets that the rules refer to: sets that exist just for the rules' own lists.
    pub literals: BTreeMap<Name, Arc<Set>>,
}

impl Chain {
    /// Whether a kernel that holds this chain holds the other one: what is in their literal sets does not matter.
    pub(crate) fn holds_rules_of(&self, other: &Chain) -> bool {
        let Chain { base, rules, literals: _ } = self;
        (base, rules) == (&other.base, &other.rules)
    }

    /// The maps that the rules choose by; no other chain refers to them.
    pub fn choices(&self) -> impl Iterator<Item = &Name> {
        self.rules.iter().filter_map(|rule| match &rule.verdict {
            Some(Verdict::Choose { key: _, map }) => Some(map),
            _ => None,
        })
    }
}

/// What of a packet a [`Verdict::Choose`] looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChoiceKey {
    /// Its destination port. The rule also has a protocol with ports.
    Port,
    /// An address. The rule also has its family.
    Address {
        /// Which address.
        side: Side,
        /// Its family.
        family: Family,
    },
}

impl ChoiceKey {
    /// Length of the key, bits.
    pub fn bits(self) -> u8 {
        match self {
            ChoiceKey::Port => 16,
            ChoiceKey::Address { side: _, family } => family.bits(),
        }
    }

    /// The greatest key.
    pub fn greatest(self) -> u128 {
        u128::MAX >> (u128::BITS - u32::from(self.bits()))
    }
}

/// A range of keys, as the numbers that their bytes in network order are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key.
    pub first: u128,
    /// The last key, not before the first.
    pub last: u128,
}

/// The map of a [`Verdict::Choose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceMap {
    /// What its keys are.
    pub key: ChoiceKey,
    /// Chains (entered by jump) by key; the ranges are disjoint.
    pub chains: BTreeMap<KeyRange, Name>,
}

/// What the elements of a set look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetType {
    /// Single addresses: [`Element::Address`].
    Addresses(Family),
    /// Disjoint prefixes: [`Element::Net`].
    Nets(Family),
    /// Address, protocol and port: [`Element::AddressPort`].
    AddressPorts(Family),
    /// Disjoint port ranges: [`Element::Ports`].
    Ports,
    /// Interface names: [`Element::Interface`].
    Interfaces,
    /// Interface and address: [`Element::InterfaceAddress`].
    InterfaceAddresses(Family),
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// A prefix; no other element of the set overlaps it.
    Net(IpNet),
    /// A port of an address.
    AddressPort {
        /// The address.
        addr: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A range of ports; no other element of the set overlaps or touches it.
    Ports(PortRange),
    /// An interface's name.
    Interface(Arc<str>),
    /// An address behind an interface.
    InterfaceAddress(Box<InterfaceAddress>),
}

/// An address behind an interface. Apart from [`Element`], of which there may be a hundred thousand others: this is the
/// largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: Arc<str>,
    /// The address.
    pub addr: IpAddr,
}

impl Element {
    /// An address behind an interface.
    pub fn interface_address(interface: &str, addr: IpAddr) -> Element {
        Element::InterfaceAddress(Box::new(InterfaceAddress { interface: interface.into(), addr }))
    }
}

/// A set with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Type of the elements.
    pub set_type: SetType,
    /// The elements, all of that type.
    pub elements: BTreeSet<Element>,
}

/// The map of a [`Verdict::Dispatch`]: chains (entered by goto) by interface name.
pub type DispatchMap = BTreeMap<Arc<str>, Name>;

/// Everything that a packet filter should hold for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets by name, literal ones included.
    pub sets: BTreeMap<Name, Arc<Set>>,
    /// Chains by name.
    pub chains: BTreeMap<Name, Arc<Chain>>,
    /// Dispatch maps by name.
    pub maps: BTreeMap<Name, Arc<DispatchMap>>,
    /// Maps that rules choose by, by name.
    pub choices: BTreeMap<Name, Arc<ChoiceMap>>,
}
