//! What sets can hold: the addresses and ports of an endpoint, or the prefixes of a network set.
//!
//! There may be tens of thousands, so an item keeps no more than this.

use std::sync::Arc;

use tortie_desired::Member;
use tortie_net::{Family, IpNet, Protocol};

use super::PortName;
use crate::key_hash::KeyHash;
use crate::labels::{ClassId, Identity};

/// What kind of resource an item comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ItemKind {
    Workload,
    Host,
    NetworkSet,
    GlobalNetworkSet,
}

/// The identity of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ItemKey<'a> {
    pub(crate) kind: ItemKind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// A port that an endpoint declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedPort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// An endpoint or network set as it came.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) identity: Identity<'a>,
    /// Sorted, without repeats, host bits zero.
    pub(crate) nets: Vec<IpNet>,
    pub(crate) ports: Vec<NamedPort>,
}

/// An item as it is kept: its labels are those of its class, its key is a hash.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) key: KeyHash,
    pub(super) class: ClassId,
    pub(super) held: Held,
}

/// What an item brings into sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) nets: Nets,
    pub(super) ports: Ports,
}

/// Prefixes, sorted and without repeats; most endpoints have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nets {
    One(IpNet),
    Many(Box<[IpNet]>),
}

impl Nets {
    pub(super) fn as_slice(&self) -> &[IpNet] {
        match self {
            Nets::One(net) => std::slice::from_ref(net),
            Nets::Many(nets) => nets,
        }
    }
}

impl From<Vec<IpNet>> for Nets {
    fn from(nets: Vec<IpNet>) -> Nets {
        match nets[..] {
            [one] => Nets::One(one),
            _ => Nets::Many(nets.into_boxed_slice()),
        }
    }
}

/// Named ports; most endpoints have none.
#[allow(clippy::box_collection, reason = "there are hundreds of thousands, most of them without a list")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(Option<Box<Vec<NamedPort>>>);

impl Ports {
    pub(super) fn as_slice(&self) -> &[NamedPort] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl From<Vec<NamedPort>> for Ports {
    fn from(ports: Vec<NamedPort>) -> Ports {
        Ports((!ports.is_empty()).then(|| Box::new(ports)))
    }
}

impl Held {
    /// The members that the item brings into a set of this sort.
    pub(super) fn members<'a>(&'a self, port: Option<&'a PortName>) -> impl Iterator<Item = Member> + 'a {
        let nets = self.nets.as_slice().iter().filter(move |_| port.is_none()).map(|net| Member::Net(*net));
        let hosts = self.nets.as_slice().iter().filter(|net| is_host(**net));
        let wanted = move |declared: &&NamedPort| port.is_some_and(|port| port.matches(declared));
        let ports = hosts.flat_map(move |net| {
            let member = |declared: &NamedPort| Member::Port {
                addr: net.addr(),
                protocol: declared.protocol,
                port: declared.port,
            };
            self.ports.as_slice().iter().filter(wanted).map(member)
        });
        nets.chain(ports)
    }

    /// Whether the item brings this member into a set of this sort.
    pub(super) fn brings(&self, port: Option<&PortName>, member: &Member) -> bool {
        match member {
            Member::Net(net) => port.is_none() && self.nets.as_slice().binary_search(net).is_ok(),
            Member::Port { addr, protocol, port: number } => {
                let declares = |declared: &NamedPort| {
                    declared.protocol == *protocol
                        && declared.port == *number
                        && port.is_some_and(|port| port.matches(declared))
                };
                self.nets.as_slice().binary_search(&IpNet::from(*addr)).is_ok()
                    && self.ports.as_slice().iter().any(declares)
            }
        }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.nets.as_slice().iter().any(|net| !is_host(*net))
    }
}

impl PortName {
    fn matches(&self, declared: &NamedPort) -> bool {
        *self.name == *declared.name && self.protocol.is_none_or(|protocol| protocol == declared.protocol)
    }
}

/// Whether the prefix is a single address.
pub(super) fn is_host(net: IpNet) -> bool {
    net.prefix_len() == Family::of_net(net).bits()
}
