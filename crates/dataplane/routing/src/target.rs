//! The kernel's main routing table as a target: observe what is ours, commit edits.

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_dataplane::{Cause, Edit, Failures, Target};
use tortie_net::Family;
use tortie_netlink::{Error, Link, Route, RouteChange, RouteFilter, RouteKernel};

use crate::links::Links;
use crate::{Options, Ownership, RouteKey};

/// The kernel's main routing table.
#[derive(Debug)]
pub struct RouteTable<K> {
    kernel: K,
    ownership: Ownership,
}

impl<K: RouteKernel> RouteTable<K> {
    /// The main table of a kernel.
    pub fn new(kernel: K, options: &Options) -> Self {
        RouteTable { kernel, ownership: Ownership::new(options) }
    }

    pub(crate) fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    pub(crate) fn ownership_mut(&mut self) -> &mut Ownership {
        &mut self.ownership
    }

    /// The links, and all routes of the main table.
    pub(crate) fn read(&mut self) -> Result<(Vec<Link>, Vec<Route>), Error> {
        Ok((self.kernel.links()?, self.kernel.routes(&RouteFilter::MAIN)?))
    }

    /// Those of the routes that are ours.
    pub(crate) fn ours(&self, routes: Vec<Route>, links: &Links) -> BTreeMap<RouteKey, Arc<Route>> {
        let ours = routes.into_iter().filter(|route| self.ownership.is_ours(route, links));
        ours.map(|route| (RouteKey::of_route(&route), Arc::new(route))).collect()
    }

    /// The changes that make one edit.
    fn changes<'a>(
        &self,
        edit: &'a Edit<RouteKey, Arc<Route>>,
    ) -> (RouteChange<&'a Route>, Option<RouteChange<&'a Route>>) {
        match edit {
            Edit::Remove { key: _, old } => (RouteChange::Delete(old), None),
            // A workload's address has one right place: whatever else holds it would send its packets astray.
            Edit::Put { key: _, value, old: None } if self.ownership.is_workload_route(value) => {
                (RouteChange::Replace(value), None)
            }
            Edit::Put { key: _, value, old: None } => (RouteChange::Add(value), None),
            Edit::Put { key, value, old: Some(old) } => {
                // IPv6 replaces only routes of the same form, and would add beside others.
                if Family::of_net(key.net) == Family::V6 && form(old) != form(value) {
                    (RouteChange::Delete(old), Some(RouteChange::Add(value)))
                } else {
                    (RouteChange::Replace(value), None)
                }
            }
        }
    }
}

fn form(route: &Route) -> (tortie_netlink::RouteKind, bool) {
    (route.kind, route.hops.iter().any(|hop| hop.via.is_some()))
}

impl<K: RouteKernel> Target for RouteTable<K> {
    type Key = RouteKey;
    type Value = Arc<Route>;

    fn observe(&mut self) -> Result<BTreeMap<RouteKey, Arc<Route>>, Cause> {
        let (links, routes) = self.read().map_err(cause)?;
        Ok(self.ours(routes, &Links::new(&links)))
    }

    fn commit(&mut self, edits: &[Edit<RouteKey, Arc<Route>>]) -> Failures<RouteKey> {
        let mut failures = Failures::new();
        let mut changes = Vec::with_capacity(edits.len());
        let mut keys = Vec::with_capacity(edits.len());
        for edit in edits {
            let (first, second) = self.changes(edit);
            for change in std::iter::once(first).chain(second) {
                changes.push(change);
                keys.push(*edit.key());
            }
        }
        match self.kernel.change_routes(&changes) {
            Err(error) => {
                let cause = cause(error);
                keys.into_iter().for_each(|key| failures.add(key, cause.clone()));
            }
            Ok(results) => {
                for ((change, key), result) in changes.iter().zip(keys).zip(results) {
                    match (change, result) {
                        (_, Ok(())) | (RouteChange::Delete(_), Err(Error::NotFound { .. })) => {}
                        (_, Err(error)) => failures.add(key, cause(error)),
                    }
                }
            }
        }
        failures
    }
}

/// What can be done about an error of the kernel.
pub(crate) fn cause(error: Error) -> Cause {
    let text = error.to_string();
    match error {
        Error::Unsupported { .. } => Cause::Unsupported(text),
        Error::Exists { .. } => Cause::Conflict(text),
        Error::NotFound { .. } | Error::Unreachable { .. } => Cause::Missing(text),
        Error::Busy { .. }
        | Error::Permission { .. }
        | Error::Invalid { .. }
        | Error::Timeout { .. }
        | Error::Io { .. } => Cause::Failed(text),
    }
}
