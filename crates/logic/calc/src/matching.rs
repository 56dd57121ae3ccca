//! Which policies are active here, and on whom?
//!
//! A policy is active when it selects an endpoint of this node. Invariant: a policy's selector number in the index,
//! its place in the tiers and its entry here come and go together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{EndpointId, Policy, PolicyId, PolicyStage};
use tortie_selector::Selector;

use crate::active::Body;
use crate::labels::{ClassId, Identity, Index, ItemId, LabelSet, SelectorId, symmetric_difference};
use crate::slab::Slab;
use crate::tiers::{Applied, NONE, Rank, Scope, Tier, Tiers};

/// What is kept of a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyFacts {
    pub(crate) tier: Arc<str>,
    /// Infinite if none is given.
    pub(crate) order: f64,
    pub(crate) scope: Scope,
    pub(crate) selector: Selector,
    pub(crate) body: Body<Policy>,
}

impl PolicyFacts {
    /// Whether the other differs in its rules at most.
    fn same_place(&self, other: &PolicyFacts) -> bool {
        let PolicyFacts { tier, order, scope, selector, body: _ } = self;
        *tier == other.tier
            && order.total_cmp(&other.order).is_eq()
            && *scope == other.scope
            && *selector == other.selector
    }
}

#[derive(Debug)]
struct Entry {
    facts: PolicyFacts,
    selector: SelectorId,
}

/// Whether an endpoint is one of the node's own interfaces.
pub(crate) fn is_host(id: &EndpointId) -> bool {
    id.namespace.is_empty()
}

/// All policies, and which local endpoints they select.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    index: Index,
    endpoints: BTreeMap<EndpointId, (ItemId, ClassId)>,
    names: Slab<EndpointId>,
    policies: BTreeMap<PolicyId, Entry>,
    by_selector: BTreeMap<SelectorId, PolicyId>,
    tiers: Tiers,
    dirty_policies: BTreeSet<PolicyId>,
    dirty_endpoints: BTreeSet<EndpointId>,
}

impl Matching {
    /// A local endpoint came, changed its labels or profiles, or went.
    pub(crate) fn set_endpoint(&mut self, id: &EndpointId, identity: Option<Identity>) {
        let old = self.endpoints.get(id).copied();
        let class = identity.map(|identity| self.index.class_for(identity));
        let matches = |class: Option<ClassId>| class.map_or_else(Vec::new, |class| self.index.matches(class).to_vec());
        let old_class = old.map(|(_, class)| class);
        if old_class == class {
            return;
        }
        self.mark_policies(symmetric_difference(&matches(old_class), &matches(class)));
        self.dirty_endpoints.insert(id.clone());
        let item = match old {
            Some((item, _)) => item,
            None => self.names.insert(id.clone()),
        };
        if let Some(class) = class {
            self.index.enter(class, item);
        }
        if let Some(old_class) = old_class {
            self.index.leave(old_class, item);
        }
        match class {
            Some(class) => {
                self.endpoints.insert(id.clone(), (item, class));
            }
            None => {
                self.endpoints.remove(id);
                self.names.remove(item);
            }
        }
    }

    /// The labels that a profile lends came, changed or went.
    pub(crate) fn set_parent(&mut self, name: &Arc<str>, labels: Option<LabelSet>) {
        let plan = self.index.plan_parent(name, labels.as_ref());
        for shift in plan.iter().filter(|shift| !shift.flipped.is_empty()) {
            let items: Vec<ItemId> = self.index.items(shift.class).collect();
            self.mark_endpoints(items);
            self.mark_policies(shift.flipped.clone());
        }
        self.index.set_parent(name, labels, plan);
    }

    /// A policy came, changed or went.
    pub(crate) fn set_policy(&mut self, id: &PolicyId, facts: Option<PolicyFacts>) {
        match (self.policies.get_mut(id), facts) {
            (None, None) => return,
            (Some(entry), Some(facts)) if entry.facts.same_place(&facts) => {
                if entry.facts == facts {
                    return;
                }
                entry.facts = facts;
            }
            (_, facts) => {
                self.remove_policy(id);
                if let Some(facts) = facts {
                    self.add_policy(id, facts);
                }
            }
        }
        self.dirty_policies.insert(id.clone());
    }

    /// A tier came, changed or went.
    pub(crate) fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        if self.tiers.set(name, tier) {
            self.dirty_endpoints.extend(self.endpoints.keys().cloned());
        }
    }

    /// Policies whose tier is missing, with the tier's name.
    pub(crate) fn without_tier(&self) -> impl Iterator<Item = (&PolicyId, &str)> {
        let tier = |(id, entry)| -> (&PolicyId, &str) {
            let _: &PolicyId = id;
            let entry: &Entry = entry;
            (id, &*entry.facts.tier)
        };
        self.policies.iter().map(tier).filter(|(_, tier)| self.tiers.is_missing(tier))
    }

    /// Policies that may have become active or inactive or changed their rules since the last call, with their rules
    /// if they are active.
    pub(crate) fn take_policies(&mut self) -> Vec<(PolicyId, Option<Body<Policy>>)> {
        let dirty = std::mem::take(&mut self.dirty_policies);
        let body = |id: &PolicyId| {
            let Entry { facts, selector } = self.policies.get(id)?;
            let mut classes = self.index.classes_of(*selector);
            let mut selects = |host: bool| {
                let wanted = |item| self.names.get(item).is_some_and(|id| is_host(id) == host);
                classes.any(|class| self.index.items(class).any(wanted))
            };
            let active = match facts.scope.stage {
                // Only workloads have a preview.
                PolicyStage::Normal if id.kind.staged() => selects(false),
                PolicyStage::Normal => classes.next().is_some(),
                // Those are for host endpoints alone.
                PolicyStage::PreDnat | PolicyStage::Untracked => selects(true),
            };
            active.then(|| facts.body.clone())
        };
        dirty.into_iter().map(|id| (id.clone(), body(&id))).collect()
    }

    /// Endpoints whose policies may have changed since the last call.
    pub(crate) fn take_endpoints(&mut self) -> BTreeSet<EndpointId> {
        std::mem::take(&mut self.dirty_endpoints)
    }

    /// The policies of an endpoint. Endpoints of one class have the same, which `seen` remembers within one flush.
    pub(crate) fn tiers_of<'a>(&mut self, id: &EndpointId, seen: &'a mut BTreeMap<ClassId, Applied>) -> &'a Applied {
        let Some((_, class)) = self.endpoints.get(id) else { return &NONE };
        let (tiers, index) = (&mut self.tiers, &self.index);
        seen.entry(*class).or_insert_with(|| tiers.of(index.matches(*class)))
    }

    fn add_policy(&mut self, id: &PolicyId, facts: PolicyFacts) {
        let selector = self.index.add_selector(facts.selector.clone());
        let rank = Rank { order: facts.order, id: id.clone() };
        self.tiers.add_policy(&facts.tier, rank, selector, facts.scope);
        self.by_selector.insert(selector, id.clone());
        self.policies.insert(id.clone(), Entry { facts, selector });
        self.mark_selected(selector);
    }

    fn remove_policy(&mut self, id: &PolicyId) {
        let Some(Entry { facts, selector }) = self.policies.remove(id) else { return };
        self.mark_selected(selector);
        self.tiers.remove_policy(&facts.tier, &Rank { order: facts.order, id: id.clone() });
        self.by_selector.remove(&selector);
        self.index.remove_selector(selector);
    }

    fn mark_selected(&mut self, selector: SelectorId) {
        let classes = self.index.classes_of(selector);
        let items: Vec<ItemId> = classes.flat_map(|class| self.index.items(class)).collect();
        self.mark_endpoints(items);
    }

    fn mark_endpoints(&mut self, items: Vec<ItemId>) {
        self.dirty_endpoints.extend(items.into_iter().filter_map(|item| self.names.get(item)).cloned());
    }

    fn mark_policies(&mut self, selectors: Vec<SelectorId>) {
        self.dirty_policies.extend(selectors.iter().filter_map(|selector| self.by_selector.get(selector)).cloned());
    }
}
