//! BGPConfiguration: settings of BGP for all nodes (`default`) or one (`node.NAME`).

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::GoDuration;
use crate::IpNetText;
use crate::asn;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::kinds::bgp_peer::BgpPassword;
use crate::resource::resource;

resource! {
    /// Settings of BGP for all nodes (`default`) or one (`node.NAME`).
    BgpConfiguration { spec: BgpConfigurationSpec }
}

/// The specification of a BGPConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpConfigurationSpec {
    /// The lowest severity that is logged.
    #[serde(skip_serializing_if = "empty")]
    pub log_severity_screen: String,
    /// Whether every node peers with every other; none means yes.
    #[serde(skip_serializing_if = "empty")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The AS number of nodes that name none; none means 64512.
    #[serde(default, skip_serializing_if = "empty", deserialize_with = "asn::some")]
    pub as_number: Option<AsNumber>,
    /// Ranges of service load-balancer addresses to announce.
    #[serde(rename = "serviceLoadBalancerIPs", skip_serializing_if = "empty")]
    pub service_load_balancer_ips: Vec<ServiceLoadBalancerIpBlock>,
    /// Ranges of service external addresses to announce.
    #[serde(rename = "serviceExternalIPs", skip_serializing_if = "empty")]
    pub service_external_ips: Vec<ServiceExternalIpBlock>,
    /// Ranges of service cluster addresses to announce.
    #[serde(rename = "serviceClusterIPs", skip_serializing_if = "empty")]
    pub service_cluster_ips: Vec<ServiceClusterIpBlock>,
    /// Whether load-balancer ranges are announced whole; none means `Enabled`.
    #[serde(skip_serializing_if = "empty")]
    pub service_load_balancer_aggregation: Option<Toggle>,
    /// Names for communities.
    #[serde(skip_serializing_if = "empty")]
    pub communities: Vec<Community>,
    /// Communities to attach to prefixes.
    #[serde(skip_serializing_if = "empty")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// The port to listen on; 0 means 179.
    #[serde(skip_serializing_if = "empty")]
    pub listen_port: u16,
    /// The password of all sessions of the mesh.
    #[serde(skip_serializing_if = "empty")]
    pub node_mesh_password: Option<BgpPassword>,
    /// How long peers of the mesh keep routes while a node restarts.
    #[serde(skip_serializing_if = "empty")]
    pub node_mesh_max_restart_time: Option<GoDuration>,
    /// On which addresses to listen.
    #[serde(skip_serializing_if = "empty")]
    pub bind_mode: Option<BindMode>,
    /// Interfaces whose subnets are not used; `*` is a wildcard.
    #[serde(skip_serializing_if = "empty")]
    pub ignored_interfaces: Vec<String>,
    /// The address that local IPv4 workloads peer with.
    #[serde(rename = "localWorkloadPeeringIPV4", skip_serializing_if = "empty")]
    pub local_workload_peering_ip_v4: String,
    /// The address that local IPv6 workloads peer with.
    #[serde(rename = "localWorkloadPeeringIPV6", skip_serializing_if = "empty")]
    pub local_workload_peering_ip_v6: String,
    /// Which routes between nodes BGP programs; none means `EnabledNoEncapOnly`.
    #[serde(skip_serializing_if = "empty")]
    pub program_cluster_routes: Option<BgpProgramClusterRoutes>,
    /// Metric of ordinary IPv4 workload routes; none means 1024.
    #[serde(skip_serializing_if = "empty")]
    pub ipv4_normal_route_priority: Option<i64>,
    /// Metric of ordinary IPv6 workload routes; none means 1024.
    #[serde(skip_serializing_if = "empty")]
    pub ipv6_normal_route_priority: Option<i64>,
}

/// A range of load-balancer addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceLoadBalancerIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A range of external addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceExternalIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A range of cluster addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceClusterIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A name for a community.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Community {
    /// The name.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// `AA:NN`, or `AA:NN:MM` for a large community.
    #[serde(skip_serializing_if = "empty")]
    pub value: String,
}

/// Communities of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// The prefix.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
    /// Names or values.
    #[serde(skip_serializing_if = "empty")]
    pub communities: Vec<String>,
}

string_enum! {
    /// On which addresses BGP listens.
    BindMode {
        /// On all.
        #[default]
        None = "None",
        /// On the node's own address.
        NodeIp = "NodeIP",
    }
}

string_enum! {
    /// Which routes between nodes BGP programs.
    BgpProgramClusterRoutes {
        /// Those of pools without encapsulation.
        #[default]
        EnabledNoEncapOnly = "EnabledNoEncapOnly",
        /// All.
        Enabled = "Enabled",
        /// None.
        Disabled = "Disabled",
        /// Those of IP-in-IP pools.
        EnabledIpipOnly = "EnabledIPIPOnly",
    }
}

string_enum! {
    /// On or off.
    Toggle {
        /// On.
        #[default]
        Enabled = "Enabled",
        /// Off.
        Disabled = "Disabled",
    }
}
