//! The main routing table as `ip route` prints it.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use tortie_net::Family;
use tortie_netlink::{Handle, NextHop, Route, RouteFilter, RouteKind, RouteProtocol, Scope, TABLE_MAIN};

/// The main table of a namespace, a line for each route; IPv6 routes if `v6`, else IPv4.
pub fn show(handle: &mut Handle, v6: bool) -> Result<String> {
    let family = Some(if v6 { Family::V6 } else { Family::V4 });
    let names: BTreeMap<u32, String> = handle.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let routes = handle.routes(&RouteFilter { family, table: Some(TABLE_MAIN), protocol: None })?;
    Ok(routes.iter().map(|route| line(route, &names) + "\n").collect())
}

/// One route, with link names for numbers.
pub fn line(route: &Route, names: &BTreeMap<u32, String>) -> String {
    let Route { net, table: _, kind, protocol, scope, metric, src, hops } = route;
    let mut text = match kind {
        RouteKind::Unicast => String::new(),
        RouteKind::Local => "local ".to_owned(),
        RouteKind::Blackhole => "blackhole ".to_owned(),
        RouteKind::Unreachable => "unreachable ".to_owned(),
        RouteKind::Prohibit => "prohibit ".to_owned(),
        RouteKind::Throw => "throw ".to_owned(),
        RouteKind::Other(number) => format!("{number} "),
    };
    let v6 = Family::of_net(*net) == Family::V6;
    let host = net.prefix_len() == net.max_prefix_len();
    match (net.prefix_len(), host) {
        (0, _) => text += "default",
        (_, true) => text += &net.addr().to_string(),
        (_, false) => text += &net.to_string(),
    }
    if let [hop] = hops.as_slice() {
        text += &hop_text(hop, names);
    }
    if *protocol != RouteProtocol::BOOT || v6 && hops.is_empty() {
        text += &format!(" proto {protocol}");
    }
    match scope {
        Scope::Link if !v6 => text += " scope link",
        Scope::Host if !v6 => text += " scope host",
        Scope::Universe | Scope::Link | Scope::Host | Scope::Site | Scope::Nowhere | Scope::Other(_) => {}
    }
    // Writing to a String can't fail.
    if let Some(src) = src {
        let _ = write!(text, " src {src}");
    }
    if *metric != 0 {
        let _ = write!(text, " metric {metric}");
    }
    if let [NextHop { onlink: true, .. }] = hops.as_slice() {
        text += " onlink";
    }
    if hops.len() > 1 {
        for hop in hops {
            let onlink = if hop.onlink { " onlink" } else { "" };
            let _ = write!(text, "\n\tnexthop{} weight {}{onlink}", hop_text(hop, names), hop.weight);
        }
    }
    text
}

fn hop_text(hop: &NextHop, names: &BTreeMap<u32, String>) -> String {
    let via = hop.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let device = match names.get(&hop.interface) {
        Some(name) => format!(" dev {name}"),
        None if hop.interface == 0 => String::new(),
        None => format!(" dev if{}", hop.interface),
    };
    via + &device
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<u32, String> {
        [(2, "eth0".to_owned()), (3, "calic18c1dc57ca".to_owned())].into()
    }

    #[test]
    fn routes_look_as_in_the_walk_through() {
        let peer = vec![NextHop::via("172.17.8.102".parse().unwrap(), 2)];
        for (route, expected) in [
            (
                Route::via("192.168.50.64/26".parse().unwrap(), peer.clone(), RouteProtocol::BIRD),
                "192.168.50.64/26 via 172.17.8.102 dev eth0 proto bird",
            ),
            (
                Route::blackhole("192.168.84.192/26".parse().unwrap(), RouteProtocol::BIRD),
                "blackhole 192.168.84.192/26 proto bird",
            ),
            (
                Route::link("192.168.84.209/32".parse().unwrap(), 3, RouteProtocol::BOOT),
                "192.168.84.209 dev calic18c1dc57ca scope link",
            ),
            (Route::via("0.0.0.0/0".parse().unwrap(), peer, RouteProtocol::BOOT), "default via 172.17.8.102 dev eth0"),
        ] {
            assert_eq!(line(&route, &names()), expected);
        }
    }

    #[test]
    fn several_next_hops_have_a_line_each() {
        let hop = |last: u8| NextHop { via: Some([172, 17, 8, last].into()), interface: 2, onlink: true, weight: 1 };
        let route = Route::via("10.0.0.0/8".parse().unwrap(), vec![hop(1), hop(2)], RouteProtocol::BIRD);
        let expected = "10.0.0.0/8 proto bird\n\tnexthop via 172.17.8.1 dev eth0 weight 1 onlink\
                        \n\tnexthop via 172.17.8.2 dev eth0 weight 1 onlink";
        assert_eq!(line(&route, &names()), expected);
    }
}
