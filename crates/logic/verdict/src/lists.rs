//! Tiers, policies and profiles in order: what any endpoint's lists say of a packet.

use std::sync::Arc;

use tortie_desired::{Action, EndpointId, PolicyId, Rule, Tables, TierAction, TierPolicies};

use crate::matching::rule_matches;
use crate::{Direction, Packet, Place, Step};

/// How a rule list ended.
enum Outcome {
    Allowed,
    Denied,
    Passed,
    Undecided,
}

/// The lists of one endpoint and direction, and the packet that they are asked about.
pub(crate) struct Look<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) id: &'a EndpointId,
    pub(crate) direction: Direction,
    pub(crate) packet: &'a Packet,
    pub(crate) steps: &'a mut Vec<Step>,
}

impl Look<'_> {
    /// The tiers in order. With `ends`, the end of a tier that decided nothing does what the tier says; else it is
    /// as good as a `Pass`.
    pub(crate) fn tiers(&mut self, tiers: &[TierPolicies], ends: bool) -> Option<bool> {
        for tier in tiers {
            let policies = match self.direction {
                Direction::Ingress => &tier.ingress,
                Direction::Egress => &tier.egress,
            };
            if policies.is_empty() {
                continue;
            }
            match self.tier(&tier.tier, policies) {
                Outcome::Allowed => return Some(true),
                Outcome::Denied => return Some(false),
                Outcome::Passed => continue,
                Outcome::Undecided if !ends => continue,
                Outcome::Undecided => {}
            }
            let (name, action) = (tier.tier.clone(), tier.default_action);
            let (endpoint, direction) = (self.id.clone(), self.direction);
            self.steps.push(Step::EndOfTier { endpoint, direction, tier: name, action });
            match action {
                TierAction::Deny => return Some(false),
                TierAction::Pass => {}
            }
        }
        None
    }

    /// Tiers in order, then profiles in order, then drop.
    pub(crate) fn all(&mut self, tiers: &[TierPolicies], profiles: &[Arc<str>]) -> bool {
        if let Some(decided) = self.tiers(tiers, true) {
            return decided;
        }
        match self.profiles(profiles) {
            Outcome::Allowed => true,
            Outcome::Denied => false,
            Outcome::Passed | Outcome::Undecided => {
                let (endpoint, direction) = (self.id.clone(), self.direction);
                self.steps.push(Step::NothingMatched { endpoint, direction });
                false
            }
        }
    }

    fn tier(&mut self, tier: &Arc<str>, policies: &[PolicyId]) -> Outcome {
        for policy in policies {
            let place = Place::Policy { tier: tier.clone(), policy: policy.clone() };
            let Some(found) = self.tables.policies.get(policy) else { return self.missing(place) };
            let outcome = self.rules(&place, self.side(&found.ingress, &found.egress));
            if !matches!(outcome, Outcome::Undecided) {
                return outcome;
            }
        }
        Outcome::Undecided
    }

    fn profiles(&mut self, profiles: &[Arc<str>]) -> Outcome {
        for name in profiles {
            let place = Place::Profile(name.clone());
            let Some(found) = self.tables.profiles.get(name) else { return self.missing(place) };
            // A `Pass` in a profile has no next tier: it ends the profiles, and nothing decided.
            let outcome = self.rules(&place, self.side(&found.ingress, &found.egress));
            if !matches!(outcome, Outcome::Undecided) {
                return outcome;
            }
        }
        Outcome::Undecided
    }

    fn side<'r>(&self, ingress: &'r [Rule], egress: &'r [Rule]) -> &'r [Rule] {
        match self.direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }

    fn missing(&mut self, place: Place) -> Outcome {
        self.steps.push(Step::Missing { endpoint: self.id.clone(), direction: self.direction, place });
        Outcome::Denied
    }

    fn rules(&mut self, place: &Place, rules: &[Rule]) -> Outcome {
        for (index, rule) in rules.iter().enumerate() {
            if !rule_matches(self.tables, rule, self.packet) {
                continue;
            }
            let Look { tables: _, id, direction, packet: _, steps } = self;
            let (endpoint, direction, place) = ((*id).clone(), *direction, place.clone());
            steps.push(Step::Rule { endpoint, direction, place, index, action: rule.action });
            match rule.action {
                Action::Allow => return Outcome::Allowed,
                Action::Deny => return Outcome::Denied,
                Action::Pass => return Outcome::Passed,
                Action::Log => {}
            }
        }
        Outcome::Undecided
    }
}
