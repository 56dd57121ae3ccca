//! What packed rules mean. Policies with the same rules share it: thousands often differ in whom they select alone.

use std::collections::HashMap;
use std::sync::Arc;

use tortie_desired::{Policy, PolicyStage};

use crate::active::Body;
use crate::pack::Packed;
use crate::rules::Resolved;
use crate::selectors::Selectors;
use crate::tiers::Place;

/// Everything that the meaning of rules depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: Arc<str>,
    tier: Arc<str>,
    stage: PolicyStage,
    rules: Packed,
    /// The policy's own selector, if the rules repeat it; empty otherwise.
    selector: Box<str>,
}

/// The meanings in use. What nobody holds any more is dropped each time the collection has doubled.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    known: HashMap<Key, Body<Policy>>,
    sweep_at: usize,
}

impl Bodies {
    /// `selector`: the canonical text of the policy's selector.
    pub(crate) fn get(&mut self, known: &mut Selectors, place: &Place, selector: &str, rules: &Packed) -> Body<Policy> {
        let Place { id, tier, order: _, scope } = place;
        let key = Key {
            namespace: id.namespace.clone(),
            tier: Arc::clone(tier),
            stage: scope.stage,
            rules: rules.clone(),
            selector: if rules.has_selector() { selector.into() } else { Box::default() },
        };
        if let Some(body) = self.known.get(&key) {
            return body.clone();
        }
        let (ingress, egress) = rules.rules(selector);
        let Resolved { ingress, egress, sets, problems: _ } = Resolved::of(known, &id.namespace, &ingress, &egress);
        let rules = Policy { tier: Arc::clone(tier), stage: scope.stage, ingress, egress };
        let body = Body { rules: Arc::new(rules), sets: sets.into_values().collect() };
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, body| Arc::strong_count(&body.rules) > 1);
            self.sweep_at = (2 * self.known.len()).max(64);
        }
        self.known.insert(key, body.clone());
        body
    }
}
