//! A renderer gone wrong: a rule or set that is missing, a condition that is turned round, a jump to the wrong place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_net::{Family, PortRange, Protocol};
use tortie_ruleset::{
    Base, Chain, ChoiceMap, CtState, Element, KeyRange, Match, Name, PASS_MARK, Rule, Ruleset, SetType, Side,
    Statement, Verdict,
};

pub(super) fn chains(ruleset: &mut Ruleset, wanted: impl Fn(&str, &Chain) -> bool, change: impl Fn(&mut Vec<Rule>)) {
    for (name, chain) in &mut ruleset.chains {
        if wanted(name, chain) {
            change(&mut Arc::make_mut(chain).rules);
        }
    }
}

pub(super) fn base(ruleset: &mut Ruleset, base: Base, change: impl Fn(&mut Vec<Rule>)) {
    chains(ruleset, |_, chain| chain.base == Some(base), change);
}

fn all(_: &str, _: &Chain) -> bool {
    true
}

/// The chains of policies and profiles.
fn of_policy(name: &str, _: &Chain) -> bool {
    ["cali-pi-", "cali-po-", "cali-pri-", "cali-pro-"].iter().any(|prefix| name.starts_with(prefix))
}

/// The chains of workloads: their own, and those that they share.
fn of_endpoint(name: &str, _: &Chain) -> bool {
    ["cali-tw-", "cali-fw-", "cali-gi-", "cali-go-"].iter().any(|prefix| name.starts_with(prefix))
}

fn rules(ruleset: &mut Ruleset, change: impl Fn(&mut Rule)) {
    chains(ruleset, all, |rules| rules.iter_mut().for_each(&change));
}

fn conditions(ruleset: &mut Ruleset, change: impl Fn(&mut Match)) {
    rules(ruleset, |rule| rule.matches.iter_mut().for_each(&change));
}

/// Conditions for which `gone` says so are forgotten.
fn forget(ruleset: &mut Ruleset, gone: impl Fn(&Match) -> bool) {
    chains(ruleset, of_policy, |rules| rules.iter_mut().for_each(|rule| rule.matches.retain(|m| !gone(m))));
}

fn forget_rules(ruleset: &mut Ruleset, at: Base, gone: impl Fn(&Rule) -> bool) {
    base(ruleset, at, |rules| rules.retain(|rule| !gone(rule)));
}

fn sets(ruleset: &mut Ruleset, wanted: impl Fn(SetType) -> bool, change: impl Fn(&mut BTreeSet<Element>)) {
    for set in ruleset.sets.values_mut().filter(|set| wanted(set.set_type)) {
        change(&mut Arc::make_mut(set).elements);
    }
}

fn negation_of(condition: &mut Match) -> Option<(Sort, &mut bool)> {
    match condition {
        Match::Protocol { protocol: _, negate } => Some((Sort::Protocol, negate)),
        Match::Address { side: _, net: _, negate } => Some((Sort::Address, negate)),
        Match::AddressIn { side: _, family: _, set: _, negate } => Some((Sort::AddressIn, negate)),
        Match::AddressPortIn { side: _, family: _, set: _, negate } => Some((Sort::AddressPortIn, negate)),
        Match::Port { side: _, range: _, negate } => Some((Sort::Port, negate)),
        Match::PortIn { side: _, set: _, negate } => Some((Sort::PortIn, negate)),
        Match::Icmp { icmp_type: _, code: _, negate } => Some((Sort::Icmp, negate)),
        Match::Conntrack(_)
        | Match::Family(_)
        | Match::InterfacePrefix { .. }
        | Match::InterfaceIn { .. }
        | Match::InterfaceAddressIn { .. }
        | Match::Translated
        | Match::Revoked { negate: _ }
        | Match::BorrowedSource { .. }
        | Match::Mark(_)
        | Match::Rate { .. }
        | Match::ConnectionsOver(_) => None,
    }
}

/// Conditions that can be negated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Protocol,
    Address,
    AddressIn,
    AddressPortIn,
    Port,
    PortIn,
    Icmp,
}

fn never_negated(ruleset: &mut Ruleset, sort: Sort) {
    conditions(ruleset, |m| {
        if let Some((found, negate)) = negation_of(m)
            && found == sort
        {
            *negate = false;
        }
    });
}

fn turned(side: &mut Side) {
    *side = match side {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    };
}

fn choices(ruleset: &mut Ruleset, change: impl Fn(&mut ChoiceMap)) {
    ruleset.choices.values_mut().for_each(|map| change(Arc::make_mut(map)));
}

/// The dispatch maps lead each interface to the chain of the next one.
fn shift(map: &mut BTreeMap<Arc<str>, Name>) {
    let mut chains: Vec<Name> = map.values().cloned().collect();
    if !chains.is_empty() {
        chains.rotate_left(1);
    }
    for (chain, next) in map.values_mut().zip(chains) {
        *chain = next;
    }
}

fn is_drop(rule: &Rule) -> bool {
    matches!(rule.verdict, Some(Verdict::Drop | Verdict::Reject))
}

/// The check of the sources is the rule that drops by what the source is not.
fn is_spoof_check(rule: &Rule) -> bool {
    let foreign =
        |m: &Match| matches!(m, Match::Address { negate: true, .. } | Match::InterfaceAddressIn { negate: true, .. });
    rule.verdict == Some(Verdict::Drop) && rule.matches.iter().any(foreign)
}

fn is_family(family: Family) -> impl Fn(&Rule) -> bool {
    move |rule| rule.matches.contains(&Match::Family(family))
}

fn is_dispatch(rule: &Rule) -> bool {
    matches!(rule.verdict, Some(Verdict::Dispatch { .. }))
}

fn is_unknown(rule: &Rule) -> bool {
    rule.matches.iter().any(|m| matches!(m, Match::InterfacePrefix { .. }))
}

/// Every mutant of the renderer.
pub(super) const ALL: [(&str, fn(&mut Ruleset)); 51] = [
    ("no dispatch of packets from workloads", |r| forget_rules(r, Base::FromWorkload, is_dispatch)),
    ("no dispatch of packets to workloads", |r| forget_rules(r, Base::ToWorkload, is_dispatch)),
    ("no dispatch of packets to the host", |r| forget_rules(r, Base::Input, is_dispatch)),
    ("unknown interfaces may send", |r| forget_rules(r, Base::FromWorkload, is_unknown)),
    ("unknown interfaces may send to the host", |r| forget_rules(r, Base::Input, is_unknown)),
    ("workloads may send to the host", |r| forget_rules(r, Base::Input, is_drop)),
    ("unknown interfaces are dropped before they are looked up", |r| {
        base(r, Base::FromWorkload, |rules| rules.sort_by_key(|rule| !is_unknown(rule)));
    }),
    ("the check of sources is missing", |r| {
        let elsewhere = |name: &str, chain: &Chain| !of_policy(name, chain);
        chains(r, elsewhere, |rules| rules.retain(|rule| !is_spoof_check(rule)));
    }),
    ("the drop at the end of an endpoint's chain is missing", |r| {
        chains(r, of_endpoint, |rules| drop(rules.pop_if(|rule| is_drop(rule))));
    }),
    ("an endpoint's last chain ends in accept", |r| {
        chains(r, of_endpoint, |rules| rules.push(Rule::new([], Verdict::Accept)));
        chains(r, of_endpoint, |rules| {
            let at = rules.len().saturating_sub(2);
            if rules.get(at).is_some_and(is_drop) {
                rules.remove(at);
            }
        });
    }),
    ("the dispatch maps are a place off", |r| {
        r.maps.values_mut().for_each(|map| shift(Arc::make_mut(map)));
    }),
    ("packets from workloads meet the rules of those to them", |r| {
        let to = r.maps.get("cali-to-wl-dispatch").cloned();
        if let (Some(to), Some(from)) = (to, r.maps.get_mut("cali-from-wl-dispatch")) {
            *from = to;
        }
    }),
    ("Pass leaves no mark", |r| rules(r, |rule| rule.statements.retain(|s| !matches!(s, Statement::SetMark(_))))),
    ("the mark of Pass is not cleared", |r| {
        rules(r, |rule| rule.statements.retain(|s| !matches!(s, Statement::ClearMark(_))));
    }),
    ("the mark of Pass is another bit", |r| {
        rules(r, |rule| {
            for statement in &mut rule.statements {
                if let Statement::SetMark(bits) = statement {
                    *bits = PASS_MARK << 1;
                }
            }
        });
    }),
    ("Pass is not followed", |r| {
        chains(r, of_endpoint, |rules| rules.retain(|rule| !rule.matches.contains(&Match::Mark(PASS_MARK))));
    }),
    ("Pass does not return", |r| {
        rules(r, |rule| {
            if rule.verdict == Some(Verdict::Return) {
                rule.verdict = None;
            }
        });
    }),
    ("policies are gone to, not jumped to", |r| {
        rules(r, |rule| {
            if let Some(Verdict::Jump(name)) = &rule.verdict {
                rule.verdict = Some(Verdict::Goto(name.clone()));
            }
        });
    }),
    ("the first jump of an endpoint's chain is missing", |r| {
        chains(r, of_endpoint, |rules| {
            let first = rules.iter().position(|rule| matches!(rule.verdict, Some(Verdict::Jump(_))));
            first.map(|at| rules.remove(at));
        });
    }),
    ("accept returns", |r| {
        chains(r, of_policy, |rules| {
            for rule in rules.iter_mut().filter(|rule| rule.verdict == Some(Verdict::Accept)) {
                rule.verdict = Some(Verdict::Return);
            }
        });
    }),
    ("drop returns", |r| {
        chains(r, of_policy, |rules| {
            for rule in rules.iter_mut().filter(|rule| is_drop(rule)) {
                rule.verdict = Some(Verdict::Return);
            }
        });
    }),
    ("IPv6 alternatives are missing", |r| chains(r, of_policy, |rules| rules.retain(|r| !is_family(Family::V6)(r)))),
    ("IPv4 alternatives are missing", |r| chains(r, of_policy, |rules| rules.retain(|r| !is_family(Family::V4)(r)))),
    ("protocols are not negated", |r| never_negated(r, Sort::Protocol)),
    ("prefixes are not negated", |r| never_negated(r, Sort::Address)),
    ("sets of addresses are not negated", |r| never_negated(r, Sort::AddressIn)),
    ("sets of ports of addresses are not negated", |r| never_negated(r, Sort::AddressPortIn)),
    ("ports are not negated", |r| never_negated(r, Sort::Port)),
    ("sets of ports are not negated", |r| never_negated(r, Sort::PortIn)),
    ("ICMP types are not negated", |r| never_negated(r, Sort::Icmp)),
    ("source and destination port swapped", |r| {
        conditions(r, |m| {
            if let Match::Port { side, range: _, negate: _ } | Match::PortIn { side, set: _, negate: _ } = m {
                turned(side);
            }
        });
    }),
    ("source and destination address swapped", |r| {
        chains(r, of_policy, |rules| {
            for m in rules.iter_mut().flat_map(|rule| &mut rule.matches) {
                if let Match::Address { side, .. } | Match::AddressIn { side, .. } | Match::AddressPortIn { side, .. } =
                    m
                {
                    turned(side);
                }
            }
        });
    }),
    ("families are forgotten where no address is looked at", |r| {
        chains(r, of_policy, |rules| {
            for rule in rules {
                let looks = rule.matches.iter().any(|m| !matches!(m, Match::Family(_) | Match::Protocol { .. }));
                rule.matches.retain(|m| looks || !matches!(m, Match::Family(_)));
            }
        });
    }),
    ("protocols are forgotten", |r| forget(r, |m| matches!(m, Match::Protocol { negate: false, .. }))),
    ("prefixes are forgotten", |r| forget(r, |m| matches!(m, Match::Address { .. }))),
    ("ports are forgotten", |r| forget(r, |m| matches!(m, Match::Port { .. }))),
    ("sets of ports are forgotten", |r| forget(r, |m| matches!(m, Match::PortIn { .. }))),
    ("sets of ports of addresses are forgotten", |r| forget(r, |m| matches!(m, Match::AddressPortIn { .. }))),
    ("ICMP codes are forgotten", |r| {
        conditions(r, |m| {
            if let Match::Icmp { icmp_type: _, code, negate: _ } = m {
                *code = None;
            }
        });
    }),
    ("ICMP types are a number off", |r| {
        chains(r, of_policy, |rules| {
            for m in rules.iter_mut().flat_map(|rule| &mut rule.matches) {
                if let Match::Icmp { icmp_type, code: _, negate: _ } = m {
                    *icmp_type ^= 1;
                }
            }
        });
    }),
    ("single ports are a number off", |r| {
        conditions(r, |m| {
            if let Match::Port { side: _, range, negate: _ } = m
                && range.first() == range.last()
            {
                *range = PortRange::single(range.first().wrapping_add(1));
            }
        });
    }),
    ("sets of addresses lack their first element", |r| {
        sets(r, |kind| matches!(kind, SetType::Addresses(_)), |elements| drop(elements.pop_first()));
    }),
    ("sets of prefixes lack their last element", |r| {
        sets(r, |kind| matches!(kind, SetType::Nets(_)), |elements| drop(elements.pop_last()));
    }),
    ("sets of ports lack their first element", |r| {
        sets(r, |kind| kind == SetType::Ports, |elements| drop(elements.pop_first()));
    }),
    ("maps that rules choose by lack their last range", |r| choices(r, |map| drop(map.chains.pop_last()))),
    ("ranges that rules choose by lack their last key", |r| {
        choices(r, |map| {
            let shorter = |(KeyRange { first, last }, chain): (&KeyRange, &Name)| {
                (*last > *first).then(|| (KeyRange { first: *first, last: last - 1 }, chain.clone()))
            };
            map.chains = map.chains.iter().filter_map(shorter).collect();
        });
    }),
    ("maps that rules choose by lead to the next chain", |r| {
        choices(r, |map| {
            let mut chains: Vec<Name> = map.chains.values().cloned().collect();
            if !chains.is_empty() {
                chains.rotate_left(1);
            }
            map.chains.values_mut().zip(chains).for_each(|(chain, next)| *chain = next);
        })
    }),
    ("of several policies that are chosen the last is not asked", |r| {
        chains(r, |name, _| name.starts_with("cali-some-"), |rules| drop(rules.pop()));
    }),
    ("nothing is chosen by a map", |r| {
        chains(r, all, |rules| rules.retain(|rule| !matches!(rule.verdict, Some(Verdict::Choose { .. }))));
    }),
    ("ports of addresses count as TCP's", |r| {
        sets(
            r,
            |kind| matches!(kind, SetType::AddressPorts(_)),
            |elements| {
                let tcp = |element: &Element| match element {
                    Element::AddressPort { addr, protocol: _, port } => {
                        Element::AddressPort { addr: *addr, protocol: Protocol::TCP, port: *port }
                    }
                    other => other.clone(),
                };
                *elements = elements.iter().map(tcp).collect();
            },
        );
    }),
    ("new connections count as established, invalid ones as new", |r| {
        conditions(r, |m| {
            if let Match::Conntrack(state) = m {
                *state = match state {
                    CtState::EstablishedOrRelated => CtState::Invalid,
                    CtState::Invalid => CtState::EstablishedOrRelated,
                };
            }
        });
    }),
];
