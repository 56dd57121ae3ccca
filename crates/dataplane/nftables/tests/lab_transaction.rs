//! One table of every feature through a real kernel: written, printed by nft, read back, repaired.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::{lab, run};
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, HostAction, HostEndpoint, HostInterface, IcmpMatch, Match, Member, Policy,
    PolicyId, PolicyKind, PolicyStage, Pool, Profile, Rule, SetChange, SetId, SetKind, Tables, TierAction,
    TierPolicies,
};
use tortie_net::{Family, PortRange, Protocol};
use tortie_nftables::{Nftables, Options};

fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: Arc::from(name), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

fn rules() -> Vec<Rule> {
    let tcp = Some(Protocol::TCP);
    let source = |source| Rule { source, ..Rule::any(Action::Allow) };
    let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("literal")).collect::<Vec<_>>();
    let ids = |texts: &[&str]| texts.iter().map(|t| SetId::new(t)).collect::<Vec<_>>();
    let ports = vec![PortRange::single(80), PortRange::new(8000, 8080).expect("ascending")];
    vec![
        Rule { protocol: tcp, ..source(Match { ports: ports.clone(), ..Match::default() }) },
        Rule { protocol: tcp, ..source(Match { not_ports: ports[1..].to_vec(), ..Match::default() }) },
        source(Match { nets: nets(&["10.0.0.0/8"]), ..Match::default() }),
        source(Match { nets: nets(&["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"]), ..Match::default() }),
        source(Match { not_nets: nets(&["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16"]), ..Match::default() }),
        source(Match { sets: ids(&["s:addr", "s:nets"]), not_sets: ids(&["s:addr"]), ..Match::default() }),
        Rule { protocol: tcp, ..source(Match { port_sets: ids(&["n:web"]), ports, ..Match::default() }) },
        source(Match { service_sets: ids(&["n:web"]), ..Match::default() }),
        Rule { not_protocol: tcp, action: Action::Log, ..source(Match::default()) },
        Rule {
            protocol: Some(Protocol::ICMP),
            icmp: Some(IcmpMatch { icmp_type: 8, code: Some(0) }),
            ..source(Match::default())
        },
        Rule {
            protocol: Some(Protocol::ICMPV6),
            not_icmp: Some(IcmpMatch { icmp_type: 128, code: None }),
            action: Action::Pass,
            ..source(Match::default())
        },
        Rule { family: Some(Family::V6), action: Action::Deny, ..source(Match::default()) },
    ]
}

fn tables() -> Tables {
    let mut tables = Tables::default();
    tables.settings.endpoint_to_host = HostAction::Accept;
    tables.settings.reject_denied = true;
    let net = |text: &str| Member::Net(text.parse().expect("literal"));
    let port = |addr: &str| Member::Port { addr: addr.parse().expect("literal"), protocol: Protocol::TCP, port: 443 };
    let mut set = |id: &str, kind, members: Vec<Member>| {
        tables.sets.insert(SetId::new(id), (kind, members.into_iter().collect()));
    };
    set("s:addr", SetKind::Addresses, vec![net("10.0.0.1/32"), net("fd00::1/128")]);
    let nested = ["10.0.0.0/8", "10.1.0.0/16", "172.16.0.0/12", "255.255.255.255/32", "fd00::/8", "fd00::/64"];
    set("s:nets", SetKind::Nets, nested.into_iter().map(net).collect());
    set("n:web", SetKind::Ports, vec![port("10.0.0.1"), port("fd00::1")]);
    let policy = Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress: rules(), egress: rules() };
    tables.policies.insert(policy_id("all"), Arc::new(policy));
    tables.profiles.insert(
        Arc::from("kns.ns"),
        Arc::new(Profile { ingress: vec![Rule::any(Action::Allow)], egress: vec![Rule::any(Action::Allow)] }),
    );
    for number in 1..=3 {
        let tier = TierPolicies {
            tier: Arc::from("default"),
            default_action: if number == 1 { TierAction::Deny } else { TierAction::Pass },
            ingress: vec![policy_id("all")],
            egress: vec![policy_id("all")],
        };
        let endpoint = Endpoint {
            interface: Arc::from(format!("cali{number}")),
            addresses: vec![format!("10.65.0.{number}").parse().expect("literal"), "fd00::7".parse().expect("literal")],
            mac: None,
            tiers: vec![tier],
            profiles: vec![Arc::from("kns.ns")],
            ..Endpoint::default()
        };
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from(format!("pod{number}")) };
        tables.endpoints.insert(id, Arc::new(endpoint));
    }
    for (net, nat_outgoing) in [("10.65.0.0/16", true), ("10.66.0.0/16", false), ("fd00::/16", true)] {
        tables.pools.insert(net.parse().expect("literal"), Pool { nat_outgoing });
    }
    tables
}

#[test]
#[ignore = "needs root"]
fn everything_is_written_once_and_reads_back_equal() {
    let _alone = lab();
    run("nft", &["add table inet other { set x { type ipv4_addr; elements = { 1.2.3.4 }; }; }"]);
    for own in [true, false] {
        let options = Options { own, table: format!("t{own}"), ..Options::default() };
        let mut nft = Nftables::open_with(options.clone()).expect("netlink");
        let tables = tables();
        let report = nft.resync(&tables).expect("the first transaction");
        assert!(report.written.rules > 50 && !report.replaced, "{report:?}");
        let listed = run("nft", &["list", "table", "inet", &options.table]);
        println!("{listed}");
        for wanted in
            ["goto cali-go-cali1", "jump cali-pi-np/ns/all", "masquerade", "calico-packet: ", "10.0.0.1 . tcp . 443"]
        {
            assert!(listed.contains(wanted), "{wanted} is missing in {listed}");
        }
        let again = nft.resync(&tables).expect("the second pass");
        assert_eq!(again.written, Default::default(), "{again:?}");
        assert_eq!(nft.is_owned(), own);
        nft.remove_all().expect("removal");
        assert!(!run("nft", &["list", "tables"]).contains(&options.table));
    }
    assert!(run("nft", &["list", "ruleset"]).contains("1.2.3.4"), "the foreign table is untouched");
}

#[test]
#[ignore = "needs root"]
fn a_batch_writes_just_what_it_changes() {
    let _alone = lab();
    let mut nft = Nftables::open().expect("netlink");
    let mut tables = tables();
    nft.resync(&tables).expect("the first transaction");
    let member = Member::Net("10.0.0.9/32".parse().expect("literal"));
    let change = SetChange::Delta { added: [member].into(), removed: Default::default() };
    let batch = Batch { sets: [(SetId::new("s:addr"), change)].into(), ..Batch::default() };
    tables.apply(&batch);
    let report = nft.commit(&tables, &batch).expect("an element");
    assert_eq!((report.written.elements, report.written.rules, report.written.chains), (1, 0, 0));
    let mut policy = (*tables.policies[&policy_id("all")]).clone();
    for rule in policy.ingress.iter_mut().chain(&mut policy.egress).filter(|rule| rule.source.nets.len() > 1) {
        rule.source.nets.push("10.0.0.3/32".parse().expect("literal"));
    }
    let batch = Batch { policies: [(policy_id("all"), Some(Arc::new(policy)))].into(), ..Batch::default() };
    tables.apply(&batch);
    let report = nft.commit(&tables, &batch).expect("a policy admits another address, both ways");
    assert_eq!((report.written.elements, report.written.rules, report.written.chains), (2, 0, 0));
    let id = tables.endpoints.keys().next().expect("an endpoint").clone();
    let batch = Batch { endpoints: [(id, None)].into(), ..Batch::default() };
    tables.apply(&batch);
    nft.commit(&tables, &batch).expect("an endpoint goes");
    assert!(!run("nft", &["list", "ruleset"]).contains("cali1"));
    assert_eq!(nft.resync(&tables).expect("read back").written, Default::default());
}

/// The lines of a listing in one order: that of chains and elements says when they came.
fn sorted(listing: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listing.split([',', '\n']).map(str::trim).collect();
    lines.sort_unstable();
    lines
}

/// Tables whose base chains differ: none but the least, NAT, a host endpoint with its own stages.
fn frames() -> [Tables; 4] {
    let all = tables();
    let tiers = || {
        let tier = Arc::from("default");
        let policies = vec![policy_id("all")];
        vec![TierPolicies { tier, default_action: TierAction::Pass, ingress: policies, egress: Vec::new() }]
    };
    let host = |untracked| HostEndpoint {
        name: Arc::from("host"),
        untracked,
        pre_dnat: tiers(),
        forward: tiers(),
        tiers: tiers(),
        profiles: Vec::new(),
    };
    let with = |host| Tables {
        host_endpoints: [(HostInterface::Named(Arc::from("eth0")), Arc::new(host))].into(),
        ..all.clone()
    };
    [Tables { pools: BTreeMap::new(), ..all.clone() }, with(host(Vec::new())), with(host(tiers())), all]
}

#[test]
#[ignore = "needs root"]
fn what_an_earlier_run_left_becomes_what_is_wanted_whatever_base_chains_it_has() {
    let _alone = lab();
    let frames = frames();
    for (from, to) in (0..frames.len()).flat_map(|from| (0..frames.len()).map(move |to| (from, to))) {
        let mut fresh = Nftables::open().expect("netlink");
        fresh.resync(&frames[to]).expect("the first transaction");
        let wanted = run("nft", &["-s", "list", "ruleset"]);
        fresh.remove_all().expect("removal");
        let mut before = Nftables::open().expect("netlink");
        before.resync(&frames[from]).expect("the first transaction");
        drop(before);
        let mut after = Nftables::open().expect("netlink");
        after.resync(&frames[to]).unwrap_or_else(|error| panic!("from {from} to {to}: {error}"));
        assert!(after.is_owned());
        assert_eq!(after.resync(&frames[to]).expect("read back").written, Default::default());
        assert_eq!(sorted(&run("nft", &["-s", "list", "ruleset"])), sorted(&wanted), "from {from} to {to}");
        after.remove_all().expect("removal");
    }
}

/// The handles of a chain's rules, in order.
fn handles(chain: &str) -> Vec<u64> {
    let listed = run("nft", &["-a", "list", "chain", "inet", "tortie", chain]);
    // The first is the chain's own.
    let all = listed.lines().filter_map(|line| line.rsplit_once("# handle ")?.1.parse().ok());
    all.skip(1).collect()
}

#[test]
#[ignore = "needs root"]
fn rules_that_stay_are_left_alone() {
    let _alone = lab();
    let mut nft = Nftables::open().expect("netlink");
    let mut tables = tables();
    let port = |port| Rule {
        protocol: Some(Protocol::TCP),
        destination: Match { ports: vec![PortRange::single(port)], ..Match::default() },
        ..Rule::any(Action::Allow)
    };
    let rules = |ports: &[u16]| ports.iter().copied().map(port).collect::<Vec<_>>();
    let policy = |ingress| {
        let policy = Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress, egress: rules(&[1]) };
        Batch { policies: [(policy_id("all"), Some(Arc::new(policy)))].into(), ..Batch::default() }
    };
    tables.apply(&policy(rules(&[1, 2, 3, 4])));
    nft.resync(&tables).expect("the first transaction");
    let mut before = (vec![1, 2, 3, 4], handles("cali-pi-np/ns/all"));
    let steps: [(&[u16], usize); 8] = [
        (&[1, 2, 9, 4], 1),
        (&[1, 2, 9, 4, 5], 1),
        (&[7, 1, 2, 9, 4, 5], 1),
        (&[7, 1, 4, 5], 0),
        (&[7, 6, 6, 1, 4, 5], 2),
        (&[1, 4, 5], 0),
        (&[1], 0),
        (&[8, 9], 2),
    ];
    for (ports, written) in steps {
        let batch = policy(rules(ports));
        tables.apply(&batch);
        let report = nft.commit(&tables, &batch).expect("a policy");
        assert_eq!((report.written.rules, report.written.chains, report.resynced), (written, 1, false), "{ports:?}");
        let now = (ports.to_vec(), handles("cali-pi-np/ns/all"));
        for (port, handle) in now.0.iter().zip(&now.1) {
            let had = before.0.iter().position(|p| p == port).map(|at| before.1[at]);
            assert!(had.is_none_or(|had| had == *handle), "{ports:?}: the rule of port {port} was written anew");
        }
        assert_eq!(nft.resync(&tables).expect("read back").written, Default::default());
        before = now;
    }
}

#[test]
#[ignore = "needs root"]
fn a_policy_that_the_kernel_refuses_is_closed_alone() {
    let _alone = lab();
    let mut nft = Nftables::open().expect("netlink");
    let mut tables = tables();
    nft.resync(&tables).expect("the first transaction");
    let ids: Vec<SetId> = (0..70).map(|n| SetId::new(&format!("s:x{n}"))).collect();
    let change = || SetChange::Whole { kind: SetKind::Addresses, members: Default::default() };
    let policy = |name: &str, sets: &[SetId]| {
        let rule = Rule { source: Match { sets: sets.to_vec(), ..Match::default() }, ..Rule::any(Action::Allow) };
        let ingress = vec![rule, Rule::any(Action::Pass)];
        let policy = Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress, egress: vec![] };
        (policy_id(name), Some(Arc::new(policy)))
    };
    // A rule of the kernel has room for some sixty of these.
    let batch = Batch {
        sets: ids.iter().map(|id| (id.clone(), change())).collect(),
        policies: [policy("big", &ids), policy("small", &ids[..2])].into(),
        ..Batch::default()
    };
    tables.apply(&batch);
    let report = nft.commit(&tables, &batch).expect("all but one policy");
    let named =
        |unsupported: &std::collections::BTreeMap<String, String>| unsupported.keys().cloned().collect::<Vec<_>>();
    println!("{:?}", report.unsupported);
    assert_eq!(named(&report.unsupported), [policy_id("big").to_string()]);
    let rules = |name: &str| run("nft", &["list", "chain", "inet", "tortie", &format!("cali-pi-np/ns/{name}")]);
    assert!(rules("small").contains("@cali40s-x1 accept"), "{}", rules("small"));
    assert!(rules("big").contains("reject") && !rules("big").contains("accept"), "{}", rules("big"));
    let again = nft.resync(&tables).expect("the second pass");
    assert_eq!((again.written, again.unsupported.len()), (Default::default(), 1));
    let batch = Batch { policies: [policy("small", &ids[..1])].into(), ..Batch::default() };
    tables.apply(&batch);
    let report = nft.commit(&tables, &batch).expect("another policy");
    assert_eq!((report.resynced, named(&report.unsupported).len()), (false, 1));
    let batch = Batch { policies: [policy("big", &ids[..3])].into(), ..Batch::default() };
    tables.apply(&batch);
    let report = nft.commit(&tables, &batch).expect("the policy, made smaller");
    assert!(report.unsupported.is_empty() && rules("big").contains("accept"), "{report:?}");
}
