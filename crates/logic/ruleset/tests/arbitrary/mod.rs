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
    Action, Batch, Endpoint, EndpointId, HostAction, IcmpMatch, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage, Pool,
    Profile, Rule, SetChange, SetId, SetKind, Settings, TierAction, TierPolicies,
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
    let whole = kind().prop_flat_map(|kind| members(kind).prop_map(move |members| SetChange::Whole { kind, members }));
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

fn policy() -> impl Strategy<Value = Arc<Policy>> {
    (vec(rule(), 0..4), vec(rule(), 0..4))
        .prop_map(|(ingress, egress)| Arc::new(Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress, egress }))
}

fn profile_names() -> Vec<Arc<str>> {
    ["kns.a", "kns.b"].into_iter().map(Arc::from).collect()
}

fn tier() -> impl Strategy<Value = TierPolicies> {
    let default_action = select(vec![TierAction::Deny, TierAction::Pass]);
    let ids = || subsequence(policy_ids(), 0..4);
    (default_action, ids(), ids()).prop_map(|(default_action, ingress, egress)| TierPolicies {
        tier: Arc::from("t"),
        default_action,
        ingress,
        egress,
    })
}

fn endpoint() -> impl Strategy<Value = Arc<Endpoint>> {
    let interface = select(vec!["cali0", "cali1", "cali2", "tap9"]);
    (interface, vec(address(), 0..3), vec(tier(), 0..3), subsequence(profile_names(), 0..=2usize)).prop_map(
        |(interface, addresses, tiers, profiles)| {
            Arc::new(Endpoint { interface: Arc::from(interface), addresses, mac: None, tiers, profiles, ..Endpoint::default() })
        },
    )
}

fn endpoint_id() -> impl Strategy<Value = EndpointId> {
    select(vec!["w0", "w1", "w2", "w3"])
        .prop_map(|name| EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) })
}

fn settings() -> impl Strategy<Value = Settings> {
    let prefixes = subsequence(vec![Arc::<str>::from("cali"), Arc::from("tap"), Arc::from("")], 0..=3);
    let to_host = select(vec![HostAction::Accept, HostAction::Drop, HostAction::Return]);
    (prefixes, to_host, any::<[bool; 3]>()).prop_map(
        |(interface_prefixes, endpoint_to_host, [reject_denied, accept_invalid, ipv6])| Settings {
            interface_prefixes,
            endpoint_to_host,
            reject_denied,
            log_prefix: Arc::from("prefix"),
            accept_invalid,
            ipv6,
        },
    )
}

/// A batch of a few changes of every kind.
pub fn batch() -> impl Strategy<Value = Batch> {
    (
        option::weighted(0.15, settings()),
        btree_map(select(set_ids()), set_change(), 0..4),
        btree_map(select(policy_ids()), option::weighted(0.75, policy()), 0..3),
        btree_map(
            select(profile_names()),
            option::weighted(
                0.75,
                policy().prop_map(|p| Arc::new(Profile { ingress: p.ingress.clone(), egress: p.egress.clone() })),
            ),
            0..2,
        ),
        btree_map(endpoint_id(), option::weighted(0.75, endpoint()), 0..3),
        btree_map(net(), option::weighted(0.6, any::<bool>().prop_map(|nat_outgoing| Pool { nat_outgoing })), 0..3),
    )
        .prop_map(|(settings, sets, policies, profiles, endpoints, pools)| Batch {
            settings,
            sets,
            policies,
            profiles,
            endpoints,
            pools,
            ..Batch::default()
        })
}
