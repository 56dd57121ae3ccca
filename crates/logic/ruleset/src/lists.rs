//! The chains of a list of tiers and profiles, whoever they belong to.
//!
//! Invariant: with [`End::Deny`] the chains always end in a verdict; what nothing allowed is denied. A policy or
//! profile that is listed but not there denies too.

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_desired::{PolicyId, Settings, TierAction, TierPolicies};

use crate::cause::{Cause, CauseOwner};
use crate::model::{Chain, ChoiceMap, Direction, Match, Name, Rule, Statement, Verdict};
use crate::names::Names;
use crate::policy::{PASS_MARK, deny};
use crate::record::end;
use crate::runs::{Item, Runs};

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
    /// How many policies in a row are chosen from by a map; `None`: never.
    pub(crate) shortest_run: Option<usize>,
    /// A policy's chain as rendered.
    pub(crate) chain: &'a dyn Fn(&Name) -> Option<Arc<Chain>>,
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

/// What a list of tiers and profiles becomes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    /// Its chains, the one to enter first.
    pub(crate) chains: Vec<(Name, Chain)>,
    /// The maps that their rules choose by.
    pub(crate) choices: BTreeMap<Name, Arc<ChoiceMap>>,
}

impl Listed {
    fn of(mut chains: Vec<(Name, Chain)>, runs: Runs) -> Listed {
        chains.extend(runs.parts);
        Listed { chains, choices: runs.maps }
    }
}

/// The chains of one direction. `name` gives the names of the first and those after it.
pub(crate) fn chains(
    head: Vec<Rule>,
    tiers: &[TierPolicies],
    profiles: &[Arc<str>],
    after: End,
    name: &dyn Fn(usize) -> Name,
    referents: &Referents<'_>,
) -> Listed {
    let Referents { names, settings, direction, host, shortest_run, chain, policy, profile } = referents;
    let (direction, host) = (*direction, *host);
    let mut done: Vec<(Name, Chain)> = Vec::new();
    let mut rules = head;
    let mut runs = Runs::new(*names, name(0), shortest_run.unwrap_or(usize::MAX));
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
        let mut items: Vec<Item> = Vec::new();
        for id in policies {
            let jumped_to = names.policy(direction, id);
            match policy(id) {
                None => {
                    rules.extend(runs.jumps(std::mem::take(&mut items)));
                    rules.push(denied(Cause::Missing { owner: CauseOwner::Policy(id.clone()), direction }));
                }
                Some(Shape { has_rules: false, passes: _ }) => {}
                Some(Shape { has_rules: true, passes: false }) => {
                    let chain =
                        shortest_run.filter(|shortest| policies.len() >= *shortest).and_then(|_| chain(&jumped_to));
                    items.push(Item::new(jumped_to, chain));
                }
                Some(Shape { has_rules: true, passes: true }) => {
                    rules.extend(runs.jumps(std::mem::take(&mut items)));
                    rules.extend([Rule::new([], Verdict::Jump(jumped_to)), leave(next.clone())]);
                    left_early = true;
                }
            }
        }
        rules.extend(runs.jumps(items));
        if !goes_on {
            rules.push(denied(Cause::EndOfTier { tier: tier.tier.clone(), direction, host }));
        } else if left_early {
            rules.push(Rule::new([], Verdict::Goto(next.clone())));
        }
        if !goes_on && !left_early {
            done.push((name(done.len()), Chain { rules, ..Chain::default() }));
            return Listed::of(done, runs);
        }
        if left_early {
            done.push((name(done.len()), Chain { rules, ..Chain::default() }));
            runs.turn_to(next);
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
    Listed::of(done, runs)
}

/// Leaves the tier if the policy before said Pass.
fn leave(next: Name) -> Rule {
    Rule {
        matches: vec![Match::Mark(PASS_MARK)],
        statements: vec![Statement::ClearMark(PASS_MARK)],
        verdict: Some(Verdict::Goto(next)),
    }
}
