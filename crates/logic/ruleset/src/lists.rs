//! The chains of a list of tiers and profiles, whoever they belong to.
//!
//! Invariant: with [`End::Deny`] the chains always end in a verdict; what nothing allowed is denied. A policy or
//! profile that is listed but not there denies too.

use std::sync::Arc;

use tortie_desired::{PolicyId, Settings, TierAction, TierPolicies};

use crate::cause::{Cause, CauseOwner};
use crate::model::{Chain, Direction, Match, Name, Rule, Statement, Verdict};
use crate::names::Names;
use crate::policy::{PASS_MARK, deny};
use crate::record::end;

/// What a list of tiers needs to know of a policy or profile in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether the policy has a chain; without rules it has none.
    pub(crate) has_rules: bool,
    /// Whether a rule says Pass.
    pub(crate) passes: bool,
}

/// Where chains look up what they jump to. `None`: not there.
pub(crate) struct Referents<'a> {
    pub(crate) names: Names,
    pub(crate) settings: &'a Settings,
    pub(crate) direction: Direction,
    /// Whether the lists are those of a host endpoint.
    pub(crate) host: bool,
    pub(crate) policy: &'a dyn Fn(&PolicyId) -> Option<Shape>,
    pub(crate) profile: &'a dyn Fn(&str) -> Option<Shape>,
}

/// What follows when no policy decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The end of a tier does what the tier says; after the profiles comes the denial.
    Deny,
    /// The end of a tier does what the tier says; after the tiers the chain ends, and others go on.
    Open,
    /// Neither the end of a tier nor that of the list decides.
    Silent,
}

/// The chains of one direction, the one to enter first. `name` gives the names of the first and those after it.
pub(crate) fn chains(
    head: Vec<Rule>,
    tiers: &[TierPolicies],
    profiles: &[Arc<str>],
    after: End,
    name: &dyn Fn(usize) -> Name,
    referents: &Referents<'_>,
) -> Vec<(Name, Chain)> {
    let Referents { names, settings, direction, host, policy, profile } = referents;
    let (direction, host) = (*direction, *host);
    let mut done: Vec<(Name, Chain)> = Vec::new();
    let mut rules = head;
    let denied = |cause: Cause| end(settings, [], &cause, deny(settings));
    for tier in tiers {
        let policies = match direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if policies.is_empty() {
            continue;
        }
        let next = name(done.len() + 1);
        let goes_on = after == End::Silent || tier.default_action == TierAction::Pass;
        let mut left_early = false;
        for id in policies {
            match policy(id) {
                None => rules.push(denied(Cause::Missing { owner: CauseOwner::Policy(id.clone()), direction })),
                Some(Shape { has_rules: false, passes: _ }) => {}
                Some(Shape { has_rules: true, passes }) => {
                    rules.push(Rule::new([], Verdict::Jump(names.policy(direction, id))));
                    if passes {
                        rules.push(leave(next.clone()));
                        left_early = true;
                    }
                }
            }
        }
        if !goes_on {
            rules.push(denied(Cause::EndOfTier { tier: tier.tier.clone(), direction, host }));
        } else if left_early {
            rules.push(Rule::new([], Verdict::Goto(next.clone())));
        }
        if !goes_on && !left_early {
            done.push((name(done.len()), Chain { rules, ..Chain::default() }));
            return done;
        }
        if left_early {
            done.push((name(done.len()), Chain { rules, ..Chain::default() }));
            rules = Vec::new();
        }
    }
    if after == End::Deny {
        for id in profiles {
            match profile(id) {
                None => rules.push(denied(Cause::Missing { owner: CauseOwner::Profile(id.clone()), direction })),
                Some(Shape { has_rules: true, passes: _ }) => {
                    rules.push(Rule::new([], Verdict::Jump(names.profile(direction, id))));
                }
                Some(Shape { has_rules: false, passes: _ }) => {}
            }
        }
        rules.push(denied(Cause::NothingMatched { direction, host }));
    }
    done.push((name(done.len()), Chain { rules, ..Chain::default() }));
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
