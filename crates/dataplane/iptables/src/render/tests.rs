//! What single rules become. That the whole does what the ruleset means, packets show (`lab/oracle`).

use std::sync::Arc;

use tortie_desired::HostAction;
use tortie_net::{Family, PortRange, Protocol};
use tortie_ruleset::{Base, Chain, Element, Match, Rule, Ruleset, Set, SetType, Side, Statement, Verdict};

use super::*;

/// The rules of the chain `cali-po-x`, which a base chain jumps to.
fn rendered(rule: Rule, sets: &[(&str, Set)], family: Family) -> Result<Vec<String>, Error> {
    let out = rendered_without(rule, sets, family, &[])?;
    assert!(out.closed.is_empty(), "{:?}", out.closed);
    Ok(out.tables[&Table::Filter].chains["cali-po-x"].clone())
}

/// The same where some chains and sets were refused.
fn rendered_without(rule: Rule, sets: &[(&str, Set)], family: Family, refused: &[&str]) -> Result<Rendered, Error> {
    let base = Chain {
        base: Some(Base::Input),
        rules: vec![Rule::new([], Verdict::Jump("cali-po-x".into()))],
        ..Chain::default()
    };
    let chain = Chain { rules: vec![rule], ..Chain::default() };
    let ruleset = Ruleset {
        sets: sets.iter().map(|(name, set)| (Name::from(*name), Arc::new(set.clone()))).collect(),
        chains: [("filter-INPUT".into(), base.into()), ("cali-po-x".into(), chain.into())].into(),
        ..Ruleset::default()
    };
    let style = Style {
        filter_allow: Allow::Accept,
        mangle_allow: Allow::Accept,
        prefixes: &["cali".into()],
        to_host: HostAction::Drop,
        kernel_name: &|name| name.to_string(),
        refused: &refused.iter().map(|name| (Name::from(*name), "was refused".to_owned())).collect(),
        record: &|_| None,
    };
    render(&ruleset, family, &style)
}

fn of(matches: Vec<Match>, family: Family) -> Vec<String> {
    rendered(Rule::new(matches, Verdict::Drop), &[], family).expect("it can be said")
}

fn protocol(protocol: Protocol, negate: bool) -> Match {
    Match::Protocol { protocol, negate }
}

#[test]
fn a_rule_stands_in_the_tables_of_its_family_alone() {
    let net = |text: &str| Match::Address { side: Side::Source, net: text.parse().expect("literal"), negate: false };
    assert_eq!(of(vec![Match::Family(Family::V6)], Family::V4), [""; 0]);
    assert_eq!(of(vec![net("fd00::/64")], Family::V4), [""; 0]);
    assert_eq!(of(vec![net("10.0.0.0/8")], Family::V4), ["-s 10.0.0.0/8 -j DROP"]);
    assert_eq!(of(vec![net("0.0.0.0/0")], Family::V4), ["-j DROP"]);
}

#[test]
fn a_second_condition_on_an_address_is_said_otherwise() {
    let net =
        |text: &str, negate| Match::Address { side: Side::Destination, net: text.parse().expect("literal"), negate };
    let rules = of(vec![net("10.0.0.0/8", false), net("10.1.0.0/16", true)], Family::V4);
    assert_eq!(rules, ["-d 10.0.0.0/8 -m iprange ! --dst-range 10.1.0.0-10.1.255.255 -j DROP"]);
}

#[test]
fn protocols_that_contradict_match_nothing_and_several_that_differ_match_by_a_mark() {
    let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
    assert_eq!(of(vec![protocol(tcp, false), protocol(tcp, true)], Family::V4), [""; 0]);
    assert_eq!(of(vec![protocol(tcp, false), protocol(udp, true)], Family::V4), ["-p 6 -j DROP"]);
    assert_eq!(of(vec![protocol(tcp, true)], Family::V4), ["! -p 6 -j DROP"]);
    let several = of(vec![protocol(tcp, true), protocol(udp, true)], Family::V4);
    assert_eq!(
        several,
        [
            "-j MARK --set-xmark 0x40000/0x40000",
            "-p 6 -j MARK --set-xmark 0x0/0x40000",
            "-p 17 -j MARK --set-xmark 0x0/0x40000",
            "-m mark --mark 0x40000/0x40000 -j DROP",
        ]
    );
}

#[test]
fn lists_of_ports_are_sets_only_when_they_are_long() {
    let ports = |count: u16| {
        let elements = (0..count).map(|n| Element::Ports(PortRange::single(n * 10 + 1))).collect();
        Set { set_type: SetType::Ports, elements }
    };
    let matches =
        vec![protocol(Protocol::TCP, false), Match::PortIn { side: Side::Destination, set: "p".into(), negate: true }];
    let rule = Rule::new(matches, Verdict::Drop);
    let of = |count| rendered(rule.clone(), &[("p", ports(count))], Family::V4).expect("it can be said");
    assert_eq!(of(3), ["-p 6 -m multiport ! --dports 1,11,21 -j DROP"]);
    assert_eq!(of(16), ["-p 6 -m set ! --match-set p dst -j DROP"]);
}

#[test]
fn what_a_rule_does_beside_its_verdict_stands_in_a_chain() {
    let rule = Rule {
        matches: vec![Match::Mark(0x20000)],
        statements: vec![Statement::ClearMark(0x20000)],
        verdict: Some(Verdict::Return),
    };
    let rules = rendered(rule, &[], Family::V6).expect("it can be said");
    assert!(rules[0].starts_with("-m mark ! --mark 0x0/0x20000 -g cali-do-"), "{rules:?}");
    let told = Rule {
        matches: vec![],
        statements: vec![Statement::Record { group: 2, prefix: "DPE0|gnp/x".into() }],
        verdict: Some(Verdict::Reset),
    };
    let rules = rendered(told, &[], Family::V6).expect("it can be said");
    let nflog = "-j NFLOG --nflog-group 2 --nflog-prefix \"DPE0|gnp/x\"";
    assert_eq!(rules, [nflog, "-p 6 -j REJECT --reject-with tcp-reset"], "what all packets meet needs no chain");
}

#[test]
fn what_can_not_be_said_closes_its_chain_alone() {
    let icmp = Rule::new([Match::Icmp { icmp_type: 255, code: None, negate: false }], Verdict::Accept);
    let ports = Set { set_type: SetType::Ports, elements: [].into() };
    let in_set =
        vec![protocol(Protocol::TCP, false), Match::PortIn { side: Side::Source, set: "p".into(), negate: true }];
    let in_set = Rule::new(in_set, Verdict::Accept);
    for (rule, refused) in [(&icmp, [].as_slice()), (&in_set, &["p"]), (&in_set, &["cali-po-x"])] {
        let out =
            rendered_without(rule.clone(), &[("p", ports.clone())], Family::V4, refused).expect("the rest is said");
        let chains = &out.tables[&Table::Filter].chains;
        assert_eq!(chains["cali-po-x"], ["-j DROP"]);
        assert!(!chains["cali-INPUT-all"].is_empty() && !out.sets.contains("p"), "{out:?}");
        assert_eq!(out.closed.keys().map(|name| &**name).collect::<Vec<_>>(), ["cali-po-x"]);
    }
    let out = rendered_without(in_set, &[("p", ports)], Family::V4, &[]).expect("all is said");
    assert!(out.closed.is_empty() && out.sets.contains("p"), "{out:?}");
}
