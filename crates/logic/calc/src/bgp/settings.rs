//! What is kept of a BGPConfiguration.

use std::net::IpAddr;

use tortie_api::{
    BgpConfiguration, BgpConfigurationSpec, BgpPassword, BgpProgramClusterRoutes, BindMode,
    Community as NamedCommunity, IpNetText, PrefixAdvertisement, ServiceClusterIpBlock, ServiceExternalIpBlock,
    ServiceLoadBalancerIpBlock, Toggle,
};
use tortie_desired::{Community, SecretKey};
use tortie_net::{AsNumber, Family, IpNet};

use super::extras::Extras;
use super::peers::whole_secs;
use crate::config::ClusterRoutes;

/// A BGPConfiguration, texts read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BgpSettings {
    pub(super) mesh: Option<bool>,
    pub(super) asn: Option<AsNumber>,
    pub(super) port: Option<u16>,
    pub(super) restart_secs: Option<u16>,
    pub(super) mesh_password: Option<SecretKey>,
    pub(super) bind_to_node: bool,
    pub(super) ignored_interfaces: Vec<String>,
    /// Ranges of services that every node announces whole.
    pub(super) services: Vec<IpNet>,
    /// Ranges of external and load-balancer addresses, which reflectors pass on; of these alone single ones are
    /// announced.
    pub(super) externals: Vec<IpNet>,
    pub(super) balancers: Vec<IpNet>,
    /// Whether there are ranges of cluster addresses.
    clusters: bool,
    /// Whether ranges of load balancers are announced whole.
    pub(super) aggregated: bool,
    /// `None`: not given, so that of all nodes counts.
    pub(super) advertisements: Option<Vec<(IpNet, Vec<Community>)>>,
    /// Which learned routes the kernel gets.
    pub(super) cluster_routes: Option<ClusterRoutes>,
    pub(super) normal_priority: [Option<u32>; 2],
    /// Where workloads that are peers connect to.
    pub(super) peering: Vec<IpAddr>,
    /// For the mesh.
    pub(super) extras: Extras,
}

impl BgpSettings {
    /// Whether services' addresses inside the cluster are announced.
    pub(super) fn announces_clusters(&self) -> bool {
        self.clusters
    }

    pub(crate) fn of(resource: &BgpConfiguration, problems: &mut Vec<String>) -> BgpSettings {
        let BgpConfigurationSpec {
            log_severity_screen: _,
            node_to_node_mesh_enabled,
            as_number,
            service_load_balancer_ips,
            service_external_ips,
            service_cluster_ips,
            service_load_balancer_aggregation,
            communities,
            prefix_advertisements,
            listen_port,
            node_mesh_password,
            node_mesh_max_restart_time,
            bind_mode,
            ignored_interfaces,
            local_workload_peering_ipv4,
            local_workload_peering_ipv6,
            program_cluster_routes,
            ipv4_normal_route_priority,
            ipv6_normal_route_priority,
        } = &resource.spec;
        let mut peering = Vec::new();
        for (field, text, family) in [
            ("localWorkloadPeeringIPV4", local_workload_peering_ipv4, Family::V4),
            ("localWorkloadPeeringIPV6", local_workload_peering_ipv6, Family::V6),
        ] {
            match text.parse::<IpAddr>().ok().filter(|addr| Family::of(*addr) == family) {
                Some(addr) => peering.push(addr),
                None if text.is_empty() => {}
                None => problems.push(format!("spec.{field}: {text:?} is no {family} address")),
            }
        }
        let mut nets = |field: &str, texts: Vec<&IpNetText>| -> Vec<IpNet> {
            let texts = texts.into_iter().filter(|text| !text.is_empty());
            let read = texts.filter_map(|text| {
                let net = text.net();
                if net.is_none() {
                    problems.push(format!("spec.{field}: {:?} is no prefix", text.as_str()));
                }
                net.map(|net| net.trunc())
            });
            read.collect()
        };
        let clusters = service_cluster_ips.iter().map(|ServiceClusterIpBlock { cidr }| cidr).collect();
        let externals = service_external_ips.iter().map(|ServiceExternalIpBlock { cidr }| cidr).collect();
        let balancers = service_load_balancer_ips.iter().map(|ServiceLoadBalancerIpBlock { cidr }| cidr).collect();
        let clusters = nets("serviceClusterIPs", clusters);
        let externals = nets("serviceExternalIPs", externals);
        let balancers = nets("serviceLoadBalancerIPs", balancers);
        // A single address is announced by the nodes whose workloads serve it.
        let range = |net: &&IpNet| net.prefix_len() < Family::of_net(**net).bits();
        let whole = *service_load_balancer_aggregation != Some(Toggle::Disabled);
        let aggregated = balancers.iter().filter(|_| whole);
        let shared = externals.iter().chain(aggregated).filter(range);
        BgpSettings {
            mesh: *node_to_node_mesh_enabled,
            asn: *as_number,
            port: Some(*listen_port).filter(|port| *port != 0),
            restart_secs: node_mesh_max_restart_time.map(whole_secs),
            mesh_password: node_mesh_password.as_ref().and_then(secret),
            bind_to_node: *bind_mode == Some(BindMode::NodeIp),
            ignored_interfaces: ignored_interfaces.clone(),
            services: clusters.iter().chain(shared).copied().collect(),
            externals,
            balancers,
            clusters: !clusters.is_empty(),
            aggregated: whole,
            advertisements: (!prefix_advertisements.is_empty())
                .then(|| advertisements(prefix_advertisements, communities, problems)),
            cluster_routes: program_cluster_routes.as_ref().map(|which| ClusterRoutes {
                ipip: matches!(which, BgpProgramClusterRoutes::Enabled | BgpProgramClusterRoutes::EnabledIpipOnly),
                plain: matches!(which, BgpProgramClusterRoutes::Enabled | BgpProgramClusterRoutes::EnabledNoEncapOnly),
            }),
            normal_priority: [*ipv4_normal_route_priority, *ipv6_normal_route_priority]
                .map(|priority| priority.and_then(|value| u32::try_from(value).ok())),
            peering,
            extras: Extras::of(&resource.metadata.annotations, problems),
        }
    }
}

/// Where a password is; `None` if it is not said.
pub(super) fn secret(password: &BgpPassword) -> Option<SecretKey> {
    let BgpPassword { secret_key_ref } = password;
    let key = secret_key_ref.as_ref()?;
    Some(SecretKey { name: key.name.as_str().into(), key: key.key.as_str().into() })
}

fn advertisements(
    list: &[PrefixAdvertisement],
    names: &[NamedCommunity],
    problems: &mut Vec<String>,
) -> Vec<(IpNet, Vec<Community>)> {
    let mut out = Vec::new();
    for (at, PrefixAdvertisement { cidr, communities }) in list.iter().enumerate() {
        let Some(net) = cidr.net() else {
            problems.push(format!("spec.prefixAdvertisements[{at}].cidr: {:?} is no prefix", cidr.as_str()));
            continue;
        };
        let mut read = Vec::new();
        for word in communities {
            let named = names.iter().find(|named| named.name == *word).map_or(word, |named| &named.value);
            match Community::parse(named) {
                Some(community) => read.push(community),
                None => problems.push(format!("spec.prefixAdvertisements[{at}].communities: {word:?} is no community")),
            }
        }
        out.push((net.trunc(), read));
    }
    out
}
