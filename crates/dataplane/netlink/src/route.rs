//! Routes as values, and how they are listed and changed.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_net::Family;

use crate::route_codec;
use crate::{Error, Handle, Result, RouteChange};

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;
/// The table of the node's own addresses, kept by the kernel.
pub const TABLE_LOCAL: u32 = 255;

/// Who made a route (`rtm_protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// The kernel itself, for the prefixes of addresses.
    pub const KERNEL: RouteProtocol = RouteProtocol(2);
    /// Set up by hand without saying more; upstream's default for workload routes. `ip route` prints nothing for it.
    pub const BOOT: RouteProtocol = RouteProtocol(3);
    /// An administrator.
    pub const STATIC: RouteProtocol = RouteProtocol(4);
    /// BIRD; upstream's BGP routes and the blackholes of blocks.
    pub const BIRD: RouteProtocol = RouteProtocol(12);
    /// Upstream Felix's own number.
    pub const CALICO: RouteProtocol = RouteProtocol(80);
}

impl fmt::Display for RouteProtocol {
    /// The name that iproute2 prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RouteProtocol::KERNEL => f.write_str("kernel"),
            RouteProtocol::BOOT => f.write_str("boot"),
            RouteProtocol::STATIC => f.write_str("static"),
            RouteProtocol::BIRD => f.write_str("bird"),
            RouteProtocol(other) => write!(f, "{other}"),
        }
    }
}

/// How far a destination is; smaller numbers are farther.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Anywhere, through a gateway.
    Universe,
    /// Inside the local site.
    Site,
    /// On link.
    Link,
    /// This machine.
    Host,
    /// Nowhere.
    Nowhere,
    /// Any other number.
    Other(u8),
}

impl Scope {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Scope::Universe => 0,
            Scope::Site => 200,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Nowhere => 255,
            Scope::Other(number) => number,
        }
    }

    /// The scope of a number of the kernel.
    pub fn from_number(number: u8) -> Scope {
        match number {
            0 => Scope::Universe,
            200 => Scope::Site,
            253 => Scope::Link,
            254 => Scope::Host,
            255 => Scope::Nowhere,
            other => Scope::Other(other),
        }
    }
}

/// What happens to a packet that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// It goes to a next hop.
    Unicast,
    /// It is for this machine.
    Local,
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped; the sender is told that the destination is unreachable.
    Unreachable,
    /// It is dropped; the sender is told that it is prohibited.
    Prohibit,
    /// The lookup goes on in the next table.
    Throw,
    /// Any other type, by number.
    Other(u8),
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The gateway; `None` when the destination is on link.
    pub via: Option<IpAddr>,
    /// Index of the outgoing link; 0 lets the kernel find it by the gateway.
    pub interface: u32,
    /// Whether the gateway is taken to be on link without a route that says so.
    pub onlink: bool,
    /// Share of the traffic, 1 to 256, among several next hops.
    pub weight: u16,
}

impl NextHop {
    /// On link.
    pub fn link(interface: u32) -> NextHop {
        NextHop { via: None, interface, onlink: false, weight: 1 }
    }

    /// Through a gateway.
    pub fn via(via: IpAddr, interface: u32) -> NextHop {
        NextHop { via: Some(via), interface, onlink: false, weight: 1 }
    }
}

/// A route, in the form that [`Route::normal`] describes when it came from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination, host bits zero.
    pub net: IpNet,
    /// Routing table.
    pub table: u32,
    /// What happens to packets.
    pub kind: RouteKind,
    /// Who made it.
    pub protocol: RouteProtocol,
    /// Scope; without meaning for IPv6.
    pub scope: Scope,
    /// Metric: lower wins. 0 asks IPv6 for its default of 1024.
    pub metric: u32,
    /// Preferred source address of packets that this machine sends.
    pub src: Option<IpAddr>,
    /// Next hops; several share the traffic (ECMP).
    pub hops: Vec<NextHop>,
}

impl Route {
    /// A blackhole in the main table.
    pub fn blackhole(net: IpNet, protocol: RouteProtocol) -> Route {
        let scope = Scope::Universe;
        let (table, kind) = (TABLE_MAIN, RouteKind::Blackhole);
        Route { net, table, kind, protocol, scope, metric: 0, src: None, hops: Vec::new() }.normal()
    }

    /// An on-link route of scope link in the main table.
    pub fn link(net: IpNet, interface: u32, protocol: RouteProtocol) -> Route {
        let (table, kind) = (TABLE_MAIN, RouteKind::Unicast);
        let hops = vec![NextHop::link(interface)];
        Route { net, table, kind, protocol, scope: Scope::Link, metric: 0, src: None, hops }.normal()
    }

    /// A route through next hops in the main table.
    pub fn via(net: IpNet, hops: Vec<NextHop>, protocol: RouteProtocol) -> Route {
        let scope = Scope::Universe;
        let (table, kind) = (TABLE_MAIN, RouteKind::Unicast);
        Route { net, table, kind, protocol, scope, metric: 0, src: None, hops }.normal()
    }

    /// The form in which the kernel reports the route, so that wanted and seen routes compare equal: host bits of the
    /// destination zero; next hops sorted, none for a route that drops; for IPv6 no scope, and metric 1024 for 0.
    pub fn normal(mut self) -> Route {
        self.net = self.net.trunc();
        if Family::of_net(self.net) == Family::V6 {
            self.scope = Scope::Universe;
            if self.metric == 0 {
                self.metric = 1024;
            }
        }
        match self.kind {
            RouteKind::Unicast | RouteKind::Local | RouteKind::Other(_) => self.hops.sort_unstable(),
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw => self.hops.clear(),
        }
        if let [hop] = self.hops.as_mut_slice() {
            hop.weight = 1;
        }
        self
    }
}

impl fmt::Display for Route {
    /// Close to what `ip route` prints, with link numbers for names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { net, table, kind, protocol, scope: _, metric, src, hops } = self;
        match kind {
            RouteKind::Unicast => {}
            RouteKind::Other(number) => write!(f, "type {number} ")?,
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
            RouteKind::Throw => f.write_str("throw ")?,
        }
        write!(f, "{net}")?;
        for NextHop { via, interface, onlink, weight } in hops {
            if hops.len() > 1 {
                write!(f, " nexthop weight {weight}")?;
            }
            if let Some(via) = via {
                write!(f, " via {via}")?;
            }
            if *interface != 0 {
                write!(f, " dev #{interface}")?;
            }
            if *onlink {
                f.write_str(" onlink")?;
            }
        }
        if *table != TABLE_MAIN {
            write!(f, " table {table}")?;
        }
        write!(f, " proto {protocol}")?;
        if *metric != 0 {
            write!(f, " metric {metric}")?;
        }
        src.map_or(Ok(()), |src| write!(f, " src {src}"))
    }
}

/// Which routes to list; `None` is any. The kernel filters, so that a small answer is cheap in a large table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Family.
    pub family: Option<Family>,
    /// Table.
    pub table: Option<u32>,
    /// Who made it.
    pub protocol: Option<RouteProtocol>,
}

impl RouteFilter {
    /// The main table, both families, any protocol.
    pub const MAIN: RouteFilter = RouteFilter { family: None, table: Some(TABLE_MAIN), protocol: None };

    /// Whether a route passes the filter.
    pub fn matches(&self, route: &Route) -> bool {
        let RouteFilter { family, table, protocol } = *self;
        family.is_none_or(|f| f == Family::of_net(route.net))
            && table.is_none_or(|t| t == route.table)
            && protocol.is_none_or(|p| p == route.protocol)
    }
}

impl Handle {
    /// The routes that pass a filter, in normal form and sorted. A table that does not exist has no routes.
    pub fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut all = Vec::new();
        for family in Family::ALL {
            if filter.family.is_some_and(|f| f != family) {
                continue;
            }
            let request = route_codec::dump_request(family, filter);
            match self.list(&request, route_codec::parse, "list routes") {
                Ok(routes) => all.extend(routes.into_iter().filter(|r| filter.matches(r))),
                Err(Error::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Makes changes, many per system call; one result for each, in order.
    pub fn change_routes<R: Borrow<Route> + fmt::Display>(
        &mut self,
        changes: &[RouteChange<R>],
    ) -> Result<Vec<Result<()>>> {
        let requests: Vec<_> = changes.iter().map(route_codec::change_request).collect();
        self.many(&requests, |at| changes[at].to_string())
    }

    /// Adds a route; [`Error::Exists`] when destination, table and metric are taken.
    pub fn add_route(&mut self, route: Route) -> Result<()> {
        self.change_route(RouteChange::Add(route))
    }

    /// Adds a route, or replaces the one with its destination, table and metric, whoever made that.
    pub fn replace_route(&mut self, route: Route) -> Result<()> {
        self.change_route(RouteChange::Replace(route))
    }

    /// Deletes a route; protocol, kind, metric and a single next hop must match.
    pub fn delete_route(&mut self, route: Route) -> Result<()> {
        self.change_route(RouteChange::Delete(route))
    }

    fn change_route(&mut self, change: RouteChange) -> Result<()> {
        self.change_routes(&[change])?.pop().expect("one answer for one change")
    }
}
