//! Tables by hand, packets, and the verdict that a reader of upstream's documentation would expect.

use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{
    Action, Endpoint, EndpointId, HostAction, IcmpMatch, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage,
    Profile, Route, RouteTarget, Rule, SetId, SetKind, Tables, TierAction, TierPolicies,
};
use tortie_net::{Family, PortRange, Protocol};
use tortie_verdict::{Direction, Packet, Place, Source, Step, Target, evaluate, evaluate_endpoint, rule_matches};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: name.into(), namespace: "ns".into(), kind: PolicyKind::NetworkPolicy }
}

fn endpoint_id(name: &str) -> EndpointId {
    EndpointId { namespace: "ns".into(), name: name.into() }
}

/// A node with workloads `a` (10.0.0.1, fd00::1) and `b` (10.0.0.2), no policy, and routes to both.
fn node() -> Tables {
    let mut tables = Tables::default();
    for (name, addresses) in [("a", vec!["10.0.0.1", "fd00::1"]), ("b", vec!["10.0.0.2"])] {
        let interface: Arc<str> = format!("cali{name}").into();
        let addresses: Vec<IpAddr> = addresses.into_iter().map(ip).collect();
        for addr in &addresses {
            let target = RouteTarget::Workload { interface: interface.clone() };
            tables.routes.insert((*addr).into(), Route { target });
        }
        let endpoint =
            Endpoint { interface, addresses, mac: None, tiers: vec![], profiles: vec![], ..Endpoint::default() };
        tables.endpoints.insert(endpoint_id(name), Arc::new(endpoint));
    }
    tables.routes.insert("10.0.0.0/26".parse().expect("a net"), Route { target: RouteTarget::Blackhole });
    tables
}

/// Puts a policy into a tier of both workloads, for both directions.
fn with_policy(tables: &mut Tables, tier: &str, default_action: TierAction, name: &str, rules: &[Rule]) {
    let policy =
        Policy { tier: tier.into(), stage: PolicyStage::Normal, ingress: rules.to_vec(), egress: rules.to_vec() };
    tables.policies.insert(policy_id(name), Arc::new(policy));
    for endpoint in tables.endpoints.values_mut() {
        let tiers = &mut Arc::make_mut(endpoint).tiers;
        if tiers.last().is_none_or(|last| &*last.tier != tier) {
            tiers.push(TierPolicies { tier: tier.into(), default_action, ingress: vec![], egress: vec![] });
        }
        let last = tiers.last_mut().expect("just pushed");
        last.ingress.push(policy_id(name));
        last.egress.push(policy_id(name));
    }
}

fn with_profile(tables: &mut Tables, name: &str, rules: &[Rule]) {
    let profile = Profile { ingress: rules.to_vec(), egress: rules.to_vec() };
    tables.profiles.insert(name.into(), Arc::new(profile));
    for endpoint in tables.endpoints.values_mut() {
        Arc::make_mut(endpoint).profiles.push(name.into());
    }
}

fn a_to_b() -> Packet {
    Packet::tcp(ip("10.0.0.1"), 40000, ip("10.0.0.2"), 80)
}

fn allowed(tables: &Tables) -> bool {
    evaluate(tables, &a_to_b(), Source::Interface("calia"), Target::Routed).allowed
}

#[test]
fn nothing_opens_by_itself() {
    let verdict = evaluate(&node(), &a_to_b(), Source::Interface("calia"), Target::Routed);
    assert!(!verdict.allowed);
    let last = Step::NothingMatched { endpoint: endpoint_id("a"), direction: Direction::Egress };
    assert_eq!(verdict.steps, [last]);
}

#[test]
fn both_ends_must_allow() {
    let mut tables = node();
    with_profile(&mut tables, "open", &[Rule::any(Action::Allow)]);
    assert!(allowed(&tables));
    for closed in ["a", "b"] {
        let mut tables = tables.clone();
        Arc::make_mut(tables.endpoints.get_mut(&endpoint_id(closed)).expect("there")).profiles.clear();
        assert!(!allowed(&tables), "{closed} is closed");
    }
}

#[test]
fn tiers_policies_and_rules_decide_in_order() {
    use Action::{Allow, Deny, Log, Pass};
    use TierAction as End;
    // Each case: tiers of (default action, policies of (rules)), then the profile's rules, then the verdict.
    type Tier<'a> = (End, &'a [&'a [Action]]);
    let cases: &[(&str, &[Tier<'_>], &[Action], bool)] = &[
        ("first rule wins", &[(End::Deny, &[&[Allow, Deny]])], &[], true),
        ("first policy wins", &[(End::Deny, &[&[Deny], &[Allow]])], &[], false),
        ("a policy without a matching rule leaves it to the next", &[(End::Deny, &[&[], &[Allow]])], &[], true),
        ("end of tier denies", &[(End::Deny, &[&[]]), (End::Deny, &[&[Allow]])], &[Allow], false),
        ("end of tier passes", &[(End::Pass, &[&[]]), (End::Deny, &[&[Allow]])], &[], true),
        ("pass skips the rest of the tier", &[(End::Deny, &[&[Pass, Deny], &[Deny]])], &[Allow], true),
        ("pass goes to the next tier", &[(End::Deny, &[&[Pass]]), (End::Deny, &[&[Deny]])], &[Allow], false),
        ("log goes on", &[(End::Deny, &[&[Log, Allow]])], &[], true),
        ("after the tiers the profile decides", &[(End::Pass, &[&[]])], &[Deny], false),
        ("pass in a profile is no allow", &[], &[Pass, Allow], false),
        ("nothing at the end is a drop", &[(End::Pass, &[&[]])], &[], false),
    ];
    for (what, tiers, profile, expected) in cases {
        let mut tables = node();
        let any = |actions: &[Action]| actions.iter().map(|action| Rule::any(*action)).collect::<Vec<_>>();
        for (t, (end, policies)) in tiers.iter().enumerate() {
            for (p, rules) in policies.iter().enumerate() {
                with_policy(&mut tables, &format!("t{t}"), *end, &format!("t{t}p{p}"), &any(rules));
            }
        }
        with_profile(&mut tables, "profile", &any(profile));
        assert_eq!(allowed(&tables), *expected, "{what}");
    }
}

#[test]
fn a_tier_without_policies_in_this_direction_is_skipped() {
    let mut tables = node();
    with_policy(&mut tables, "t", TierAction::Deny, "ingress-only", &[Rule::any(Action::Allow)]);
    with_profile(&mut tables, "open", &[Rule::any(Action::Allow)]);
    for endpoint in tables.endpoints.values_mut() {
        Arc::make_mut(endpoint).tiers[0].egress.clear();
    }
    let verdict = evaluate(&tables, &a_to_b(), Source::Interface("calia"), Target::Routed);
    assert!(verdict.allowed);
    let by: Vec<_> = verdict.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        by,
        [
            "egress of ns/a: Allow by rule 0 of profile open",
            "ingress of ns/b: Allow by rule 0 of policy np/ns/ingress-only of tier t"
        ]
    );
}

#[test]
fn what_the_tables_lack_denies() {
    let mut tables = node();
    with_policy(&mut tables, "t", TierAction::Pass, "gone", &[]);
    with_profile(&mut tables, "open", &[Rule::any(Action::Allow)]);
    assert!(allowed(&tables));
    let mut lacking = tables.clone();
    lacking.policies.clear();
    assert!(!allowed(&lacking));
    tables.profiles.clear();
    assert!(!allowed(&tables));
}

#[test]
fn the_way_through_the_node() {
    let mut tables = node();
    with_profile(&mut tables, "open", &[Rule::any(Action::Allow)]);
    let out = Packet { dst: ip("192.0.2.1"), ..a_to_b() };
    let v6 = Packet::ping(ip("fd00::1"), ip("2001:db8::1"));
    let cases = [
        ("workload to workload", a_to_b(), Source::Interface("calia"), Target::Routed, true),
        ("spoofed", Packet { src: ip("10.0.0.9"), ..a_to_b() }, Source::Interface("calia"), Target::Routed, false),
        ("another workload's source", a_to_b(), Source::Interface("calib"), Target::Routed, false),
        ("unknown workload interface", a_to_b(), Source::Interface("calix"), Target::Routed, false),
        ("from the network", a_to_b(), Source::Interface("eth0"), Target::Routed, true),
        ("from the network to the node", a_to_b(), Source::Interface("eth0"), Target::Host, true),
        ("from the node", a_to_b(), Source::Host, Target::Routed, true),
        ("to the outside", out, Source::Interface("calia"), Target::Routed, true),
        ("to the node", out, Source::Interface("calia"), Target::Host, false),
        (
            "to an unused address",
            Packet { dst: ip("10.0.0.7"), ..a_to_b() },
            Source::Interface("eth0"),
            Target::Routed,
            false,
        ),
        ("IPv6", v6, Source::Interface("calia"), Target::Routed, true),
        ("mixed", Packet { dst: ip("fd00::2"), ..a_to_b() }, Source::Interface("calia"), Target::Routed, false),
    ];
    for (what, packet, source, target, expected) in cases {
        assert_eq!(evaluate(&tables, &packet, source, target).allowed, expected, "{what}");
    }

    for (action, expected) in [(HostAction::Drop, false), (HostAction::Accept, true), (HostAction::Return, true)] {
        tables.settings.endpoint_to_host = action;
        let verdict = evaluate(&tables, &out, Source::Interface("calia"), Target::Host);
        assert_eq!((verdict.allowed, verdict.steps.last()), (expected, Some(&Step::ToHost(action))));
    }
    tables.settings.ipv6 = false;
    assert!(!evaluate(&tables, &v6, Source::Interface("calia"), Target::Routed).allowed);
}

#[test]
fn from_the_node_itself_policy_is_not_asked_but_from_the_network_it_is() {
    let tables = node();
    assert!(evaluate(&tables, &a_to_b(), Source::Host, Target::Routed).allowed);
    assert!(!evaluate(&tables, &a_to_b(), Source::Interface("eth0"), Target::Routed).allowed);
}

#[test]
fn the_route_says_which_of_two_workloads_with_one_address_receives() {
    let mut tables = node();
    with_profile(&mut tables, "open", &[Rule::any(Action::Allow)]);
    let second =
        Endpoint { interface: "calic".into(), profiles: vec![], ..(*tables.endpoints[&endpoint_id("b")]).clone() };
    tables.endpoints.insert(endpoint_id("c"), Arc::new(second));
    assert!(allowed(&tables));
    let target = RouteTarget::Workload { interface: "calic".into() };
    tables.routes.insert(ip("10.0.0.2").into(), Route { target });
    assert!(!allowed(&tables));
}

fn set(tables: &mut Tables, id: &str, members: &[Member]) -> SetId {
    let id = SetId::new(id);
    tables.sets.insert(id.clone(), (SetKind::Nets, members.iter().copied().collect()));
    id
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().expect("a literal prefix"))
}

fn port_member(addr: &str, protocol: Protocol, port: u16) -> Member {
    Member::Port { addr: ip(addr), protocol, port }
}

#[test]
fn conditions_on_one_side() {
    let mut tables = Tables::default();
    let ten = set(&mut tables, "ten", &[net("10.0.0.0/8"), net("fd00::1/128")]);
    let one = set(&mut tables, "one", &[net("10.0.0.1/32")]);
    let empty = set(&mut tables, "empty", &[]);
    let http = set(&mut tables, "http", &[port_member("10.0.0.2", Protocol::TCP, 80)]);
    let absent = SetId::new("absent");
    let range = |text: &str| text.parse::<PortRange>().expect("a literal range");
    let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("a literal prefix")).collect::<Vec<_>>();

    let source = |source: Match| Rule { source, ..Rule::any(Action::Allow) };
    let destination = |destination: Match| Rule { destination, ..Rule::any(Action::Allow) };
    let m = Match::default;
    let tcp = a_to_b();
    let udp = Packet { protocol: Protocol::UDP, ..tcp };
    let ping = Packet::ping(ip("10.0.0.1"), ip("10.0.0.2"));
    let v6 = Packet::tcp(ip("fd00::1"), 1, ip("fd00::2"), 80);

    let cases = [
        ("no condition", Rule::any(Action::Allow), tcp, true),
        ("net", source(Match { nets: nets(&["10.0.0.0/24", "11.0.0.0/8"]), ..m() }), tcp, true),
        ("other net", source(Match { nets: nets(&["11.0.0.0/8"]), ..m() }), tcp, false),
        ("net of the other family", source(Match { nets: nets(&["10.0.0.0/8"]), ..m() }), v6, false),
        ("not net", source(Match { not_nets: nets(&["10.0.0.1/32"]), ..m() }), tcp, false),
        ("not another net", source(Match { not_nets: nets(&["10.0.0.3/32"]), ..m() }), tcp, true),
        ("set", source(Match { sets: vec![ten.clone()], ..m() }), tcp, true),
        ("set, IPv6", source(Match { sets: vec![ten.clone()], ..m() }), v6, true),
        ("both sets", source(Match { sets: vec![ten.clone(), one.clone()], ..m() }), tcp, true),
        ("one of two sets", destination(Match { sets: vec![ten.clone(), one.clone()], ..m() }), tcp, false),
        ("empty set", source(Match { sets: vec![empty.clone()], ..m() }), tcp, false),
        ("absent set", source(Match { sets: vec![absent.clone()], ..m() }), tcp, false),
        ("not set", source(Match { not_sets: vec![one.clone()], ..m() }), tcp, false),
        ("not empty set", source(Match { not_sets: vec![empty], ..m() }), tcp, true),
        ("port", destination(Match { ports: vec![range("1:79"), range("80")], ..m() }), tcp, true),
        ("other port", destination(Match { ports: vec![range("1:79")], ..m() }), tcp, false),
        ("source port", source(Match { ports: vec![range("80")], ..m() }), tcp, false),
        ("port without ports", destination(Match { ports: vec![range("0:65535")], ..m() }), ping, false),
        ("not port", destination(Match { not_ports: vec![range("80")], ..m() }), tcp, false),
        ("not port without ports", destination(Match { not_ports: vec![range("80")], ..m() }), ping, true),
        ("named port", destination(Match { port_sets: vec![http.clone()], ..m() }), tcp, true),
        ("named port of another protocol", destination(Match { port_sets: vec![http.clone()], ..m() }), udp, false),
        (
            "named or numbered",
            destination(Match { port_sets: vec![absent], ports: vec![range("80")], ..m() }),
            tcp,
            true,
        ),
        ("not named port", destination(Match { not_port_sets: vec![http.clone()], ..m() }), tcp, false),
        ("not named port, other", destination(Match { not_port_sets: vec![http.clone()], ..m() }), udp, true),
        ("service", destination(Match { service_sets: vec![http.clone()], ..m() }), tcp, true),
        ("other service", source(Match { service_sets: vec![http], ..m() }), tcp, false),
    ];
    for (what, rule, packet, expected) in cases {
        assert_eq!(rule_matches(&tables, &rule, &packet), expected, "{what}");
    }
}

#[test]
fn conditions_on_the_packet_as_a_whole() {
    let tables = Tables::default();
    let any = || Rule::any(Action::Allow);
    let tcp = a_to_b();
    let ping = Packet::ping(ip("10.0.0.1"), ip("10.0.0.2"));
    let ping6 = Packet::ping(ip("fd00::1"), ip("fd00::2"));
    let icmp = |icmp_type, code| Some(IcmpMatch { icmp_type, code });
    let cases = [
        ("family", Rule { family: Some(Family::V4), ..any() }, tcp, true),
        ("other family", Rule { family: Some(Family::V6), ..any() }, tcp, false),
        ("protocol", Rule { protocol: Some(Protocol::TCP), ..any() }, tcp, true),
        ("other protocol", Rule { protocol: Some(Protocol::UDP), ..any() }, tcp, false),
        ("not protocol", Rule { not_protocol: Some(Protocol::TCP), ..any() }, tcp, false),
        ("not another protocol", Rule { not_protocol: Some(Protocol::UDP), ..any() }, tcp, true),
        ("ICMP type", Rule { icmp: icmp(8, None), ..any() }, ping, true),
        ("ICMP type and code", Rule { icmp: icmp(8, Some(0)), ..any() }, ping, true),
        ("other code", Rule { icmp: icmp(8, Some(1)), ..any() }, ping, false),
        ("other type", Rule { icmp: icmp(0, None), ..any() }, ping, false),
        ("ICMPv6", Rule { icmp: icmp(128, None), ..any() }, ping6, true),
        ("ICMP type of a TCP packet", Rule { icmp: icmp(8, None), ..any() }, tcp, false),
        ("not ICMP type", Rule { not_icmp: icmp(8, None), ..any() }, ping, false),
        ("not ICMP type of a TCP packet", Rule { not_icmp: icmp(8, None), ..any() }, tcp, true),
    ];
    for (what, rule, packet, expected) in cases {
        assert_eq!(rule_matches(&tables, &rule, &packet), expected, "{what}");
    }
}

#[test]
fn one_direction_alone() {
    let mut tables = node();
    with_policy(&mut tables, "t", TierAction::Deny, "p", &[Rule::any(Action::Log), Rule::any(Action::Deny)]);
    let verdict = evaluate_endpoint(&tables, &endpoint_id("b"), Direction::Ingress, &a_to_b()).expect("there");
    let step = |index, action| Step::Rule {
        endpoint: endpoint_id("b"),
        direction: Direction::Ingress,
        place: Place::Policy { tier: "t".into(), policy: policy_id("p") },
        index,
        action,
    };
    assert_eq!(verdict.steps, [step(0, Action::Log), step(1, Action::Deny)]);
    assert_eq!(evaluate_endpoint(&tables, &endpoint_id("x"), Direction::Ingress, &a_to_b()), None);
}
