//! The node's own interfaces: which addresses they have, for host endpoints that are found by address; the kernel's
//! settings of workloads' interfaces, whoever made them; and the node's addresses on interfaces of workloads that are
//! BGP peers. Of these interfaces' addresses, ours are those of a whole address's length.
//!
//! Invariant: the kernel's check of IPv4 sources is off only while rules check the sources of every packet of that
//! interface; where it can't be relied upon, rules are told to check those of established flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{Batch, Endpoint, Tables};
use tortie_net::{Family, IpNet};
use tortie_netlink::{AddressSpec, Event, Handle, Result, Scope, sysctl_read, sysctl_write_if_different};
use tortie_routing::{configure_lax_interface, configure_workload_interface};
use tracing::{info, warn};

/// See the module.
pub struct Interfaces {
    kernel: Handle,
    /// Whether links or addresses may have changed since they were read.
    stale: bool,
    /// Interfaces of workloads that were made as they should be, for which families, and whether they may be lax.
    made: BTreeMap<Arc<str>, (Vec<Family>, bool)>,
    /// Whether some may not be made yet.
    unmade: bool,
    /// Interfaces that can't be made so, and why.
    refused: BTreeMap<Arc<str>, String>,
    /// Whether the kernel is told to check no source strictly, on any interface; `None`: to be read.
    all_loose: Option<bool>,
    /// Interfaces whose check was turned off.
    lax: BTreeSet<Arc<str>>,
    /// Addresses that stand on interfaces of workloads; `None`: to be read.
    peering: Option<BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

impl Interfaces {
    /// Nothing is read yet.
    pub fn new(kernel: Handle) -> Interfaces {
        Interfaces {
            kernel,
            stale: true,
            made: BTreeMap::new(),
            unmade: true,
            refused: BTreeMap::new(),
            all_loose: None,
            lax: BTreeSet::new(),
            peering: None,
        }
    }

    /// Everything is to be read and written again.
    pub fn resync(&mut self) {
        self.stale = true;
        self.made.clear();
        self.unmade = true;
        self.all_loose = None;
        self.lax.clear();
        self.peering = None;
    }

    /// Takes an event of the kernel.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::LinkSet(link) => {
                self.link_changed(&link.name);
                self.unmade |= !self.made.contains_key(link.name.as_str());
            }
            Event::LinkGone(link) => {
                self.link_changed(&link.name);
                self.made.remove(link.name.as_str());
                self.refused.remove(link.name.as_str());
                self.unmade = true;
            }
            Event::AddressSet(_) | Event::AddressGone(_) => {
                self.stale = true;
                self.forget_peering();
            }
            Event::Resync => self.resync(),
            Event::RouteSet(_) | Event::RouteGone(_) | Event::NeighbourSet(_) | Event::NeighbourGone(_) => {}
        }
    }

    fn link_changed(&mut self, link: &str) {
        self.stale = true;
        self.forget_peering();
        self.lax.retain(|name| **name != *link);
    }

    /// The addresses of each interface that is no workload's, if they may have changed since the last call.
    pub fn take(&mut self, workload_prefixes: &[Arc<str>]) -> Option<BTreeMap<Arc<str>, BTreeSet<IpAddr>>> {
        if !self.stale {
            return None;
        }
        let own = |name: &str| !workload_prefixes.iter().any(|prefix| is_of(prefix, name));
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

    /// Whether the kernel's own check of workloads' IPv4 sources can't be relied upon.
    pub fn loose(&mut self) -> bool {
        let all = *self.all_loose.get_or_insert_with(|| {
            // The greater of this and the interface's own counts; 2 lets any source pass that is routed anywhere.
            let found = sysctl_read(&["ipv4", "conf", "all", "rp_filter"]);
            let loose = !found.as_ref().is_ok_and(|value| value == "0" || value == "1");
            if loose {
                info!(?found, "net.ipv4.conf.all.rp_filter is loose: rules check the sources of established flows too");
            }
            loose
        });
        all || !self.refused.is_empty()
    }

    /// Makes interfaces of workloads as the CNI plugin makes them, whoever did. One that is not there yet is made when it
    /// comes. To be called before the rules change.
    pub fn make(&mut self, tables: &Tables, batch: &Batch) {
        if !batch.endpoints.is_empty() && !self.refused.is_empty() {
            self.refused.retain(|name, _| tables.endpoints.values().any(|endpoint| endpoint.interface == *name));
        }
        let changed = batch.endpoints.keys().filter_map(|id| tables.endpoints.get(id));
        let wanted: Vec<&Arc<Endpoint>> =
            if std::mem::take(&mut self.unmade) { tables.endpoints.values().collect() } else { changed.collect() };
        for endpoint in wanted {
            let name = &endpoint.interface;
            let has = |family: &Family| endpoint.addresses.iter().any(|addr| Family::of(*addr) == *family);
            let families: Vec<Family> = Family::ALL.into_iter().filter(has).collect();
            let how = (families, !endpoint.allowed_sources.is_empty());
            if self.made.get(name) == Some(&how) {
                continue;
            }
            let made = match &how {
                _ if !tables.settings.interface_prefixes.iter().any(|prefix| is_of(prefix, name)) => {
                    Err("no prefix of the names of workloads' interfaces".to_owned())
                }
                (families, true) => found(configure_lax_interface(name, families)),
                (families, false) => found(configure_workload_interface(name, families)),
            };
            match made {
                Ok(true) => {
                    self.refused.remove(name);
                    self.made.insert(name.clone(), how);
                }
                Ok(false) => {}
                Err(why) => {
                    if self.refused.get(name) != Some(&why) {
                        let interface = &**name;
                        warn!(
                            interface,
                            why, "an interface is not made as a workload's should be; rules check sources"
                        );
                    }
                    self.refused.insert(name.clone(), why);
                }
            }
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
    let workload = |name: &str| prefixes.iter().any(|prefix| is_of(prefix, name));
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

fn is_of(prefix: &str, interface: &str) -> bool {
    !prefix.is_empty() && interface.starts_with(prefix)
}

/// Whether it is there.
fn found(made: Result<bool>) -> std::result::Result<bool, String> {
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.to_string()),
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
