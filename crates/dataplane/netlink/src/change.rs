//! One change to the kernel's routes.

use std::fmt;

use crate::Route;

/// A change to the kernel's routes; `R`: a [`Route`] or a reference to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange<R = Route> {
    /// Adds a route; [`crate::Error::Exists`] when destination, table and metric are taken.
    Add(R),
    /// Adds a route, or replaces the one with its destination, table and metric, whoever made that.
    Replace(R),
    /// Deletes a route; protocol, kind, metric and a single next hop must match.
    Delete(R),
}

impl<R: fmt::Display> fmt::Display for RouteChange<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteChange::Add(route) => write!(f, "add route {route}"),
            RouteChange::Replace(route) => write!(f, "replace route {route}"),
            RouteChange::Delete(route) => write!(f, "delete route {route}"),
        }
    }
}
