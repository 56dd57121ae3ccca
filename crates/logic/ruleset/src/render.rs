//! Desired tables to a ruleset, incrementally.
//!
//! Invariant: after any sequence of batches the ruleset equals the one rendered from the tables at once. Work grows
//! with the batch and with what refers to the objects in it, not with the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Policy, PolicyId, PolicyStage, Profile, Rule, SetChange, SetId, SetKind,
    Tables,
};
use tortie_net::Family;

use crate::cause::CauseOwner;
use crate::current::Current;
use crate::delta::Delta;
use crate::groups::Groups;
use crate::lists::Shape;
use crate::model::{Direction, Element, Name, Ruleset, SetType};
use crate::names::{self, Names};
use crate::policy::{self, Context};
use crate::runs::{self, Reach};
use crate::sets;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shapes {
    pub(crate) ingress: Shape,
    pub(crate) egress: Shape,
}

/// A policy or profile, as a user of sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Policy(PolicyId),
    Profile(Arc<str>),
}

#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) shapes: Shapes,
    sets: BTreeSet<SetId>,
}

/// Renders the tables of a node and keeps the result, so that a batch costs only what it touches.
#[derive(Clone, Debug)]
pub struct Renderer {
    pub(crate) names: Names,
    pub(crate) shortest_run: Option<usize>,
    /// Whose rules the backend can't hold.
    closed: BTreeSet<CauseOwner>,
    pub(crate) current: Current,
    pub(crate) owners: BTreeMap<Owner, Rendered>,
    pub(crate) set_kinds: BTreeMap<SetId, SetKind>,
    /// Sets with IPv6 members.
    v6_sets: BTreeSet<SetId>,
    /// Whether sets have an IPv6 part. Where nothing is of IPv6 the empty parts would double rules and sets.
    pub(crate) v6_parts: bool,
    set_users: BTreeMap<SetId, BTreeSet<Owner>>,
    pub(crate) endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    pub(crate) by_interface: BTreeMap<Arc<str>, BTreeSet<EndpointId>>,
    pub(crate) groups: Groups,
    pub(crate) interface_sources: BTreeMap<Arc<str>, BTreeSet<Element>>,
    /// Interfaces with a chain of their own.
    pub(crate) own: BTreeSet<(Direction, Arc<str>)>,
    /// Endpoints that translation or marks know of.
    pub(crate) translated: BTreeMap<EndpointId, Arc<Endpoint>>,
    pub(crate) host_chains: BTreeSet<Name>,
    pub(crate) host_users: BTreeSet<Owner>,
}

impl Renderer {
    /// Renders all of the tables. `max_name_len`: the longest name that the backend takes, at least 28 bytes.
    pub fn new(tables: &Tables, max_name_len: usize) -> Renderer {
        Renderer::with_runs(tables, max_name_len, Some(runs::SHORTEST_RUN))
    }

    /// The same, where so many policies in a row are chosen from by a [`Verdict::Choose`]; `None`: for a backend that
    /// has no such, and that does not change sets in one step with rules, so that a changed list is another set.
    ///
    /// [`Verdict::Choose`]: crate::Verdict::Choose
    pub fn with_runs(tables: &Tables, max_name_len: usize, shortest_run: Option<usize>) -> Renderer {
        Renderer::without(tables, max_name_len, shortest_run, BTreeSet::new())
    }

    /// The same, where these policies and profiles end every packet, as the backend can't hold their rules.
    pub fn without(
        tables: &Tables,
        max_name_len: usize,
        shortest_run: Option<usize>,
        closed: BTreeSet<CauseOwner>,
    ) -> Renderer {
        let mut renderer = Renderer {
            names: Names { max_len: max_name_len },
            shortest_run,
            closed,
            current: Current::new(max_name_len),
            owners: BTreeMap::new(),
            set_kinds: BTreeMap::new(),
            v6_sets: tables.sets.iter().filter(|(_, (_, m))| sets::has_v6(m)).map(|(id, _)| id.clone()).collect(),
            v6_parts: false,
            set_users: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            by_interface: BTreeMap::new(),
            groups: Groups::default(),
            interface_sources: BTreeMap::new(),
            own: BTreeSet::new(),
            translated: BTreeMap::new(),
            host_chains: BTreeSet::new(),
            host_users: BTreeSet::new(),
        };
        renderer.v6_parts = renderer.needs_v6_parts(tables);
        renderer.statics(tables);
        renderer.update_objects(tables, &everything(tables));
        renderer.current.take_delta();
        renderer
    }

    /// The ruleset as it is now.
    pub fn ruleset(&self) -> &Ruleset {
        &self.current.ruleset
    }

    /// Takes a batch in and says what it changes. `tables` already hold the batch.
    pub fn update(&mut self, tables: &Tables, batch: &Batch) -> Delta {
        for id in batch.sets.keys() {
            match tables.sets.get(id) {
                Some((_, members)) if sets::has_v6(members) => self.v6_sets.insert(id.clone()),
                Some(_) | None => self.v6_sets.remove(id),
            };
        }
        if batch.settings.is_some() || self.needs_v6_parts(tables) != self.v6_parts {
            let new = Renderer::without(tables, self.names.max_len, self.shortest_run, self.closed.clone());
            let delta = Delta::between(self.ruleset(), new.ruleset());
            *self = new;
            return delta;
        }
        self.update_objects(tables, batch);
        self.current.take_delta()
    }

    /// Where there are pools of IPv6, pods that come and go change nothing here.
    fn needs_v6_parts(&self, tables: &Tables) -> bool {
        let pools = || tables.pools.keys().any(|net| Family::of_net(*net) == Family::V6);
        tables.settings.ipv6 && (!self.v6_sets.is_empty() || pools())
    }

    fn statics(&mut self, tables: &Tables) {
        for map in [names::FROM_WORKLOAD, names::TO_WORKLOAD] {
            self.current.put_map(Name::from(map));
        }
        self.current.put_set(&Name::from(names::WORKLOAD_INTERFACES), SetType::Interfaces, BTreeSet::new());
        for family in families(tables) {
            let sources = SetType::InterfaceAddresses(family);
            self.current.put_set(&sources_of(family), sources, BTreeSet::new());
        }
        self.host(tables);
        self.nat(tables);
    }

    fn update_objects(&mut self, tables: &Tables, batch: &Batch) {
        let Batch {
            settings: _,
            sets,
            policies,
            staged: _,
            previews: _,
            host_previews: _,
            profiles,
            endpoints,
            host_endpoints,
            pools,
            tunnels,
            ipip,
            wireguard,
            vteps,
            routes: _,
            bgp_speaker: _,
            bgp_policy: _,
            bgp_peers: _,
            announcements: _,
        } = batch;
        let mut owners: BTreeSet<Owner> = policies.keys().cloned().map(Owner::Policy).collect();
        owners.extend(profiles.keys().cloned().map(Owner::Profile));
        let entrances = !(tunnels.is_empty() && wireguard.is_empty()) || ipip.is_some();
        let mut nat = !pools.is_empty() || entrances;
        // Sets that may come, go or change, with their kind before.
        let mut touched = BTreeMap::new();
        for id in sets.keys() {
            touched.insert(id.clone(), self.set_kinds.get(id).copied());
            if self.kind(tables, id) {
                owners.extend(self.set_users.get(id).into_iter().flatten().cloned());
                nat |= *id.0 == *SetId::ALL_HOSTS;
            }
        }
        let mut host = !(host_endpoints.is_empty() && vteps.is_empty()) || entrances;
        let mut groups = BTreeSet::new();
        for owner in owners {
            if self.owner(tables, &owner, &mut touched) {
                groups.extend(self.groups.users(&owner));
                host |= self.host_users.contains(&owner);
            }
        }
        for (id, had) in touched {
            self.set(tables, &id, had, sets.get(&id));
        }
        let mut interfaces = BTreeSet::new();
        for id in endpoints.keys() {
            nat |= self.endpoint(id, tables.endpoints.get(id), &mut interfaces);
        }
        host |= self.workloads(tables, &interfaces, groups);
        if host {
            self.host(tables);
        }
        if nat {
            self.nat(tables);
        }
    }

    /// Learns the kind of a set; returns whether the set came, went or changed its kind, so that rules which refer to
    /// it change.
    fn kind(&mut self, tables: &Tables, id: &SetId) -> bool {
        let now = tables.sets.get(id).map(|(kind, _)| *kind);
        let had = match now {
            Some(kind) => self.set_kinds.insert(id.clone(), kind),
            None => self.set_kinds.remove(id),
        };
        had != now
    }

    /// Programs a set that rules refer to, and no other: those of staged policies are nobody's. `had`: its kind before.
    fn set(&mut self, tables: &Tables, id: &SetId, had: Option<SetKind>, change: Option<&SetChange>) {
        let used = self.set_users.contains_key(id) || *id.0 == *SetId::ALL_HOSTS;
        let now = tables.sets.get(id).filter(|_| used);
        for family in families(tables).filter(|family| *family == Family::V4 || self.v6_parts) {
            if let Some(old) = had.filter(|old| now.is_none_or(|(kind, _)| kind != old)) {
                self.current.remove_set(&self.names.set(family, old, id));
            }
            let Some((kind, members)) = now else { continue };
            let name = self.names.set(family, *kind, id);
            match (change, self.current.elements(&name)) {
                (None, Some(_)) => {}
                (Some(SetChange::Delta { added, removed }), Some(current)) => {
                    let changed = added.iter().chain(removed).filter(|m| m.family() == family);
                    let (come, go) = match kind {
                        SetKind::Nets => sets::change_nets(members, current, changed),
                        SetKind::Addresses | SetKind::Ports => split(*kind, members, changed),
                    };
                    go.into_iter().for_each(|e| self.current.remove_element(&name, e));
                    come.into_iter().for_each(|e| self.current.add_element(&name, e));
                }
                (Some(SetChange::Whole { .. } | SetChange::Removed), _)
                | (None | Some(SetChange::Delta { .. }), None) => {
                    let elements = sets::elements(*kind, family, members);
                    self.current.put_set(&name, sets::set_type(*kind, family), elements);
                }
            }
        }
    }

    /// Renders a policy or profile; returns whether its users must be rendered again. `touched` gets the sets that it
    /// begins or ceases to refer to.
    fn owner(&mut self, tables: &Tables, owner: &Owner, touched: &mut BTreeMap<SetId, Option<SetKind>>) -> bool {
        let had = self.owners.remove(owner);
        for set in had.iter().flat_map(|r| &r.sets) {
            remove_user(&mut self.set_users, set, owner);
            touched.entry(set.clone()).or_insert_with(|| self.set_kinds.get(set).copied());
        }
        let rules = match owner {
            Owner::Policy(id) => tables.policies.get(id).map(|p| {
                let Policy { tier, stage, ingress, egress } = &**p;
                let prefix = policy::log_prefix(&tables.settings, Some((id, tier)), "");
                (ingress, egress, Some(*stage), prefix)
            }),
            Owner::Profile(name) => tables.profiles.get(name).map(|p| {
                let Profile { ingress, egress } = &**p;
                (ingress, egress, None, policy::log_prefix(&tables.settings, None, name))
            }),
        };
        let whose = match owner {
            Owner::Policy(id) => CauseOwner::Policy(id.clone()),
            Owner::Profile(name) => CauseOwner::Profile(name.clone()),
        };
        let closed = self.closed.contains(&whose);
        let mut shapes = Shapes::default();
        let mut reaches = true;
        let empty = Vec::new();
        let is_there = rules.is_some();
        let (ingress, egress, stage, log_prefix) =
            rules.unwrap_or((&empty, &empty, Some(PolicyStage::Normal), Arc::from("")));
        for (direction, rules, shape) in
            [(Direction::Ingress, ingress, &mut shapes.ingress), (Direction::Egress, egress, &mut shapes.egress)]
        {
            let name = match owner {
                Owner::Policy(id) => self.names.policy(direction, id),
                Owner::Profile(name) => self.names.profile(direction, name),
            };
            let passes = !closed && rules.iter().any(|r| r.action == Action::Pass);
            *shape = Shape { has_rules: !rules.is_empty(), passes };
            if rules.is_empty() {
                self.current.remove_chain(&name);
                continue;
            }
            let kinds = &self.set_kinds;
            let context = Context {
                names: self.names,
                settings: &tables.settings,
                kind_of: &|id| kinds.get(id).copied(),
                v6_parts: self.v6_parts,
                stage,
                owner: &whose,
                direction,
                lists_of: self.shortest_run.is_some().then_some(&name),
                log_prefix: &log_prefix,
            };
            let chain = if closed { policy::closed(&context) } else { policy::chain(rules, &context) };
            if self.shortest_run.is_some()
                && let Some(had) = self.current.ruleset.chains.get(&name)
            {
                reaches &= Reach::of(had) == Reach::of(&chain);
            }
            self.current.put_chain(name, chain);
        }
        if !is_there {
            return had.is_some();
        }
        let held = ingress.iter().chain(egress).filter(|_| !closed);
        let sets: BTreeSet<SetId> = held.flat_map(set_ids).cloned().collect();
        for set in &sets {
            self.set_users.entry(set.clone()).or_default().insert(owner.clone());
            touched.entry(set.clone()).or_insert_with(|| self.set_kinds.get(set).copied());
        }
        let changed = had.is_none_or(|r| r.shapes != shapes) || !reaches;
        self.owners.insert(owner.clone(), Rendered { shapes, sets });
        changed
    }
}

/// The set of a family's sources of workloads.
pub(crate) fn sources_of(family: Family) -> Name {
    Name::from(match family {
        Family::V4 => names::WORKLOAD_SOURCES_V4,
        Family::V6 => names::WORKLOAD_SOURCES_V6,
    })
}

pub(crate) fn families(tables: &Tables) -> impl Iterator<Item = Family> + use<> {
    let ipv6 = tables.settings.ipv6;
    Family::ALL.into_iter().filter(move |f| ipv6 || *f == Family::V4)
}

/// What the members that were touched mean for the elements, in a set where each member is an element.
fn split<'a>(
    kind: SetKind,
    members: &tortie_desired::Members,
    changed: impl Iterator<Item = &'a tortie_desired::Member>,
) -> (BTreeSet<Element>, BTreeSet<Element>) {
    let (mut come, mut go) = (BTreeSet::new(), BTreeSet::new());
    for member in changed {
        if let Some(element) = sets::single(kind, member) {
            if members.contains(member) {
                come.insert(element)
            } else {
                go.insert(element)
            };
        }
    }
    (come, go)
}

fn set_ids(rule: &Rule) -> impl Iterator<Item = &SetId> {
    rule.source.set_ids().chain(rule.destination.set_ids())
}

pub(crate) fn remove_user<K: Ord, U: Ord>(users: &mut BTreeMap<K, BTreeSet<U>>, key: &K, user: &U) {
    if let Some(set) = users.get_mut(key) {
        set.remove(user);
        if set.is_empty() {
            users.remove(key);
        }
    }
}

/// The batch that brings empty tables to these.
fn everything(tables: &Tables) -> Batch {
    Batch {
        sets: tables
            .sets
            .iter()
            .map(|(id, (kind, members))| (id.clone(), SetChange::Whole { kind: *kind, members: members.clone() }))
            .collect(),
        policies: tables.policies.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
        profiles: tables.profiles.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
        endpoints: tables.endpoints.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
        host_endpoints: tables.host_endpoints.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
        ..Batch::default()
    }
}
