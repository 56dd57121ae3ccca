//! Which host endpoint governs which of my interfaces?
//!
//! As upstream: each interface has one at most. Of several that match, the one with the first name wins; one that
//! names another interface never matches by address; the one of all interfaces has those that no other has. A name
//! counts whether or not such an interface is there, so that its policy stands before its first packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::HostInterface;

/// Which interfaces a host endpoint is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All that no other one governs.
    All,
    /// The one of this name.
    Named(Arc<str>),
    /// Those with one of these addresses.
    WithOneOf(Vec<IpAddr>),
}

/// A host endpoint of this node, without the policies that apply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalHost {
    pub(crate) interface: Wanted,
    pub(crate) profiles: Arc<[Arc<str>]>,
}

/// The host endpoints of this node, and its interfaces.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    endpoints: BTreeMap<Arc<str>, LocalHost>,
    interfaces: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    dirty: bool,
}

impl Hosts {
    /// A host endpoint came, changed or went.
    pub(crate) fn set(&mut self, name: &Arc<str>, endpoint: Option<LocalHost>) {
        if self.endpoints.get(name) == endpoint.as_ref() {
            return;
        }
        match endpoint {
            Some(endpoint) => self.endpoints.insert(name.clone(), endpoint),
            None => self.endpoints.remove(name),
        };
        self.dirty = true;
    }

    pub(crate) fn get(&self, name: &str) -> Option<&LocalHost> {
        self.endpoints.get(name)
    }

    /// Names of all of them, whether or not they have an interface.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.endpoints.keys()
    }

    /// Whether one is found by address.
    pub(crate) fn by_address(&self) -> bool {
        self.endpoints.values().any(|endpoint| matches!(endpoint.interface, Wanted::WithOneOf(_)))
    }

    /// The addresses of the node's own interfaces.
    pub(crate) fn set_interfaces(&mut self, interfaces: BTreeMap<Arc<str>, BTreeSet<IpAddr>>) {
        self.dirty |= self.interfaces != interfaces;
        self.interfaces = interfaces;
    }

    /// Policies or profiles of some may have changed.
    pub(crate) fn mark(&mut self) {
        self.dirty = true;
    }

    /// Who governs what, if that or their policies may have changed since the last call.
    pub(crate) fn take(&mut self) -> Option<BTreeMap<HostInterface, Arc<str>>> {
        std::mem::take(&mut self.dirty).then(|| self.governed())
    }

    fn governed(&self) -> BTreeMap<HostInterface, Arc<str>> {
        let mut out = BTreeMap::new();
        // In the order of their names: the first stays.
        for (name, LocalHost { interface, profiles: _ }) in &self.endpoints {
            let governed: Vec<HostInterface> = match interface {
                Wanted::All => vec![HostInterface::All],
                Wanted::Named(interface) => vec![HostInterface::Named(interface.clone())],
                Wanted::WithOneOf(wanted) => {
                    let has = |(_, have): &(_, &BTreeSet<IpAddr>)| wanted.iter().any(|addr| have.contains(addr));
                    let found = self.interfaces.iter().filter(has);
                    found.map(|(interface, _)| HostInterface::Named(interface.clone())).collect()
                }
            };
            for interface in governed {
                out.entry(interface).or_insert_with(|| name.clone());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(endpoints: &[(&str, Wanted)]) -> Vec<String> {
        let mut hosts = Hosts::default();
        for (name, interface) in endpoints {
            let endpoint = LocalHost { interface: interface.clone(), profiles: Arc::new([]) };
            hosts.set(&Arc::from(*name), Some(endpoint));
        }
        let addr = |last: u8| IpAddr::from([192, 0, 2, last]);
        hosts.set_interfaces(BTreeMap::from([
            (Arc::from("eth0"), [addr(1), addr(2)].into()),
            (Arc::from("eth1"), [addr(3)].into()),
        ]));
        let governed = hosts.take().expect("it changed");
        assert_eq!(hosts.take(), None, "nothing new");
        governed.iter().map(|(interface, name)| format!("{interface} {name}")).collect()
    }

    #[test]
    fn of_several_the_first_name_governs() {
        let by_addr = |lasts: &[u8]| Wanted::WithOneOf(lasts.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect());
        let named = |name: &str| Wanted::Named(Arc::from(name));
        assert_eq!(hosts(&[("b", named("eth0")), ("a", by_addr(&[2]))]), ["eth0 a"]);
        assert_eq!(hosts(&[("a", named("eth0")), ("b", by_addr(&[2, 3]))]), ["eth0 a", "eth1 b"]);
        assert_eq!(hosts(&[("a", Wanted::All), ("b", named("eth7"))]), ["eth7 b", "* a"]);
        assert_eq!(hosts(&[("a", by_addr(&[9]))]), Vec::<String>::new());
    }
}
