//! One direction of one endpoint in full: every tier, policy and rule, tried or not, with every condition.
//!
//! Invariant: the verdict is that of [`crate::evaluate_endpoint`]; a property test compares both.

use std::sync::Arc;

use tortie_desired::{Action, EndpointId, PolicyId, Rule, Tables, TierAction};

use crate::condition::{Condition, conditions};
use crate::{Direction, Packet, Place};

/// One rule, and how far the packet is from matching it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrial {
    /// Index of the rule within its list, from 0.
    pub index: usize,
    /// What the rule does.
    pub action: Action,
    /// Whether the evaluation came to this rule.
    pub tried: bool,
    /// Every condition of the rule.
    pub conditions: Vec<Condition>,
}

impl RuleTrial {
    /// Whether the rule matches the packet.
    pub fn matches(&self) -> bool {
        self.misses() == 0
    }

    /// How many conditions fail.
    pub fn misses(&self) -> usize {
        self.conditions.iter().filter(|condition| !condition.holds).count()
    }
}

/// The rules of a policy or profile for the direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTrial {
    /// Which policy or profile.
    pub place: Place,
    /// Whether the evaluation came to this list.
    pub reached: bool,
    /// Whether the tables lack it; then the packet is denied here.
    pub missing: bool,
    /// Its rules.
    pub rules: Vec<RuleTrial>,
}

/// A tier with policies that select the endpoint for the direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierTrial {
    /// Name of the tier.
    pub tier: Arc<str>,
    /// What happens at its end.
    pub default_action: TierAction,
    /// Whether the evaluation came to its end without a decision.
    pub end_reached: bool,
    /// Its policies for the endpoint and direction, in order.
    pub policies: Vec<ListTrial>,
}

/// Everything about one direction of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The direction, as seen from the endpoint.
    pub direction: Direction,
    /// Whether the packet goes on.
    pub allowed: bool,
    /// The tiers that apply, in order; none: the endpoint is selected by no policy in this direction.
    pub tiers: Vec<TierTrial>,
    /// The profiles, in order.
    pub profiles: Vec<ListTrial>,
}

impl Explanation {
    /// Every list in order of evaluation.
    pub fn lists(&self) -> impl Iterator<Item = &ListTrial> {
        self.tiers.iter().flat_map(|tier| &tier.policies).chain(&self.profiles)
    }

    /// Of the rules with this action that were tried in vain, the ones with the fewest failing conditions first;
    /// among equals in order of evaluation.
    pub fn near_misses(&self, action: Action) -> Vec<(&Place, &RuleTrial)> {
        let tried = self.lists().flat_map(|list| list.rules.iter().map(|rule| (&list.place, rule)));
        let mut out: Vec<_> =
            tried.filter(|(_, rule)| rule.tried && rule.action == action && !rule.matches()).collect();
        out.sort_by_key(|(_, rule)| rule.misses());
        out
    }
}

/// How far the evaluation is.
enum State {
    /// Undecided.
    Open,
    /// A `Pass` ended the tier, or the profiles.
    Passed,
    /// Decided.
    Over(bool),
}

/// Explains one direction of one endpoint; `None` if there is no such endpoint.
pub fn explain(tables: &Tables, id: &EndpointId, direction: Direction, packet: &Packet) -> Option<Explanation> {
    let endpoint = tables.endpoints.get(id)?;
    let mut state = State::Open;
    let mut tiers = Vec::new();
    for tier in &endpoint.tiers {
        let ids = match direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if ids.is_empty() {
            continue;
        }
        let trial = |policy: &PolicyId| {
            let place = Place::Policy { tier: tier.tier.clone(), policy: policy.clone() };
            let found = tables.policies.get(policy).map(|found| match direction {
                Direction::Ingress => &found.ingress[..],
                Direction::Egress => &found.egress[..],
            });
            list(tables, packet, place, found, &mut state)
        };
        let policies = ids.iter().map(trial).collect();
        let end_reached = matches!(state, State::Open);
        match (&state, tier.default_action) {
            (State::Open, TierAction::Deny) => state = State::Over(false),
            (State::Open, TierAction::Pass) | (State::Over(_), _) => {}
            (State::Passed, _) => state = State::Open,
        }
        tiers.push(TierTrial { tier: tier.tier.clone(), default_action: tier.default_action, end_reached, policies });
    }
    let trial = |name: &Arc<str>| {
        let found = tables.profiles.get(name).map(|found| match direction {
            Direction::Ingress => &found.ingress[..],
            Direction::Egress => &found.egress[..],
        });
        list(tables, packet, Place::Profile(name.clone()), found, &mut state)
    };
    let profiles = endpoint.profiles.iter().map(trial).collect();
    let allowed = matches!(state, State::Over(true));
    Some(Explanation { endpoint: id.clone(), direction, allowed, tiers, profiles })
}

fn list(tables: &Tables, packet: &Packet, place: Place, rules: Option<&[Rule]>, state: &mut State) -> ListTrial {
    let reached = matches!(state, State::Open);
    if reached && rules.is_none() {
        *state = State::Over(false);
    }
    let trial = |(index, rule): (usize, &Rule)| {
        let tried = matches!(state, State::Open);
        let trial = RuleTrial { index, action: rule.action, tried, conditions: conditions(tables, rule, packet) };
        if tried && trial.matches() {
            match rule.action {
                Action::Allow => *state = State::Over(true),
                Action::Deny => *state = State::Over(false),
                Action::Pass => *state = State::Passed,
                Action::Log => {}
            }
        }
        trial
    };
    let missing = rules.is_none();
    ListTrial { place, reached, missing, rules: rules.unwrap_or_default().iter().enumerate().map(trial).collect() }
}
