//! Which packets a rule matches: who owns an address, which of them a rule asks for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use tortie_api::{
    Action, EndpointPort, EntityRule, IcmpFields, KubernetesProtocol, Port, Profile, Resource, Rule, ServiceMatch,
    WorkloadEndpoint, WorkloadEndpointPort,
};
use tortie_net::{Family, IpNet, Protocol};
use tortie_selector::Selector;
use tortie_verdict::Packet;

use super::{Facts, Labels, resources};

/// Something that owns addresses.
pub(crate) struct Owner {
    labels: Labels,
    nets: Vec<IpNet>,
    ports: Vec<WorkloadEndpointPort>,
}

pub(super) fn profile<'a>(facts: &'a Facts, name: &str) -> Option<&'a Profile> {
    resources(facts).find_map(|resource| match resource {
        Resource::Profile(profile) if profile.metadata.name == name => Some(&**profile),
        _ => None,
    })
}

pub(crate) fn with_inherited(facts: &Facts, mut labels: Labels, profiles: &[String]) -> Labels {
    for name in profiles {
        for (key, value) in profile(facts, name).into_iter().flat_map(|profile| &profile.spec.labels_to_apply) {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    labels
}

pub(super) fn endpoint_labels(facts: &Facts, wep: &WorkloadEndpoint) -> Labels {
    let mut labels = wep.metadata.labels.to_map();
    labels.insert("projectcalico.org/namespace".to_owned(), wep.metadata.namespace.clone());
    if !wep.spec.service_account_name.is_empty() {
        labels.insert("projectcalico.org/serviceaccount".to_owned(), wep.spec.service_account_name.clone());
    }
    with_inherited(facts, labels, &wep.spec.profiles)
}

pub(crate) fn owners(facts: &Facts) -> Vec<Owner> {
    let owner = |resource: &Resource| match resource {
        Resource::WorkloadEndpoint(wep) => Some(Owner {
            labels: endpoint_labels(facts, wep),
            nets: wep.spec.ip_networks.iter().filter_map(|net| net.net()).collect(),
            ports: wep.spec.ports.clone(),
        }),
        Resource::NetworkSet(set) => {
            let mut labels = set.metadata.labels.to_map();
            labels.insert("projectcalico.org/namespace".to_owned(), set.metadata.namespace.clone());
            let labels = with_inherited(facts, labels, &[format!("kns.{}", set.metadata.namespace)]);
            Some(Owner { labels, nets: set.spec.nets.iter().filter_map(|net| net.net()).collect(), ports: vec![] })
        }
        Resource::GlobalNetworkSet(set) => Some(Owner {
            labels: set.metadata.labels.to_map(),
            nets: set.spec.nets.iter().filter_map(|net| net.net()).collect(),
            ports: vec![],
        }),
        Resource::HostEndpoint(host) => Some(Owner {
            labels: with_inherited(facts, host.metadata.labels.to_map(), &host.spec.profiles),
            nets: host.spec.expected_ips.iter().filter_map(|net| net.net()).collect(),
            ports: host.spec.ports.iter().map(as_workload_port).collect(),
        }),
        _ => None,
    };
    resources(facts).filter_map(owner).collect()
}

fn as_workload_port(port: &EndpointPort) -> WorkloadEndpointPort {
    let EndpointPort { name, protocol, port } = port;
    WorkloadEndpointPort { name: name.clone(), protocol: *protocol, port: *port, ..WorkloadEndpointPort::default() }
}

/// The selector of a text; read once, as a test asks for the same ones over and over.
fn parsed(text: &str) -> Rc<Selector> {
    thread_local!(static SEEN: RefCell<BTreeMap<String, Rc<Selector>>> = const { RefCell::new(BTreeMap::new()) });
    let read = || Rc::new(Selector::parse(text).expect("generated selectors are good"));
    SEEN.with_borrow_mut(|seen| seen.entry(text.to_owned()).or_insert_with(read).clone())
}

pub(super) fn selects(selector: &str, labels: &Labels) -> bool {
    parsed(selector).matches(labels)
}

pub(super) fn in_namespaces(selector: &str, labels: &Labels) -> bool {
    Selector::clone(&parsed(selector)).rewrite_for_namespace().matches(labels)
}

pub(super) fn of_accounts(selector: &str, labels: &Labels) -> bool {
    Selector::clone(&parsed(selector)).rewrite_for_service_account().matches(labels)
}

/// Whether the owner meets everything that the entity asks of one; `None` if it asks nothing.
fn is_wanted(namespace: &str, entity: &EntityRule, owner: &Owner) -> Option<bool> {
    let mut asked = false;
    let mut wanted = true;
    let mut ask = |holds: bool| {
        asked = true;
        wanted &= holds;
    };
    if !entity.selector.is_empty() {
        ask(selects(&entity.selector, &owner.labels));
    }
    if !entity.namespace_selector.is_empty() {
        ask(in_namespaces(&entity.namespace_selector, &owner.labels));
    }
    if let Some(accounts) = &entity.service_accounts {
        if !accounts.names.is_empty() {
            let account = owner.labels.get("projectcalico.org/serviceaccount");
            ask(account.is_some_and(|account| accounts.names.contains(account)));
        }
        if !accounts.selector.is_empty() {
            ask(of_accounts(&accounts.selector, &owner.labels));
        }
    }
    let bound = asked || !entity.not_selector.is_empty();
    if bound && !namespace.is_empty() && entity.namespace_selector.is_empty() {
        asked = true;
        wanted &= owner.labels.get("projectcalico.org/namespace").is_some_and(|found| found == namespace);
    }
    if asked && !entity.not_selector.is_empty() {
        wanted &= !selects(&entity.not_selector, &owner.labels);
    }
    asked.then_some(wanted)
}

/// Whether the address, and the port if one is given, is behind the service.
fn behind(facts: &Facts, service: &ServiceMatch, addr: IpAddr, port: Option<(Protocol, u16)>) -> bool {
    resources(facts).any(|resource| {
        let Resource::KubernetesEndpointSlice(slice) = resource else { return false };
        let spec = &slice.spec;
        let is_port = |(protocol, port): (Protocol, u16)| {
            spec.ports.iter().any(|own| {
                let own_protocol = match own.protocol {
                    KubernetesProtocol::Tcp => Protocol::TCP,
                    KubernetesProtocol::Udp => Protocol::UDP,
                    KubernetesProtocol::Sctp => Protocol::SCTP,
                };
                own.port == Some(port) && own_protocol == protocol
            })
        };
        slice.metadata.namespace == service.namespace
            && spec.service == service.name
            && spec.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&addr.to_string()))
            && port.is_none_or(is_port)
    })
}

fn side_matches(
    all: &[Owner],
    namespace: &str,
    entity: &EntityRule,
    addr: IpAddr,
    protocol: Option<Protocol>,
    packet: &Packet,
    port: u16,
) -> bool {
    let within = |nets: &[tortie_api::IpNetText]| nets.iter().any(|n| n.net().is_some_and(|n| n.contains(&addr)));
    if !entity.nets.is_empty() && !within(&entity.nets) || within(&entity.not_nets) {
        return false;
    }
    let of_addr = || all.iter().filter(|owner| owner.nets.iter().any(|net| net.contains(&addr)));
    // What an entity asks does not depend on whom; there is always one, the endpoint itself.
    let asks = all.iter().any(|owner| is_wanted(namespace, entity, owner).is_some());
    let wanted = || of_addr().filter(|owner| is_wanted(namespace, entity, owner).unwrap_or(true));
    if asks && wanted().next().is_none() {
        return false;
    }
    let alone = !asks && !entity.not_selector.is_empty();
    if alone && of_addr().any(|owner| selects(&entity.not_selector, &owner.labels)) {
        return false;
    }
    let is = |wanted_port: &Port| match wanted_port {
        Port::Range(range) => packet.protocol.has_ports() && range.contains(port),
        Port::Named(name) => wanted().flat_map(|owner| &owner.ports).any(|declared| {
            let right = protocol.is_none_or(|protocol| protocol == declared.protocol.protocol());
            declared.name == *name && right && declared.protocol.protocol() == packet.protocol && declared.port == port
        }),
    };
    (entity.ports.is_empty() || entity.ports.iter().any(is)) && !entity.not_ports.iter().any(is)
}

/// Whether a rule can be about packets of this family: its own word for it, and that of the prefixes it names.
fn of_family(rule: &Rule, family: Family) -> bool {
    let lists = [&rule.source, &rule.destination].map(|end| [&end.nets, &end.not_nets]);
    rule.ip_version.is_none_or(|version| version == family.version())
        && lists.as_flattened().iter().all(|nets| nets.is_empty() || nets.iter().any(|n| n.family() == Some(family)))
}

fn is_icmp(wanted: &IcmpFields, packet: &Packet) -> bool {
    let protocol = if packet.family() == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
    let Some((icmp_type, code)) = packet.icmp.filter(|_| packet.protocol == protocol) else { return false };
    wanted.icmp_type.is_none_or(|wanted| wanted == icmp_type) && wanted.code.is_none_or(|wanted| wanted == code)
}

fn rule_matches(facts: &Facts, all: &[Owner], namespace: &str, rule: &Rule, packet: &Packet) -> bool {
    let protocol = rule.protocol.map(|protocol| protocol.protocol());
    let there = Some((packet.protocol, packet.dst_port));
    if rule.source.services.as_ref().is_some_and(|service| !behind(facts, service, packet.src, None))
        || rule.destination.services.as_ref().is_some_and(|service| !behind(facts, service, packet.dst, there))
    {
        return false;
    }
    protocol.is_none_or(|protocol| protocol == packet.protocol)
        && rule.not_protocol.is_none_or(|protocol| protocol.protocol() != packet.protocol)
        && of_family(rule, packet.family())
        && rule.icmp.as_ref().is_none_or(|wanted| is_icmp(wanted, packet))
        && rule.not_icmp.as_ref().is_none_or(|unwanted| !is_icmp(unwanted, packet))
        && side_matches(all, namespace, &rule.source, packet.src, protocol, packet, packet.src_port)
        && side_matches(all, namespace, &rule.destination, packet.dst, protocol, packet, packet.dst_port)
}

/// The action of the first rule that decides.
pub(super) fn decide(facts: &Facts, all: &[Owner], namespace: &str, rules: &[Rule], packet: &Packet) -> Option<Action> {
    rules
        .iter()
        .filter(|rule| rule.action != Action::Log && rule_matches(facts, all, namespace, rule, packet))
        .map(|rule| rule.action)
        .next()
}
