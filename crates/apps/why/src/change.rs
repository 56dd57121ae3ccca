//! A change of resources: what it does in words, and the resources as they are afterwards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tortie_api::{Action, EntityRule, IpNetText, Kind, Port, Profile, Resource, Rule, RuleProtocol};
use tortie_calc::index_as_written;
use tortie_desired::{PolicyId, PolicyKind};
use tortie_facts::{Key, Value};
use tortie_net::{IpNet, Protocol};
use tortie_selector::Selector;
use tortie_verdict::{Demand, Direction, Packet, Place, Side};

use crate::World;
use crate::label::{effective, labels_text, needed, title};
use crate::point::{Point, Sort};

/// A change of resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// What is done, one line a step.
    pub texts: Vec<String>,
    /// The changed or new resources as a whole.
    pub edits: BTreeMap<Key, Resource>,
    /// How large it is: one condition of one rule is 10.
    pub cost: usize,
}

impl Change {
    /// This change and then another.
    pub(crate) fn and(mut self, later: Change) -> Change {
        let Change { texts, edits, cost } = later;
        self.texts.extend(texts);
        self.edits.extend(edits);
        self.cost += cost;
        self
    }

    /// Makes the change; what is needed to take it back.
    pub(crate) fn make(&self, world: &mut World) -> Vec<(Key, Option<Value>)> {
        let put =
            |(key, resource): (&Key, &Resource)| (key.clone(), world.put(key, Some(Value::resource(resource.clone()))));
        self.edits.iter().map(put).collect()
    }

    /// Fills in defaults; whether every resource passes the API's checks, unless it did not before either.
    pub(crate) fn complete(&mut self, world: &World) -> bool {
        self.edits.values_mut().for_each(Resource::apply_defaults);
        let was_wrong = |key: &Key| world.resource(key).is_some_and(|old| old.validate().is_err());
        self.edits.iter().all(|(key, resource)| resource.validate().is_ok() || was_wrong(key))
    }

    /// The resource as it is after the steps so far.
    fn edit(&mut self, world: &World, key: &Key) -> Option<&mut Resource> {
        if !self.edits.contains_key(key) {
            self.edits.insert(key.clone(), world.resource(key)?.clone());
        }
        self.edits.get_mut(key)
    }

    /// Makes one condition of a written rule hold for the packet; `None` if no small edit does.
    pub(crate) fn meet(&mut self, world: &World, rule: &Written, demand: &Demand, flow: &Ends<'_>) -> Option<()> {
        let Ends { packet, source: _, destination: _ } = flow;
        let at = |side: &Side| match side {
            Side::Source => (packet.src, packet.src_port),
            Side::Destination => (packet.dst, packet.dst_port),
        };
        let (addr, port) = match demand {
            Demand::Nets(side, _) | Demand::NotNets(side, _) | Demand::Set(side, _) => at(side),
            Demand::Ports(side, _, _) | Demand::NotPorts(side, _) if packet.protocol.has_ports() => at(side),
            Demand::Ports(..) | Demand::NotPorts(..) => return None,
            Demand::Family(_)
            | Demand::Protocol(_)
            | Demand::NotProtocol(_)
            | Demand::Icmp(_)
            | Demand::NotIcmp(_)
            | Demand::NotSet(..)
            | Demand::Services(..)
            | Demand::NotPortSets(..) => return None,
        };
        if let Demand::Set(side, id) = demand {
            return self.enter_set(world, flow.point(*side), addr, &rule.selector(id)?);
        }
        // Rules take prefixes alone.
        let host = IpNet::from(addr);
        let covers = |text: &IpNetText| text.net().is_some_and(|net| net.contains(&addr));
        let is_port = |one: &Port| matches!(one, Port::Range(range) if range.contains(port));
        let place = rule.text();
        let written = rule.of(self.edit(world, &rule.key)?)?;
        let text = match demand {
            Demand::Nets(side, _) => {
                entity(written, *side).nets.push(host.into());
                format!("add {host} to the {side} nets of {place}")
            }
            Demand::NotNets(side, _) => {
                entity(written, *side).not_nets.retain(|net| !covers(net));
                format!("remove what covers {addr} from the {side} notNets of {place}")
            }
            Demand::Ports(side, _, _) => {
                entity(written, *side).ports.push(Port::number(port));
                format!("add port {port} to the {side} ports of {place}")
            }
            Demand::NotPorts(side, _) => {
                entity(written, *side).not_ports.retain(|one| !is_port(one));
                format!("remove what covers port {port} from the {side} notPorts of {place}")
            }
            _ => return None,
        };
        self.texts.push(text);
        Some(())
    }

    /// Makes a selector match an address: by labels of the point, or by a network set that it matches already.
    fn enter_set(&mut self, world: &World, point: &Point, addr: IpAddr, selector: &Selector) -> Option<()> {
        let key = match &point.sort {
            Sort::Workload { id, node: _, interface: _ } => {
                Key::resource(Kind::WorkloadEndpoint, &id.namespace, &id.name)
            }
            Sort::NetworkSet(key) => key.clone(),
            Sort::Node(_) | Sort::Address { block_of: _ } => return self.join_network_set(world, addr, selector),
        };
        let resource = self.edit(world, &key)?;
        let wanted = needed(selector, &effective(world, resource)?)?;
        let what = match &point.sort {
            Sort::Workload { .. } => format!("{} (pod {})", title(resource), point.name),
            Sort::NetworkSet(_) | Sort::Node(_) | Sort::Address { block_of: _ } => title(resource),
        };
        let labels = &mut resource.metadata_mut().labels;
        let mut words = Vec::new();
        for (key, value) in wanted {
            match value {
                Some(value) => {
                    words.push(format!("set label {key}={value}"));
                    labels.insert(key, value);
                }
                None => {
                    words.push(format!("remove label {key}"));
                    labels.remove(&key);
                }
            }
        }
        self.texts.push(format!("{} on {what}", words.join(" and ")));
        Some(())
    }

    fn join_network_set(&mut self, world: &World, addr: IpAddr, selector: &Selector) -> Option<()> {
        let matches = |resource: &&Resource| {
            matches!(resource, Resource::NetworkSet(_) | Resource::GlobalNetworkSet(_))
                && effective(world, resource).is_some_and(|labels| selector.matches(&labels))
        };
        let found = world.resources().find(matches)?;
        let resource = self.edit(world, &tortie_store::resource::resource_key(found))?;
        let text = format!("add {addr} to the nets of {}", title(resource));
        match resource {
            Resource::NetworkSet(set) => set.spec.nets.push(addr.into()),
            Resource::GlobalNetworkSet(set) => set.spec.nets.push(addr.into()),
            _ => return None,
        }
        self.texts.push(text);
        Some(())
    }

    /// Puts a rule in front of the written one of this index of the list; at the end without one.
    pub(crate) fn insert(&mut self, world: &World, list: &List, at: Option<usize>, rule: Rule) -> Option<()> {
        let resource = self.edit(world, &list.key)?;
        let name = title(resource);
        let rules = rules_of(resource, list.direction)?;
        let index = at.unwrap_or(rules.len());
        if index > rules.len() {
            return None;
        }
        let direction = list.direction;
        let text = match at {
            Some(_) => format!("add to {name}, before {direction} rule {index}: {}", words(&rule)),
            None => format!("add to the end of the {direction} rules of {name}: {}", words(&rule)),
        };
        rules.insert(index, rule);
        self.texts.push(text);
        Some(())
    }
}

/// The two ends of a packet as one node sees it.
pub(crate) struct Ends<'a> {
    pub(crate) packet: Packet,
    pub(crate) source: &'a Point,
    pub(crate) destination: &'a Point,
}

impl Ends<'_> {
    pub(crate) fn point(&self, side: Side) -> &Point {
        match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        }
    }
}

/// A list of rules in a resource that can be edited.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) key: Key,
    pub(crate) direction: Direction,
}

impl List {
    /// The list of a place; `None` for kinds that come from elsewhere.
    pub(crate) fn of(place: &Place, direction: Direction) -> Option<List> {
        let key = match place {
            Place::Profile(name) => Key::resource(Kind::Profile, "", name),
            Place::Policy { tier: _, policy: PolicyId { name, namespace, kind } } => match kind {
                PolicyKind::NetworkPolicy => Key::resource(Kind::NetworkPolicy, namespace, name),
                PolicyKind::GlobalNetworkPolicy => Key::resource(Kind::GlobalNetworkPolicy, "", name),
                PolicyKind::KubernetesClusterNetworkPolicy
                | PolicyKind::KubernetesNetworkPolicy
                | PolicyKind::StagedGlobalNetworkPolicy
                | PolicyKind::StagedKubernetesNetworkPolicy
                | PolicyKind::StagedNetworkPolicy => return None,
            },
        };
        Some(List { key, direction })
    }

    /// The index as written of a resolved rule.
    pub(crate) fn index(&self, world: &World, resolved: usize) -> Option<usize> {
        let rules = rules_in(world.resource(&self.key)?, self.direction)?;
        index_as_written(self.namespace(), rules, resolved)
    }

    /// The namespace of the resource; empty if it has none.
    pub(crate) fn namespace(&self) -> &str {
        match &self.key {
            Key::Resource { kind: _, namespace, name: _ } => namespace,
            _ => "",
        }
    }
}

/// One rule as written in a resource.
pub(crate) struct Written<'a> {
    pub(crate) key: Key,
    pub(crate) direction: Direction,
    pub(crate) index: usize,
    pub(crate) title: String,
    /// What the sets of the rule hold.
    pub(crate) describe: &'a dyn Fn(&tortie_desired::SetId) -> Option<String>,
}

impl Written<'_> {
    fn text(&self) -> String {
        format!("{} rule {} of {}", self.direction, self.index, self.title)
    }

    fn of<'r>(&self, resource: &'r mut Resource) -> Option<&'r mut Rule> {
        rules_of(resource, self.direction)?.get_mut(self.index)
    }

    fn selector(&self, set: &tortie_desired::SetId) -> Option<Selector> {
        Selector::parse(&(self.describe)(set)?).ok()
    }
}

fn entity(rule: &mut Rule, side: Side) -> &mut EntityRule {
    match side {
        Side::Source => &mut rule.source,
        Side::Destination => &mut rule.destination,
    }
}

fn rules_of(resource: &mut Resource, direction: Direction) -> Option<&mut Vec<Rule>> {
    let (ingress, egress) = match resource {
        Resource::NetworkPolicy(policy) => (&mut policy.spec.ingress, &mut policy.spec.egress),
        Resource::GlobalNetworkPolicy(policy) => (&mut policy.spec.ingress, &mut policy.spec.egress),
        Resource::Profile(profile) => {
            let Profile { metadata: _, spec } = &mut **profile;
            (&mut spec.ingress, &mut spec.egress)
        }
        _ => return None,
    };
    Some(match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    })
}

/// The rules of a policy or profile for a direction.
pub(crate) fn rules_in(resource: &Resource, direction: Direction) -> Option<&[Rule]> {
    let (ingress, egress) = match resource {
        Resource::NetworkPolicy(policy) => (&policy.spec.ingress, &policy.spec.egress),
        Resource::GlobalNetworkPolicy(policy) => (&policy.spec.ingress, &policy.spec.egress),
        Resource::Profile(profile) => (&profile.spec.ingress, &profile.spec.egress),
        _ => return None,
    };
    Some(match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    })
}

/// A rule for exactly this packet and the peer of this direction: by the peer's labels (`None` if it has none that
/// single it out), or by its address.
pub(crate) fn exact(
    world: &World,
    ends: &Ends<'_>,
    direction: Direction,
    namespace: &str,
    by_labels: bool,
    action: Action,
) -> Option<Rule> {
    let (side, addr) = match direction {
        Direction::Ingress => (Side::Source, ends.packet.src),
        Direction::Egress => (Side::Destination, ends.packet.dst),
    };
    let peer = if by_labels {
        labelled(world, ends.point(side), namespace)?
    } else {
        EntityRule { nets: vec![IpNet::from(addr).into()], ..EntityRule::default() }
    };
    let mut rule = Rule { action, protocol: Some(RuleProtocol::from(ends.packet.protocol)), ..Rule::default() };
    *entity(&mut rule, side) = peer;
    if takes_ports(ends.packet.protocol) {
        rule.destination.ports.push(Port::number(ends.packet.dst_port));
    }
    Some(rule)
}

/// Whether a rule may name ports of the protocol; UDP-Lite has ports that no rule can name.
pub(crate) fn takes_ports(protocol: Protocol) -> bool {
    [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol)
}

/// The point as one side of a rule of a policy in this namespace, by its labels.
fn labelled(world: &World, point: &Point, namespace: &str) -> Option<EntityRule> {
    let Sort::Workload { id, node: _, interface: _ } = &point.sort else { return None };
    let resource = world.resource(&Key::resource(Kind::WorkloadEndpoint, &id.namespace, &id.name))?;
    let selector = crate::label::selecting(&crate::label::own(resource.metadata()))?;
    let home = &*id.namespace;
    if namespace.is_empty() {
        let selector = format!("projectcalico.org/namespace == '{home}' && {selector}");
        return Some(EntityRule { selector, ..EntityRule::default() });
    }
    if namespace == home {
        return Some(EntityRule { selector, ..EntityRule::default() });
    }
    // Namespaces can only be named by the labels that they lend.
    let labels = effective(world, resource)?;
    let named = labels.get("pcns.projectcalico.org/name").is_some_and(|name| name == home);
    let namespace_selector = format!("projectcalico.org/name == '{home}'");
    named.then_some(EntityRule { selector, namespace_selector, ..EntityRule::default() })
}

/// A rule of [`exact`] in words.
fn words(rule: &Rule) -> String {
    let side = |entity: &EntityRule| {
        let mut parts: Vec<String> = entity.nets.iter().map(ToString::to_string).collect();
        parts.extend((!entity.selector.is_empty()).then(|| entity.selector.clone()));
        let space = &entity.namespace_selector;
        parts.extend((!space.is_empty()).then(|| format!("in namespaces {space}")));
        parts.extend(entity.ports.iter().map(|port| format!("port {port}")));
        parts.join(" ")
    };
    let mut text = rule.action.to_string();
    text.extend(rule.protocol.map(|protocol| format!(" {protocol}")));
    for (word, entity) in [("from", &rule.source), ("to", &rule.destination)] {
        if *entity != EntityRule::default() {
            text.push_str(&format!(" {word} {}", side(entity)));
        }
    }
    text
}

/// Labels in words, for messages about a resource.
pub(crate) fn labels_of(world: &World, key: &Key) -> Option<String> {
    Some(labels_text(&effective(world, world.resource(key)?)?))
}
