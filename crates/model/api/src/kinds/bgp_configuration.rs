//! BGPConfiguration: settings of BGP for all nodes (`default`) or one (`node.NAME`).

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::GoDuration;
use crate::IpNetText;
use crate::asn;
use crate::check::{Checked, Findings};
use crate::community;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::kinds::bgp_peer::BgpPassword;
use crate::path::Path;
use crate::resource::resource;
use tortie_net::Family;

resource! {
    /// Settings of BGP for all nodes (`default`) or one (`node.NAME`).
    BgpConfiguration { spec: BgpConfigurationSpec }
}

/// The specification of a BGPConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
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
    pub local_workload_peering_ipv4: String,
    /// The address that local IPv6 workloads peer with.
    #[serde(rename = "localWorkloadPeeringIPV6", skip_serializing_if = "empty")]
    pub local_workload_peering_ipv6: String,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceLoadBalancerIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A range of external addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceExternalIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A range of cluster addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceClusterIpBlock {
    /// The range.
    #[serde(skip_serializing_if = "empty")]
    pub cidr: IpNetText,
}

/// A name for a community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

const LOG_LEVELS: &[&str] = &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
/// Highest metric that a route may be given.
const MAX_PRIORITY: i64 = 2_147_483_646;

impl Checked for BgpConfiguration {
    fn apply_defaults(&mut self) {
        if self.spec.log_severity_screen.is_empty() {
            "Info".clone_into(&mut self.spec.log_severity_screen);
        }
        self.spec.service_load_balancer_aggregation.get_or_insert(Toggle::Enabled);
    }

    fn check(&self, out: &mut Findings) {
        let spec = &self.spec;
        let path = Path::root("spec");
        out.word(&path.field("logSeverityScreen"), &spec.log_severity_screen, LOG_LEVELS);
        ranges(spec, &path, out);
        communities(spec, &path, out);
        for (i, name) in spec.ignored_interfaces.iter().enumerate() {
            let at = path.field("ignoredInterfaces");
            out.given(&at.index(i), name, "the name of an interface");
            if name == "*" {
                out.wrong(&at.index(i), "\"*\"", "something narrower than all interfaces");
            }
            out.interface(&at.index(i), name, "*");
        }
        out.ip(&path.field("localWorkloadPeeringIPV4"), &spec.local_workload_peering_ipv4, Some(Family::V4));
        out.ip(&path.field("localWorkloadPeeringIPV6"), &spec.local_workload_peering_ipv6, Some(Family::V6));
        out.range(&path.field("ipv4NormalRoutePriority"), spec.ipv4_normal_route_priority, 1, MAX_PRIORITY);
        out.range(&path.field("ipv6NormalRoutePriority"), spec.ipv6_normal_route_priority, 1, MAX_PRIORITY);
        if spec.node_to_node_mesh_enabled == Some(false) {
            let without = "none, as the mesh is off";
            if spec.node_mesh_password.is_some() {
                out.wrong(&path.field("nodeMeshPassword"), "a password", without);
            }
            if let Some(time) = spec.node_mesh_max_restart_time {
                out.wrong(&path.field("nodeMeshMaxRestartTime"), time, without);
            }
        }
        if self.metadata.name != "default" {
            default_only(spec, &path, out);
        }
    }
}

/// An empty range says nothing, as upstream has it.
fn ranges(spec: &BgpConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let balancers = spec.service_load_balancer_ips.iter().map(|ServiceLoadBalancerIpBlock { cidr }| cidr);
    let externals = spec.service_external_ips.iter().map(|ServiceExternalIpBlock { cidr }| cidr);
    let clusters = spec.service_cluster_ips.iter().map(|ServiceClusterIpBlock { cidr }| cidr);
    let lists: [(&str, Vec<&IpNetText>); 3] = [
        ("serviceLoadBalancerIPs", balancers.collect()),
        ("serviceExternalIPs", externals.collect()),
        ("serviceClusterIPs", clusters.collect()),
    ];
    for (field, list) in lists {
        for (i, cidr) in list.into_iter().enumerate().filter(|(_, cidr)| !cidr.is_empty()) {
            out.masked(&path.field(field).index(i).field("cidr"), cidr, None);
        }
    }
}

fn communities(spec: &BgpConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let at = path.field("communities");
    out.at_most(&at, &spec.communities, 500);
    for (i, Community { name, value }) in spec.communities.iter().enumerate() {
        out.given(&at.index(i).field("name"), name, "a name, by which prefixAdvertisements use it");
        out.name(&at.index(i).field("name"), name);
        if !community::is_value(value) {
            out.wrong(&at.index(i).field("value"), format!("{value:?}"), community::EXPECTED);
        }
    }
    if !spec.communities.is_empty() && spec.prefix_advertisements.is_empty() {
        out.wrong(&at, "communities that nothing uses", "prefixAdvertisements that use them");
    }
    let at = path.field("prefixAdvertisements");
    out.at_most(&at, &spec.prefix_advertisements, 500);
    for (i, PrefixAdvertisement { cidr, communities }) in spec.prefix_advertisements.iter().enumerate() {
        out.masked(&at.index(i).field("cidr"), cidr, None);
        if communities.is_empty() {
            out.wrong(&at.index(i).field("communities"), "none", "at least one community");
        }
        out.at_most(&at.index(i).field("communities"), communities, 50);
        for (j, word) in communities.iter().enumerate() {
            if !community::is_value(word) && !spec.communities.iter().any(|c| c.name == *word) {
                let at = at.index(i);
                out.wrong(
                    &at.field("communities").index(j),
                    format!("{word:?}"),
                    "a community, or a name from communities",
                );
            }
        }
    }
}

/// Settings of the whole cluster stand in the configuration named `default` only.
fn default_only(spec: &BgpConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let cluster_wide = [
        ("nodeToNodeMeshEnabled", spec.node_to_node_mesh_enabled.is_some()),
        ("asNumber", spec.as_number.is_some()),
        ("serviceLoadBalancerIPs", !spec.service_load_balancer_ips.is_empty()),
        ("serviceExternalIPs", !spec.service_external_ips.is_empty()),
        ("serviceClusterIPs", !spec.service_cluster_ips.is_empty()),
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
    ];
    for (field, _) in cluster_wide.iter().filter(|(_, set)| *set) {
        out.wrong(&path.field(field), "set", "this setting only in the BGPConfiguration named default");
    }
}
