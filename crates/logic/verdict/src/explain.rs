//! One direction of one endpoint in full: every tier, policy and rule, tried or not, with every condition.
//!
//! Invariant: the verdict is that of [`crate::evaluate_endpoint`], and for host endpoints that of the stage's steps;
//! a property test compares them.

use std::sync::Arc;

use tortie_desired::{Action, EndpointId, HostEndpoint, PolicyId, Rule, Tables, TierAction, TierPolicies};

use crate::condition::{Condition, conditions};
use crate::{Direction, Packet, Place, Stage};

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
    /// Which policies, of a host endpoint; `None` for a workload.
    pub stage: Option<Stage>,
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
    let walk = Walk { tables, direction, packet, ends: true, state: State::Open };
    let (tiers, profiles, state) = walk.all(&endpoint.tiers, &endpoint.profiles);
    let allowed = matches!(state, State::Over(true));
    Some(Explanation { endpoint: id.clone(), stage: None, direction, allowed, tiers, profiles })
}

/// Explains one stage of one host endpoint, failsafe ports left aside; `None` if there is no such host endpoint.
pub fn explain_host(
    tables: &Tables,
    id: &EndpointId,
    stage: Stage,
    direction: Direction,
    packet: &Packet,
) -> Option<Explanation> {
    let host = tables.host_endpoints.values().find(|host| host.id() == *id)?;
    let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles } = &**host;
    let (list, profiles, ends) = match stage {
        Stage::Untracked => (untracked, &[][..], false),
        Stage::PreDnat => (pre_dnat, &[][..], false),
        Stage::Forward => (forward, &[][..], true),
        Stage::Normal => (tiers, &profiles[..], true),
    };
    let walk = Walk { tables, direction, packet, ends, state: State::Open };
    let (tiers, profiles, state) = walk.all(list, profiles);
    let allowed = match state {
        State::Over(allowed) => allowed,
        State::Open | State::Passed => stage != Stage::Normal,
    };
    Some(Explanation { endpoint: id.clone(), stage: Some(stage), direction, allowed, tiers, profiles })
}

/// One walk through the lists of an endpoint.
struct Walk<'a> {
    tables: &'a Tables,
    direction: Direction,
    packet: &'a Packet,
    /// Whether the end of a tier does what the tier says.
    ends: bool,
    state: State,
}

impl Walk<'_> {
    fn all(mut self, tiers: &[TierPolicies], profiles: &[Arc<str>]) -> (Vec<TierTrial>, Vec<ListTrial>, State) {
        let tiers = tiers.iter().filter_map(|tier| self.tier(tier)).collect();
        let profiles = profiles.iter().map(|name| self.profile(name)).collect();
        (tiers, profiles, self.state)
    }

    fn tier(&mut self, tier: &TierPolicies) -> Option<TierTrial> {
        let ids = match self.direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        };
        if ids.is_empty() {
            return None;
        }
        let policies = ids.iter().map(|id| self.policy(&tier.tier, id)).collect();
        let end_reached = matches!(self.state, State::Open);
        match (&self.state, tier.default_action) {
            (State::Open, TierAction::Deny) if self.ends => self.state = State::Over(false),
            (State::Open, TierAction::Deny | TierAction::Pass) | (State::Over(_), _) => {}
            (State::Passed, _) => self.state = State::Open,
        }
        Some(TierTrial { tier: tier.tier.clone(), default_action: tier.default_action, end_reached, policies })
    }

    fn policy(&mut self, tier: &Arc<str>, id: &PolicyId) -> ListTrial {
        let place = Place::Policy { tier: tier.clone(), policy: id.clone() };
        let found = self.tables.policies.get(id).map(|found| match self.direction {
            Direction::Ingress => &found.ingress[..],
            Direction::Egress => &found.egress[..],
        });
        list(self.tables, self.packet, place, found, &mut self.state)
    }

    fn profile(&mut self, name: &Arc<str>) -> ListTrial {
        let found = self.tables.profiles.get(name).map(|found| match self.direction {
            Direction::Ingress => &found.ingress[..],
            Direction::Egress => &found.egress[..],
        });
        list(self.tables, self.packet, Place::Profile(name.clone()), found, &mut self.state)
    }
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
