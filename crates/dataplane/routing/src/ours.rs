//! Which routes of the kernel are ours, known without memory.
//!
//! In the main table: every route of protocol 12 (BGP, blackholes beside it; unless another speaker runs) or 80 (upstream Felix's own), and routes
//! through workload interfaces; of the latter only host routes of our own protocol when others' routes are to stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::Family;
use tortie_netlink::{Route, RouteKind, RouteProtocol, Scope, TABLE_MAIN};

use crate::links::Links;
use crate::{BgpRoutes, Options};

/// The rule that tells our routes from others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    workload_protocol: RouteProtocol,
    remove_external: bool,
    bgp_routes: BgpRoutes,
    prefixes: Vec<Arc<str>>,
    pools: BTreeSet<IpNet>,
}

impl Ownership {
    /// The rule under some options.
    pub fn new(options: &Options) -> Ownership {
        let Options { workload_protocol, remove_external, bgp_routes, interface_prefixes } = options;
        Ownership {
            workload_protocol: *workload_protocol,
            remove_external: *remove_external,
            bgp_routes: *bgp_routes,
            prefixes: interface_prefixes.clone(),
            pools: BTreeSet::new(),
        }
    }

    /// Changes the prefixes of workload interface names; `true` if they differ from before.
    pub fn set_prefixes(&mut self, prefixes: &[Arc<str>]) -> bool {
        let differ = self.prefixes != prefixes;
        self.prefixes = prefixes.to_vec();
        differ
    }

    /// Changes the pools; `true` if that changes whose any route is.
    pub fn set_pools(&mut self, pools: BTreeSet<IpNet>) -> bool {
        let differ = self.pools != pools && self.bgp_routes == BgpRoutes::LeftInPools;
        self.pools = pools;
        differ
    }

    pub(crate) fn pools(&self) -> &BTreeSet<IpNet> {
        &self.pools
    }

    fn is_bgp_route(&self, route: &Route) -> bool {
        route.protocol == RouteProtocol::BIRD
            && match self.bgp_routes {
                BgpRoutes::Ours => true,
                BgpRoutes::LeftInPools => self.pools.iter().any(|pool| pool.contains(&route.net)),
                BgpRoutes::Others => false,
            }
    }

    /// Whether an interface of that name belongs to a workload.
    pub fn is_workload(&self, interface: &str) -> bool {
        self.prefixes.iter().any(|prefix| interface.starts_with(&**prefix))
    }

    pub(crate) fn is_ours(&self, route: &Route, links: &Links) -> bool {
        if route.table != TABLE_MAIN {
            return false;
        }
        if route.protocol == RouteProtocol::CALICO || self.is_bgp_route(route) {
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
        let ours = |bgp_routes| Ownership::new(&Options { bgp_routes, ..Options::default() });
        let links = Links::new(&[]);
        assert!(ours(BgpRoutes::Ours).is_ours(&route, &links));
        assert!(!ours(BgpRoutes::Others).is_ours(&route, &links));
        let mut left = ours(BgpRoutes::LeftInPools);
        assert!(!left.is_ours(&route, &links), "no pool is known");
        assert!(left.set_pools(["10.0.0.0/16".parse().expect("a literal")].into()));
        assert!(left.is_ours(&route, &links));
        let outside = Route::blackhole("10.1.0.0/26".parse().expect("a literal"), RouteProtocol::BIRD);
        assert!(!left.is_ours(&outside, &links));
    }
}
