//! Which profiles do local endpoints use, and what are their rules?
//!
//! An endpoint that names a profile that is not there is closed from that profile on, as upstream: what stands after
//! it in the list is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{Action, EndpointId, Profile, Rule};

use crate::active::Body;
use crate::labels::ParentId;
use crate::pack::Packed;
use crate::rules::Resolved;
use crate::selectors::Selectors;
use crate::sets::IpSets;
use crate::slab::Beside;

/// The profile that upstream has in every cluster without ever storing it.
const ALLOW_ALL: &str = "projectcalico-default-allow";

/// All profiles, and who of this node uses them.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    /// Rules by the number of the profile in the index of labels.
    known: Beside<Packed>,
    users: BTreeMap<Arc<str>, BTreeSet<EndpointId>>,
    dirty: BTreeSet<Arc<str>>,
}

impl Profiles {
    /// A profile came, changed or went; the endpoints for which that matters. `number`: the one that it has, or had.
    pub(crate) fn set(&mut self, number: Option<ParentId>, name: &str, rules: Option<Packed>) -> Vec<EndpointId> {
        let Some(number) = number else { return Vec::new() };
        let old = self.known.take(number);
        let (news, comes_or_goes) = (old != rules, old.is_some() != rules.is_some());
        if let Some(rules) = rules {
            self.known.put(number, rules);
        }
        let Some((name, users)) = self.users.get_key_value(name).filter(|_| news) else { return Vec::new() };
        self.dirty.insert(name.clone());
        users.iter().filter(|_| comes_or_goes).cloned().collect()
    }

    /// An endpoint names other profiles than before.
    pub(crate) fn set_user(&mut self, id: &EndpointId, old: &[Arc<str>], new: &[Arc<str>]) {
        for name in old.iter().filter(|name| !new.contains(name)) {
            let Some(users) = self.users.get_mut(name) else { continue };
            users.remove(id);
            if users.is_empty() {
                self.users.remove(name);
                self.dirty.insert(name.clone());
            }
        }
        for name in new.iter().filter(|name| !old.contains(name)) {
            if self.users.entry(name.clone()).or_default().insert(id.clone()) {
                self.dirty.insert(name.clone());
            }
        }
    }

    /// The profiles of such a list that count: those before the first that is missing.
    pub(crate) fn listed(&self, sets: &IpSets, names: &[Arc<str>]) -> Vec<Arc<str>> {
        names.iter().take_while(|name| sets.profile(name).is_some() || &***name == ALLOW_ALL).cloned().collect()
    }

    /// Profiles that may have become active or inactive or changed since the last call, with their rules if active.
    pub(crate) fn take_dirty(
        &mut self,
        sets: &IpSets,
        known: &mut Selectors,
    ) -> Vec<(Arc<str>, Option<Body<Profile>>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut body = |name: &Arc<str>| self.users.get(name).and_then(|_| self.body(sets, name, known));
        dirty.into_iter().map(|name| (name.clone(), body(&name))).collect()
    }

    fn body(&self, sets: &IpSets, name: &str, known: &mut Selectors) -> Option<Body<Profile>> {
        let allow = || vec![Rule::any(Action::Allow)];
        let built_in = || Body { rules: Arc::new(Profile { ingress: allow(), egress: allow() }), sets: Arc::new([]) };
        let rules = sets.profile(name).and_then(|number| self.known.get(number));
        let Some(rules) = rules else { return (name == ALLOW_ALL).then(built_in) };
        let (ingress, egress) = rules.rules("");
        let Resolved { ingress, egress, sets, problems: _ } = Resolved::of(known, "", &ingress, &egress);
        Some(Body { rules: Arc::new(Profile { ingress, egress }), sets: sets.into_values().collect() })
    }
}
