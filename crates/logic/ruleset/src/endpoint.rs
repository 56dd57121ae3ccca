//! The chains of one workload and direction: hygiene, anti-spoofing, tiers, profiles, and the drop at the end.
//!
//! Invariant: the chains always end in a verdict; what nothing allowed is denied. A policy or profile that is listed
//! but not there denies too.

use std::net::IpAddr;

use tortie_desired::{Endpoint, PolicyId, Settings, TierAction};
use tortie_net::{Family, host_net};

use crate::model::{Chain, CtState, Direction, Match, Name, Rule, Side, Statement, Verdict};
use crate::names::Names;
use crate::policy::{PASS_MARK, deny};

/// What an endpoint's chains need to know of a policy or profile in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether the policy has a chain; without rules it has none.
    pub(crate) has_rules: bool,
    /// Whether a rule says Pass.
    pub(crate) passes: bool,
}

/// Where an endpoint's chains look up what they jump to. `None`: not there.
pub(crate) struct Referents<'a> {
    pub(crate) names: Names,
    pub(crate) settings: &'a Settings,
    pub(crate) policy: &'a dyn Fn(&PolicyId) -> Option<Shape>,
    pub(crate) profile: &'a dyn Fn(&str) -> Option<Shape>,
}

/// The chains of one direction, the one that the dispatch map names first.
pub(crate) fn chains(endpoint: &Endpoint, direction: Direction, referents: &Referents<'_>) -> Vec<(Name, Chain)> {
    let Endpoint { interface, addresses, mac: _, tiers, profiles } = endpoint;
    let Referents { names, settings, policy, profile } = referents;
    let mut done: Vec<(Name, Chain)> = Vec::new();
    let mut rules = hygiene(settings);
    if direction == Direction::Egress {
        rules.extend(anti_spoof(addresses, settings));
    }
    let mut name = names.workload(direction, interface);
    let denied = || Rule::new([], deny(settings));
    for tier in tiers {
        let policies = match direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if policies.is_empty() {
            continue;
        }
        let next = names.workload_after(direction, interface, done.len() + 1);
        let mut can_leave = tier.default_action == TierAction::Pass;
        let mut left_early = false;
        for id in policies {
            match policy(id) {
                None => rules.push(denied()),
                Some(Shape { has_rules: false, passes: _ }) => {}
                Some(Shape { has_rules: true, passes }) => {
                    rules.push(Rule::new([], Verdict::Jump(names.policy(direction, id))));
                    if passes {
                        rules.push(leave(next.clone()));
                        (can_leave, left_early) = (true, true);
                    }
                }
            }
        }
        match tier.default_action {
            TierAction::Deny => rules.push(denied()),
            TierAction::Pass if left_early => rules.push(Rule::new([], Verdict::Goto(next.clone()))),
            TierAction::Pass => {}
        }
        if !can_leave {
            done.push((name, Chain { rules, ..Chain::default() }));
            return done;
        }
        if left_early {
            done.push((name, Chain { rules, ..Chain::default() }));
            (name, rules) = (next, Vec::new());
        }
    }
    for id in profiles {
        match profile(id) {
            None => rules.push(denied()),
            Some(Shape { has_rules: true, passes: _ }) => {
                rules.push(Rule::new([], Verdict::Jump(names.profile(direction, id))));
            }
            Some(Shape { has_rules: false, passes: _ }) => {}
        }
    }
    rules.push(denied());
    done.push((name, Chain { rules, ..Chain::default() }));
    done
}

/// Leaves the tier if the policy before said Pass.
fn leave(next: Name) -> Rule {
    Rule {
        matches: vec![Match::Mark(PASS_MARK)],
        statements: vec![Statement::ClearMark(PASS_MARK)],
        verdict: Some(Verdict::Goto(next)),
    }
}

fn hygiene(settings: &Settings) -> Vec<Rule> {
    let invalid = (!settings.accept_invalid).then_some(Match::Conntrack(CtState::Invalid));
    let unmanaged = (!settings.ipv6).then_some(Match::Family(Family::V6));
    unmanaged.into_iter().chain(invalid).map(|m| Rule::new([m], Verdict::Drop)).collect()
}

fn anti_spoof(addresses: &[IpAddr], settings: &Settings) -> Vec<Rule> {
    let families = Family::ALL.into_iter().filter(|f| settings.ipv6 || *f == Family::V4);
    families
        .map(|family| {
            let own = addresses.iter().filter(|a| Family::of(**a) == family);
            let other = own.map(|a| Match::Address { side: Side::Source, net: host_net(*a), negate: true });
            Rule::new([Match::Family(family)].into_iter().chain(other).collect::<Vec<_>>(), Verdict::Drop)
        })
        .collect()
}
