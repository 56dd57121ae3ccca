//! Which routes of the kernel are ours, known without memory.
//!
//! In the main table: every route of protocol 12 (BGP, blackholes beside it; unless another speaker runs) or 80 (upstream Felix's own), and routes
//! through workload interfaces; of the latter only host routes of our own protocol when others' routes are to stay.

use std::sync::Arc;

use tortie_net::Family;
use tortie_netlink::{Route, RouteKind, RouteProtocol, Scope, TABLE_MAIN};

use crate::Options;
use crate::links::Links;

/// The rule that tells our routes from others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    workload_protocol: RouteProtocol,
    remove_external: bool,
    own_bgp: bool,
    prefixes: Vec<Arc<str>>,
}

impl Ownership {
    /// The rule under some options.
    pub fn new(options: &Options) -> Ownership {
        let Options { workload_protocol, remove_external, own_bgp, interface_prefixes } = options;
        Ownership {
            workload_protocol: *workload_protocol,
            remove_external: *remove_external,
            own_bgp: *own_bgp,
            prefixes: interface_prefixes.clone(),
        }
    }

    /// Changes the prefixes of workload interface names; `true` if they differ from before.
    pub fn set_prefixes(&mut self, prefixes: &[Arc<str>]) -> bool {
        let differ = self.prefixes != prefixes;
        self.prefixes = prefixes.to_vec();
        differ
    }

    /// Whether an interface of that name belongs to a workload.
    pub fn is_workload(&self, interface: &str) -> bool {
        self.prefixes.iter().any(|prefix| interface.starts_with(&**prefix))
    }

    pub(crate) fn is_ours(&self, route: &Route, links: &Links) -> bool {
        if route.table != TABLE_MAIN {
            return false;
        }
        if route.protocol == RouteProtocol::CALICO || (route.protocol == RouteProtocol::BIRD && self.own_bgp) {
            return true;
        }
        // The kernel's own routes come and go with addresses, and those of router advertisements with routers.
        let kernels = [RouteProtocol::KERNEL, RouteProtocol(9)].contains(&route.protocol);
        let through_workload = !route.hops.is_empty()
            && route.hops.iter().all(|hop| links.name(hop.interface).is_some_and(|name| self.is_workload(name)));
        through_workload && !kernels && (self.remove_external || self.is_workload_route(route))
    }

    /// Whether a route has the form of a workload route as we write them.
    pub(crate) fn is_workload_route(&self, route: &Route) -> bool {
        let family = Family::of_net(route.net);
        route.kind == RouteKind::Unicast
            && route.protocol == self.workload_protocol
            && route.net.prefix_len() == family.bits()
            && (family == Family::V6 || route.scope == Scope::Link)
            && route.hops.iter().all(|hop| hop.via.is_none())
    }

    /// Whether a route has the form of one learned by BGP.
    pub(crate) fn is_learned_route(&self, route: &Route) -> bool {
        route.kind == RouteKind::Unicast
            && route.protocol == RouteProtocol::BIRD
            && route.hops.iter().any(|hop| hop.via.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_another_speaker_are_left_alone() {
        let route = Route::blackhole("10.0.0.0/26".parse().expect("a literal"), RouteProtocol::BIRD);
        let ours = |own_bgp| Ownership::new(&Options { own_bgp, ..Options::default() });
        assert!(ours(true).is_ours(&route, &Links::new(&[])));
        assert!(!ours(false).is_ours(&route, &Links::new(&[])));
    }
}
