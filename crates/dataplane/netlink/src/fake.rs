//! A kernel in memory: links and routes with the real one's rules on what exists, what is missing and what is on link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;

use crate::{Error, Link, LinkKind, Result, Route, RouteChange, RouteFilter, RouteKernel, RouteKind};

type Key = (u32, IpNet, u32);

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u32, Link>,
    routes: BTreeMap<Key, Route>,
    failing: BTreeSet<IpNet>,
    writes: usize,
}

/// A kernel in memory. Clones share their state, so that a test keeps one and gives one away.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel(Arc<Mutex<State>>);

impl FakeKernel {
    /// A kernel without links and routes.
    pub fn new() -> FakeKernel {
        FakeKernel::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// Adds a veth link that is up, or replaces the one with that index.
    pub fn put_link(&self, index: u32, name: &str) {
        let link = Link {
            index,
            name: name.to_owned(),
            kind: LinkKind::Veth,
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            running: true,
            loopback: false,
            below: None,
            controller: None,
        };
        self.state().links.insert(index, link);
    }

    /// Sets a link up or down. Down takes the routes through it away, as in the real kernel.
    pub fn set_link_up(&self, index: u32, up: bool) {
        let mut state = self.state();
        if let Some(link) = state.links.get_mut(&index) {
            link.up = up;
        }
        if !up {
            state.routes.retain(|_, route| route.hops.iter().all(|hop| hop.interface != index));
        }
    }

    /// Removes a link and the routes through it.
    pub fn remove_link(&self, index: u32) {
        self.set_link_up(index, false);
        self.state().links.remove(&index);
    }

    /// Puts a route there behind everybody's back.
    pub fn put_route(&self, route: Route) {
        let route = route.normal();
        self.state().routes.insert(key(&route), route);
    }

    /// Takes every route to a destination away behind everybody's back.
    pub fn remove_routes(&self, net: IpNet) {
        self.state().routes.retain(|_, route| route.net != net);
    }

    /// All routes, sorted.
    pub fn all_routes(&self) -> Vec<Route> {
        let mut routes: Vec<_> = self.state().routes.values().cloned().collect();
        routes.sort_unstable();
        routes
    }

    /// Makes every change to a destination fail, or work again.
    pub fn fail(&self, net: IpNet, failing: bool) {
        let mut state = self.state();
        if failing {
            state.failing.insert(net)
        } else {
            state.failing.remove(&net)
        };
    }

    /// How many changes were asked for, failed ones included.
    pub fn writes(&self) -> usize {
        self.state().writes
    }
}

impl RouteKernel for FakeKernel {
    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(self.state().links.values().cloned().collect())
    }

    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>> {
        Ok(self.all_routes().into_iter().filter(|route| filter.matches(route)).collect())
    }

    fn change_routes(&mut self, changes: &[RouteChange<&Route>]) -> Result<Vec<Result<()>>> {
        let mut state = self.state();
        Ok(changes.iter().map(|change| state.change(change)).collect())
    }
}

impl State {
    fn change(&mut self, change: &RouteChange<&Route>) -> Result<()> {
        self.writes += 1;
        let (RouteChange::Add(route) | RouteChange::Replace(route) | RouteChange::Delete(route)) = change;
        let route = Route::clone(route).normal();
        let fail = |errno| Err(Error::from_errno(errno, change.to_string(), "fake kernel"));
        if self.failing.contains(&route.net) {
            return fail(libc::ENOBUFS);
        }
        match change {
            RouteChange::Delete(_) => match self.routes.get(&key(&route)) {
                Some(old) if old.protocol == route.protocol && old.kind == route.kind => {
                    self.routes.remove(&key(&route));
                    Ok(())
                }
                _ => fail(libc::ESRCH),
            },
            RouteChange::Add(_) if self.routes.contains_key(&key(&route)) => fail(libc::EEXIST),
            RouteChange::Add(_) | RouteChange::Replace(_) => {
                for hop in &route.hops {
                    match self.links.get(&hop.interface) {
                        None => return fail(libc::ENODEV),
                        Some(link) if !link.up => return fail(libc::ENETDOWN),
                        Some(_) => {}
                    }
                    if hop.via.is_some_and(|via| !hop.onlink && !self.on_link(via, hop.interface)) {
                        return fail(libc::ENETUNREACH);
                    }
                }
                self.routes.insert(key(&route), route);
                Ok(())
            }
        }
    }

    fn on_link(&self, via: IpAddr, interface: u32) -> bool {
        self.routes.values().any(|route| {
            route.kind == RouteKind::Unicast
                && route.net.contains(&via)
                && route.hops.iter().any(|hop| hop.via.is_none() && hop.interface == interface)
        })
    }
}

fn key(route: &Route) -> Key {
    (route.table, route.net, route.metric)
}
