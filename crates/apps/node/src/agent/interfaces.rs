//! The node's own interfaces: which addresses they have, for host endpoints that are found by address; and the
//! kernel's own check of sources on interfaces of workloads that may use more than their own addresses.
//!
//! Invariant: the kernel's check is off only while rules check the sources of every packet of that interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::Tables;
use tortie_netlink::{Event, Handle, Result, sysctl_write_if_different};
use tracing::warn;

/// See the module.
pub struct Interfaces {
    kernel: Handle,
    /// Whether links or addresses may have changed since they were read.
    stale: bool,
    /// Interfaces whose check was turned off.
    lax: BTreeSet<Arc<str>>,
}

impl Interfaces {
    /// Nothing is read yet.
    pub fn new(kernel: Handle) -> Interfaces {
        Interfaces { kernel, stale: true, lax: BTreeSet::new() }
    }

    /// Everything is to be read and written again.
    pub fn resync(&mut self) {
        self.stale = true;
        self.lax.clear();
    }

    /// Takes an event of the kernel.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::LinkSet(link) | Event::LinkGone(link) => {
                self.stale = true;
                self.lax.retain(|name| **name != *link.name);
            }
            Event::AddressSet(_) | Event::AddressGone(_) => self.stale = true,
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
