//! Random desired tables and batches, for the property tests of every packet filter backend.
//!
//! Names come from small pools, so that references mostly hit, and sometimes miss.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Failsafe, FloatingAddress, HostAction, HostEndpoint, HostInterface, IcmpMatch,
    Ipip, Limits, Match, Member, PacketRate, Policy, PolicyId, PolicyKind, PolicyStage, Pool, Profile, Rule, SetChange,
    SetId, SetKind, Settings, TierAction, TierPolicies, TunnelDevice, Vtep, Vxlan, Wireguard, WireguardPeer,
};
use tortie_net::{Family, IpNet, PortRange, Protocol};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..2, 0u8..8).prop_map(|(a, b)| IpAddr::from(Ipv4Addr::new(10, 0, a, b))),
        (0u16..8).prop_map(|a| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, a))),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..10).prop_map(|(addr, shorter)| {
        let bits = Family::of(addr).bits();
        let len = if shorter == 9 { 0 } else { bits - shorter };
        IpNet::new(addr, len).expect("within the family").trunc()
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6, Protocol(132), Protocol(47)])
}

/// The kind of a set is mostly a function of its id.
fn set_ids() -> Vec<SetId> {
    ["s:a", "s:b_-", "s:c", "svc:d", "n:e", "odd id"].into_iter().map(SetId::new).collect()
}

fn kind() -> impl Strategy<Value = SetKind> {
    select(vec![SetKind::Addresses, SetKind::Nets, SetKind::Ports])
}

fn members(kind: SetKind) -> BoxedStrategy<BTreeSet<Member>> {
    let member = match kind {
        SetKind::Addresses => address().prop_map(|a| Member::Net(IpNet::from(a))).boxed(),
        SetKind::Nets => net().prop_map(Member::Net).boxed(),
        SetKind::Ports => (address(), protocol(), 1u16..4)
            .prop_map(|(addr, protocol, port)| Member::Port { addr, protocol, port })
            .boxed(),
    };
    btree_set(member, 0..12).boxed()
}

fn set_change() -> impl Strategy<Value = SetChange> {
    let whole = kind().prop_flat_map(|kind| {
        members(kind).prop_map(move |members| SetChange::Whole { kind, members: members.into() })
    });
    let delta = kind().prop_flat_map(|kind| {
        (members(kind), members(kind)).prop_map(|(added, removed)| {
            let removed = removed.difference(&added).copied().collect();
            SetChange::Delta { added, removed }
        })
    });
    prop_oneof![3 => whole, 4 => delta, 1 => Just(SetChange::Removed)]
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (prop_oneof![4 => 0u16..5, 1 => any::<u16>()], 0u16..3)
        .prop_map(|(first, more)| PortRange::new(first, first.saturating_add(more)).expect("ascending"))
}

fn some_sets() -> impl Strategy<Value = Vec<SetId>> {
    prop_oneof![3 => Just(vec![]), 1 => subsequence(set_ids(), 0..3)]
}

fn side() -> impl Strategy<Value = Match> {
    let nets = || prop_oneof![3 => Just(vec![]), 1 => vec(net(), 0..4)];
    let ports = || prop_oneof![3 => Just(vec![]), 1 => vec(port_range(), 0..4)];
    let sets = (some_sets(), some_sets(), some_sets(), some_sets(), some_sets());
    ((nets(), nets()), sets, (ports(), ports())).prop_map(|((nets, not_nets), sets, (ports, not_ports))| {
        let (sets, not_sets, service_sets, port_sets, not_port_sets) = sets;
        Match { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets }
    })
}

/// Any rule, valid in the API or not; often one without conditions, so that packets get far.
pub fn rule() -> impl Strategy<Value = Rule> {
    let action = select(vec![Action::Allow, Action::Deny, Action::Pass, Action::Pass, Action::Log]);
    prop_oneof![1 => action.prop_map(Rule::any), 2 => picky_rule()]
}

fn picky_rule() -> impl Strategy<Value = Rule> {
    let icmp = || option::weighted(0.2, (select(vec![0u8, 8, 128]), option::of(0u8..3)));
    let action = select(vec![Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let family = option::weighted(0.3, select(Family::ALL.to_vec()));
    let protocols = (option::of(protocol()), option::weighted(0.2, protocol()));
    (action, family, protocols, icmp(), icmp(), side(), side()).prop_map(
        |(action, family, (protocol, not_protocol), icmp, not_icmp, source, destination)| {
            let icmp_match = |(icmp_type, code)| IcmpMatch { icmp_type, code };
            let (icmp, not_icmp) = (icmp.map(icmp_match), not_icmp.map(icmp_match));
            Rule { action, family, protocol, not_protocol, icmp, not_icmp, source, destination }
        },
    )
}

fn policy_ids() -> Vec<PolicyId> {
    let long = "l".repeat(240);
    ["p0", "p1", "p2", "p3", long.as_str()]
        .into_iter()
        .map(|name| PolicyId {
            name: Arc::from(name),
            namespace: Arc::from(if name == "p0" { "" } else { "ns" }),
            kind: PolicyKind::NetworkPolicy,
        })
        .collect()
}

/// Policies for one stage each, by their names' first letters.
fn staged_ids(letter: char) -> Vec<PolicyId> {
    ["0", "1"]
        .map(|n| PolicyId {
            name: Arc::from(format!("{letter}{n}")),
            namespace: Arc::from(""),
            kind: PolicyKind::GlobalNetworkPolicy,
        })
        .to_vec()
}

fn stage_of(id: &PolicyId) -> PolicyStage {
    match id.name.chars().next() {
        Some('u') => PolicyStage::Untracked,
        Some('d') => PolicyStage::PreDnat,
        _ => PolicyStage::Normal,
    }
}

fn any_policy() -> impl Strategy<Value = (PolicyId, Option<Arc<Policy>>)> {
    let ids = [policy_ids(), staged_ids('u'), staged_ids('d')].concat();
    (select(ids), option::weighted(0.75, policy())).prop_map(|(id, policy)| {
        let stage = stage_of(&id);
        let policy = policy.map(|policy| Arc::new(Policy { stage, ..(*policy).clone() }));
        (id, policy)
    })
}

fn policy() -> impl Strategy<Value = Arc<Policy>> {
    (vec(rule(), 0..4), vec(rule(), 0..4)).prop_map(|(ingress, egress)| {
        Arc::new(Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress, egress })
    })
}

/// Makes every rule ask for ports or for addresses, so that policies can be chosen from.
pub fn narrow(batch: &mut Batch) {
    for (number, (_, policy)) in batch.policies.iter_mut().enumerate() {
        let Some(policy) = policy.as_mut().map(Arc::make_mut) else { continue };
        for (at, rule) in policy.ingress.iter_mut().chain(&mut policy.egress).enumerate() {
            if rule.action == Action::Pass {
                rule.action = if at % 2 == 0 { Action::Allow } else { Action::Deny };
            }
            let low = u8::try_from(number + at).unwrap_or(0) % 5;
            let nets = || {
                let (v4, v6) = (Ipv4Addr::new(10, 0, 0, low), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low.into()));
                [(IpAddr::from(v4), 30), (IpAddr::from(v6), 127)]
                    .map(|(addr, len)| IpNet::new(addr, len).expect("within the family").trunc())
                    .to_vec()
            };
            match number % 3 {
                0 => {
                    let protocol = if low % 2 == 0 { Protocol::TCP } else { Protocol::UDP };
                    *rule = Rule { protocol: Some(protocol), icmp: None, not_icmp: None, ..rule.clone() };
                    rule.destination.port_sets.clear();
                    let range = PortRange::new(low.into(), u16::from(low) + u16::from(low % 3)).expect("ascending");
                    rule.destination.ports.push(range);
                }
                1 => rule.source.nets.extend(nets()),
                _ => rule.destination.nets.extend(nets()),
            }
        }
    }
}

fn profile_names() -> Vec<Arc<str>> {
    ["kns.a", "kns.b"].into_iter().map(Arc::from).collect()
}

fn tier() -> impl Strategy<Value = TierPolicies> {
    tier_of(policy_ids())
}

fn tier_of(ids: Vec<PolicyId>) -> impl Strategy<Value = TierPolicies> {
    let default_action = select(vec![TierAction::Deny, TierAction::Pass]);
    let most = ids.len().min(3);
    let ids = || subsequence(ids.clone(), 0..=most);
    (default_action, ids(), ids()).prop_map(|(default_action, ingress, egress)| TierPolicies {
        tier: Arc::from("t"),
        default_action,
        ingress,
        egress,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate =
        || option::weighted(0.1, (1u32..9, 1u32..9).prop_map(|(per_second, burst)| PacketRate { per_second, burst }));
    let count = || option::weighted(0.1, 1u32..9);
    (rate(), rate(), count(), count(), option::weighted(0.2, 0u8..64)).prop_map(
        |(ingress_packets, egress_packets, ingress_connections, egress_connections, dscp)| Limits {
            ingress_packets,
            egress_packets,
            ingress_connections,
            egress_connections,
            dscp,
            ..Limits::default()
        },
    )
}

fn endpoint() -> impl Strategy<Value = Arc<Endpoint>> {
    let interface = select(vec!["cali0", "cali1", "cali2", "tap9"]);
    let more = (prop_oneof![4 => Just(vec![]), 1 => vec(net(), 1..3)], limits(), vec((address(), address()), 0..2));
    (interface, vec(address(), 0..3), vec(tier(), 0..3), subsequence(profile_names(), 0..=2usize), more).prop_map(
        |(interface, addresses, tiers, profiles, (allowed_sources, limits, pairs))| {
            let same = pairs.into_iter().filter(|(a, b)| a.is_ipv4() == b.is_ipv4());
            let floating = same.map(|(external, internal)| FloatingAddress { external, internal }).collect();
            let interface = Arc::from(interface);
            Arc::new(Endpoint { interface, addresses, mac: None, tiers, profiles, allowed_sources, floating, limits })
        },
    )
}

fn host_interface() -> impl Strategy<Value = HostInterface> {
    let named = |name: &str| HostInterface::Named(Arc::from(name));
    select(vec![named("eth0"), named("eth1"), named("lo"), HostInterface::All, HostInterface::All])
}

fn host_endpoint() -> impl Strategy<Value = (HostInterface, HostEndpoint)> {
    let lists = |ids: Vec<PolicyId>| vec(tier_of(ids), 0..3);
    let parts = (lists(staged_ids('u')), lists(staged_ids('d')), lists(policy_ids()), lists(policy_ids()));
    (host_interface(), parts, subsequence(profile_names(), 0..=2usize)).prop_map(
        |(interface, (untracked, mut pre_dnat, forward, tiers), profiles)| {
            let untracked = if interface == HostInterface::All { vec![] } else { untracked };
            pre_dnat.iter_mut().for_each(|tier| tier.egress.clear());
            let name = Arc::from(format!("hep-{interface}"));
            (interface, HostEndpoint { name, untracked, pre_dnat, forward, tiers, profiles })
        },
    )
}

fn failsafes() -> impl Strategy<Value = Vec<Failsafe>> {
    let one = (select(vec![Protocol::TCP, Protocol::UDP]), 0u16..5, option::weighted(0.4, net()))
        .prop_map(|(protocol, port, net)| Failsafe { protocol, port, net });
    vec(one, 0..3)
}

fn tunnel() -> Vxlan {
    let underlay = IpAddr::from([192, 0, 2, 1]);
    let mac = tortie_net::Mac([2, 0, 0, 0, 0, 1]);
    Vxlan { vni: 4096, port: 3, underlay, address: Some(underlay), mac, mtu: None }
}

fn endpoint_id() -> impl Strategy<Value = EndpointId> {
    select(vec!["w0", "w1", "w2", "w3"])
        .prop_map(|name| EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) })
}

fn settings() -> impl Strategy<Value = Settings> {
    let prefixes = subsequence(vec![Arc::<str>::from("cali"), Arc::from("tap"), Arc::from("")], 0..=3);
    let to_host = select(vec![HostAction::Accept, HostAction::Drop, HostAction::Return]);
    (prefixes, to_host, any::<[bool; 7]>(), failsafes(), failsafes(), btree_set(net(), 0..2)).prop_map(
        |(interface_prefixes, endpoint_to_host, flags, failsafe_inbound, failsafe_outbound, service_loops)| {
            let [reject_denied, accept_invalid, ipv6, vxlan_from_workloads, ipip_from_workloads, reject, record_drops] =
                flags;
            let external_nodes = service_loops.iter().filter(|net| net.addr().is_ipv4()).copied().collect();
            Settings {
                revoke_flows: record_drops,
                loose_sources: reject_denied,
                external_nodes,
                interface_prefixes,
                endpoint_to_host,
                reject_denied,
                log_prefix: Arc::from("prefix"),
                accept_invalid,
                ipv6,
                failsafe_inbound,
                failsafe_outbound,
                vxlan_port: 3,
                vxlan_from_workloads,
                ipip_from_workloads,
                service_loops,
                reject_service_loops: reject,
                record_drops,
                ..Settings::default()
            }
        },
    )
}

fn ipip_device(peers: Vec<std::net::IpAddr>) -> Ipip {
    Ipip {
        underlay: std::net::IpAddr::from([192, 0, 2, 1]),
        address: Some(std::net::IpAddr::from([10, 65, 0, 9])),
        mtu: None,
        peers: peers.into_iter().map(|peer| (peer, Arc::from("far"))).collect(),
        ends: std::collections::BTreeMap::new(),
        learned: std::collections::BTreeMap::new(),
    }
}

/// A device on the port that VXLAN has too in other batches.
fn wireguard_device(ends: Vec<IpAddr>) -> Wireguard {
    let peer = |(at, endpoint): (usize, IpAddr)| {
        let key = tortie_net::PublicKey([u8::try_from(at + 1).expect("a few"); 32]);
        (Arc::from(format!("n{at}")), WireguardPeer { key, endpoint, address: None, allowed: BTreeSet::new() })
    };
    Wireguard {
        name: Arc::from("wireguard.cali"),
        port: 2,
        table: 1,
        priority: 99,
        underlay: IpAddr::from([192, 0, 2, 1]),
        address: Some(IpAddr::from([192, 0, 2, 1])),
        mtu: None,
        keepalive_secs: 0,
        threaded: false,
        peers: ends.into_iter().enumerate().map(peer).collect(),
        plain: BTreeSet::new(),
    }
}

/// A batch of a few changes of every kind.
pub fn batch() -> impl Strategy<Value = Batch> {
    let profile = policy().prop_map(|p| Arc::new(Profile { ingress: p.ingress.clone(), egress: p.egress.clone() }));
    let host = (host_endpoint(), any::<[bool; 2]>())
        .prop_map(|((interface, endpoint), there)| (interface, (there != [false; 2]).then(|| Arc::new(endpoint))));
    let tunnels = (
        option::weighted(0.2, any::<bool>()),
        option::weighted(0.2, option::of(vec(address(), 0..3))),
        option::weighted(0.2, option::of(vec(address(), 0..3))),
    );
    let vteps = btree_map(address(), option::weighted(0.6, address()), 0..2);
    (
        option::weighted(0.15, settings()),
        btree_map(select(set_ids()), set_change(), 0..4),
        vec(any_policy(), 0..4),
        btree_map(select(profile_names()), option::weighted(0.75, profile), 0..2),
        btree_map(endpoint_id(), option::weighted(0.75, endpoint()), 0..3),
        vec(host, 0..3),
        (tunnels, vteps),
        btree_map(net(), option::weighted(0.6, any::<bool>().prop_map(|nat_outgoing| Pool { nat_outgoing })), 0..3),
    )
        .prop_map(
            |(settings, sets, policies, profiles, endpoints, host, ((tunnels, ipip, encrypted), vteps), pools)| {
                let vtep =
                    |underlay| Vtep { node: Arc::from("far"), mac: tortie_net::Mac([2, 0, 0, 0, 0, 2]), underlay };
                Batch {
                    settings,
                    sets,
                    policies: policies.into_iter().collect(),
                    profiles,
                    endpoints,
                    host_endpoints: host.into_iter().collect(),
                    tunnels: tunnels.map(|there| (TunnelDevice::VxlanV4, there.then(tunnel))).into_iter().collect(),
                    ipip: ipip.map(|peers| peers.map(ipip_device)),
                    wireguard: encrypted.map(|ends| (Family::V4, ends.map(wireguard_device))).into_iter().collect(),
                    vteps: vteps.into_iter().map(|(addr, underlay)| (addr, underlay.map(vtep))).collect(),
                    pools,
                    ..Batch::default()
                }
            },
        )
}
