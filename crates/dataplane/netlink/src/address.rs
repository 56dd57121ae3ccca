//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use tortie_net::Family;

use crate::handle::wire_family;
use crate::wire::Request;
use crate::{Handle, Result, Scope};

/// An address as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its link.
    pub index: u32,
    /// The address with its prefix length; host bits are kept.
    pub net: IpNet,
    /// Its scope.
    pub scope: Scope,
    /// Whether it stays until deleted.
    pub permanent: bool,
    /// Whether duplicate address detection still runs: it can't be bound to yet.
    pub tentative: bool,
    /// Whether another machine was found to have it.
    pub duplicate: bool,
    /// Whether it is not the first of its prefix on the link.
    pub secondary: bool,
}

/// An address to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpec {
    /// Index of the link.
    pub index: u32,
    /// The address with its prefix length; host bits are kept.
    pub net: IpNet,
    /// Its scope; the kernel decides for IPv6.
    pub scope: Scope,
    /// Whether to skip IPv6's duplicate address detection, so that it works at once.
    pub nodad: bool,
}

impl AddressSpec {
    /// A global address without duplicate address detection.
    pub fn new(index: u32, net: IpNet) -> AddressSpec {
        AddressSpec { index, net, scope: Scope::Universe, nodad: true }
    }
}

impl Handle {
    /// All addresses of both families, by link.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let request = Request::new(libc::RTM_GETADDR, 0, &AddressMessage::default());
        let mut all = self.list(&request, parse, "list addresses")?;
        all.sort_by_key(|a| (a.index, a.net));
        Ok(all)
    }

    /// Adds an address; [`crate::Error::Exists`] when the link has it already.
    pub fn add_address(&mut self, spec: &AddressSpec) -> Result<()> {
        let request = Request::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message(spec));
        self.one(request, || format!("add address {} to link {}", spec.net, spec.index))
    }

    /// Deletes an address of a link.
    pub fn delete_address(&mut self, index: u32, net: IpNet) -> Result<()> {
        let request = Request::new(libc::RTM_DELADDR, 0, &message(&AddressSpec::new(index, net)));
        self.one(request, || format!("delete address {net} of link {index}"))
    }
}

fn message(spec: &AddressSpec) -> AddressMessage {
    let AddressSpec { index, net, scope, nodad } = *spec;
    let mut message = AddressMessage::default();
    message.header.family = wire_family(Family::of_net(net));
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::from(scope.number());
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    if let IpNet::V4(net) = net
        && net.prefix_len() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    if nodad && matches!(net, IpNet::V6(_)) {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message
}

pub(crate) fn parse(body: &[u8]) -> Option<Address> {
    let message = AddressMessage::parse(body).ok()?;
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let addr: IpAddr = local.or(address)?;
    Some(Address {
        index: message.header.index,
        net: IpNet::new(addr, message.header.prefix_len).ok()?,
        scope: Scope::from_number(message.header.scope.into()),
        permanent: flags.contains(AddressFlags::Permanent),
        tentative: flags.contains(AddressFlags::Tentative),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        secondary: flags.contains(AddressFlags::Secondary),
    })
}
