//! One change to the kernel's routes.

use std::fmt;

use crate::Route;

/// A change to the kernel's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Adds a route; [`crate::Error::Exists`] when destination, table and metric are taken.
    Add(Route),
    /// Adds a route, or replaces the one with its destination, table and metric, whoever made that.
    Replace(Route),
    /// Deletes a route; protocol, kind, metric and a single next hop must match.
    Delete(Route),
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteChange::Add(route) => write!(f, "add route {route}"),
            RouteChange::Replace(route) => write!(f, "replace route {route}"),
            RouteChange::Delete(route) => write!(f, "delete route {route}"),
        }
    }
}
