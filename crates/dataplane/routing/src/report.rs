//! What a pass over the routes did, and which routes are not there yet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_dataplane::Report;

use crate::RouteKey;

/// What a route lacks. It comes by itself once that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The workload's or tunnel's interface is not there, or not up. Normal while it comes or goes.
    Interface(Arc<str>),
    /// These gateways are on no link of this node, and no route of others leads to them; if others can be reached, the
    /// route uses those meanwhile.
    OffLink(Vec<IpAddr>),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Interface(name) => write!(f, "interface {name} is not up"),
            Waiting::OffLink(gateways) => {
                let text: Vec<_> = gateways.iter().map(ToString::to_string).collect();
                write!(f, "gateway {} is on no link of this node and behind no router that it knows", text.join(", "))
            }
        }
    }
}

/// What one pass did, and every route that is not as wanted after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingReport {
    /// What was written and what failed.
    pub routes: Report<RouteKey>,
    /// Prefixes whose route lacks something.
    pub waiting: BTreeMap<IpNet, Waiting>,
    /// Routes of an earlier life of the node that are kept until [`crate::Routing::sweep_learned`].
    pub held: usize,
}

impl fmt::Display for RoutingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RoutingReport { routes, waiting, held } = self;
        write!(f, "routes: {routes}; {held} held")?;
        waiting.iter().try_for_each(|(net, what)| write!(f, "; {net}: {what}"))
    }
}
