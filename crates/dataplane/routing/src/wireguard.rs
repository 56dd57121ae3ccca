//! WireGuard of a node: device, peers, a routing table of its own, and the rule that leads there.
//!
//! The rule sends every packet to the table that the device did not send itself, so encrypted packets take the node's
//! usual way. Invariants: the rule comes last and goes first; a prefix changes its way by one replacement.
//! Ours without memory: the device of the wanted name, others of the usual names or with our mark, all routes of the table,
//! and the rule with our mark.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tortie_dataplane::Backoff;
use tortie_desired::{Tables, WIREGUARD_MARK, Wireguard as Wanted, WireguardPeer as WantedPeer};
use tortie_net::{Family, PublicKey, host_net};
use tortie_netlink::{
    AddressSpec, Error, Event, Handle, Link, LinkKind, PrivateKey, Result, Route, RouteChange, RouteFilter, RouteKind,
    RouteProtocol, Rule, WireguardChange, WireguardDevices, WireguardPeer, WireguardPeerState,
    sysctl_write_if_different,
};

/// What a pass over WireGuard found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardReport {
    /// What is not as wanted, by family.
    pub faults: BTreeMap<Family, String>,
    /// The public key of each family's device; `None`: there is none, as it is not wanted or nothing here can make one. A
    /// family that is not here can't be told about now, and what was told of it before holds.
    pub keys: BTreeMap<Family, Option<PublicKey>>,
    /// Where the devices that stand are made, such as `kernel`.
    pub places: BTreeMap<Family, &'static str>,
}

/// The one writer of a node's WireGuard. Writes nothing before the first [`Wireguards::apply`].
pub struct Wireguards {
    kernel: Handle,
    /// In the order in which they are tried.
    devices: Vec<Box<dyn WireguardDevices>>,
    wanted: BTreeMap<Family, Wanted>,
    /// Links whose MTU counts, as last seen.
    below: BTreeMap<u32, u32>,
    report: WireguardReport,
    stale: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Wireguards {
    /// WireGuard of a network namespace, with nothing wanted yet. A device is made by the first of `devices` that can; one
    /// that is there stays.
    pub fn new(kernel: Handle, devices: Vec<Box<dyn WireguardDevices>>) -> Wireguards {
        Wireguards {
            kernel,
            devices,
            wanted: BTreeMap::new(),
            below: BTreeMap::new(),
            report: WireguardReport::default(),
            stale: true,
            failures: 0,
            retry_at: None,
        }
    }

    /// Replaces everything that is wanted.
    pub fn set_desired(&mut self, tables: &Tables) {
        if self.wanted != tables.wireguard {
            self.wanted.clone_from(&tables.wireguard);
            self.resync();
        }
    }

    /// Reads the kernel anew with the next [`Wireguards::apply`].
    pub fn resync(&mut self) {
        (self.stale, self.retry_at) = (true, None);
    }

    /// Takes what the kernel told of a change.
    pub fn on_event(&mut self, event: &Event) {
        let named = |name: &str| self.wanted.values().any(|wanted| &*wanted.name == name);
        let concerned = match event {
            // A device without a carrier is down, or has lost its process.
            Event::LinkSet(link) => {
                self.below.get(&link.index).is_some_and(|mtu| *mtu != link.mtu) || (named(&link.name) && !link.carrier)
            }
            Event::LinkGone(link) => named(&link.name) || self.below.contains_key(&link.index),
            Event::AddressSet(address) | Event::AddressGone(address) => {
                self.wanted.values().any(|wanted| wanted.underlay == address.net.addr())
            }
            Event::RouteGone(route) => self.wanted.values().any(|wanted| wanted.table == route.table),
            Event::Resync => true,
            Event::RouteSet(_) | Event::NeighbourSet(_) | Event::NeighbourGone(_) => false,
        };
        if concerned {
            self.resync();
        }
    }

    /// When the next [`Wireguards::apply`] has something to do by itself.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.stale.then(|| self.retry_at.unwrap_or(now))
    }

    /// Reads the kernel if that is due, and writes what differs.
    pub fn apply(&mut self, now: Instant) -> &WireguardReport {
        if self.wake_at(now).is_none_or(|at| at > now) {
            return &self.report;
        }
        let mut report = WireguardReport::default();
        self.below.clear();
        for family in Family::ALL {
            let done = match self.wanted.get(&family).cloned() {
                Some(wanted) => {
                    let done = self.put(family, &wanted, &mut report);
                    if matches!(done, Err(Error::Unsupported { .. })) && matches!(self.at(&wanted.name), Ok(None)) {
                        report.keys.insert(family, None);
                    }
                    done
                }
                None => {
                    report.keys.insert(family, None);
                    self.remove(family).map(|()| None)
                }
            };
            let lacks = done.unwrap_or_else(Some);
            report.faults.extend(lacks.map(|error| (family, error.to_string())));
        }
        self.failures = if report.faults.is_empty() { 0 } else { self.failures.saturating_add(1) };
        self.stale = self.failures > 0;
        self.retry_at = self.stale.then(|| now + Backoff::default().delay(self.failures).max(Duration::from_secs(1)));
        self.report = report;
        &self.report
    }

    /// What the last pass found.
    pub fn report(&self) -> &WireguardReport {
        &self.report
    }

    /// The peers of a family's device as the kernel has them now.
    pub fn peers(&mut self, family: Family) -> BTreeMap<PublicKey, WireguardPeerState> {
        let Some(wanted) = self.wanted.get(&family) else { return BTreeMap::new() };
        let name = wanted.name.clone();
        let state = self.at(&name).ok().flatten().and_then(|at| self.devices[at].device(&name).ok());
        state.map(|state| state.peers).unwrap_or_default()
    }

    /// What is wanted of a family.
    pub fn wanted(&self, family: Family) -> Option<&Wanted> {
        self.wanted.get(&family)
    }

    /// Says what the device does without. Reports its key as soon as it has one, so that nobody goes on in the clear.
    fn put(&mut self, family: Family, wanted: &Wanted, report: &mut WireguardReport) -> Result<Option<Error>> {
        self.remove_old()?;
        let (at, index, made) = self.put_link(family, wanted)?;
        let devices = &mut *self.devices[at];
        let key = put_device(devices, wanted)?;
        report.keys.insert(family, Some(key));
        report.places.insert(family, devices.place());
        put_peers(devices, wanted)?;
        let in_kernel = devices.kind() == LinkKind::Wireguard;
        if made {
            self.kernel.set_link_up(index, true)?;
        }
        self.put_routes(family, wanted.table, &routes(wanted, index))?;
        // What answers an encrypted packet's source is looked up with its mark.
        if family == Family::V4 {
            sysctl_write_if_different(&["ipv4", "conf", "all", "src_valid_mark"], "1")?;
        }
        self.put_rule(family, Some(wanted))?;
        let threads = if in_kernel { self.kernel.set_link_threaded(&wanted.name, wanted.threaded) } else { Ok(()) };
        Ok(threads.err().filter(|error| wanted.threaded || !error.is_not_found()))
    }

    /// Where the device of that name is made; `None`: there is none.
    fn at(&mut self, name: &str) -> Result<Option<usize>> {
        let link = match self.kernel.link(name) {
            Ok(link) => link,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let at = self.devices.iter().position(|devices| devices.kind() == link.kind);
        let other =
            || invalid(format!("set up {name}"), format!("a link of another kind has this name: {:?}", link.kind));
        at.ok_or_else(other).map(Some)
    }

    /// Makes a device where it can be made.
    fn make(&mut self, name: &str) -> Result<usize> {
        let mut refused: Option<Error> = None;
        for (at, devices) in self.devices.iter_mut().enumerate() {
            match devices.ensure(name) {
                Ok(()) => return Ok(at),
                Err(error @ Error::Unsupported { .. }) => {
                    let both = |first: Error| Error::Unsupported {
                        doing: first.to_string(),
                        detail: format!("{}: {error}", devices.place()),
                    };
                    refused = Some(match refused.take() {
                        Some(first) => both(first),
                        None => error,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| invalid(format!("make {name}"), "nothing makes WireGuard devices")))
    }

    /// The device with its MTU and address; where it is made, and whether it must be set up yet.
    fn put_link(&mut self, family: Family, wanted: &Wanted) -> Result<(usize, u32, bool)> {
        let Wanted { name, underlay, address, mtu, .. } = wanted;
        let addresses = self.kernel.addresses()?;
        let holder = addresses.iter().find(|held| held.net.addr() == *underlay).map(|held| held.index);
        let doing = || format!("set up {name}");
        let missing = || invalid(doing(), format!("no interface of this host has the address {underlay}"));
        let below = self.kernel.link(holder.ok_or_else(missing)?)?;
        self.below.insert(below.index, below.mtu);
        let room = below.mtu.saturating_sub(Wanted::overhead(family));
        let mtu = mtu.map_or(room, |mtu| mtu.min(room));
        let at = match self.at(name)? {
            Some(at) => {
                self.devices[at].ensure(name)?;
                at
            }
            None => self.make(name)?,
        };
        let link = self.kernel.link(&**name)?;
        if link.mtu != mtu {
            self.kernel.set_link_mtu(link.index, mtu)?;
        }
        let held = addresses.into_iter().filter(|held| held.index == link.index).map(|held| held.net.addr());
        let held: BTreeSet<IpAddr> = held.filter(|addr| !is_link_local(*addr)).collect();
        let right: BTreeSet<IpAddr> = address.iter().copied().collect();
        for addr in right.difference(&held) {
            self.kernel.add_address(&AddressSpec::new(link.index, host_net(*addr)))?;
        }
        for addr in held.difference(&right) {
            self.kernel.delete_address(link.index, host_net(*addr))?;
        }
        Ok((at, link.index, !link.up))
    }

    fn put_routes(&mut self, family: Family, table: u32, right: &BTreeMap<IpNet, Route>) -> Result<()> {
        let filter = RouteFilter { family: Some(family), table: Some(table), protocol: None };
        // What the kernel puts into the table by itself is not ours.
        let standing = self.kernel.routes(&filter)?.into_iter().filter(|r| r.protocol != RouteProtocol::KERNEL);
        let standing: BTreeMap<IpNet, Route> = standing.map(|route| (route.net, route)).collect();
        let mut changes = Vec::new();
        for (net, route) in right.iter().filter(|(net, route)| standing.get(net) != Some(route)) {
            // IPv6 would add a route of another form beside the old one.
            if let Some(old) = standing.get(net).filter(|_| family == Family::V6) {
                changes.push(RouteChange::Delete(old.clone()));
            }
            changes.push(RouteChange::Replace(route.clone()));
        }
        let gone = standing.iter().filter(|(net, _)| !right.contains_key(net));
        changes.extend(gone.map(|(_, route)| RouteChange::Delete(route.clone())));
        for (result, change) in self.kernel.change_routes(&changes)?.into_iter().zip(&changes) {
            match (result, change) {
                (Err(Error::NotFound { .. }), RouteChange::Delete(_)) | (Ok(()), _) => {}
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the rule the one with our mark.
    fn put_rule(&mut self, family: Family, wanted: Option<&Wanted>) -> Result<()> {
        let right = wanted.map(|wanted| Rule {
            family,
            priority: wanted.priority,
            table: wanted.table,
            mark: Some((WIREGUARD_MARK, WIREGUARD_MARK)),
            inverted: true,
            from: None,
            to: None,
            protocol: RouteProtocol::CALICO,
        });
        let ours = |rule: &Rule| rule.inverted && rule.mark == Some((WIREGUARD_MARK, WIREGUARD_MARK));
        let standing: Vec<Rule> = self.kernel.rules(family)?.into_iter().filter(ours).collect();
        let same = |rule: &Rule| right.as_ref().is_some_and(|r| (r.priority, r.table) == (rule.priority, rule.table));
        if let Some(right) = right.as_ref().filter(|_| !standing.iter().any(same)) {
            self.kernel.add_rule(right)?;
        }
        standing.iter().filter(|rule| !same(rule)).try_for_each(|rule| self.kernel.delete_rule(rule))
    }

    fn remove(&mut self, family: Family) -> Result<()> {
        let marked = |rule: &Rule| rule.inverted && rule.mark == Some((WIREGUARD_MARK, WIREGUARD_MARK));
        if !self.old()?.is_empty() || self.kernel.rules(family)?.iter().any(marked) {
            self.put_rule(family, None)?;
            self.put_routes(family, Wanted::default_place(family).1, &BTreeMap::new())?;
        }
        self.remove_old()
    }

    /// Devices of ours that nobody wants, such as those of a name of before.
    fn old(&mut self) -> Result<Vec<Link>> {
        let mut old = self.kernel.links()?;
        old.retain(|link| {
            let Some(devices) = self.devices.iter_mut().find(|devices| devices.kind() == link.kind) else {
                return false;
            };
            let usual = Family::ALL.iter().any(|family| Wanted::default_place(*family).0 == link.name);
            let mut ours = || usual || devices.device(&link.name).is_ok_and(|state| state.mark == WIREGUARD_MARK);
            !self.wanted.values().any(|wanted| *wanted.name == *link.name) && ours()
        });
        Ok(old)
    }

    /// Takes them away, and with them the ports that others may want. What went through one goes nowhere until another
    /// device is there, not in the clear.
    fn remove_old(&mut self) -> Result<()> {
        for link in self.old()? {
            for family in Family::ALL {
                let table = Wanted::default_place(family).1;
                let filter = RouteFilter { family: Some(family), table: Some(table), protocol: None };
                let through = self.kernel.routes(&filter)?.into_iter().filter(|route| {
                    route.protocol == RouteProtocol::CALICO && route.hops.iter().any(|hop| hop.interface == link.index)
                });
                let shut = through.map(|Route { net, protocol, .. }| {
                    RouteChange::Replace(Route { table, ..Route::blackhole(net, protocol) }.normal())
                });
                let shut: Vec<RouteChange> = shut.collect();
                self.kernel.change_routes(&shut)?.into_iter().collect::<Result<Vec<()>>>()?;
            }
            self.kernel.delete_link(link.index)?;
        }
        Ok(())
    }
}

/// Port, mark and key of the device; a key that it has stays.
fn put_device(devices: &mut dyn WireguardDevices, wanted: &Wanted) -> Result<PublicKey> {
    let state = devices.device(&wanted.name)?;
    let change = WireguardChange {
        private_key: if state.public_key.is_none() { Some(PrivateKey::generate()?) } else { None },
        port: (state.port != wanted.port).then_some(wanted.port),
        mark: (state.mark != WIREGUARD_MARK).then_some(WIREGUARD_MARK),
        peers: BTreeMap::new(),
    };
    devices.change(&wanted.name, &change)?;
    let key = devices.device(&wanted.name)?.public_key;
    key.ok_or_else(|| invalid(format!("give {} a key", wanted.name), "the kernel took it, and shows none"))
}

fn put_peers(devices: &mut dyn WireguardDevices, wanted: &Wanted) -> Result<()> {
    let standing = devices.device(&wanted.name)?.peers;
    let right = wanted.peers.values().map(|WantedPeer { key, endpoint, address: _, allowed }| {
        let endpoint = SocketAddr::new(*endpoint, wanted.port);
        (*key, WireguardPeer { endpoint, allowed: allowed.clone(), keepalive_secs: wanted.keepalive_secs })
    });
    let right: BTreeMap<PublicKey, WireguardPeer> = right.collect();
    let gone = standing.keys().filter(|key| !right.contains_key(key)).map(|key| (*key, None)).collect();
    let differs = |key: &PublicKey, peer: &WireguardPeer| {
        standing.get(key).is_none_or(|is| {
            is.endpoint != Some(peer.endpoint) || is.allowed != peer.allowed || is.keepalive_secs != peer.keepalive_secs
        })
    };
    let come = right.into_iter().filter(|(key, peer)| differs(key, peer)).map(|(key, peer)| (key, Some(peer)));
    // Who goes must go first: a prefix belongs to one peer alone, and setting it for one takes it from another.
    devices.change(&wanted.name, &WireguardChange { peers: gone, ..WireguardChange::default() })?;
    devices.change(&wanted.name, &WireguardChange { peers: come.collect(), ..WireguardChange::default() })
}

fn invalid(doing: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::Invalid { doing: doing.into(), detail: detail.into() }
}

/// The routes of the table: to peers through the device, and back to the other tables for what goes in the clear.
fn routes(wanted: &Wanted, index: u32) -> BTreeMap<IpNet, Route> {
    let encrypted = wanted.peers.values().flat_map(|peer| &peer.allowed).map(|net| {
        let route = Route { table: wanted.table, ..Route::link(*net, index, RouteProtocol::CALICO) };
        (*net, route.normal())
    });
    let plain = wanted.plain.iter().map(|net| {
        let blackhole = Route::blackhole(*net, RouteProtocol::CALICO);
        (*net, Route { table: wanted.table, kind: RouteKind::Throw, ..blackhole }.normal())
    });
    plain.chain(encrypted).collect()
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}
