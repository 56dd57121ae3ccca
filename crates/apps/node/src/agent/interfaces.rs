//! The node's own interfaces: which addresses they have, for host endpoints that are found by address; the kernel's own
//! check of sources on interfaces of workloads that may use more than their own addresses; and the node's addresses on
//! interfaces of workloads that are BGP peers. Of these interfaces' addresses, ours are those of a whole address's length.
//!
//! Invariant: the kernel's check is off only while rules check the sources of every packet of that interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::Tables;
use tortie_net::IpNet;
use tortie_netlink::{AddressSpec, Event, Handle, Result, Scope, sysctl_write_if_different};
use tracing::warn;

/// See the module.
pub struct Interfaces {
    kernel: Handle,
    /// Whether links or addresses may have changed since they were read.
    stale: bool,
    /// Interfaces whose check was turned off.
    lax: BTreeSet<Arc<str>>,
    /// Addresses that stand on interfaces of workloads; `None`: to be read.
    peering: Option<BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

impl Interfaces {
    /// Nothing is read yet.
    pub fn new(kernel: Handle) -> Interfaces {
        Interfaces { kernel, stale: true, lax: BTreeSet::new(), peering: None }
    }

    /// Everything is to be read and written again.
    pub fn resync(&mut self) {
        self.stale = true;
        self.lax.clear();
        self.peering = None;
    }

    /// Takes an event of the kernel.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::LinkSet(link) | Event::LinkGone(link) => {
                self.stale = true;
                self.forget_peering();
                self.lax.retain(|name| **name != *link.name);
            }
            Event::AddressSet(_) | Event::AddressGone(_) => {
                self.stale = true;
                self.forget_peering();
            }
            Event::Resync => self.resync(),
            Event::RouteSet(_) | Event::RouteGone(_) | Event::NeighbourSet(_) | Event::NeighbourGone(_) => {}
        }
    }

    /// The addresses of each interface that is no workload's, if they may have changed since the last call.
    pub fn take(&mut self, workload_prefixes: &[Arc<str>]) -> Option<BTreeMap<Arc<str>, BTreeSet<IpAddr>>> {
        if !self.stale {
            return None;
        }
        let own =
            |name: &str| !workload_prefixes.iter().any(|prefix| !prefix.is_empty() && name.starts_with(&**prefix));
        match self.read() {
            Ok(all) => {
                self.stale = false;
                Some(all.into_iter().filter(|(name, _)| own(name)).collect())
            }
            Err(error) => {
                warn!(%error, "the node's interfaces can't be read; host endpoints found by address stay as they are");
                None
            }
        }
    }

    fn read(&mut self) -> Result<BTreeMap<Arc<str>, BTreeSet<IpAddr>>> {
        let links = self.kernel.links()?;
        let names: BTreeMap<u32, Arc<str>> =
            links.iter().map(|link| (link.index, Arc::from(link.name.as_str()))).collect();
        let mut out: BTreeMap<Arc<str>, BTreeSet<IpAddr>> =
            names.values().map(|name| (name.clone(), BTreeSet::new())).collect();
        for address in self.kernel.addresses()? {
            if let Some(name) = names.get(&address.index) {
                out.entry(name.clone()).or_default().insert(address.net.addr());
            }
        }
        Ok(out)
    }

    /// What stands is to be read again, if it matters.
    fn forget_peering(&mut self) {
        if self.peering.as_ref().is_some_and(|all| !all.is_empty()) {
            self.peering = None;
        }
    }

    /// Gives interfaces of workloads that are BGP peers the addresses that they connect to, and takes them from others.
    pub fn put_peering(&mut self, tables: &Tables) {
        let wanted = &tables.bgp_policy.peering;
        if self.peering.as_ref() == Some(wanted) {
            return;
        }
        match write_peering(&mut self.kernel, wanted, &tables.settings.interface_prefixes) {
            Ok(()) => self.peering = Some(wanted.clone()),
            Err(error) => warn!(%error, "addresses on interfaces of workloads that are BGP peers can't be set"),
        }
    }

    /// Turns the kernel's check on again where it is to be. To be called before the rules change.
    pub fn tighten(&mut self, tables: &Tables) {
        let wanted = lax(tables);
        for name in std::mem::take(&mut self.lax) {
            if wanted.contains(&name) {
                self.lax.insert(name);
            } else {
                check_sources(&name, true);
            }
        }
    }

    /// Turns the kernel's check off where rules check instead. To be called once the kernel holds the rules.
    pub fn loosen(&mut self, tables: &Tables) {
        for name in lax(tables) {
            if !self.lax.contains(&name) && check_sources(&name, false) {
                self.lax.insert(name);
            }
        }
    }
}

/// An interface that is not there yet gets its addresses when it comes.
fn write_peering(kernel: &mut Handle, wanted: &BTreeMap<Arc<str>, Vec<IpAddr>>, prefixes: &[Arc<str>]) -> Result<()> {
    let workload = |name: &str| prefixes.iter().any(|prefix| !prefix.is_empty() && name.starts_with(&**prefix));
    let links: BTreeMap<u32, String> =
        kernel.links()?.into_iter().filter(|link| workload(&link.name)).map(|link| (link.index, link.name)).collect();
    let right = |index: &u32| links.get(index).and_then(|name| wanted.get(name.as_str())).into_iter().flatten();
    let held = kernel.addresses()?.into_iter().filter(|held| links.contains_key(&held.index));
    let held: BTreeSet<(u32, IpNet)> = held
        .filter(|held| held.net.prefix_len() == held.net.max_prefix_len())
        .map(|held| (held.index, held.net))
        .collect();
    let all: BTreeSet<(u32, IpNet)> =
        links.keys().flat_map(|index| right(index).map(|addr| (*index, IpNet::from(*addr)))).collect();
    let gone = held.difference(&all).map(|(index, net)| kernel.delete_address(*index, *net)).collect::<Vec<_>>();
    let come = all
        .difference(&held)
        .map(|(index, net)| kernel.add_address(&AddressSpec { scope: Scope::Link, ..AddressSpec::new(*index, *net) }));
    // An interface may have gone meanwhile.
    let fault = |done: &Result<()>| done.as_ref().is_err_and(|error| !error.is_not_found());
    gone.into_iter().chain(come.collect::<Vec<_>>()).find(fault).unwrap_or(Ok(()))
}

fn lax(tables: &Tables) -> BTreeSet<Arc<str>> {
    let endpoints = tables.endpoints.values().filter(|endpoint| !endpoint.allowed_sources.is_empty());
    endpoints.map(|endpoint| endpoint.interface.clone()).collect()
}

/// Whether that is so now. An interface that is not there yet gets it when it comes.
fn check_sources(interface: &str, on: bool) -> bool {
    match sysctl_write_if_different(&["ipv4", "conf", interface, "rp_filter"], if on { "1" } else { "0" }) {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => {
            warn!(%error, interface, "the kernel's check of sources can't be set");
            false
        }
    }
}
