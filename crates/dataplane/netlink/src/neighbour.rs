//! Neighbours: permanent entries, and addresses that the node answers for by proxy.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as WireState,
};
use netlink_packet_route::route::RouteType;
use tortie_net::{Family, Mac};

use crate::handle::wire_family;
use crate::wire::Request;
use crate::{Handle, Result};

/// How much the kernel trusts an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Set by hand; never asked for.
    Permanent,
    /// Confirmed, or in the course of being confirmed again.
    Learned,
    /// Being asked for, no answer yet.
    Incomplete,
    /// Nobody answered.
    Failed,
    /// Any other state.
    Other,
}

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub index: u32,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// State of the entry.
    pub state: NeighbourState,
    /// Whether this is a proxy entry: the node answers for the address on that link.
    pub proxy: bool,
}

impl Handle {
    /// The neighbour entries of both families, without proxy entries.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.list_neighbours(NeighbourFlags::empty(), "list neighbours")
    }

    /// The proxy entries of both families.
    pub fn proxy_neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.list_neighbours(NeighbourFlags::Proxy, "list proxy neighbours")
    }

    /// Sets a permanent entry, whatever was there before.
    pub fn set_neighbour(&mut self, index: u32, addr: IpAddr, mac: Mac) -> Result<()> {
        let mut message = base(index, addr);
        message.header.state = WireState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let request = Request::new(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &message);
        self.one(request, || format!("set neighbour {addr} of link {index}"))
    }

    /// Deletes an entry.
    pub fn delete_neighbour(&mut self, index: u32, addr: IpAddr) -> Result<()> {
        let request = Request::new(libc::RTM_DELNEIGH, 0, &base(index, addr));
        self.one(request, || format!("delete neighbour {addr} of link {index}"))
    }

    /// Answers for an address on a link.
    pub fn add_proxy_neighbour(&mut self, index: u32, addr: IpAddr) -> Result<()> {
        let mut message = base(index, addr);
        message.header.flags = NeighbourFlags::Proxy;
        let request = Request::new(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &message);
        self.one(request, || format!("add proxy neighbour {addr} to link {index}"))
    }

    /// Stops to answer for an address on a link.
    pub fn delete_proxy_neighbour(&mut self, index: u32, addr: IpAddr) -> Result<()> {
        let mut message = base(index, addr);
        message.header.flags = NeighbourFlags::Proxy;
        let request = Request::new(libc::RTM_DELNEIGH, 0, &message);
        self.one(request, || format!("delete proxy neighbour {addr} of link {index}"))
    }

    fn list_neighbours(&mut self, flags: NeighbourFlags, doing: &str) -> Result<Vec<Neighbour>> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let mut message = NeighbourMessage::default();
            message.header.family = wire_family(family);
            message.header.flags = flags;
            all.extend(self.list(&Request::new(libc::RTM_GETNEIGH, 0, &message), parse, doing)?);
        }
        all.sort_by_key(|n| (n.index, n.addr));
        Ok(all)
    }
}

fn base(index: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = wire_family(Family::of(addr));
    message.header.ifindex = index;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(match addr {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}

pub(crate) fn parse(body: &[u8]) -> Option<Neighbour> {
    let message = NeighbourMessage::parse(body).ok()?;
    let (mut addr, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => addr = Some(IpAddr::V4(ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => addr = Some(IpAddr::V6(ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    let state = match message.header.state {
        WireState::Permanent => NeighbourState::Permanent,
        WireState::Reachable | WireState::Stale | WireState::Delay | WireState::Probe => NeighbourState::Learned,
        WireState::Incomplete => NeighbourState::Incomplete,
        WireState::Failed => NeighbourState::Failed,
        _ => NeighbourState::Other,
    };
    let proxy = message.header.flags.contains(NeighbourFlags::Proxy);
    Some(Neighbour { index: message.header.ifindex, addr: addr?, mac, state, proxy })
}
