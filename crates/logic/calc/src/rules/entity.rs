//! One side of a rule: prefixes, selectors, accounts, ports.
//!
//! All selectors of a side become one selector over endpoints, so that one endpoint must meet all of them. Only a
//! `notSelector` that stands alone is a set to be kept out of: it then also holds for addresses that nobody owns.

use std::collections::BTreeMap;

use tortie_api as api;
use tortie_desired::{Match, SetId};
use tortie_net::{IpNet, PortRange, Protocol};
use tortie_selector::Selector;

use crate::selectors::Selectors;
use crate::sets::{PortName, SetSpec, service_name};

/// Which side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// One side, resolved as far as it can be.
pub(crate) struct Side<'a> {
    pub(crate) known: &'a mut Selectors,
    pub(crate) conditions: Match,
    pub(crate) needs: BTreeMap<SetId, SetSpec>,
    /// What is not understood: the field, a colon, the reason.
    pub(crate) problems: Vec<String>,
}

/// `end` says which side it is: services stand for addresses at the source, for addresses and ports at the destination.
pub(crate) fn resolve<'a>(
    known: &'a mut Selectors,
    namespace: &str,
    protocol: Option<Protocol>,
    end: End,
    entity: &api::EntityRule,
) -> Side<'a> {
    let api::EntityRule {
        nets,
        selector,
        namespace_selector,
        services,
        ports,
        not_nets,
        not_selector,
        not_ports,
        service_accounts,
    } = entity;
    let mut side = Side { known, conditions: Match::default(), needs: BTreeMap::new(), problems: Vec::new() };
    side.conditions.nets = side.nets("nets", nets);
    side.conditions.not_nets = side.nets("notNets", not_nets);

    let own = side.selector("selector", selector);
    let not = side.selector("notSelector", not_selector);
    let accounts = service_accounts.as_ref().and_then(|accounts| side.accounts(accounts));
    let spaces = if namespace_selector.is_empty() {
        let bound = own.is_some() || not.is_some() || accounts.is_some();
        if namespace.is_empty() || !bound { None } else { namespace_is(namespace) }
    } else {
        side.selector("namespaceSelector", namespace_selector).map(|parsed| parsed.rewrite_for_namespace())
    };
    let endpoints = side.join(accounts, own);
    let positive = side.join(spaces, endpoints);
    let (positive, negative) = match (positive, not) {
        (Some(positive), Some(not)) => {
            let not = negated(side.known, &not);
            (side.join(Some(positive), not), None)
        }
        (positive, negative) => (positive, negative),
    };

    let (ports, names) = split(ports);
    let (not_ports, not_names) = split(not_ports);
    side.conditions.port_sets = side.port_sets(&names, positive.as_ref(), protocol);
    side.conditions.not_port_sets = side.port_sets(&not_names, positive.as_ref(), protocol);
    // Sets of named ports hold only what the selector matches; only plain ports need the selector beside them.
    if let Some(positive) = positive
        && (!ports.is_empty() || names.is_empty())
    {
        let spec = SetSpec::of_selector(side.known, positive);
        let id = side.need(spec);
        side.conditions.sets.push(id);
    }
    if let Some(negative) = negative {
        let spec = SetSpec::of_selector(side.known, negative);
        let id = side.need(spec);
        side.conditions.not_sets.push(id);
    }
    if let Some(found) = services {
        side.service(namespace, end, found);
    }
    side.conditions.ports = ports;
    side.conditions.not_ports = not_ports;
    side
}

/// The selector of everything in one namespace.
pub(crate) fn namespace_is(namespace: &str) -> Option<Selector> {
    Selector::equals("projectcalico.org/namespace", namespace)
}

/// What both match, written as upstream joins selectors, since set ids are hashes of the text.
pub(crate) fn both(known: &mut Selectors, a: &Selector, b: &Selector) -> Option<Selector> {
    known.parse(&format!("({}) && ({})", a.canonical(), b.canonical())).ok()
}

fn negated(known: &mut Selectors, selector: &Selector) -> Option<Selector> {
    known.parse(&format!("!({})", selector.canonical())).ok()
}

fn split(ports: &[api::Port]) -> (Vec<PortRange>, Vec<&str>) {
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for port in ports {
        match port {
            api::Port::Range(range) => ranges.push(*range),
            api::Port::Named(name) => names.push(name.as_str()),
        }
    }
    (ranges, names)
}

impl Side<'_> {
    fn nets(&mut self, field: &str, nets: &[api::IpNetText]) -> Vec<IpNet> {
        let mut out = Vec::with_capacity(nets.len());
        for net in nets {
            match net.net() {
                Some(net) => out.push(net),
                None => self.problems.push(format!("{field}: {:?} is no prefix or address", net.as_str())),
            }
        }
        out
    }

    fn selector(&mut self, field: &str, text: &str) -> Option<Selector> {
        if text.is_empty() {
            return None;
        }
        match self.known.parse(text) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.problems.push(format!("{field}: {error}"));
                None
            }
        }
    }

    /// A service without a namespace is of the policy's.
    fn service(&mut self, namespace: &str, end: End, found: &api::ServiceMatch) {
        let api::ServiceMatch { name, namespace: own } = found;
        let namespace = if own.is_empty() { namespace } else { own };
        if name.is_empty() || namespace.is_empty() {
            self.problems.push("services: name and namespace must be given".to_owned());
            return;
        }
        let id = self.need(SetSpec::of_service(service_name(namespace, name), end == End::Destination));
        match end {
            End::Source => self.conditions.sets.push(id),
            End::Destination => self.conditions.service_sets.push(id),
        }
    }

    fn accounts(&mut self, accounts: &api::ServiceAccountMatch) -> Option<Selector> {
        let api::ServiceAccountMatch { names, selector } = accounts;
        let by_labels =
            self.selector("serviceAccounts.selector", selector).map(|parsed| parsed.rewrite_for_service_account());
        if names.is_empty() {
            return by_labels;
        }
        let text = format!("projectcalico.org/serviceaccount in {{'{}'}}", names.join("', '"));
        let by_name = self.selector("serviceAccounts.names", &text);
        self.join(by_labels, by_name)
    }

    fn join(&mut self, a: Option<Selector>, b: Option<Selector>) -> Option<Selector> {
        match (a, b) {
            (Some(a), Some(b)) => {
                let joined = both(self.known, &a, &b);
                if joined.is_none() {
                    self.problems.push("selector: nested too deep".to_owned());
                }
                joined
            }
            (one, other) => one.or(other),
        }
    }

    fn port_sets(&mut self, names: &[&str], within: Option<&Selector>, protocol: Option<Protocol>) -> Vec<SetId> {
        let within = within.cloned().unwrap_or_else(Selector::all);
        let spec = |name: &&str| SetSpec::of_port(within.clone(), PortName { protocol, name: (*name).into() });
        names.iter().map(spec).collect::<Vec<_>>().into_iter().map(|spec| self.need(spec)).collect()
    }

    fn need(&mut self, spec: SetSpec) -> SetId {
        let id = spec.id().clone();
        self.needs.insert(id.clone(), spec);
        id
    }
}
