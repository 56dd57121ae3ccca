//! What is rendered for one small node, spelled out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, HostAction, HostEndpoint, HostInterface, Ipip, Limits, LogLimit,
    Match as Wanted, Member, PacketRate, Period, Policy, PolicyId, PolicyKind, PolicyStage, Pool, Profile,
    Rule as Desired, SetChange, SetId, SetKind, Settings, Tables, TierAction, TierPolicies, TunnelDevice, Vtep, Vxlan,
};
use tortie_net::{Family, Mac, PortRange, Protocol};
use tortie_ruleset::{
    ChoiceEdit, ChoiceKey, CtState, Delta, KeyRange, Match, Name, Rate, Renderer, Rule, Ruleset, SetEdit, Side,
    Statement, Verdict, drop_chain,
};

/// A chain as text, one rule a line; the notation is this test's own.
fn print(ruleset: &Ruleset, chain: &str) -> Vec<String> {
    let chain = ruleset.chains.get(chain).unwrap_or_else(|| panic!("no chain {chain}: {:?}", ruleset.chains.keys()));
    chain.rules.iter().map(rule).collect()
}

fn rule(rule: &Rule) -> String {
    let Rule { matches, statements, verdict } = rule;
    let matches = matches.iter().map(condition);
    let statements = statements.iter().map(|s| match s {
        Statement::Log { prefix } => format!("log {prefix:?}"),
        Statement::Record { group, prefix } => format!("record {group} {prefix:?}"),
        Statement::Count => "count".to_owned(),
        Statement::SetMark(bits) => format!("set {bits:#x}"),
        Statement::ClearMark(bits) => format!("clear {bits:#x}"),
        Statement::NoTrack => "notrack".to_owned(),
        Statement::SetDscp { family: _, value } => format!("dscp {value}"),
    });
    let verdict = verdict.iter().map(|v| match v {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Reject => "reject".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Reset => "reset".to_owned(),
        Verdict::SourceNat { address: None, ports: None } => "masquerade".to_owned(),
        Verdict::SourceNat { address, ports } => format!("snat {address:?} {ports:?}"),
        Verdict::DestinationNat(addr) => format!("dnat {addr}"),
        Verdict::Jump(name) => format!("jump {name}"),
        Verdict::Goto(name) => format!("goto {name}"),
        Verdict::Choose { key, map } => format!("choose by {key:?} in {map}"),
        Verdict::Dispatch { side, map } => format!("{} by {map}", interface(*side)),
    });
    matches.chain(statements).chain(verdict).collect::<Vec<_>>().join(" ")
}

fn interface(side: Side) -> &'static str {
    if side == Side::Source { "iif" } else { "oif" }
}

fn end(side: Side) -> &'static str {
    if side == Side::Source { "src" } else { "dst" }
}

fn not(negate: bool) -> &'static str {
    if negate { "!" } else { "" }
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::Conntrack(CtState::EstablishedOrRelated) => "established".to_owned(),
        Match::Conntrack(CtState::Invalid) => "invalid".to_owned(),
        Match::Family(family) => family.to_string(),
        Match::Protocol { protocol, negate } => format!("{}{protocol}", not(*negate)),
        Match::InterfacePrefix { side, prefix } => format!("{} {prefix}*", interface(*side)),
        Match::InterfaceIn { side, set } => format!("{} @{set}", interface(*side)),
        Match::InterfaceAddressIn { family: _, set, negate } => format!("iif+src {}@{set}", not(*negate)),
        Match::Revoked { negate } => format!("{}revoked", not(*negate)),
        Match::Translated => "translated".to_owned(),
        Match::Rate { rate, over } => {
            let Rate { packets, period, burst } = rate;
            format!("{} {packets}/{period:?} burst {burst}", if *over { "over" } else { "within" })
        }
        Match::ConnectionsOver(limit) => format!("connections > {limit}"),
        Match::Address { side, net, negate } => format!("{} {}{net}", end(*side), not(*negate)),
        Match::AddressIn { side, family: _, set, negate } => format!("{} {}@{set}", end(*side), not(*negate)),
        Match::AddressPortIn { side, family: _, set, negate } => {
            format!("{}+port {}@{set}", end(*side), not(*negate))
        }
        Match::Port { side, range, negate } => format!("{}port {}{range}", end(*side), not(*negate)),
        Match::PortIn { side, set, negate } => format!("{}port {}@{set}", end(*side), not(*negate)),
        Match::Icmp { icmp_type, code, negate } => format!("{}icmp {icmp_type}/{code:?}", not(*negate)),
        Match::BorrowedSource { interface } => format!("oif {interface} src borrowed"),
        Match::Mark(bits) => format!("mark {bits:#x}"),
    }
}

fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: Arc::from(name), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

fn tier(name: &str, default_action: TierAction, ingress: &[&str]) -> TierPolicies {
    let ingress = ingress.iter().map(|n| policy_id(n)).collect();
    TierPolicies { tier: Arc::from(name), default_action, ingress, egress: vec![] }
}

fn tables() -> Tables {
    let mut tables = Tables::default();
    tables.sets.insert(
        SetId::new("s:web"),
        (SetKind::Addresses, [Member::Net("10.0.0.1/32".parse().expect("literal"))].into()),
    );
    let from_web = Wanted { sets: vec![SetId::new("s:web")], ..Wanted::default() };
    let to_port = Wanted { ports: vec![PortRange::single(80)], ..Wanted::default() };
    let web = Desired {
        protocol: Some(Protocol::TCP),
        source: from_web,
        destination: to_port,
        ..Desired::any(Action::Allow)
    };
    let ingress = |rules: Vec<Desired>| {
        Arc::new(Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress: rules, egress: vec![] })
    };
    tables.policies.insert(policy_id("web"), ingress(vec![web]));
    tables.policies.insert(policy_id("pass"), ingress(vec![Desired::any(Action::Log), Desired::any(Action::Pass)]));
    let any = || vec![Desired::any(Action::Allow)];
    tables.profiles.insert(Arc::from("kns.ns"), Arc::new(Profile { ingress: any(), egress: any() }));
    let endpoint = Endpoint {
        interface: Arc::from("cali1"),
        addresses: vec!["10.65.0.1".parse().expect("literal")],
        mac: None,
        tiers: vec![tier("first", TierAction::Deny, &["pass"]), tier("second", TierAction::Deny, &["web"])],
        profiles: vec![Arc::from("kns.ns")],
        ..Endpoint::default()
    };
    let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("pod") };
    tables.endpoints.insert(id, Arc::new(endpoint));
    tables
}

/// An endpoint with policies of one rule each, in this order, after twelve for ports from 1.
fn with_many(more: Vec<Desired>) -> Tables {
    let mut tables = tables();
    let port = |number| Wanted { ports: vec![PortRange::single(number)], ..Wanted::default() };
    let narrow =
        |number| Desired { protocol: Some(Protocol::TCP), destination: port(number), ..Desired::any(Action::Deny) };
    let mut names = Vec::new();
    for (number, rule) in (1..=12).map(narrow).chain(more).enumerate() {
        let name = format!("n{number:02}");
        let (tier, stage) = (Arc::from("t"), PolicyStage::Normal);
        let policy = Policy { tier, stage, ingress: vec![rule], egress: vec![] };
        tables.policies.insert(policy_id(&name), Arc::new(policy));
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let endpoint = tables.endpoints.values_mut().next().expect("there is one");
    Arc::make_mut(endpoint).tiers = vec![tier("many", TierAction::Deny, &names)];
    tables
}

/// What a chain's only map leads to, by the first key of each range.
fn choices(ruleset: &Ruleset, chain: &str) -> BTreeMap<u128, String> {
    let map = ruleset.chains[chain].choices().next().expect("the chain has a map");
    ruleset.choices[map].chains.iter().map(|(range, to)| (range.first, to.to_string())).collect()
}

#[test]
fn a_packet_is_shown_to_those_of_many_policies_that_ask_for_its_port() {
    let range = PortRange::new(3, 7).expect("ascending");
    let wide = Desired {
        protocol: Some(Protocol::TCP),
        destination: Wanted { ports: vec![range], ..Wanted::default() },
        ..Desired::any(Action::Allow)
    };
    let tables = with_many(vec![wide, Desired::any(Action::Allow)]);
    let renderer = Renderer::new(&tables, 200);
    let ruleset = renderer.ruleset();
    let rules = print(ruleset, "cali-gi-cali1");
    assert!(rules[1].starts_with("TCP choose by Port in cali-by-_"), "{rules:?}");
    assert_eq!(rules[2..], ["jump cali-pi-np/ns/n13", "drop"]);
    let to = choices(ruleset, "cali-gi-cali1");
    assert_eq!(to.keys().copied().collect::<Vec<_>>(), Vec::from_iter(1..=12));
    assert_eq!((&*to[&2], &*to[&12]), ("cali-pi-np/ns/n01", "cali-pi-np/ns/n11"));
    assert_eq!(print(ruleset, &to[&4]), ["jump cali-pi-np/ns/n03", "jump cali-pi-np/ns/n12"]);
    let plain = Renderer::with_runs(&tables, 200, None);
    assert!(plain.ruleset().choices.is_empty() && print(plain.ruleset(), "cali-gi-cali1").len() == 16);
}

#[test]
fn policies_that_only_allow_are_brought_together_and_others_keep_their_place() {
    let from = |net: &str| Wanted { nets: vec![net.parse().expect("literal")], ..Wanted::default() };
    let allowed = |n: u8| Desired { source: from(&format!("10.{n}.0.0/16")), ..Desired::any(Action::Allow) };
    let any_tcp = || Desired { protocol: Some(Protocol::TCP), ..Desired::any(Action::Allow) };
    let mixed = |turn: &dyn Fn(u8) -> Desired| (0..12).flat_map(|n| [turn(n), allowed(n)]).collect::<Vec<_>>();
    let rules = |more| print(Renderer::new(&with_many(more), 200).ruleset(), "cali-gi-cali1");
    let commuting = rules(mixed(&|_| any_tcp()));
    assert!(commuting[2].starts_with("IPv4 choose by Address"), "{commuting:?}");
    assert_eq!(commuting.len(), 2 + 1 + 12 + 1);
    let denying = rules(mixed(&|_| Desired { action: Action::Deny, ..any_tcp() }));
    assert_eq!(denying.len(), 2 + 24 + 1, "{denying:?}");
}

#[test]
fn a_policy_that_asks_for_another_port_moves_alone() {
    let mut tables = with_many(vec![]);
    let mut renderer = Renderer::new(&tables, 200);
    let mut policy = (*tables.policies[&policy_id("n05")]).clone();
    policy.ingress[0].destination.ports = vec![PortRange::single(77)];
    let batch = Batch { policies: [(policy_id("n05"), Some(Arc::new(policy)))].into(), ..Batch::default() };
    tables.apply(&batch);
    let Delta { sets, chains, maps, choices } = renderer.update(&tables, &batch);
    assert!(sets.is_empty() && maps.is_empty());
    assert_eq!(chains.keys().map(|name| &**name).collect::<Vec<_>>(), ["cali-pi-np/ns/n05"]);
    let edits: Vec<_> = choices.into_values().collect();
    let [ChoiceEdit::Change { key: ChoiceKey::Port, added, removed }] = &edits[..] else { panic!("{edits:?}") };
    let firsts = |chains: &BTreeMap<KeyRange, Name>| chains.keys().map(|range| range.first).collect::<Vec<_>>();
    assert_eq!((firsts(added), firsts(removed)), (vec![77], vec![6]));
}

#[test]
fn addresses_that_a_policy_admits_change_without_its_rules() {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().expect("literal")).collect::<Vec<_>>();
    let from = |list: &[&str]| Desired {
        source: Wanted { nets: nets(list), ..Wanted::default() },
        destination: Wanted { not_nets: nets(&["10.1.0.0/16", "10.2.0.0/16"]), ..Wanted::default() },
        ..Desired::any(Action::Allow)
    };
    let batch = |lists: &[&[&str]]| {
        let ingress = lists.iter().map(|list| from(list)).collect();
        let policy = Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress, egress: vec![] };
        Batch { policies: [(policy_id("web"), Some(Arc::new(policy)))].into(), ..Batch::default() }
    };
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    let mut step = |lists: &[&[&str]]| {
        let batch = batch(lists);
        tables.apply(&batch);
        let Delta { sets, chains, maps, choices } = renderer.update(&tables, &batch);
        assert!(maps.is_empty() && choices.is_empty());
        (sets, chains.len())
    };
    // Two rules that say the same but for their addresses.
    step(&[&["10.0.0.1/32"], &["10.0.0.1/32", "10.0.0.2/32"]]);
    for lists in
        [[&["10.0.0.9/32"][..], &["10.0.0.1/32", "10.0.0.3/32"]], [&["10.0.0.1/32", "10.0.0.2/32"], &["10.0.0.4/32"]]]
    {
        let (sets, chains) = step(&lists);
        let changed = |edit: &SetEdit| matches!(edit, SetEdit::Change { .. });
        assert!(chains == 0 && sets.len() == 2 && sets.values().all(changed), "{chains} chains, {sets:?}");
    }
    let wider: &[&str] = &["10.0.0.0/8", "192.0.2.0/24"];
    assert_eq!(step(&[wider, &["10.0.0.4/32"]]).1, 1, "a set of prefixes is another one");
    assert_eq!(step(&[&["10.0.0.0/8", "192.0.2.0/25"], &["10.0.0.4/32"]]).1, 0);
    let many: Vec<String> = (0..200).map(|n| format!("10.0.{n}.0/32")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (sets, _) = step(&[&many, &many]);
    let came = sets.values().filter(|edit| matches!(edit, SetEdit::Create(_))).count();
    assert_eq!(came, 1, "rules with one long list share it");
}

#[test]
fn base_chains_dispatch_and_cut_off_unknown_interfaces() {
    let renderer = Renderer::new(&tables(), 200);
    let ruleset = renderer.ruleset();
    assert_eq!(
        print(ruleset, "filter-FORWARD-from-wl"),
        [
            "established IPv4 accept",
            "established IPv6 iif+src @cali-wl-sources-v6 accept",
            "IPv4 iif @cali-wl-interfaces iif+src !@cali-wl-sources-v4 drop",
            "IPv6 iif @cali-wl-interfaces iif+src !@cali-wl-sources-v6 drop",
            "iif by cali-from-wl-dispatch",
            "iif cali* drop"
        ]
    );
    assert_eq!(
        print(ruleset, "filter-FORWARD-to-wl"),
        ["established accept", "oif by cali-to-wl-dispatch", "oif cali* drop"]
    );
    assert_eq!(
        print(ruleset, "filter-INPUT"),
        ["iif @cali-wl-interfaces goto cali-wl-to-host", "iif cali* drop", "established accept"]
    );
    assert_eq!(
        print(ruleset, "cali-wl-to-host"),
        [
            "established IPv4 accept",
            "established IPv6 iif+src @cali-wl-sources-v6 accept",
            "IPv6 ICMPv6 jump cali-wl-nd",
            "drop"
        ]
    );
    assert_eq!(&*ruleset.maps["cali-from-wl-dispatch"]["cali1"], "cali-go-cali1");
    assert_eq!(&*ruleset.maps["cali-to-wl-dispatch"]["cali1"], "cali-gi-cali1");
    assert!(!ruleset.chains.contains_key("nat-POSTROUTING"), "without a pool there is nothing to translate");
}

#[test]
fn an_endpoint_goes_through_tiers_and_profiles() {
    let renderer = Renderer::new(&tables(), 200);
    let ruleset = renderer.ruleset();
    assert_eq!(
        print(ruleset, "cali-gi-cali1"),
        ["invalid drop", "jump cali-pi-np/ns/pass", "mark 0x20000 clear 0x20000 goto cali-gi-cali1/1", "drop"]
    );
    assert_eq!(print(ruleset, "cali-gi-cali1/1"), ["jump cali-pi-np/ns/web", "drop"]);
    assert_eq!(
        print(ruleset, "cali-go-cali1"),
        ["invalid drop", "UDP dstport 4789 drop", "4 drop", "jump cali-pro-kns.ns", "drop"]
    );
    assert_eq!(print(ruleset, "cali-pi-np/ns/pass"), ["log \"calico-packet: \"", "set 0x20000 return"]);
    assert_eq!(print(ruleset, "cali-pi-np/ns/web"), ["TCP dstport 80 IPv4 src @cali40s-web accept"]);
}

#[test]
fn sets_have_an_ipv6_part_while_there_is_something_of_ipv6() {
    let six = "IPv6 TCP dstport 80 src @cali60s-web accept";
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    let change = |id: &str, net: &str, comes: bool| {
        let member = BTreeSet::from([Member::Net(net.parse().expect("literal"))]);
        let (added, removed) = if comes { (member, BTreeSet::new()) } else { (BTreeSet::new(), member) };
        Batch { sets: [(SetId::new(id), SetChange::Delta { added, removed })].into(), ..Batch::default() }
    };
    let pool = |there: bool| {
        let pool = there.then_some(Pool { nat_outgoing: false });
        Batch { pools: [("fd00::/64".parse().expect("literal"), pool)].into(), ..Batch::default() }
    };
    for (batch, wanted) in [
        (change("s:web", "fd00::1/128", true), true),
        (change("s:web", "fd00::1/128", false), false),
        (pool(true), true),
        (change("s:web", "fd00::1/128", true), true),
        (change("s:web", "fd00::1/128", false), true),
        (pool(false), false),
    ] {
        tables.apply(&batch);
        renderer.update(&tables, &batch);
        let ruleset = renderer.ruleset();
        assert_eq!(print(ruleset, "cali-pi-np/ns/web").iter().any(|rule| rule == six), wanted);
        assert_eq!(ruleset.sets.contains_key("cali60s-web"), wanted);
    }
}

#[test]
fn what_is_missing_or_empty_never_opens() {
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    // The set goes: the rule that needs it matches nothing, and goes.
    let set = (SetId::new("s:web"), tortie_desired::SetChange::Removed);
    // The policy of the first tier goes, while the endpoint still lists it: the tier denies.
    let batch = Batch { sets: [set].into(), policies: [(policy_id("pass"), None)].into(), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    assert_eq!(print(renderer.ruleset(), "cali-pi-np/ns/web"), Vec::<String>::new());
    assert_eq!(print(renderer.ruleset(), "cali-gi-cali1"), ["invalid drop", "drop", "drop"]);
    // No prefix: nothing is taken for a workload's interface but the endpoint's own.
    let settings = Settings { interface_prefixes: vec![Arc::from("")], ..Settings::default() };
    let batch = Batch { settings: Some(settings), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let forward = print(renderer.ruleset(), "filter-FORWARD-to-wl");
    assert_eq!(forward, ["established accept", "oif by cali-to-wl-dispatch"]);
}

#[test]
fn settings_shape_the_rules() {
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    let settings = Settings {
        endpoint_to_host: HostAction::Return,
        reject_denied: true,
        accept_invalid: true,
        ipv6: false,
        ..Settings::default()
    };
    let pool = Pool { nat_outgoing: true };
    let pools = ["10.65.0.0/16", "fd00::/64"].map(|p| (p.parse().expect("literal"), Some(pool.clone())));
    let batch = Batch { settings: Some(settings), pools: pools.into(), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let ruleset = renderer.ruleset();
    assert_eq!(
        print(ruleset, "cali-wl-to-host"),
        [
            "established IPv4 accept",
            "IPv4 iif @cali-wl-interfaces iif+src !@cali-wl-sources-v4 drop",
            "iif by cali-from-wl-dispatch",
            "drop"
        ]
    );
    assert_eq!(
        print(ruleset, "cali-go-cali1"),
        ["IPv6 drop", "UDP dstport 4789 reject", "4 reject", "jump cali-pro-kns.ns", "reject"]
    );
    assert_eq!(print(ruleset, "cali-pi-np/ns/web"), ["TCP dstport 80 IPv4 src @cali40s-web accept"]);
    assert_eq!(
        print(ruleset, "nat-POSTROUTING"),
        ["IPv4 src @cali4-masq-ipam-pools dst !@cali4-all-ipam-pools masquerade"]
    );
    assert!(ruleset.sets.keys().all(|name| !name.starts_with("cali6")));
}

#[test]
fn what_ends_packets_tells_of_them_in_chains_that_come_and_go_with_it() {
    let mut tables = tables();
    tables.settings.record_drops = true;
    let mut renderer = Renderer::new(&tables, 200);
    assert_eq!(
        print(renderer.ruleset(), "cali-gi-cali1/1"),
        ["jump cali-pi-np/ns/web", "goto cali-drop-DPI/second"],
        "a rule costs what passes as much as before"
    );
    assert_eq!(
        print(renderer.ruleset(), "cali-drop-DPI/second"),
        ["over 100/Second burst 200 count drop", "record 1 \"DPI|second\" drop"]
    );
    assert_eq!(drop_chain("DPI|second", 200)[0], "cali-drop-DPI/second".into());
    // A rule that denies comes, and goes again.
    let id = policy_id("web");
    for denies in [true, false] {
        let rules = vec![Desired::any(if denies { Action::Deny } else { Action::Allow })];
        let policy = Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress: rules, egress: vec![] };
        let batch = Batch { policies: [(id.clone(), Some(Arc::new(policy)))].into(), ..Batch::default() };
        tables.apply(&batch);
        let delta = renderer.update(&tables, &batch);
        let chains: Vec<&str> = delta.chains.keys().map(|name| &**name).collect();
        assert_eq!(chains, ["cali-drop-DPI0/np/ns/web", "cali-pi-np/ns/web"]);
        assert_eq!(renderer.ruleset().chains.contains_key("cali-drop-DPI0/np/ns/web"), denies);
    }
    assert_eq!(*renderer.ruleset(), *Renderer::new(&tables, 200).ruleset());
}

#[test]
fn flows_that_policy_has_come_to_deny_end_wherever_established_ones_are_accepted() {
    let mut tables = tables();
    tables.settings.revoke_flows = true;
    let renderer = Renderer::new(&tables, 200);
    let ruleset = renderer.ruleset();
    assert_eq!(
        print(ruleset, "filter-FORWARD-from-wl")[..3],
        [
            "established !revoked IPv4 accept",
            "established !revoked IPv6 iif+src @cali-wl-sources-v6 accept",
            "established revoked drop",
        ]
    );
    assert_eq!(
        print(ruleset, "filter-FORWARD-to-wl")[..2],
        ["established !revoked accept", "established revoked drop"]
    );
    // What the host answers to a workload too.
    assert_eq!(print(ruleset, "filter-OUTPUT"), ["established revoked drop"]);
    for (name, chain) in &ruleset.chains {
        let accepts = |rule: &Rule| {
            rule.verdict == Some(Verdict::Accept)
                && rule.matches.contains(&Match::Conntrack(CtState::EstablishedOrRelated))
        };
        let checks = |rule: &Rule| rule.matches.contains(&Match::Revoked { negate: true });
        assert!(chain.rules.iter().filter(|rule| accepts(rule)).all(checks), "{name}");
    }
}

#[test]
fn what_the_host_sends_into_a_tunnel_gets_the_tunnels_address() {
    let addr = |text: &str| text.parse::<IpAddr>().expect("literal");
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    assert!(!renderer.ruleset().chains.contains_key("nat-POSTROUTING"));
    let vxlan = |underlay: &str, address: Option<&str>| Vxlan {
        vni: 4096,
        port: 4789,
        underlay: addr(underlay),
        address: address.map(addr),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: None,
    };
    let [v4, v6] = [Family::V4, Family::V6].map(TunnelDevice::vxlan);
    let tunnels = [(v4, Some(vxlan("192.0.2.1", Some("10.0.9.0")))), (v6, Some(vxlan("2001:db8::1", None)))];
    let batch = Batch { tunnels: tunnels.into(), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let wanted = [
        "UDP IPv4 oif vxlan.calico src borrowed snat None Some(PortRange { first: 4790, last: 65535 })",
        "IPv4 oif vxlan.calico src borrowed masquerade",
    ];
    assert_eq!(print(renderer.ruleset(), "nat-POSTROUTING"), wanted, "not before the device has an address");
    assert_eq!(*renderer.ruleset(), *Renderer::new(&tables, 200).ruleset());
    tables.settings.tunnel_sources = false;
    assert!(!Renderer::new(&tables, 200).ruleset().chains.contains_key("nat-POSTROUTING"));
}

#[test]
fn where_the_kernel_checks_no_sources_rules_check_those_of_established_flows() {
    let mut tables = tables();
    let strict = Renderer::new(&tables, 200);
    assert_eq!(print(strict.ruleset(), "filter-FORWARD-from-wl")[0], "established IPv4 accept");
    tables.settings.loose_sources = true;
    let loose = Renderer::new(&tables, 200);
    for chain in ["filter-FORWARD-from-wl", "cali-wl-to-host"] {
        assert_eq!(print(loose.ruleset(), chain)[0], "established IPv4 iif+src @cali-wl-sources-v4 accept", "{chain}");
    }
}

#[test]
fn log_lines_name_their_policy_and_are_limited() {
    let mut tables = tables();
    let settings = Settings {
        log_prefix: Arc::from("%t %k %n %p %x %"),
        log_limit: Some(LogLimit { rate: 10, period: Period::Minute, burst: 5 }),
        ..Settings::default()
    };
    tables.settings = settings;
    let profile = Profile { ingress: vec![Desired::any(Action::Log)], egress: vec![] };
    tables.profiles.insert(Arc::from("kns.ns"), Arc::new(profile));
    let renderer = Renderer::new(&tables, 200);
    assert_eq!(
        print(renderer.ruleset(), "cali-pi-np/ns/pass"),
        ["within 10/Minute burst 5 log \"t np pass ns/pass %x %: \"", "set 0x20000 return"]
    );
    assert_eq!(
        print(renderer.ruleset(), "cali-pri-kns.ns"),
        ["within 10/Minute burst 5 log \" pro kns.ns kns.ns %x %: \""]
    );
}

#[test]
fn what_only_staged_policies_use_is_not_there() {
    let mut tables = tables();
    let id = SetId::new("s:trial");
    let trial: std::collections::BTreeSet<Member> = [Member::Net("10.0.0.2/32".parse().expect("literal"))].into();
    tables.sets.insert(id.clone(), (SetKind::Addresses, trial.into()));
    let from = Wanted { sets: vec![id], ..Wanted::default() };
    let rule = Desired { source: from, ..Desired::any(Action::Allow) };
    let policy = Policy { tier: Arc::from("t"), stage: PolicyStage::Normal, ingress: vec![rule], egress: vec![] };
    let (staged, policy) = (policy_id("trial"), Arc::new(policy));
    tables.staged.insert(staged.clone(), policy.clone());
    let mut renderer = Renderer::new(&tables, 200);
    let is_there = |renderer: &Renderer| renderer.ruleset().sets.contains_key("cali40s-trial");
    assert!(!is_there(&renderer));
    for enforced in [Some(policy), None] {
        let wanted = enforced.is_some();
        let batch = Batch { policies: [(staged.clone(), enforced)].into(), ..Batch::default() };
        tables.apply(&batch);
        renderer.update(&tables, &batch);
        assert_eq!(is_there(&renderer), wanted);
    }
}

#[test]
fn workloads_with_the_same_policies_share_their_chains() {
    let mut tables = tables();
    let id = |name: &str| EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) };
    let first = tables.endpoints[&id("pod")].clone();
    for n in 2..=100 {
        let endpoint = Endpoint { interface: Arc::from(format!("cali{n}")), ..(*first).clone() };
        tables.endpoints.insert(id(&format!("pod{n}")), Arc::new(endpoint));
    }
    let mut renderer = Renderer::new(&tables, 200);
    let groups = renderer.ruleset().chains.keys().filter(|name| name.starts_with("cali-g")).count();
    assert_eq!(groups, 3, "two of ingress, one of egress");
    // Another policy for all of them touches one chain of rules and no element.
    let more = Policy {
        tier: Arc::from("second"),
        stage: PolicyStage::Normal,
        ingress: vec![Desired::any(Action::Deny)],
        egress: vec![],
    };
    let mut batch = Batch { policies: [(policy_id("zzz"), Some(Arc::new(more)))].into(), ..Batch::default() };
    for (id, endpoint) in &tables.endpoints {
        let mut endpoint = (**endpoint).clone();
        endpoint.tiers[1].ingress.push(policy_id("zzz"));
        batch.endpoints.insert(id.clone(), Some(Arc::new(endpoint)));
    }
    tables.apply(&batch);
    let delta = renderer.update(&tables, &batch);
    assert_eq!(delta.chains.keys().map(|name| &**name).collect::<Vec<_>>(), ["cali-gi-cali1/1", "cali-pi-np/ns/zzz"]);
    assert!(delta.maps.is_empty() && delta.sets.is_empty(), "{delta:?}");
}

#[test]
fn limits_give_a_workload_a_chain_of_its_own() {
    let mut tables = tables();
    let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("pod") };
    let limits = Limits {
        egress_packets: Some(PacketRate { per_second: 100, burst: 7 }),
        ingress_connections: Some(3),
        ..Limits::default()
    };
    let limited = Endpoint { limits, ..(*tables.endpoints[&id]).clone() };
    tables.endpoints.insert(id, Arc::new(limited));
    let renderer = Renderer::new(&tables, 200);
    let ruleset = renderer.ruleset();
    assert_eq!(print(ruleset, "filter-FORWARD-from-wl")[0], "iif @cali-from-wl-own iif by cali-from-wl-dispatch");
    assert_eq!(
        print(ruleset, "cali-fw-cali1"),
        [
            "IPv4 src !10.65.0.1/32 drop",
            "IPv6 drop",
            "over 100/Second burst 7 drop",
            "established accept",
            "goto cali-go-cali1"
        ]
    );
    assert_eq!(
        print(ruleset, "cali-tw-cali1"),
        ["established accept", "TCP connections > 3 reset", "goto cali-gi-cali1"]
    );
}

#[test]
fn what_tunnels_carry_between_nodes_is_not_tracked_and_is_judged_all_the_same() {
    let mut tables = tables();
    let mut renderer = Renderer::new(&tables, 200);
    let raw = |renderer: &Renderer| {
        ["raw-PREROUTING", "raw-OUTPUT"]
            .map(|name| renderer.ruleset().chains.contains_key(name).then(|| print(renderer.ruleset(), name)))
    };
    assert_eq!(raw(&renderer), [None, None], "a base chain that does nothing costs");
    let address = |text: &str| text.parse().expect("literal");
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let device = Vxlan { vni: 4096, port: 4789, underlay: address("192.0.2.1"), address: None, mac, mtu: None };
    let vtep = |underlay: &str| Some(Vtep { node: Arc::from("far"), mac, underlay: address(underlay) });
    let batch = Batch {
        tunnels: [(TunnelDevice::VxlanV4, Some(device))].into(),
        vteps: [(address("10.65.9.0"), vtep("192.0.2.2"))].into(),
        ..Batch::default()
    };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let rules = |end: &str| vec![format!("UDP dstport 4789 IPv4 {end} 192.0.2.2/32 notrack")];
    assert_eq!(raw(&renderer), [Some(rules("src")), Some(rules("dst"))]);
    let ipip = |peers: &[&str]| Ipip {
        underlay: address("192.0.2.1"),
        address: None,
        mtu: None,
        peers: peers.iter().map(|peer| (address(peer), Arc::from("far"))).collect(),
        ends: BTreeMap::new(),
        learned: BTreeMap::new(),
    };
    let batch = Batch { ipip: Some(Some(ipip(&["192.0.2.2"]))), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let both = |end: &str| [rules(end), vec![format!("4 IPv4 {end} 192.0.2.2/32 notrack")]].concat();
    assert_eq!(raw(&renderer), [Some(both("src")), Some(both("dst"))]);
    let input = ["UDP dstport 4789 IPv4 src 192.0.2.2/32 accept", "UDP dstport 4789 IPv4 drop"];
    assert_eq!(print(renderer.ruleset(), "filter-INPUT")[2..4], input, "still judged");
    // Beside policy that is asked before connection tracking, whose mark is not set by what is left out.
    let policy = Policy {
        tier: Arc::from("t"),
        stage: PolicyStage::Untracked,
        ingress: vec![Desired::any(Action::Deny)],
        egress: vec![],
    };
    let untracked = vec![tier("t", TierAction::Deny, &["early"])];
    let endpoint = HostEndpoint { name: Arc::from("h"), untracked, ..HostEndpoint::default() };
    let batch = Batch {
        policies: [(policy_id("early"), Some(Arc::new(policy)))].into(),
        host_endpoints: [(HostInterface::Named(Arc::from("eth0")), Some(Arc::new(endpoint)))].into(),
        ..Batch::default()
    };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let judging = ["clear 0x10000", "iif cali* accept", "iif by raw-cali-from-host-endpoint"].map(str::to_owned);
    let [arriving, leaving] = raw(&renderer);
    assert_eq!(arriving, Some([rules("src"), judging.to_vec()].concat()));
    assert_eq!(leaving, Some([rules("dst"), vec![judging[0].clone()]].concat()));
    // Without another node there is nothing to leave out but IPIP, now that no host endpoint wants to know of it.
    let gone = [(address("10.65.9.0"), None)].into();
    let host_endpoints = [(HostInterface::Named(Arc::from("eth0")), None)].into();
    let batch = Batch { vteps: gone, host_endpoints, ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    let left = |end: &str| Some(both(end)[1..].to_vec());
    assert_eq!(raw(&renderer), [left("src"), left("dst")]);
    let batch = Batch { ipip: Some(Some(ipip(&[]))), ..Batch::default() };
    tables.apply(&batch);
    renderer.update(&tables, &batch);
    assert_eq!(raw(&renderer), [None, None]);
}
