//! What changes in the kernel, as it happens.
//!
//! Events say what is so now; they may repeat. After [`Event::Resync`] list everything again: some were lost.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::socket::{Socket, wait_readable};
use crate::{Address, Link, Neighbour, Netns, Result, Route, address, link_codec, neighbour, route_codec};

/// What to be told about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Links.
    pub links: bool,
    /// Addresses, both families.
    pub addresses: bool,
    /// Routes, both families.
    pub routes: bool,
    /// Neighbours.
    pub neighbours: bool,
}

impl Groups {
    fn mask(self) -> u32 {
        let Groups { links, addresses, routes, neighbours } = self;
        let bits = [
            (links, libc::RTMGRP_LINK),
            (addresses, libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR),
            (routes, libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE),
            (neighbours, libc::RTMGRP_NEIGH),
        ];
        bits.iter().filter(|(wanted, _)| *wanted).fold(0, |mask, (_, bit)| mask | bit.cast_unsigned())
    }
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link came or changed.
    LinkSet(Link),
    /// A link went.
    LinkGone(Link),
    /// An address came or changed.
    AddressSet(Address),
    /// An address went.
    AddressGone(Address),
    /// A route came or changed. IPv4 does not say which route a new one replaced.
    RouteSet(Route),
    /// A route went. When a link goes down, its IPv4 routes go without such events: see [`Event::LinkSet`].
    RouteGone(Route),
    /// A neighbour entry came or changed.
    NeighbourSet(Neighbour),
    /// A neighbour entry went.
    NeighbourGone(Neighbour),
    /// Events were lost: list everything again.
    Resync,
}

/// A subscription to one network namespace's changes.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace.
    pub fn open(groups: Groups) -> Result<Monitor> {
        Ok(Monitor { socket: Socket::open(groups.mask())? })
    }

    /// Subscribes in another network namespace.
    pub fn open_in(netns: &Netns, groups: Groups) -> Result<Monitor> {
        netns.run(|| Monitor::open(groups))?
    }

    /// The descriptor that becomes readable when there is something to drain.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// Waits for something to drain; `false` when the time ran out.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        wait_readable(self.socket.fd(), timeout)
    }

    /// What happened since the last call, in order; does not wait.
    pub fn drain(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        self.socket.drain(|item| match item {
            Err(()) if events.last() == Some(&Event::Resync) => {}
            Err(()) => events.push(Event::Resync),
            Ok((kind, body)) => events.extend(event(kind, body)),
        })?;
        Ok(events)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

fn event(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWLINK => link_codec::parse(body).map(Event::LinkSet),
        libc::RTM_DELLINK => link_codec::parse(body).map(Event::LinkGone),
        libc::RTM_NEWADDR => address::parse(body).map(Event::AddressSet),
        libc::RTM_DELADDR => address::parse(body).map(Event::AddressGone),
        libc::RTM_NEWROUTE => route_codec::parse(body).map(Event::RouteSet),
        libc::RTM_DELROUTE => route_codec::parse(body).map(Event::RouteGone),
        libc::RTM_NEWNEIGH => neighbour::parse(body).map(Event::NeighbourSet),
        libc::RTM_DELNEIGH => neighbour::parse(body).map(Event::NeighbourGone),
        _ => None,
    }
}
