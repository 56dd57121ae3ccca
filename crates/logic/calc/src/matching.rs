//! Which policies are active here, and on whom?
//!
//! A policy is active when it selects an endpoint of this node. Invariant: a policy's selector number in the index,
//! its place in the tiers and its entry here come and go together.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{DefaultHashBuilder, HashTable};
use tortie_desired::{EndpointId, Policy, PolicyId, PolicyStage};
use tortie_selector::Selector;

use crate::active::Body;
use crate::bodies::Bodies;
use crate::labels::{ClassId, Identity, Index, ItemId, Pairs, SelectorId, symmetric_difference};
use crate::pack::Packed;
use crate::selectors::Selectors;
use crate::short_hash::ShortHash;
use crate::slab::{Beside, Slab};
use crate::tiers::{Applied, NONE, Place, Tier, Tiers};

/// A policy as it came.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFacts {
    pub(crate) place: Place,
    pub(crate) selector: Selector,
    pub(crate) rules: Packed,
}

/// What is kept of a policy.
#[derive(Debug)]
struct Entry {
    place: Place,
    rules: Packed,
}

/// A policy by the number of its selector, with a hash of its id.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    selector: SelectorId,
    hash: ShortHash,
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
    /// By the number of its selector.
    policies: Beside<Entry>,
    by_id: HashTable<Hashed>,
    hasher: DefaultHashBuilder,
    tiers: Tiers,
    bodies: Bodies,
    dirty_policies: BTreeSet<PolicyId>,
    dirty_endpoints: BTreeSet<EndpointId>,
}

impl Matching {
    /// A local endpoint came, changed its labels or profiles, or went.
    pub(crate) fn set_endpoint(&mut self, id: &EndpointId, identity: Option<&Identity<'_>>) {
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

    /// Whether a local endpoint inherits from this profile. Only then its labels are to be told.
    pub(crate) fn inherits(&self, name: &str) -> bool {
        self.index.inherits(name)
    }

    /// The labels that a profile lends came, changed or went.
    pub(crate) fn set_parent(&mut self, name: &str, labels: Option<&Pairs<'_>>) {
        let Some(plan) = self.index.plan_parent(name, labels) else { return };
        for shift in plan.shifts.iter().filter(|shift| !shift.flipped.is_empty()) {
            let items: Vec<ItemId> = self.index.items(shift.class).collect();
            self.mark_endpoints(items);
            self.mark_policies(shift.flipped.clone());
        }
        self.index.set_parent(plan);
    }

    /// A policy came, changed or went.
    pub(crate) fn set_policy(&mut self, id: &PolicyId, facts: Option<PolicyFacts>) {
        let old = self.find(id);
        // What selects nobody now was inactive at the last flush, or has been marked since.
        let selects = |matching: &Matching, id: SelectorId| matching.index.classes_of(id).next().is_some();
        let mut matters = old.is_some_and(|selector| selects(self, selector));
        match (old, facts) {
            (None, None) => return,
            (Some(selector), Some(facts)) if self.same_place(selector, &facts) => {
                let Some(entry) = self.policies.get_mut(selector) else { return };
                if entry.rules == facts.rules {
                    return;
                }
                entry.rules = facts.rules;
            }
            (old, facts) => {
                if let Some(selector) = old {
                    self.remove_policy(id, selector);
                }
                if let Some(facts) = facts {
                    let selector = self.add_policy(facts);
                    matters |= selects(self, selector);
                }
            }
        }
        if matters {
            self.dirty_policies.insert(id.clone());
        }
    }

    /// A tier came, changed or went.
    pub(crate) fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        if self.tiers.set(name, tier) {
            self.dirty_endpoints.extend(self.endpoints.keys().cloned());
        }
    }

    /// Policies whose tier is missing, with the tier's name.
    pub(crate) fn without_tier(&self) -> impl Iterator<Item = (&PolicyId, &str)> {
        let places = self.policies.iter().map(|(_, entry)| &entry.place);
        places.filter(|place| self.tiers.is_missing(&place.tier)).map(|place| (&place.id, &**place.tier))
    }

    /// Policies that may have become active or inactive or changed their rules since the last call, with their rules
    /// if they are active.
    pub(crate) fn take_policies(&mut self, known: &mut Selectors) -> Vec<(PolicyId, Option<Body<Policy>>)> {
        let dirty = std::mem::take(&mut self.dirty_policies);
        let mut bodies = std::mem::take(&mut self.bodies);
        let body = |id: PolicyId| {
            let active = self.find(&id).filter(|selector| self.is_active(*selector));
            let body = active.and_then(|selector| {
                let Entry { place, rules } = self.entry(selector)?;
                Some(bodies.get(known, place, self.index.canonical(selector), rules))
            });
            (id, body)
        };
        let out = dirty.into_iter().map(body).collect();
        self.bodies = bodies;
        out
    }

    fn is_active(&self, selector: SelectorId) -> bool {
        let Some(Entry { place, rules: _ }) = self.entry(selector) else { return false };
        let mut classes = self.index.classes_of(selector);
        let host = |item| self.names.get(item).is_some_and(is_host);
        match place.scope.stage {
            PolicyStage::Normal => classes.next().is_some(),
            // Those are for host endpoints alone.
            PolicyStage::PreDnat | PolicyStage::Untracked => classes.any(|class| self.index.items(class).any(host)),
        }
    }

    /// Endpoints whose policies may have changed since the last call.
    pub(crate) fn take_endpoints(&mut self) -> BTreeSet<EndpointId> {
        std::mem::take(&mut self.dirty_endpoints)
    }

    /// The policies of an endpoint. Endpoints of one class have the same, which `seen` remembers within one flush.
    pub(crate) fn tiers_of<'a>(&self, id: &EndpointId, seen: &'a mut BTreeMap<ClassId, Applied>) -> &'a Applied {
        let Some((_, class)) = self.endpoints.get(id) else { return &NONE };
        let places =
            |class| self.index.matches(class).iter().filter_map(|selector| Some(&self.entry(*selector)?.place));
        seen.entry(*class).or_insert_with(|| self.tiers.of(places(*class)))
    }

    fn find(&self, id: &PolicyId) -> Option<SelectorId> {
        let hash = ShortHash::of(&self.hasher, id);
        let is = |found: &Hashed| {
            found.hash == hash && self.entry(found.selector).is_some_and(|entry| entry.place.id == *id)
        };
        self.by_id.find(hash.spread(), is).map(|found| found.selector)
    }

    fn entry(&self, selector: SelectorId) -> Option<&Entry> {
        self.policies.get(selector)
    }

    /// Whether a policy would differ in its rules at most.
    fn same_place(&self, selector: SelectorId, facts: &PolicyFacts) -> bool {
        let Some(Entry { place, rules: _ }) = self.entry(selector) else { return false };
        let Place { id: _, tier, order, scope } = &facts.place;
        place.tier == *tier
            && place.order.total_cmp(order).is_eq()
            && place.scope == *scope
            && self.index.canonical(selector) == facts.selector.canonical()
    }

    fn add_policy(&mut self, facts: PolicyFacts) -> SelectorId {
        let PolicyFacts { place, selector, rules } = facts;
        let selector = self.index.add_selector(selector);
        let hash = ShortHash::of(&self.hasher, &place.id);
        self.policies.put(selector, Entry { place, rules });
        self.by_id.insert_unique(hash.spread(), Hashed { selector, hash }, |known| known.hash.spread());
        self.mark_selected(selector);
        selector
    }

    fn remove_policy(&mut self, id: &PolicyId, selector: SelectorId) {
        self.mark_selected(selector);
        let hash = ShortHash::of(&self.hasher, id);
        if let Ok(entry) = self.by_id.find_entry(hash.spread(), |found| found.selector == selector) {
            entry.remove();
        }
        self.policies.take(selector);
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
        let entries = selectors.iter().filter_map(|selector| self.policies.get(*selector));
        self.dirty_policies.extend(entries.map(|entry| entry.place.id.clone()));
    }
}
