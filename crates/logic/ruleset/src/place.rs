//! The parts of the renderer that put workloads, host endpoints and translation into the ruleset.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{
    Endpoint, EndpointId, Ipip, SetId, SetKind, Tables, TunnelDevice, Vtep, Vxlan, Wireguard, WireguardPeer,
};
use tortie_net::{Family, IpNet, Protocol};

use crate::base::Tunnel;
use crate::groups::{GroupId, Lists};
use crate::host::Host;
use crate::lists::{self, End, Listed, Referents, Shape};
use crate::model::{Direction, Element, InterfaceAddress, Name, SetType};
use crate::nat::Entrance;
use crate::render::{Owner, Renderer, families, remove_user, sources_of};
use crate::workload::IPIP;
use crate::{base, host, names, nat, workload};

/// Nodes outside of the cluster. The settings name those of IPv4 alone.
fn external(tables: &Tables, family: Family) -> impl Iterator<Item = IpNet> {
    tables.settings.external_nodes.iter().copied().filter(move |net| Family::of_net(*net) == family)
}

/// The tunnels of this node, with the nodes that they lead to. VXLAN is never tracked, as upstream: it answers from other
/// ports, so that each direction would be a flow without an answer. Of IPIP and WireGuard an answer is known as one, and
/// so are errors about them, which host endpoints let in: where there are such, they are tracked.
fn tunnels(tables: &Tables) -> Vec<Tunnel> {
    let untracked = tables.host_endpoints.is_empty();
    let vxlan = families(tables).filter_map(|family| {
        let Vxlan { port, .. } = tables.tunnels.get(&TunnelDevice::vxlan(family))?;
        let nodes = tables.vteps.values().map(|Vtep { underlay, .. }| IpNet::from(*underlay));
        let peers = nodes.chain(external(tables, family)).collect();
        Some(Tunnel { family, protocol: Protocol::UDP, port: Some(*port), peers, closed: true, untracked: true })
    });
    let ipip = tables.ipip.iter().map(|Ipip { peers, .. }| Tunnel {
        family: Family::V4,
        protocol: IPIP,
        port: None,
        peers: peers.keys().copied().map(IpNet::from).chain(external(tables, Family::V4)).collect(),
        closed: true,
        untracked,
    });
    let wireguard = tables.wireguard.iter().map(|(family, Wireguard { port, peers, .. })| Tunnel {
        family: *family,
        protocol: Protocol::UDP,
        port: Some(*port),
        peers: peers.values().map(|WireguardPeer { endpoint, .. }| IpNet::from(*endpoint)).collect(),
        // What it carries is authenticated, and may come from a translated address.
        closed: false,
        untracked,
    });
    vxlan.chain(ipip).chain(wireguard.filter(|tunnel| families(tables).any(|f| f == tunnel.family))).collect()
}

/// The devices that lead into tunnels and have addresses. Where WireGuard encrypts what nodes themselves send, their own
/// addresses belong into it.
fn entrances(tables: &Tables) -> Vec<Entrance> {
    let vxlan = families(tables).filter_map(|family| {
        let device = TunnelDevice::vxlan(family);
        let Vxlan { port, .. } = tables.tunnels.get(&device).filter(|vxlan| vxlan.address.is_some())?;
        Some(Entrance { family, interface: Arc::from(device.name()), closed_port: Some(*port) })
    });
    let ipip = tables.ipip.iter().filter(|ipip| ipip.address.is_some());
    let interface = || Arc::from(TunnelDevice::Ipip.name());
    let ipip = ipip.map(|_| Entrance { family: Family::V4, interface: interface(), closed_port: None });
    let wireguard = families(tables).filter_map(|family| {
        let Wireguard { name, address, underlay, peers, .. } = tables.wireguard.get(&family)?;
        let of_nodes = |peer: &WireguardPeer| peer.allowed.contains(&IpNet::from(peer.endpoint));
        let own = (*address)? == *underlay || !peers.values().any(of_nodes);
        own.then(|| Entrance { family, interface: name.clone(), closed_port: None })
    });
    ipip.chain(vxlan).chain(wireguard).collect()
}

const DIRECTIONS: [(Direction, &str, &str); 2] = [
    (Direction::Egress, names::FROM_WORKLOAD, names::OWN_EGRESS),
    (Direction::Ingress, names::TO_WORKLOAD, names::OWN_INGRESS),
];

impl Renderer {
    /// Files an endpoint under its interface and names the interfaces to place again; whether translation changes.
    pub(crate) fn endpoint(
        &mut self,
        id: &EndpointId,
        now: Option<&Arc<Endpoint>>,
        interfaces: &mut BTreeSet<Arc<str>>,
    ) -> bool {
        if let Some(had) = self.endpoints.remove(id) {
            remove_user(&mut self.by_interface, &had.interface, id);
            interfaces.insert(had.interface.clone());
        }
        let translated = now.filter(|e| !e.floating.is_empty() || e.limits.dscp.is_some()).cloned();
        let changed = self.translated.get(id) != translated.as_ref();
        match translated {
            Some(endpoint) => self.translated.insert(id.clone(), endpoint),
            None => self.translated.remove(id),
        };
        if let Some(endpoint) = now {
            self.by_interface.entry(endpoint.interface.clone()).or_default().insert(id.clone());
            interfaces.insert(endpoint.interface.clone());
            self.endpoints.insert(id.clone(), endpoint.clone());
        }
        changed
    }

    /// Puts interfaces into their groups and renders the groups that changed; whether base chains change.
    pub(crate) fn workloads(
        &mut self,
        tables: &Tables,
        interfaces: &BTreeSet<Arc<str>>,
        mut groups: BTreeSet<GroupId>,
    ) -> bool {
        let had_own = [Direction::Ingress, Direction::Egress].map(|direction| self.has_own(direction));
        for interface in interfaces {
            let endpoint = self.holder(interface);
            for (direction, _, _) in DIRECTIONS {
                let lists = endpoint.as_ref().map(|e| Lists::of(e, direction));
                self.groups.place(direction, interface, lists, &mut groups);
            }
        }
        // First all that goes: a chain that comes may have the name of one that goes.
        for id in &groups {
            let Some(group) = self.groups.get_mut(*id) else { continue };
            std::mem::take(&mut group.chains).iter().for_each(|name| self.current.remove_chain(name));
        }
        let mut moved = BTreeSet::new();
        for id in groups {
            moved.extend(self.group(tables, id));
        }
        for (direction, map, set) in DIRECTIONS {
            for interface in interfaces.union(&moved) {
                self.dispatch(tables, interface, direction, map, set);
            }
        }
        for interface in interfaces {
            self.interface(tables, interface);
        }
        had_own != [Direction::Ingress, Direction::Egress].map(|direction| self.has_own(direction))
    }

    /// Renders a group's chains; its members.
    fn group(&mut self, tables: &Tables, id: GroupId) -> BTreeSet<Arc<str>> {
        let Some(group) = self.groups.get_mut(id) else { return BTreeSet::new() };
        let Some(first) = group.members.first().cloned() else {
            self.groups.dissolve(id);
            return BTreeSet::new();
        };
        let (lists, members) = (group.lists.clone(), group.members.clone());
        let Lists { direction, tiers, profiles } = &*lists;
        let name = |number| self.names.group(*direction, &first, number);
        let head = workload::hygiene(*direction, &tables.settings);
        let rendered = self.with_referents(tables, *direction, |referents| {
            lists::chains(head, tiers, profiles, End::Deny, &name, referents)
        });
        let Listed { chains: listed, choices } = rendered;
        choices.into_iter().for_each(|(name, map)| self.current.put_choices(name, map));
        let mut chains = Vec::new();
        for (name, chain) in listed {
            chains.push(name.clone());
            self.current.put_chain(name, chain);
        }
        self.groups.get_mut(id).expect("it has members").chains = chains;
        members
    }

    /// The endpoint of an interface. If several claim one, the first has it.
    fn holder(&self, interface: &str) -> Option<Arc<Endpoint>> {
        let id = self.by_interface.get(interface).and_then(BTreeSet::first)?;
        self.endpoints.get(id).filter(|e| !e.interface.is_empty()).cloned()
    }

    /// Points an interface at the chain of its group, or at its own.
    fn dispatch(&mut self, tables: &Tables, interface: &Arc<str>, direction: Direction, map: &str, set: &str) {
        let endpoint = self.holder(interface);
        let group = self.groups.chain_of(direction, interface).cloned();
        let own = endpoint.as_ref().filter(|e| workload::has_own_chain(e, direction)).zip(group.as_ref());
        let name = self.names.workload(direction, interface);
        let element = Element::Interface(interface.clone());
        let (map, set) = (Name::from(map), Name::from(set));
        match own {
            Some((endpoint, group)) => {
                let chain = workload::own_chain(endpoint, direction, group, self.names, &tables.settings);
                self.current.put_chain(name.clone(), chain);
                if self.own.insert((direction, interface.clone())) {
                    if !self.current.ruleset.sets.contains_key(&set) {
                        self.current.put_set(&set, SetType::Interfaces, BTreeSet::new());
                    }
                    self.current.add_element(&set, element);
                }
                self.current.dispatch(&map, interface, Some(name));
            }
            None => {
                self.current.dispatch(&map, interface, group);
                if self.own.remove(&(direction, interface.clone())) {
                    self.current.remove_chain(&name);
                    self.current.remove_element(&set, element);
                    if !self.has_own(direction) {
                        self.current.remove_set(&set);
                    }
                }
            }
        }
    }

    fn has_own(&self, direction: Direction) -> bool {
        self.own.iter().any(|(own, _)| *own == direction)
    }

    /// Notes an interface and the addresses behind it.
    fn interface(&mut self, tables: &Tables, interface: &Arc<str>) {
        let endpoint = self.holder(interface);
        let (set, element) = (Name::from(names::WORKLOAD_INTERFACES), Element::Interface(interface.clone()));
        if endpoint.is_some() {
            self.current.add_element(&set, element);
        } else {
            self.current.remove_element(&set, element);
        }
        let addresses = endpoint.as_ref().map(|e| e.addresses.as_slice()).unwrap_or_default();
        let managed: Vec<Family> = families(tables).collect();
        let own = addresses.iter().filter(|addr| managed.contains(&Family::of(**addr)));
        let element = |addr: &IpAddr| {
            Element::InterfaceAddress(Box::new(InterfaceAddress { interface: interface.clone(), addr: *addr }))
        };
        let new: BTreeSet<Element> = own.map(element).collect();
        let old = self.interface_sources.remove(interface).unwrap_or_default();
        for (changed, comes) in [(old.difference(&new), false), (new.difference(&old), true)] {
            for element in changed {
                let Element::InterfaceAddress(behind) = element else { continue };
                let set = sources_of(Family::of(behind.addr));
                if comes {
                    self.current.add_element(&set, element.clone());
                } else {
                    self.current.remove_element(&set, element.clone());
                }
            }
        }
        if !new.is_empty() {
            self.interface_sources.insert(interface.clone(), new);
        }
    }

    /// Renders the host endpoints and all base chains.
    pub(crate) fn host(&mut self, tables: &Tables) {
        let host = self.host_rules(tables);
        let lists = tables.host_endpoints.values().flat_map(|e| {
            let tiers = e.untracked.iter().chain(&e.pre_dnat).chain(&e.forward).chain(&e.tiers);
            let policies = tiers.flat_map(|t| t.ingress.iter().chain(&t.egress)).cloned().map(Owner::Policy);
            policies.chain(e.profiles.iter().cloned().map(Owner::Profile)).collect::<Vec<_>>()
        });
        self.host_users = lists.collect();
        let tunnels = tunnels(tables);
        let own = [Direction::Ingress, Direction::Egress].map(|direction| self.has_own(direction));
        let shape = base::Shape {
            names: self.names,
            settings: &tables.settings,
            host: &host,
            own: &|direction| own[usize::from(direction == Direction::Egress)],
            tunnels: &tunnels,
        };
        let bases = base::chains(&shape);
        let kept: BTreeSet<Name> = host.chains.iter().map(|(name, _)| name.clone()).collect();
        let gone: Vec<Name> = self.host_chains.difference(&kept).cloned().collect();
        gone.iter().for_each(|name| self.current.remove_chain(name));
        self.host_chains = kept;
        host.choices.into_iter().for_each(|(name, map)| self.current.put_choices(name, map));
        for (name, chain) in host.chains {
            self.current.put_chain(name, chain);
        }
        for point in host::Point::ALL {
            let at = host.points.get(&point).filter(|at| !at.map.is_empty());
            self.current.replace_map(&point.map(), at.map(|at| &at.map));
        }
        for (name, chain) in bases {
            match chain {
                Some(chain) => self.current.put_chain(name, chain),
                None => self.current.remove_chain(&name),
            }
        }
    }

    fn host_rules(&self, tables: &Tables) -> Host {
        let shape = |direction: Direction| move |owner: &Owner| self.shape(owner, direction);
        let (ingress, egress) = (shape(Direction::Ingress), shape(Direction::Egress));
        let policy = (
            |id: &tortie_desired::PolicyId| ingress(&Owner::Policy(id.clone())),
            |id: &tortie_desired::PolicyId| egress(&Owner::Policy(id.clone())),
        );
        let profile = (
            |name: &str| ingress(&Owner::Profile(Arc::from(name))),
            |name: &str| egress(&Owner::Profile(Arc::from(name))),
        );
        let chain = |name: &Name| self.current.ruleset.chains.get(name).cloned();
        let referents = |direction| match direction {
            Direction::Ingress => Referents {
                names: self.names,
                settings: &tables.settings,
                direction,
                host: true,
                shortest_run: self.shortest_run,
                chain: &chain,
                policy: &policy.0,
                profile: &profile.0,
            },
            Direction::Egress => Referents {
                names: self.names,
                settings: &tables.settings,
                direction,
                host: true,
                shortest_run: self.shortest_run,
                chain: &chain,
                policy: &policy.1,
                profile: &profile.1,
            },
        };
        host::render(&tables.host_endpoints, self.names, &tables.settings, &referents)
    }

    fn with_referents<T>(&self, tables: &Tables, direction: Direction, work: impl FnOnce(&Referents<'_>) -> T) -> T {
        work(&Referents {
            names: self.names,
            settings: &tables.settings,
            direction,
            host: false,
            shortest_run: self.shortest_run,
            chain: &|name| self.current.ruleset.chains.get(name).cloned(),
            policy: &|id| self.shape(&Owner::Policy(id.clone()), direction),
            profile: &|name| self.shape(&Owner::Profile(Arc::from(name)), direction),
        })
    }

    fn shape(&self, owner: &Owner, direction: Direction) -> Option<Shape> {
        self.owners.get(owner).map(|rendered| match direction {
            Direction::Ingress => rendered.shapes.ingress,
            Direction::Egress => rendered.shapes.egress,
        })
    }

    pub(crate) fn nat(&mut self, tables: &Tables) {
        let all_hosts = SetId::new(SetId::ALL_HOSTS);
        let there = self.set_kinds.get(&all_hosts) == Some(&SetKind::Addresses);
        let rendered = nat::render(&nat::Parts {
            names: self.names,
            settings: &tables.settings,
            pools: &tables.pools,
            endpoints: &self.translated,
            tunnels: &entrances(tables),
            hosts: &|family| {
                (there && (family == Family::V4 || self.v6_parts))
                    .then(|| self.names.set(family, SetKind::Addresses, &all_hosts))
            },
        });
        for (name, set) in rendered.sets {
            match set {
                Some(set) => self.current.put_set(&name, set.set_type, set.elements),
                None => self.current.remove_set(&name),
            }
        }
        for (name, chain) in rendered.chains {
            match chain {
                Some(chain) => self.current.put_chain(name, chain),
                None => self.current.remove_chain(&name),
            }
        }
    }
}
