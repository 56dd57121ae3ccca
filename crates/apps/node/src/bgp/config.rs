//! From the desired tables to the speaker's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_bgp::policy::{PRIORITY_SUM, normal_priority, priority};
use tortie_bgp::{Families, LocalRoute, NextHopMode, Password, PeerConfig, SpeakerConfig};
use tortie_desired::{BgpNextHop, BgpPeer, BgpPolicy, BgpSpeaker, ExportRule, wildcard};
use tortie_net::{Family, IpNet};
use tortie_routing::Learned;

use super::Wanted;

/// Interfaces whose subnets are nobody's business: those of workloads, and where services' addresses are kept.
const NEVER_DIRECT: [&str; 3] = ["cali*", "kube-ipvs*", "lo"];

/// The longest interval of keepalives that the usual hold time allows, seconds.
const USUAL_KEEPALIVE: u16 = 30;

pub(super) fn speaker(own: &BgpSpeaker) -> SpeakerConfig {
    SpeakerConfig::new(own.router_id, own.asn)
}

pub(super) fn peer(own: &BgpSpeaker, address: IpAddr, peer: &BgpPeer, password: Option<Password>) -> PeerConfig {
    let BgpPeer {
        asn,
        port,
        origin,
        name: _,
        local_asn,
        next_hop,
        source,
        passive,
        cluster,
        max_restart_secs,
        keepalive_secs,
        allowed_local_asn,
        ttl_hops,
        reachable_by: _,
        password: _,
        filters,
        bfd: _,
        max_prefixes,
        long_lived_secs,
        lingers,
    } = peer;
    let BgpSpeaker { router_id: _, asn: _, listen_port: _, ipv4, ipv6 } = own;
    let v4 = ipv4.and_then(|addr| if let IpAddr::V4(addr) = addr { Some(addr) } else { None });
    let v6 = ipv6.and_then(|addr| if let IpAddr::V6(addr) = addr { Some(addr) } else { None });
    let slow = keepalive_secs.filter(|secs| *secs > USUAL_KEEPALIVE);
    PeerConfig {
        port: *port,
        local: *source,
        local_as: *local_asn,
        families: Families::only(Family::of(address)),
        passive: *passive,
        next_hop: match next_hop {
            BgpNextHop::Auto => NextHopMode::Auto,
            BgpNextHop::Own => NextHopMode::SelfAddress,
            BgpNextHop::Keep => NextHopMode::Keep,
        },
        next_hop_v4: v4,
        next_hop_v6: v6,
        reflector_cluster: *cluster,
        hold_time_secs: slow.map(|secs| secs.saturating_mul(3)),
        keepalive_secs: *keepalive_secs,
        restart_time_secs: Some(*max_restart_secs),
        allowed_local_as: *allowed_local_asn,
        filters: filters.clone(),
        max_prefixes: *max_prefixes,
        long_lived_secs: *long_lived_secs,
        lingers: *lingers,
        password,
        ttl_hops: *ttl_hops,
        kind: origin.text().to_owned(),
        ..PeerConfig::new(address, *asn)
    }
}

/// A learned best path as the kernel gets it: with the priority that its LOCAL_PREF stands for as metric, as upstream has
/// it. One above the normal priority wins over a workload here: the workload has moved.
pub(super) fn learned(policy: &BgpPolicy, prefix: IpNet, best: tortie_bgp::Learned) -> Learned {
    let normal = normal_priority(policy, prefix);
    let metric = priority(best.attributes.preference()).unwrap_or(normal);
    Learned { next_hops: best.next_hops, metric, over_workloads: metric < normal }
}

/// What is originated: what is announced, and what a filter may let out. `direct`: subnets of interfaces. A single address
/// is a workload's, which may have moved, unless it is that of a service, for each of which there is a rule.
pub(super) fn routes(wanted: &Wanted, direct: Vec<(IpNet, String)>) -> BTreeMap<IpNet, LocalRoute> {
    let route = |net: IpNet, interface: Option<Arc<str>>, yields: bool| {
        let local_pref = Some(PRIORITY_SUM.saturating_sub(normal_priority(&wanted.policy, net)));
        (net, LocalRoute { local_pref, interface, yields, ..LocalRoute::default() })
    };
    let told = wanted.policy.export.iter().filter_map(|rule| match rule {
        ExportRule::Tell(net) => Some(*net),
        ExportRule::Refuse(_) | ExportRule::Block(_) => None,
    });
    let services: BTreeSet<IpNet> = told.filter(is_single).collect();
    let yields = |net: &IpNet| is_single(net) && !services.contains(net);
    let ignored = |name: &str| {
        let patterns = wanted.policy.ignored_interfaces.iter().map(|pattern| &**pattern);
        patterns.chain(NEVER_DIRECT).any(|pattern| wildcard(pattern, name))
    };
    let direct = direct.into_iter().filter(|(_, name)| !ignored(name));
    let mut routes: BTreeMap<IpNet, LocalRoute> =
        direct.map(|(net, name)| route(net.trunc(), Some(Arc::from(name)), false)).collect();
    routes.extend(wanted.announcements.iter().map(|net| route(*net, None, yields(net))));
    routes.extend(wanted.policy.workloads.iter().map(|(net, interface)| route(*net, Some(interface.clone()), true)));
    routes
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == Family::of_net(*net).bits()
}

/// Whether some peer's filter looks at interfaces.
pub(super) fn filters_interfaces(wanted: &Wanted) -> bool {
    let mut peers = wanted.peers.values().chain(wanted.policy.ranges.values());
    peers.any(|peer| peer.filters.iter().any(|filter| filter.looks_at_interfaces()))
}

/// Whether some peer's filter looks at what is sent, so that more than what is announced by itself may go out.
pub(super) fn filters_exports(wanted: &Wanted) -> bool {
    let peers = wanted.peers.values().chain(wanted.policy.ranges.values());
    let mut filters = peers.flat_map(|peer| &peer.filters);
    filters.any(|filter| !filter.export_v4.is_empty() || !filter.export_v6.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_bgp::attribute::Attributes;

    #[test]
    fn only_addresses_of_workloads_give_way() {
        let net = |text: &str| text.parse::<IpNet>().expect("a literal");
        let mut wanted = Wanted::default();
        wanted.policy.export =
            ["10.96.0.9/32", "203.0.113.0/24", "10.0.0.0/8"].map(|text| ExportRule::Tell(net(text))).into();
        wanted.policy.workloads = BTreeMap::from([(net("10.0.0.1/32"), "cali1".into())]);
        let announced = ["10.0.0.0/26", "10.96.0.9/32", "203.0.113.0/24", "10.7.0.1/32", "fd00::7/128"];
        wanted.announcements = announced.map(net).into();
        let direct = vec![(net("192.0.2.1/32"), "eth0".to_owned())];
        let routes = routes(&wanted, direct);
        let yielding: Vec<String> =
            routes.iter().filter(|(_, route)| route.yields).map(|(net, _)| net.to_string()).collect();
        assert_eq!(
            (routes.len(), yielding),
            (7, ["10.0.0.1/32", "10.7.0.1/32", "fd00::7/128"].map(str::to_owned).into())
        );
    }

    /// LOCAL_PREF, and the metric, and whether a workload gives way: as upstream's filters of BIRD have it.
    #[test]
    fn the_metric_is_what_the_preference_stands_for() {
        let policy = BgpPolicy { normal_priority: [1024, 2000], ..BgpPolicy::default() };
        let v4: IpNet = "10.0.0.5/32".parse().expect("a literal");
        let v6: IpNet = "fd00::5/128".parse().expect("a literal");
        let gateway = IpAddr::from([172, 17, 8, 102]);
        for (prefix, local_pref, metric, over_workloads) in [
            (v4, Some(PRIORITY_SUM - 1024), 1024, false),
            (v4, Some(PRIORITY_SUM - 512), 512, true),
            (v6, Some(PRIORITY_SUM - 1024), 1024, true),
            (v6, Some(PRIORITY_SUM - 2000), 2000, false),
            (v4, None, PRIORITY_SUM - 100, false),
            (v4, Some(0), PRIORITY_SUM, false),
            (v4, Some(PRIORITY_SUM), 1024, false),
            (v6, Some(u32::MAX), 2000, false),
        ] {
            let attributes = Arc::new(Attributes { local_pref, ..Attributes::default() });
            let best = tortie_bgp::Learned { from: gateway, next_hop: gateway, next_hops: vec![gateway], attributes };
            let expected = Learned { next_hops: vec![gateway], metric, over_workloads };
            assert_eq!(learned(&policy, prefix, best), expected, "{prefix} {local_pref:?}");
        }
    }
}
