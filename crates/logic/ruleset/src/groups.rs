//! Workloads with the same lists of policies and profiles share their chains.
//!
//! Invariant: every interface in use is in one group for each direction; a group without members is gone. A group's
//! chains are named after its first member, so that they are a function of who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{Endpoint, TierPolicies};

use crate::model::{Direction, Name};
use crate::render::Owner;

/// What decides about a workload's packets of one direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lists {
    pub(crate) direction: Direction,
    /// Only tiers with policies in that direction, and only those policies.
    pub(crate) tiers: Vec<TierPolicies>,
    pub(crate) profiles: Vec<Arc<str>>,
}

impl Lists {
    pub(crate) fn of(endpoint: &Endpoint, direction: Direction) -> Lists {
        let own = |tier: &TierPolicies| {
            let TierPolicies { tier, default_action, ingress, egress } = tier.clone();
            let (ingress, egress) = match direction {
                Direction::Ingress => (ingress, vec![]),
                Direction::Egress => (vec![], egress),
            };
            (!(ingress.is_empty() && egress.is_empty())).then_some(TierPolicies {
                tier,
                default_action,
                ingress,
                egress,
            })
        };
        let tiers = endpoint.tiers.iter().filter_map(own).collect();
        Lists { direction, tiers, profiles: endpoint.profiles.clone() }
    }

    /// Every policy and profile in the lists.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> {
        let policies = self.tiers.iter().flat_map(|t| t.ingress.iter().chain(&t.egress));
        policies.cloned().map(Owner::Policy).chain(self.profiles.iter().cloned().map(Owner::Profile))
    }
}

/// A number that stands for a group while it has members.
pub(crate) type GroupId = u64;

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) lists: Arc<Lists>,
    pub(crate) members: BTreeSet<Arc<str>>,
    /// The chains as rendered last.
    pub(crate) chains: Vec<Name>,
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    by_lists: BTreeMap<Arc<Lists>, GroupId>,
    groups: BTreeMap<GroupId, Group>,
    of: BTreeMap<(Direction, Arc<str>), GroupId>,
    users: BTreeMap<Owner, BTreeSet<GroupId>>,
    next: GroupId,
}

impl Groups {
    /// Puts an interface into the group of these lists, or into none; names the groups that changed.
    pub(crate) fn place(
        &mut self,
        direction: Direction,
        interface: &Arc<str>,
        lists: Option<Lists>,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let key = (direction, interface.clone());
        let had = self.of.get(&key).copied();
        if had.and_then(|id| self.groups.get(&id)).map(|group| &*group.lists) == lists.as_ref() {
            return;
        }
        if let Some(id) = had {
            self.of.remove(&key);
            let group = self.groups.get_mut(&id).expect("members have a group");
            group.members.remove(interface);
            changed.insert(id);
        }
        let Some(lists) = lists else { return };
        let id = match self.by_lists.get(&lists) {
            Some(id) => *id,
            None => self.found(Arc::new(lists)),
        };
        self.of.insert(key, id);
        self.groups.get_mut(&id).expect("found above").members.insert(interface.clone());
        changed.insert(id);
    }

    fn found(&mut self, lists: Arc<Lists>) -> GroupId {
        let id = self.next;
        self.next += 1;
        for owner in lists.owners() {
            self.users.entry(owner).or_default().insert(id);
        }
        self.by_lists.insert(lists.clone(), id);
        self.groups.insert(id, Group { lists, members: BTreeSet::new(), chains: Vec::new() });
        id
    }

    /// Forgets a group that has no members.
    pub(crate) fn dissolve(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        self.by_lists.remove(&group.lists);
        for owner in group.lists.owners() {
            if let Some(users) = self.users.get_mut(&owner) {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(&owner);
                }
            }
        }
    }

    /// The groups whose lists name a policy or profile.
    pub(crate) fn users(&self, owner: &Owner) -> impl Iterator<Item = GroupId> {
        self.users.get(owner).into_iter().flatten().copied()
    }

    pub(crate) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// The first chain of an interface's group.
    pub(crate) fn chain_of(&self, direction: Direction, interface: &Arc<str>) -> Option<&Name> {
        let id = self.of.get(&(direction, interface.clone()))?;
        self.groups.get(id)?.chains.first()
    }
}
