//! Rules: every field of a rule and of its two ends, in combinations that the API accepts.

use tortie_api::{
    Action, EntityRule, IcmpFields, IpNetText, Port, Rule, RuleMetadata, RuleProtocol, ServiceAccountMatch,
};
use tortie_net::{Family, PortRange, Protocol};

use crate::place::nets;
use crate::rng::Rng;

/// Ports that endpoints and rules name.
pub(crate) const PORTS: [u16; 7] = [80, 81, 82, 443, 1024, 1025, 65535];
pub(super) const NAMED_PORTS: [&str; 2] = ["web", "api"];
const RANGES: [(u16, u16); 6] = [(80, 81), (79, 82), (443, 1024), (1024, 65535), (1, 79), (82, 82)];

/// ICMP types that rules name; packets are tried with these and a few more.
pub(crate) const ICMP_TYPES: [u8; 4] = [8, 0, 3, 13];
/// ICMPv6 types that rules name.
pub(crate) const ICMPV6_TYPES: [u8; 4] = [128, 129, 1, 133];

/// Protocols without a name that rules name.
pub(crate) const NUMBERS: [u8; 3] = [47, 89, 112];

pub(super) const SELECTORS: [&str; 12] = [
    "",
    "all()",
    "a == 'x'",
    "a == 'y' || b == 'x'",
    "a in {'x', 'y'} && has(b)",
    "a != 'x'",
    "!has(a)",
    "has(b)",
    "!(a == 'x' && b == 'x')",
    "b starts with 'x'",
    "c == 'lent'",
    "a == 'x' && a == 'y'",
];
const OVER_NAMESPACES: [&str; 5] = ["", "all()", "global()", "env == 'x'", "env != 'x'"];

/// Up to so many rules, sometimes with one at the end that takes all.
pub(super) fn rules(rng: &mut Rng, at_most: usize) -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..rng.below(at_most + 1)).map(|_| rule(rng)).collect();
    if rng.percent(45) {
        let action = rng.pick(&[Action::Allow, Action::Allow, Action::Pass, Action::Deny]);
        rules.push(Rule { action, ..Rule::default() });
    }
    rules
}

/// A rule that asks for the packet's destination port (`side` 0), its source or its destination.
pub(super) fn narrow_rule(rng: &mut Rng, side: usize) -> Rule {
    let action = rng.pick(&[Action::Allow, Action::Allow, Action::Allow, Action::Deny, Action::Log]);
    let mut rule = Rule { action, ..Rule::default() };
    let family = rng.pick(&Family::ALL);
    let prefixes = |rng: &mut Rng| {
        let mut chosen = rng.some(nets(family), 3);
        if chosen.is_empty() {
            chosen.push(rng.pick(nets(family)));
        }
        chosen.into_iter().map(of_rule).collect()
    };
    match side {
        0 => {
            rule.protocol = Some(rng.pick(&[Protocol::TCP, Protocol::UDP]).into());
            let (first, last) = rng.pick(&RANGES);
            let range = PortRange::new(first, last).expect("ascending");
            let single = Port::number(rng.pick(&PORTS));
            rule.destination.ports = vec![rng.pick(&[single, Port::Range(range)])];
        }
        1 => rule.source.nets = prefixes(rng),
        _ => rule.destination.nets = prefixes(rng),
    }
    rule
}

fn rule(rng: &mut Rng) -> Rule {
    let action = rng.pick(&[Action::Allow, Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let protocol = protocol(rng);
    let not_protocol = rng.percent(12).then(|| any_protocol(rng));
    let family = match (protocol.map(RuleProtocol::protocol), not_protocol.map(RuleProtocol::protocol)) {
        (Some(Protocol::ICMP), _) | (_, Some(Protocol::ICMP)) => Family::V4,
        (Some(Protocol::ICMPV6), _) | (_, Some(Protocol::ICMPV6)) => Family::V6,
        _ => rng.pick(&Family::ALL),
    };
    let clash = [protocol, not_protocol].into_iter().flatten().any(|p| p.protocol() == other_icmp(family));
    let ip_version = (rng.percent(15) && !clash).then(|| family.version());
    let is_icmp = protocol.is_some_and(|p| [Protocol::ICMP, Protocol::ICMPV6].contains(&p.protocol()));
    let icmp = |rng: &mut Rng, chance| (is_icmp && rng.percent(chance)).then(|| icmp(rng, family));
    let (icmp, not_icmp) = (icmp(rng, 60), icmp(rng, 30));
    let (source, destination) = (entity(rng, family, protocol), entity(rng, family, protocol));
    let metadata = rng.percent(5).then(|| RuleMetadata { annotations: [("why".to_owned(), "test".to_owned())].into() });
    Rule { action, ip_version, protocol, icmp, not_protocol, not_icmp, source, destination, http: None, metadata }
}

fn other_icmp(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMPV6,
        Family::V6 => Protocol::ICMP,
    }
}

fn protocol(rng: &mut Rng) -> Option<RuleProtocol> {
    match rng.below(10) {
        0..3 => None,
        3..5 => Some(Protocol::TCP.into()),
        5..7 => Some(Protocol::UDP.into()),
        7 => Some(rng.pick(&[Protocol::ICMP, Protocol::ICMPV6]).into()),
        _ => Some(any_protocol(rng)),
    }
}

fn any_protocol(rng: &mut Rng) -> RuleProtocol {
    if rng.percent(50) {
        let (_, protocol) = rng.pick(&Protocol::NAMES);
        return protocol.into();
    }
    // A protocol that has a name may be written as its number.
    let named = [Protocol::TCP.0, Protocol::UDP.0, Protocol::SCTP.0];
    RuleProtocol::Number(rng.pick(&[&NUMBERS[..], &named[..]].concat()))
}

fn icmp(rng: &mut Rng, family: Family) -> IcmpFields {
    let types = match family {
        Family::V4 => ICMP_TYPES,
        Family::V6 => ICMPV6_TYPES,
    };
    let code = rng.percent(50).then(|| rng.pick(&[0, 1]));
    IcmpFields { icmp_type: Some(rng.pick(&types)), code }
}

/// A prefix as rules take it: with its length, without bits of the host.
fn of_rule(text: &str) -> IpNetText {
    IpNetText::from(IpNetText::from(text).net().expect("a prefix or an address"))
}

/// One end of a rule; mostly with one or two conditions, so that some packets match.
fn entity(rng: &mut Rng, family: Family, protocol: Option<RuleProtocol>) -> EntityRule {
    if rng.percent(25) {
        return EntityRule::default();
    }
    let prefixes = |rng: &mut Rng, chance: u64, most: usize| -> Vec<IpNetText> {
        let all = nets(family);
        // One alone is compared in another way than several.
        let chosen = match rng.below(100) as u64 {
            dice if dice >= chance => Vec::new(),
            dice if dice * 2 < chance => vec![rng.pick(all)],
            _ => rng.some(all, most),
        };
        chosen.into_iter().map(of_rule).collect()
    };
    let not_nets = prefixes(rng, 20, 3).into_iter().filter(|net| net.net().is_some_and(|net| net.prefix_len() > 0));
    let accounts = rng.percent(10).then(|| ServiceAccountMatch {
        names: rng.some(&["web", "db"], 1).into_iter().map(str::to_owned).collect(),
        selector: rng.pick(&["", "a == 'x'", "all()", "env == 'x'"]).to_owned(),
    });
    EntityRule {
        not_nets: not_nets.collect(),
        nets: prefixes(rng, 25, 4),
        selector: if rng.percent(30) { rng.pick(&SELECTORS).to_owned() } else { String::new() },
        not_selector: if rng.percent(12) { rng.pick(&SELECTORS).to_owned() } else { String::new() },
        namespace_selector: if rng.percent(12) { rng.pick(&OVER_NAMESPACES).to_owned() } else { String::new() },
        ports: ports(rng, protocol, 30),
        not_ports: ports(rng, protocol, 15),
        service_accounts: accounts,
        services: None,
    }
}

fn ports(rng: &mut Rng, protocol: Option<RuleProtocol>, chance: u64) -> Vec<Port> {
    let named = || NAMED_PORTS.map(|name| Port::Named(name.to_owned()));
    match protocol.map(RuleProtocol::protocol) {
        _ if !rng.percent(chance) => Vec::new(),
        Some(Protocol::TCP | Protocol::UDP | Protocol::SCTP) => {
            let range = |(first, last)| Port::Range(PortRange::new(first, last).expect("ascending"));
            let all: Vec<Port> =
                PORTS.map(Port::number).into_iter().chain(RANGES.map(range)).chain(named()).chain(named()).collect();
            if rng.percent(50) { vec![rng.pick(&all)] } else { rng.some(&all, 4) }
        }
        None => rng.some(&named(), 2),
        Some(_) => Vec::new(),
    }
}
