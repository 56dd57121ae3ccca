//! Routes to and from the wire.

use std::borrow::Borrow;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol as WireProtocol, RouteType, RouteVia,
};
use tortie_net::Family;

use crate::handle::wire_family;
use crate::wire::{Request, put};
use crate::{NextHop, Route, RouteChange, RouteFilter, RouteKind, RouteProtocol, Scope};

/// The message of a route with one gateway takes this at most.
const USUAL_LEN: usize = 96;
/// The `libc` crate knows it of one C library only.
const RTA_VIA: u16 = 18;

/// The table's number in the one byte of the old header: 252 (`RT_TABLE_COMPAT`) when it does not fit.
pub(crate) fn table_byte(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(252)
}

/// A dump that the kernel filters.
pub(crate) fn dump_request(family: Family, filter: &RouteFilter) -> Request {
    let RouteFilter { family: _, table, protocol } = *filter;
    let mut message = RouteMessage::default();
    message.header.family_and_type(family, RouteType::Unspec);
    if let Some(table) = table {
        message.header.table = table_byte(table);
        message.attributes.push(RouteAttribute::Table(table));
    }
    message.header.protocol = WireProtocol::from(protocol.map_or(0, |p| p.0));
    Request::new(libc::RTM_GETROUTE, 0, &message)
}

/// A change as a request.
pub(crate) fn change_request<R: Borrow<Route>>(change: &RouteChange<R>) -> Request {
    let (kind, flags, route) = match change {
        RouteChange::Add(route) => (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route.borrow()),
        RouteChange::Replace(route) => (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route.borrow()),
        RouteChange::Delete(route) => (libc::RTM_DELROUTE, 0, route.borrow()),
    };
    let body = match kind {
        libc::RTM_DELROUTE if route.hops.len() > 1 => message(route, Scope::Nowhere, &[]),
        libc::RTM_DELROUTE => message(route, Scope::Nowhere, &route.hops),
        _ => message(route, route.scope, &route.hops),
    };
    Request { kind, flags, body }
}

trait HeaderExt {
    fn family_and_type(&mut self, family: Family, kind: RouteType);
}

impl HeaderExt for netlink_packet_route::route::RouteHeader {
    fn family_and_type(&mut self, family: Family, kind: RouteType) {
        self.address_family = wire_family(family);
        self.kind = kind;
    }
}

/// `struct rtmsg` and its attributes, written one after the other: there may be hundreds of thousands of routes.
fn message(route: &Route, scope: Scope, hops: &[NextHop]) -> Vec<u8> {
    let Route { net, table, kind, protocol, scope: _, metric, src, hops: _ } = route;
    let family = Family::of_net(*net);
    let flags = match hops {
        [hop] if hop.onlink => RouteFlags::Onlink,
        _ => RouteFlags::empty(),
    };
    let mut out = Vec::with_capacity(USUAL_LEN);
    out.extend_from_slice(&[wire_family(family).into(), net.prefix_len(), 0, 0]);
    out.extend_from_slice(&[table_byte(*table), protocol.0, scope.number(), wire_kind(*kind).into()]);
    out.extend_from_slice(&flags.bits().to_ne_bytes());
    put(&mut out, libc::RTA_TABLE, &table.to_ne_bytes());
    put_ip(&mut out, libc::RTA_DST, net.network());
    if *metric != 0 {
        put(&mut out, libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    if let Some(src) = src {
        put_ip(&mut out, libc::RTA_PREFSRC, *src);
    }
    match hops {
        [] => {}
        [hop] => {
            put_gateway(&mut out, family, hop);
            if hop.interface != 0 {
                put(&mut out, libc::RTA_OIF, &hop.interface.to_ne_bytes());
            }
        }
        hops => {
            let mut all = Vec::new();
            hops.iter().for_each(|hop| put_hop(&mut all, family, hop));
            put(&mut out, libc::RTA_MULTIPATH, &all);
        }
    }
    out
}

fn put_ip(out: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => put(out, kind, &ip.octets()),
        IpAddr::V6(ip) => put(out, kind, &ip.octets()),
    }
}

fn put_gateway(out: &mut Vec<u8>, family: Family, hop: &NextHop) {
    match hop.via {
        None => {}
        Some(via) if Family::of(via) == family => put_ip(out, libc::RTA_GATEWAY, via),
        Some(via) => {
            let mut other = u16::from(u8::from(wire_family(Family::of(via)))).to_ne_bytes().to_vec();
            match via {
                IpAddr::V4(ip) => other.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => other.extend_from_slice(&ip.octets()),
            }
            put(out, RTA_VIA, &other);
        }
    }
}

/// `struct rtnexthop` and its attributes.
fn put_hop(out: &mut Vec<u8>, family: Family, hop: &NextHop) {
    let mut attributes = Vec::new();
    put_gateway(&mut attributes, family, hop);
    let length = u16::try_from(8 + attributes.len()).expect("one address at most");
    let flags = if hop.onlink { RouteNextHopFlags::Onlink } else { RouteNextHopFlags::empty() };
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&[flags.bits(), u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX)]);
    out.extend_from_slice(&hop.interface.to_ne_bytes());
    out.extend_from_slice(&attributes);
}

fn wire_kind(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Other(number) => RouteType::from(number),
    }
}

fn kind_of(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        other => RouteKind::Other(other.into()),
    }
}

/// Reads a route into normal form; what is cloned for one flow, or of another family, is no route.
pub(crate) fn parse(body: &[u8]) -> Option<Route> {
    let message = RouteMessage::parse(body).ok()?;
    let header = message.header;
    let len = header.destination_prefix_length;
    let mut net = match header.address_family {
        AddressFamily::Inet => IpNet::V4(Ipv4Net::default()),
        AddressFamily::Inet6 => IpNet::V6(Ipv6Net::default()),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let (mut table, mut metric, mut src) = (u32::from(header.table), 0, None);
    let mut single = NextHop { onlink: header.flags.contains(RouteFlags::Onlink), ..NextHop::link(0) };
    let mut hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => net = IpNet::new(ip_of(&address)?, len).ok()?,
            RouteAttribute::Table(number) => table = number,
            RouteAttribute::Priority(number) => metric = number,
            RouteAttribute::PrefSource(address) => src = ip_of(&address),
            RouteAttribute::Oif(index) => single.interface = index,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.via = gateway_of(&attribute),
            RouteAttribute::MultiPath(wire) => hops.extend(wire.iter().map(hop_of)),
            _ => {}
        }
    }
    if hops.is_empty() && (single.interface != 0 || single.via.is_some()) {
        hops.push(single);
    }
    let scope = Scope::from_number(header.scope.into());
    let protocol = RouteProtocol(header.protocol.into());
    Some(Route { net, table, kind: kind_of(header.kind), protocol, scope, metric, src, hops }.normal())
}

fn hop_of(wire: &RouteNextHop) -> NextHop {
    NextHop {
        via: wire.attributes.iter().find_map(gateway_of),
        interface: wire.interface_index,
        onlink: wire.flags.contains(RouteNextHopFlags::Onlink),
        weight: u16::from(wire.hops) + 1,
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip_of(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(a, l)| IpNet::V4(Ipv4Net::new(a.into(), l).unwrap())),
            (any::<u128>(), 0u8..=128).prop_map(|(a, l)| IpNet::V6(Ipv6Net::new(a.into(), l).unwrap())),
        ]
    }

    fn hops() -> impl Strategy<Value = Vec<NextHop>> {
        let hop = (proptest::option::of(any::<IpAddr>()), 1u32..9, any::<bool>(), 1u16..=256);
        proptest::collection::vec(hop, 0..4).prop_map(|hops| {
            hops.into_iter()
                .map(|(via, interface, onlink, weight)| NextHop { via, interface, onlink, weight })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_route_survives_the_wire(
            net in net(), table in 1u32..1000, kind in 0u8..12, protocol in any::<u8>(), scope in any::<u8>(),
            metric in any::<u32>(), src in any::<IpAddr>(), hops in hops(),
        ) {
            let src = Some(src).filter(|src| Family::of(*src) == Family::of_net(net));
            let route = Route {
                net, table, kind: kind_of(RouteType::from(kind)), protocol: RouteProtocol(protocol),
                scope: Scope::from_number(scope), metric, src, hops,
            }.normal();
            let request = change_request(&RouteChange::Add(route.clone()));
            prop_assert_eq!(parse(&request.body), Some(route));
        }
    }
}
