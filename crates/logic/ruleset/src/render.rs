//! Desired tables to a ruleset, incrementally.
//!
//! Invariant: after any sequence of batches the ruleset equals the one rendered from the tables at once. Work grows
//! with the batch and with what refers to the objects in it, not with the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Policy, PolicyId, Profile, Rule, SetChange, SetId, SetKind, Tables,
};
use tortie_net::Family;

use crate::current::Current;
use crate::delta::Delta;
use crate::endpoint::{self, Referents, Shape};
use crate::model::{Direction, Element, Name, Ruleset, SetType};
use crate::names::{self, Names};
use crate::policy::{self, Context};
use crate::{base, nat, sets};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shapes {
    ingress: Shape,
    egress: Shape,
}

/// A policy or profile, as a user of sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Policy(PolicyId),
    Profile(Arc<str>),
}

#[derive(Clone, Debug)]
struct Rendered {
    shapes: Shapes,
    sets: BTreeSet<SetId>,
}

/// Renders the tables of a node and keeps the result, so that a batch costs only what it touches.
#[derive(Clone, Debug)]
pub struct Renderer {
    names: Names,
    current: Current,
    owners: BTreeMap<Owner, Rendered>,
    set_kinds: BTreeMap<SetId, SetKind>,
    set_users: BTreeMap<SetId, BTreeSet<Owner>>,
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    by_interface: BTreeMap<Arc<str>, BTreeSet<EndpointId>>,
    interface_chains: BTreeMap<Arc<str>, Vec<Name>>,
    interface_sources: BTreeMap<Arc<str>, BTreeSet<Element>>,
    users: BTreeMap<Owner, BTreeSet<EndpointId>>,
}

impl Renderer {
    /// Renders all of the tables. `max_name_len`: the longest name that the backend takes, at least 28 bytes.
    pub fn new(tables: &Tables, max_name_len: usize) -> Renderer {
        let mut renderer = Renderer {
            names: Names { max_len: max_name_len },
            current: Current::default(),
            owners: BTreeMap::new(),
            set_kinds: BTreeMap::new(),
            set_users: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            by_interface: BTreeMap::new(),
            interface_chains: BTreeMap::new(),
            interface_sources: BTreeMap::new(),
            users: BTreeMap::new(),
        };
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
        if batch.settings.is_some() {
            let new = Renderer::new(tables, self.names.max_len);
            let delta = Delta::between(self.ruleset(), new.ruleset());
            *self = new;
            return delta;
        }
        self.update_objects(tables, batch);
        self.current.take_delta()
    }

    fn statics(&mut self, tables: &Tables) {
        for map in [names::FROM_WORKLOAD, names::TO_WORKLOAD] {
            self.current.put_map(Name::from(map));
        }
        self.current.put_set(&Name::from(names::WORKLOAD_INTERFACES), SetType::Interfaces, &BTreeSet::new());
        if tables.settings.ipv6 {
            let sources = SetType::InterfaceAddresses(Family::V6);
            self.current.put_set(&Name::from(names::WORKLOAD_SOURCES_V6), sources, &BTreeSet::new());
        }
        for (name, chain) in base::chains(&tables.settings) {
            match chain {
                Some(chain) => self.current.put_chain(name, chain),
                None => self.current.remove_chain(&name),
            }
        }
        self.nat(tables);
    }

    fn nat(&mut self, tables: &Tables) {
        let rendered = nat::render(self.names, &tables.settings, &tables.pools);
        for (name, set) in rendered.sets {
            match set {
                Some(set) => self.current.put_set(&name, set.set_type, &set.elements),
                None => self.current.remove_set(&name),
            }
        }
        let name = Name::from(names::POSTROUTING);
        match rendered.chain {
            Some(chain) => self.current.put_chain(name, chain),
            None => self.current.remove_chain(&name),
        }
    }

    fn update_objects(&mut self, tables: &Tables, batch: &Batch) {
        let Batch {
            settings: _,
            sets,
            policies,
            staged: _,
            previews: _,
            profiles,
            endpoints,
            pools,
            tunnels: _,
            vteps: _,
            routes: _,
            bgp_speaker: _,
            bgp_policy: _,
            bgp_peers: _,
            announcements: _,
        } = batch;
        let mut owners: BTreeSet<Owner> = policies.keys().cloned().map(Owner::Policy).collect();
        owners.extend(profiles.keys().cloned().map(Owner::Profile));
        for (id, change) in sets {
            if self.set(tables, id, change) {
                owners.extend(self.set_users.get(id).into_iter().flatten().cloned());
            }
        }
        let mut dirty: BTreeSet<EndpointId> = endpoints.keys().cloned().collect();
        for owner in owners {
            if self.owner(tables, &owner) {
                dirty.extend(self.users.get(&owner).into_iter().flatten().cloned());
            }
        }
        let mut interfaces = BTreeSet::new();
        for id in dirty {
            self.endpoint(&id, tables.endpoints.get(&id), &mut interfaces);
        }
        for interface in interfaces {
            self.interface(tables, &interface);
        }
        if !pools.is_empty() {
            self.nat(tables);
        }
    }

    /// Returns whether the set came, went or changed its kind, so that rules which refer to it change.
    fn set(&mut self, tables: &Tables, id: &SetId, change: &SetChange) -> bool {
        let had = self.set_kinds.get(id).copied();
        let now = tables.sets.get(id);
        let kind = now.map(|(kind, _)| *kind);
        if had != kind {
            match kind {
                Some(kind) => self.set_kinds.insert(id.clone(), kind),
                None => self.set_kinds.remove(id),
            };
        }
        for family in families(tables) {
            if let Some(old) = had.filter(|_| had != kind) {
                self.current.remove_set(&self.names.set(family, old, id));
            }
            let Some((kind, members)) = now else { continue };
            let name = self.names.set(family, *kind, id);
            match (change, self.current.elements(&name)) {
                (SetChange::Delta { added, removed }, Some(current)) => {
                    let changed = added.iter().chain(removed).filter(|m| m.family() == family);
                    let (come, go) = match kind {
                        SetKind::Nets => sets::change_nets(members, current, changed),
                        SetKind::Addresses | SetKind::Ports => split(*kind, members, changed),
                    };
                    go.into_iter().for_each(|e| self.current.remove_element(&name, e));
                    come.into_iter().for_each(|e| self.current.add_element(&name, e));
                }
                (SetChange::Whole { .. } | SetChange::Delta { .. } | SetChange::Removed, _) => {
                    let elements = sets::elements(*kind, family, members);
                    self.current.put_set(&name, sets::set_type(*kind, family), &elements);
                }
            }
        }
        had != kind
    }

    /// Renders a policy or profile; returns whether its users must be rendered again.
    fn owner(&mut self, tables: &Tables, owner: &Owner) -> bool {
        let had = self.owners.remove(owner);
        for set in had.iter().flat_map(|r| &r.sets) {
            remove_user(&mut self.set_users, set, owner);
        }
        let rules = match owner {
            Owner::Policy(id) => tables.policies.get(id).map(|p| {
                let Policy { tier: _, ingress, egress } = &**p;
                (ingress, egress)
            }),
            Owner::Profile(name) => tables.profiles.get(name).map(|p| {
                let Profile { ingress, egress } = &**p;
                (ingress, egress)
            }),
        };
        let mut shapes = Shapes::default();
        let empty = Vec::new();
        let (ingress, egress) = rules.unwrap_or((&empty, &empty));
        for (direction, rules, shape) in
            [(Direction::Ingress, ingress, &mut shapes.ingress), (Direction::Egress, egress, &mut shapes.egress)]
        {
            let name = match owner {
                Owner::Policy(id) => self.names.policy(direction, id),
                Owner::Profile(name) => self.names.profile(direction, name),
            };
            *shape = Shape { has_rules: !rules.is_empty(), passes: rules.iter().any(|r| r.action == Action::Pass) };
            if rules.is_empty() {
                self.current.remove_chain(&name);
                continue;
            }
            let kinds = &self.set_kinds;
            let context = Context {
                names: self.names,
                settings: &tables.settings,
                kind_of: &|id| kinds.get(id).copied(),
                in_tier: matches!(owner, Owner::Policy(_)),
            };
            let chain = policy::chain(rules, &context);
            self.current.put_chain(name, chain);
        }
        if rules.is_none() {
            return had.is_some();
        }
        let sets: BTreeSet<SetId> = ingress.iter().chain(egress).flat_map(set_ids).cloned().collect();
        for set in &sets {
            self.set_users.entry(set.clone()).or_default().insert(owner.clone());
        }
        let changed = had.is_none_or(|r| r.shapes != shapes);
        self.owners.insert(owner.clone(), Rendered { shapes, sets });
        changed
    }

    /// Files an endpoint under its interface and its referents; names the interfaces to render again.
    fn endpoint(&mut self, id: &EndpointId, now: Option<&Arc<Endpoint>>, interfaces: &mut BTreeSet<Arc<str>>) {
        if let Some(had) = self.endpoints.remove(id) {
            remove_user(&mut self.by_interface, &had.interface, id);
            for owner in referents(&had) {
                remove_user(&mut self.users, &owner, id);
            }
            interfaces.insert(had.interface.clone());
        }
        if let Some(endpoint) = now {
            self.by_interface.entry(endpoint.interface.clone()).or_default().insert(id.clone());
            for owner in referents(endpoint) {
                self.users.entry(owner).or_default().insert(id.clone());
            }
            interfaces.insert(endpoint.interface.clone());
            self.endpoints.insert(id.clone(), endpoint.clone());
        }
    }

    /// Renders the chains of an interface and dispatches to them. If several endpoints claim one, the first has it.
    fn interface(&mut self, tables: &Tables, interface: &Arc<str>) {
        let old = self.interface_chains.remove(interface).unwrap_or_default();
        let id = self.by_interface.get(interface).and_then(BTreeSet::first);
        let endpoint = id.and_then(|id| self.endpoints.get(id)).filter(|e| !e.interface.is_empty()).cloned();
        let mut kept = Vec::new();
        for (direction, map) in [(Direction::Egress, names::FROM_WORKLOAD), (Direction::Ingress, names::TO_WORKLOAD)] {
            let chains = endpoint.as_ref().map(|e| self.endpoint_chains(tables, e, direction)).unwrap_or_default();
            let first = chains.first().map(|(name, _)| name.clone());
            self.current.dispatch(&Name::from(map), interface, first);
            for (name, chain) in chains {
                kept.push(name.clone());
                self.current.put_chain(name, chain);
            }
        }
        for name in old.iter().filter(|n| !kept.contains(n)) {
            self.current.remove_chain(name);
        }
        self.sources(interface, endpoint.as_deref());
        let (set, element) = (Name::from(names::WORKLOAD_INTERFACES), Element::Interface(interface.clone()));
        if endpoint.is_some() {
            self.interface_chains.insert(interface.clone(), kept);
            self.current.add_element(&set, element);
        } else {
            self.current.remove_element(&set, element);
        }
    }

    /// Notes the IPv6 addresses behind an interface; nothing if IPv6 is not managed, as there is no such set then.
    fn sources(&mut self, interface: &Arc<str>, endpoint: Option<&Endpoint>) {
        let set = Name::from(names::WORKLOAD_SOURCES_V6);
        let addresses = endpoint.map(|e| e.addresses.as_slice()).unwrap_or_default();
        let own = addresses.iter().filter(|a| a.is_ipv6());
        let new: BTreeSet<Element> =
            own.map(|addr| Element::InterfaceAddress { interface: interface.clone(), addr: *addr }).collect();
        let old = self.interface_sources.remove(interface).unwrap_or_default();
        old.difference(&new).for_each(|e| self.current.remove_element(&set, e.clone()));
        new.difference(&old).for_each(|e| self.current.add_element(&set, e.clone()));
        if !new.is_empty() {
            self.interface_sources.insert(interface.clone(), new);
        }
    }

    fn endpoint_chains(
        &self,
        tables: &Tables,
        endpoint: &Endpoint,
        direction: Direction,
    ) -> Vec<(Name, crate::model::Chain)> {
        let shape = |owner: &Owner| {
            self.owners.get(owner).map(|r| match direction {
                Direction::Ingress => r.shapes.ingress,
                Direction::Egress => r.shapes.egress,
            })
        };
        let referents = Referents {
            names: self.names,
            settings: &tables.settings,
            policy: &|id| shape(&Owner::Policy(id.clone())),
            profile: &|name| shape(&Owner::Profile(Arc::from(name))),
        };
        endpoint::chains(endpoint, direction, &referents)
    }
}

fn families(tables: &Tables) -> impl Iterator<Item = Family> + use<> {
    let ipv6 = tables.settings.ipv6;
    Family::ALL.into_iter().filter(move |f| ipv6 || *f == Family::V4)
}

/// What the members that were touched mean for the elements, in a set where each member is an element.
fn split<'a>(
    kind: SetKind,
    members: &BTreeSet<tortie_desired::Member>,
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

fn referents(endpoint: &Endpoint) -> BTreeSet<Owner> {
    let policies = endpoint.tiers.iter().flat_map(|t| t.ingress.iter().chain(&t.egress));
    policies.cloned().map(Owner::Policy).chain(endpoint.profiles.iter().cloned().map(Owner::Profile)).collect()
}

fn remove_user<K: Ord, U: Ord>(users: &mut BTreeMap<K, BTreeSet<U>>, key: &K, user: &U) {
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
        ..Batch::default()
    }
}
