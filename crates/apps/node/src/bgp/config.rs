//! From the desired tables to the speaker's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_bgp::policy::PRIORITY_SUM;
use tortie_bgp::{Families, LocalRoute, NextHopMode, Password, PeerConfig, SpeakerConfig};
use tortie_desired::{BgpNextHop, BgpPeer, BgpSpeaker, wildcard};
use tortie_net::{Family, IpNet};

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

/// What is originated: what is announced, and what a filter may let out. `direct`: subnets of interfaces.
pub(super) fn routes(wanted: &Wanted, direct: Vec<(IpNet, String)>) -> BTreeMap<IpNet, LocalRoute> {
    let priority = |net: IpNet| match Family::of_net(net) {
        Family::V4 => wanted.policy.normal_priority[0],
        Family::V6 => wanted.policy.normal_priority[1],
    };
    let route = |net: IpNet, interface: Option<Arc<str>>| {
        let local_pref = Some(PRIORITY_SUM.saturating_sub(priority(net)));
        (net, LocalRoute { local_pref, interface, ..LocalRoute::default() })
    };
    let ignored = |name: &str| {
        let patterns = wanted.policy.ignored_interfaces.iter().map(|pattern| &**pattern);
        patterns.chain(NEVER_DIRECT).any(|pattern| wildcard(pattern, name))
    };
    let direct = direct.into_iter().filter(|(_, name)| !ignored(name));
    let mut routes: BTreeMap<IpNet, LocalRoute> =
        direct.map(|(net, name)| route(net.trunc(), Some(Arc::from(name)))).collect();
    routes.extend(wanted.announcements.iter().map(|net| route(*net, None)));
    routes.extend(wanted.policy.workloads.iter().map(|(net, interface)| route(*net, Some(interface.clone()))));
    routes
}

/// Whether some peer's filter looks at what is sent, so that more than what is announced by itself may go out.
pub(super) fn filters_exports(wanted: &Wanted) -> bool {
    let peers = wanted.peers.values().chain(wanted.policy.ranges.values());
    let mut filters = peers.flat_map(|peer| &peer.filters);
    filters.any(|filter| !filter.export_v4.is_empty() || !filter.export_v6.is_empty())
}
