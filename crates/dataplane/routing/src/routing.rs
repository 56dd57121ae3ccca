//! The routes of a node: wants in, kernel routes out.
//!
//! Invariant: every prefix whose want, link or gateway may have changed is in `dirty` until the next
//! [`Routing::apply`]; events that contradict what is known lead to reading the whole table, not to guesses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tortie_dataplane::{Applier, Backoff, Cause, Report};
use tortie_desired::{Batch, Ipip, Tables, TunnelDevice};
use tortie_netlink::{Event, Link, Route, RouteKernel, TABLE_MAIN};

use crate::connected::Connected;
use crate::dirty::Dirty;
use crate::links::Links;
use crate::render::{View, render};
use crate::target::cause;
use crate::wants::Wants;
use crate::{Learned, Options, RouteKey, RouteTable, RoutingReport, Waiting};

/// Events make the table be read at most this often.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// The one writer of a node's kernel routes. Writes nothing before the first [`Routing::apply`]: call that once what
/// is wanted is complete.
pub struct Routing<K: RouteKernel> {
    options: Options,
    applier: Applier<RouteTable<K>>,
    wants: Wants,
    view: View,
    dirty: Dirty,
    waiting: BTreeMap<IpNet, Waiting>,
    /// Prefixes whose gateway is, or may become, the address of a workload, by gateway.
    behind: BTreeMap<IpAddr, BTreeSet<IpNet>>,
    /// The gateways of learned routes that were looked for since the table was read.
    sought: BTreeSet<IpAddr>,
    /// Whether others' routes through routers changed since the table was read, where no gateway depended on it.
    routers_changed: bool,
    conflicts: BTreeSet<RouteKey>,
    hold: bool,
    stale: bool,
    read_failures: u32,
    read_at: Option<Instant>,
}

impl<K: RouteKernel> Routing<K> {
    /// Routes of a kernel, with nothing wanted yet.
    pub fn new(kernel: K, options: Options) -> Self {
        Routing {
            applier: Applier::new(RouteTable::new(kernel, &options)),
            options,
            wants: Wants::default(),
            view: View::default(),
            dirty: Dirty::default(),
            waiting: BTreeMap::new(),
            behind: BTreeMap::new(),
            sought: BTreeSet::new(),
            routers_changed: false,
            conflicts: BTreeSet::new(),
            hold: false,
            stale: true,
            read_failures: 0,
            read_at: None,
        }
    }

    /// Replaces all calculated routes, and takes interface prefixes and whether BGP runs from the tables.
    pub fn set_desired(&mut self, tables: &Tables) {
        self.set_prefixes(&tables.settings.interface_prefixes);
        self.set_bgp(tables.bgp_speaker.is_some());
        self.set_ipip(tables.ipip.as_ref());
        self.set_pools(tables.pools.keys().copied().collect());
        let gone: Vec<IpNet> = self.wants.desired_nets().filter(|n| !tables.routes.contains_key(n)).copied().collect();
        for net in gone {
            self.set_route(net, None);
        }
        for (net, route) in &tables.routes {
            self.set_route(*net, Some(route));
        }
    }

    /// Takes a change to the calculated routes.
    pub fn change_desired(&mut self, batch: &Batch) {
        if let Some(settings) = &batch.settings {
            self.set_prefixes(&settings.interface_prefixes);
        }
        if let Some(speaker) = &batch.bgp_speaker {
            self.set_bgp(speaker.is_some());
        }
        if let Some(ipip) = &batch.ipip {
            self.set_ipip(ipip.as_ref());
        }
        if !batch.pools.is_empty() {
            let mut pools = self.applier.target_mut().ownership().pools().clone();
            for (net, pool) in &batch.pools {
                if pool.is_some() {
                    pools.insert(*net)
                } else {
                    pools.remove(net)
                };
            }
            self.set_pools(pools);
        }
        for (net, route) in &batch.routes {
            self.set_route(*net, route.as_ref());
        }
    }

    /// Sets or withdraws the route that BGP learned for a prefix.
    pub fn set_learned(&mut self, net: IpNet, learned: Option<Learned>) {
        self.learn(vec![(net, learned)]);
    }

    /// The same of several prefixes; the last of several changes to one counts.
    pub fn learn(&mut self, changes: Vec<(IpNet, Option<Learned>)>) {
        self.dirty.extend(self.wants.learn(changes));
    }

    /// While on, routes that an earlier life of this node learned by BGP stay in the kernel although nobody announced
    /// them in this life; a prefix that BGP sets or withdraws is out of this. Call it before the first
    /// [`Routing::apply`] after a start, and [`Routing::sweep_learned`] when the peers have said all they know.
    pub fn hold_learned(&mut self, hold: bool) {
        self.hold = hold;
        if !hold {
            self.applier.tracker_mut().release();
        }
    }

    /// Ends [`Routing::hold_learned`]: what nobody announced goes with the next [`Routing::apply`].
    pub fn sweep_learned(&mut self) {
        self.hold_learned(false);
    }

    /// Reads the kernel anew with the next [`Routing::apply`]. For use now and then, in case an event was missed.
    pub fn resync(&mut self) {
        (self.stale, self.read_at) = (true, None);
    }

    /// Whether the kernel is known to hold the wanted route of a prefix.
    pub fn programmed(&self, net: &IpNet) -> bool {
        let wanted = || self.applier.tracker().all_wanted().range(RouteKey::all_of(net.trunc()));
        !self.dirty.contains(net) && wanted().next().is_some() && wanted().all(|(key, _)| self.applier.settled(key))
    }

    /// Reads the kernel if that is due, then writes what differs.
    pub fn apply(&mut self, now: Instant) -> RoutingReport {
        let blind = self.read(now);
        self.render_dirty();
        let mut routes = if self.applier.tracker().observed() { self.applier.flush(now) } else { Report::default() };
        let conflict = |(key, cause): (&RouteKey, &Cause)| matches!(cause, Cause::Conflict(_)).then_some(*key);
        let conflicts: BTreeSet<RouteKey> = routes.failures.iter().filter_map(conflict).collect();
        if !conflicts.is_subset(&self.conflicts) {
            // A new conflict may be with our own route after all, if what is known of it is out of date.
            self.stale = true;
        }
        self.conflicts = conflicts;
        routes.blind = blind;
        let held = self.applier.tracker().kept().len();
        RoutingReport { routes, waiting: self.waiting.clone(), held }
    }

    /// When the next [`Routing::apply`] has something to do by itself: `now` when it has already.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        if !self.dirty.is_empty() {
            return Some(now);
        }
        let read = self.stale.then(|| self.read_at.map_or(now, |at| at.max(now)));
        let write = if self.applier.tracker().observed() { self.applier.wake_at(now) } else { None };
        read.into_iter().chain(write).min()
    }

    /// Takes what the kernel told of a change.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::LinkSet(link) => self.link_set(link),
            Event::LinkGone(link) => self.link_gone(link.index),
            Event::RouteSet(route) => self.route_set(route),
            Event::RouteGone(route) => self.route_gone(route),
            Event::Resync => self.stale = true,
            Event::AddressSet(_) | Event::AddressGone(_) | Event::NeighbourSet(_) | Event::NeighbourGone(_) => {}
        }
    }

    fn set_route(&mut self, net: IpNet, route: Option<&tortie_desired::Route>) {
        let net = net.trunc();
        if self.wants.set_desired(net, route) {
            self.dirty.insert(net);
            self.dirty.extend(self.behind.get(&net.addr()).into_iter().flatten());
        }
    }

    fn set_prefixes(&mut self, prefixes: &[Arc<str>]) {
        if self.applier.target_mut().ownership_mut().set_prefixes(prefixes) {
            self.resync();
        }
    }

    fn set_bgp(&mut self, bgp: bool) {
        if self.view.bgp != bgp {
            self.view.bgp = bgp;
            self.dirty.extend(self.wants.blackholes());
        }
    }

    fn set_ipip(&mut self, ipip: Option<&Ipip>) {
        let learned = ipip.map(|ipip| ipip.learned.clone()).unwrap_or_default();
        if self.view.ipip != learned {
            self.view.ipip = learned;
            self.dirty.extend(self.wants.learned_nets());
        }
    }

    fn set_pools(&mut self, pools: BTreeSet<IpNet>) {
        if self.view.pools != pools {
            self.view.pools.clone_from(&pools);
            self.dirty.extend(self.wants.learned_nets());
        }
        if self.applier.target_mut().ownership_mut().set_pools(pools) {
            self.resync();
        }
    }

    /// Reads links and routes if that is due, and makes everything dirty that may depend on what changed.
    fn read(&mut self, now: Instant) -> Option<Cause> {
        if !self.stale || self.read_at.is_some_and(|at| at > now) {
            return None;
        }
        let target = self.applier.target_mut();
        let (links, routes) = match target.read() {
            Ok(read) => read,
            Err(error) => {
                self.read_failures = self.read_failures.saturating_add(1);
                self.read_at = Some(now + Backoff::default().delay(self.read_failures));
                return Some(cause(error));
            }
        };
        let links = Links::new(&links);
        let connected = Connected::new(&routes, &links, target.ownership());
        let ours = target.ours(routes, &links);
        let earlier: Vec<RouteKey> = if self.hold {
            ours.iter().filter(|(_, route)| target.ownership().is_learned_route(route)).map(|(key, _)| *key).collect()
        } else {
            Vec::new()
        };
        let first = !self.applier.tracker().observed();
        self.applier.saw_all(ours);
        if links != self.view.links || connected != self.view.connected || first {
            self.dirty.extend(self.wants.nets());
            self.sought.clear();
        }
        self.routers_changed = false;
        (self.view.links, self.view.connected) = (links, connected);
        // Only what was there at the start is from an earlier life.
        if first {
            earlier.into_iter().for_each(|key| self.applier.tracker_mut().keep(key));
        }
        (self.stale, self.read_failures, self.read_at) = (false, 0, Some(now + READ_INTERVAL));
        None
    }

    fn render_dirty(&mut self) {
        let dirty = self.dirty.take();
        let Routing { options, applier, wants, view, waiting, behind, sought, routers_changed, stale, .. } = self;
        let workload = |addr: IpAddr| wants.workload(addr).and_then(|interface| view.links.up_index(interface));
        let mut walk = wants.walk(dirty.len());
        let mut routes = Vec::with_capacity(dirty.len());
        for net in dirty {
            let (wanted, gateways) = walk.get(&net);
            let (route, waits) = match wanted {
                Some(wanted) => render(net, wanted, view, options, workload),
                None => (None, None),
            };
            for gateway in gateways {
                let new = !sought.contains(gateway) && sought.insert(*gateway);
                *stale |= new && *routers_changed;
            }
            let off_link = |gateway: &IpAddr| matches!(&waits, Some(Waiting::OffLink(off)) if off.contains(gateway));
            let depends = |gateway: &&IpAddr| wants.workload(**gateway).is_some() || off_link(gateway);
            note_gateways(behind, net, gateways.iter().filter(depends).copied().collect());
            let key = route.as_ref().map(RouteKey::of_route);
            want_no_other(applier, net, key);
            routes.extend(key.zip(route.map(Arc::new)));
            match waits {
                Some(waits) => waiting.insert(net, waits),
                None => waiting.remove(&net),
            };
        }
        applier.want_more(routes.into_iter().collect());
    }

    /// The prefixes whose routes go through an interface by name, or through the workload that has it.
    fn of_interface(&self, name: &str) -> Vec<IpNet> {
        let own: Vec<IpNet> = self.wants.of_interface(name).collect();
        let behind = own.iter().filter_map(|net| self.behind.get(&net.addr())).flatten().copied();
        own.iter().copied().chain(behind).collect()
    }

    fn link_set(&mut self, link: &Link) {
        let old = self.view.links.set(link);
        let same = old.as_ref().is_some_and(|(name, up)| *name == link.name && *up == link.up);
        if same {
            return;
        }
        if let Some((name, _)) = &old
            && (*name != link.name || !link.up)
        {
            self.interface_lost(link.index, name);
        }
        self.dirty.extend(self.of_interface(&link.name));
        if link.name == TunnelDevice::Ipip.name() && !self.view.ipip.is_empty() {
            self.dirty.extend(self.wants.learned_nets());
        }
        if old.is_some() && !self.applier.target_mut().ownership().is_workload(&link.name) {
            self.stale = true;
        }
    }

    fn link_gone(&mut self, index: u32) {
        if let Some((name, _)) = self.view.links.remove(index) {
            self.interface_lost(index, &name);
            if !self.applier.target_mut().ownership().is_workload(&name) {
                self.stale = true;
            }
        }
    }

    /// The kernel took the routes through an interface away without saying so.
    fn interface_lost(&mut self, index: u32, name: &str) {
        for net in self.of_interface(name) {
            let through = |route: &Route| route.hops.iter().any(|hop| hop.interface == index);
            let seen = self.applier.tracker().all_seen().range(RouteKey::all_of(net));
            let lost: Vec<RouteKey> = seen.filter(|(_, route)| through(route)).map(|(key, _)| *key).collect();
            lost.into_iter().for_each(|key| self.applier.saw(key, None));
            self.dirty.insert(net);
        }
    }

    fn route_set(&mut self, route: &Route) {
        if route.table != TABLE_MAIN {
            return;
        }
        let key = RouteKey::of_route(route);
        let ownership = self.applier.target().ownership();
        let ours = ownership.is_ours(route, &self.view.links);
        let seen = self.applier.tracker().seen(&key).map(Arc::as_ref);
        let news = if ours { seen != Some(route) } else { seen.is_some() };
        if news || Connected::concerns(route, &self.view.links, ownership) {
            self.stale = true;
        }
        self.routers_told(route);
    }

    fn route_gone(&mut self, route: &Route) {
        if route.table != TABLE_MAIN {
            return;
        }
        let key = RouteKey::of_route(route);
        let ownership = self.applier.target().ownership();
        let seen = self.applier.tracker().seen(&key).map(Arc::as_ref);
        let ours = ownership.is_ours(route, &self.view.links);
        if seen == Some(route) || Connected::concerns(route, &self.view.links, ownership) {
            self.stale = true;
        }
        if !ours {
            self.applier.tracker_mut().retry(&key);
        }
        self.routers_told(route);
    }

    /// Takes that others' route through routers came, changed or went. A host may have many of them that change all
    /// the time, so the table is read only if a gateway depends on it.
    fn routers_told(&mut self, route: &Route) {
        if Connected::concerns_routers(route, &self.view.links, self.applier.target().ownership()) {
            let leads = self.sought.iter().any(|gateway| route.net.contains(gateway));
            self.stale |= leads;
            self.routers_changed |= !leads;
        }
    }
}

/// A prefix has one route at most, whatever metric it had before.
fn want_no_other<K: RouteKernel>(applier: &mut Applier<RouteTable<K>>, net: IpNet, key: Option<RouteKey>) {
    let tracker = applier.tracker();
    let others = tracker.all_wanted().range(RouteKey::all_of(net)).map(|(other, _)| *other);
    let earlier = tracker.kept().range(RouteKey::all_of(net)).copied();
    let others: Vec<RouteKey> = others.chain(earlier).filter(|other| Some(*other) != key).collect();
    others.into_iter().for_each(|other| applier.want(other, None));
}

/// Keeps by which gateways a prefix depends on workloads.
fn note_gateways(behind: &mut BTreeMap<IpAddr, BTreeSet<IpNet>>, net: IpNet, now: Vec<IpAddr>) {
    if now.is_empty() && behind.is_empty() {
        return;
    }
    behind.retain(|gateway, nets| {
        if !now.contains(gateway) {
            nets.remove(&net);
        }
        !nets.is_empty()
    });
    for gateway in now {
        behind.entry(gateway).or_default().insert(net);
    }
}
