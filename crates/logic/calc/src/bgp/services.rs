//! Which single addresses of services does this node announce?
//!
//! As upstream: a service that takes traffic from outside for local endpoints alone is announced, address by address, by
//! the nodes that have a ready one. One for all endpoints is covered by ranges that every node announces whole; its
//! addresses are announced one by one where a range is a single address, or where ranges are not announced
//! (`serviceLoadBalancerAggregation: Disabled`). Nothing is announced that no configured range holds.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tortie_api::{KubernetesService, KubernetesServiceSpec};
use tortie_net::{Family, IpNet};

use super::{Bgp, BgpSettings};

/// Nodes with this label announce no services.
const NO_SERVICES: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Whose endpoints traffic from outside may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Not said: the service has no addresses of outside.
    Unsaid,
    Cluster,
    Local,
}

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    balanced: bool,
    policy: From,
    clusters: Box<[IpAddr]>,
    externals: Box<[IpAddr]>,
    balancers: Box<[IpAddr]>,
    asked: Option<IpAddr>,
}

impl ServiceFacts {
    /// None for a service without addresses of its own.
    pub(crate) fn of(service: &KubernetesService) -> Option<ServiceFacts> {
        let KubernetesServiceSpec {
            service_type,
            cluster_ips,
            external_ips,
            load_balancer_ip,
            load_balancer_class: _,
            load_balancer_source_ranges: _,
            load_balancer_ingress,
            ports: _,
            external_traffic_policy,
            internal_traffic_policy: _,
            session_affinity: _,
            health_check_node_port: _,
        } = &service.spec;
        let read = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Box<[IpAddr]>>();
        let clusters = read(cluster_ips);
        let known = matches!(service_type.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer");
        (known && !clusters.is_empty()).then(|| ServiceFacts {
            balanced: service_type == "LoadBalancer",
            policy: match external_traffic_policy.as_str() {
                "Local" => From::Local,
                "Cluster" => From::Cluster,
                _ => From::Unsaid,
            },
            clusters,
            externals: read(external_ips),
            balancers: read(load_balancer_ingress),
            asked: load_balancer_ip.parse().ok(),
        })
    }

    /// Its addresses that settings allow to announce.
    fn addresses(&self, settings: &BgpSettings) -> impl Iterator<Item = IpNet> {
        let within = |nets: &[IpNet], addr: &&IpAddr| nets.iter().any(|net| net.contains(*addr));
        let clusters = self.clusters.iter().filter(|_| settings.announces_clusters());
        let externals = self.externals.iter().filter(move |addr| within(&settings.externals, addr));
        let balancers = self.balancers.iter().filter(move |addr| within(&settings.balancers, addr));
        clusters.chain(externals).chain(balancers).map(|addr| IpNet::from(*addr))
    }

    /// Whether a node announces it.
    fn announced(&self, settings: &BgpSettings, behind: &Behind) -> bool {
        if !behind.known {
            return false;
        }
        let single = |nets: &[IpNet], addr: &IpAddr| nets.contains(&IpNet::from(*addr));
        let alone = self.balanced
            && self.balancers.iter().chain(&self.asked).any(|addr| single(&settings.balancers, addr))
            || self.externals.iter().any(|addr| single(&settings.externals, addr));
        if self.policy == From::Cluster && alone {
            return true;
        }
        let ready = match self.policy {
            From::Local => behind.here,
            From::Cluster | From::Unsaid if settings.aggregated => return false,
            From::Cluster | From::Unsaid => behind.ready,
        };
        self.clusters.iter().any(|addr| ready[usize::from(Family::of(*addr) == Family::V6)])
    }
}

/// What slices say of a service's endpoints; families IPv4 first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// There is a slice.
    pub(crate) known: bool,
    /// One that is ready.
    pub(crate) ready: [bool; 2],
    /// One that is ready and on this node.
    pub(crate) here: [bool; 2],
}

impl Behind {
    /// What either says.
    pub(crate) fn or(self, other: Behind) -> Behind {
        let either = |one: [bool; 2], other: [bool; 2]| [one[0] || other[0], one[1] || other[1]];
        Behind {
            known: self.known || other.known,
            ready: either(self.ready, other.ready),
            here: either(self.here, other.here),
        }
    }
}

impl Bgp {
    /// A service came, changed or went. `name` as in slices.
    pub(crate) fn set_service(&mut self, name: &str, service: Option<ServiceFacts>) {
        let changed = super::put(&mut self.services, name, service);
        self.dirty |= changed && self.announces_services();
    }

    /// Which endpoints of a service are ready changed.
    pub(crate) fn mark_services(&mut self) {
        self.dirty |= self.announces_services();
    }

    fn announces_services(&self) -> bool {
        let settings = self.settings.get("");
        settings.is_some_and(|own| own.announces_clusters() || !own.externals.is_empty() || !own.balancers.is_empty())
    }

    /// Ranges and single addresses of services that a node announces. `behind`: by the service's name.
    pub(crate) fn services(&self, me: &str, behind: impl Fn(&str) -> Behind) -> BTreeSet<IpNet> {
        let excluded = self.nodes.get(me).is_none_or(|node| node.labels.contains_key(NO_SERVICES) || !node.speaks);
        let Some(settings) = self.settings.get("").filter(|_| !excluded) else { return BTreeSet::new() };
        let mut all: BTreeSet<IpNet> = settings.services.iter().copied().collect();
        if self.announces_services() {
            for (name, service) in &self.services {
                if service.announced(settings, &behind(name)) {
                    all.extend(service.addresses(settings));
                }
            }
        }
        all
    }
}
