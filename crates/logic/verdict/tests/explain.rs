//! The explanation against the oracle: same verdict, same rules, on random tables.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tortie_desired::{
    Action, Endpoint, EndpointId, HostEndpoint, HostInterface, IcmpMatch, Match, Member, Members, Policy, PolicyId,
    PolicyKind, PolicyStage, Profile, Rule, SetId, SetKind, Tables, TierAction, TierPolicies,
};
use tortie_net::{Family, PortRange, Protocol};
use tortie_verdict::{
    Direction, Packet, Place, Source, Stage, Step, Target, conditions, evaluate, evaluate_endpoint, explain,
    explain_host, rule_matches,
};

fn addr(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn id() -> EndpointId {
    EndpointId { namespace: "ns".into(), name: "a".into() }
}

fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: name.into(), namespace: "".into(), kind: PolicyKind::GlobalNetworkPolicy }
}

fn side() -> impl Strategy<Value = Match> {
    let nets = || subsequence(vec!["10.0.0.0/30", "10.0.0.1/32", "0.0.0.0/0"], 0..=1);
    let sets = |choice: Vec<&'static str>| {
        prop_oneof![3 => Just(vec![]), 1 => subsequence(choice, 0..=1)]
            .prop_map(|ids: Vec<&str>| ids.into_iter().map(SetId::new).collect::<Vec<_>>())
    };
    let ports = || prop_oneof![3 => Just(vec![]), 1 => select(vec![80, 81]).prop_map(|p| vec![PortRange::single(p)])];
    let addrs = || sets(vec!["s:1", "s:2", "s:gone"]);
    let named = || sets(vec!["n:1"]);
    (nets(), nets(), addrs(), addrs(), (named(), named(), named()), (ports(), ports())).prop_map(
        |(nets, not_nets, sets, not_sets, (service_sets, port_sets, not_port_sets), (ports, not_ports))| {
            let parse = |nets: Vec<&str>| nets.into_iter().map(|net| net.parse().expect("a literal")).collect();
            let (nets, not_nets) = (parse(nets), parse(not_nets));
            Match { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let protocol = || prop_oneof![3 => Just(None), 1 => select(vec![Protocol::TCP, Protocol::ICMP]).prop_map(Some)];
    let icmp = || prop_oneof![4 => Just(None), 1 => Just(Some(IcmpMatch { icmp_type: 8, code: None }))];
    let family = prop_oneof![4 => Just(None), 1 => select(vec![Family::V4, Family::V6]).prop_map(Some)];
    let action = select(vec![Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let sides = (prop_oneof![Just(Match::default()), side()], prop_oneof![Just(Match::default()), side()]);
    (action, family, protocol(), protocol(), icmp(), icmp(), sides).prop_map(
        |(action, family, protocol, not_protocol, icmp, not_icmp, (source, destination))| Rule {
            action,
            family,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..4)
}

prop_compose! {
    fn tables()(
        policies in prop::collection::vec((rules(), rules()), 3),
        ends in prop::collection::vec(select(vec![TierAction::Deny, TierAction::Pass, TierAction::Pass]), 2),
        chosen in prop::collection::vec((subsequence(vec!["p0", "p1", "p2", "lost"], 0..=3), subsequence(vec!["p0", "p1", "p2"], 0..=3)), 2),
        profiles in subsequence(vec!["open", "rules", "lost"], 0..=2),
        lent in (rules(), rules()),
    ) -> Tables {
        let mut tables = Tables::default();
        let nets = |texts: &[&str]| texts.iter().map(|t| Member::Net(t.parse().expect("a literal"))).collect::<Members>();
        tables.sets.insert(SetId::new("s:1"), (SetKind::Addresses, nets(&["10.0.0.1/32", "10.0.0.2/32"])));
        tables.sets.insert(SetId::new("s:2"), (SetKind::Nets, nets(&["10.0.0.2/31"])));
        let port = Member::Port { addr: addr(2), protocol: Protocol::TCP, port: 80 };
        tables.sets.insert(SetId::new("n:1"), (SetKind::Ports, [port].into()));
        for (at, (ingress, egress)) in policies.into_iter().enumerate() {
            let policy = Policy { tier: "t0".into(), stage: PolicyStage::Normal, ingress, egress };
            tables.policies.insert(policy_id(&format!("p{at}")), Arc::new(policy));
        }
        tables.profiles.insert("open".into(), Arc::new(Profile { ingress: vec![Rule::any(Action::Allow)], egress: vec![] }));
        tables.profiles.insert("rules".into(), Arc::new(Profile { ingress: lent.0, egress: lent.1 }));
        let ids = |names: Vec<&str>| names.into_iter().map(policy_id).collect();
        let tiers = chosen.into_iter().zip(ends).enumerate().map(|(at, ((ingress, egress), default_action))| TierPolicies {
            tier: format!("t{at}").into(), default_action, ingress: ids(ingress), egress: ids(egress),
        });
        let endpoint = Endpoint {
            interface: "calia".into(), addresses: vec![addr(2)], mac: None, tiers: tiers.collect(),
            profiles: profiles.into_iter().map(Arc::from).collect(),
            ..Endpoint::default()
        };
        tables.endpoints.insert(id(), Arc::new(endpoint));
        tables
    }
}

fn packets() -> Vec<Packet> {
    let mut out = Vec::new();
    for last in [1, 2, 3, 9] {
        for port in [80, 81, 82] {
            out.push(Packet::tcp(addr(last), 40000, addr(2), port));
        }
        out.push(Packet::udp(addr(last), 80, addr(2), 80));
        out.push(Packet::ping(addr(last), addr(2)));
    }
    out
}

/// The same tables with the endpoint's lists as those of one stage of the host, and nothing else that decides.
fn of_host(tables: &Tables, stage: Stage) -> Tables {
    let mut tables = tables.clone();
    let endpoint = tables.endpoints.remove(&id()).expect("it is there");
    let mut host = HostEndpoint { name: "h".into(), ..HostEndpoint::default() };
    let lists = endpoint.tiers.clone();
    match stage {
        Stage::Untracked => host.untracked = lists,
        Stage::PreDnat => host.pre_dnat = lists,
        Stage::Forward => host.forward = lists,
        Stage::Normal => (host.tiers, host.profiles) = (lists, endpoint.profiles.clone()),
    }
    if stage != Stage::Normal {
        host.profiles = vec!["open".into()];
    }
    tables.host_endpoints.insert(HostInterface::Named("eth0".into()), Arc::new(host));
    tables
}

proptest! {
    #[test]
    fn the_explanation_of_a_host_has_the_oracles_verdict(tables in tables()) {
        let host = EndpointId { namespace: "".into(), name: "h".into() };
        for stage in [Stage::Untracked, Stage::PreDnat, Stage::Forward, Stage::Normal] {
            let tables = of_host(&tables, stage);
            let target = if stage == Stage::Forward { Target::Routed } else { Target::Host };
            for packet in packets() {
                let oracle = evaluate(&tables, &packet, Source::Interface("eth0"), target).allowed;
                let told = explain_host(&tables, &host, stage, Direction::Ingress, &packet).expect("the host is there");
                prop_assert_eq!(told.allowed, oracle, "{:?} {:?}", stage, packet);
            }
        }
        prop_assert!(explain_host(&tables, &host, Stage::Normal, Direction::Ingress, &packets()[0]).is_none());
    }

    #[test]
    fn a_rule_matches_exactly_if_all_its_conditions_hold(tables in tables(), rule in rule()) {
        for packet in packets() {
            let all = conditions(&tables, &rule, &packet).iter().all(|condition| condition.holds);
            prop_assert_eq!(all, rule_matches(&tables, &rule, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn the_explanation_has_the_oracles_verdict_and_rules(tables in tables()) {
        for packet in packets() {
            for direction in [Direction::Ingress, Direction::Egress] {
                let oracle = evaluate_endpoint(&tables, &id(), direction, &packet).expect("the endpoint is there");
                let told = explain(&tables, &id(), direction, &packet).expect("the endpoint is there");
                prop_assert_eq!(told.allowed, oracle.allowed);
                let matched: Vec<(Place, usize)> = told
                    .lists()
                    .flat_map(|list| list.rules.iter().map(move |rule| (list, rule)))
                    .filter(|(_, rule)| rule.tried && rule.matches())
                    .map(|(list, rule)| (list.place.clone(), rule.index))
                    .collect();
                let wanted: Vec<(Place, usize)> = oracle
                    .steps
                    .iter()
                    .filter_map(|step| match step {
                        Step::Rule { place, index, .. } => Some((place.clone(), *index)),
                        _ => None,
                    })
                    .collect();
                prop_assert_eq!(matched, wanted);
                let ends: Vec<_> = told.tiers.iter().filter(|tier| tier.end_reached).map(|tier| tier.tier.clone()).collect();
                let wanted: Vec<_> = oracle
                    .steps
                    .iter()
                    .filter_map(|step| match step {
                        Step::EndOfTier { tier, .. } => Some(tier.clone()),
                        _ => None,
                    })
                    .collect();
                prop_assert_eq!(ends, wanted);
                for (_, rule) in told.near_misses(Action::Allow) {
                    prop_assert!(rule.tried && rule.misses() > 0);
                }
            }
        }
    }
}
