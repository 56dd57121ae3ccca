//! WorkloadEndpoint: an interface of a workload.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::RuleProtocol;
use crate::empty::empty;
use crate::kinds::dscp::Dscp;
use crate::resource::resource;

resource! {
    /// An interface of a workload, such as a pod's `eth0`.
    WorkloadEndpoint { spec: WorkloadEndpointSpec }
}

/// The specification of a WorkloadEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEndpointSpec {
    /// Who runs the workload, such as `k8s`.
    #[serde(skip_serializing_if = "empty")]
    pub orchestrator: String,
    /// The workload's name, where the orchestrator is not `k8s`.
    #[serde(skip_serializing_if = "empty")]
    pub workload: String,
    /// The node on which it runs.
    #[serde(skip_serializing_if = "empty")]
    pub node: String,
    /// The container's id.
    #[serde(rename = "containerID", skip_serializing_if = "empty")]
    pub container_id: String,
    /// The pod's name, where the orchestrator is `k8s`.
    #[serde(skip_serializing_if = "empty")]
    pub pod: String,
    /// The interface's name inside the workload.
    #[serde(skip_serializing_if = "empty")]
    pub endpoint: String,
    /// The service account as which the workload runs.
    #[serde(skip_serializing_if = "empty")]
    pub service_account_name: String,
    /// Its addresses, as /32 and /128.
    #[serde(skip_serializing_if = "empty")]
    pub ip_networks: Vec<IpNetText>,
    /// Addresses that stand for its own towards the outside.
    #[serde(rename = "ipNATs", skip_serializing_if = "empty")]
    pub ip_nats: Vec<IpNat>,
    /// Its IPv4 gateway.
    #[serde(skip_serializing_if = "empty")]
    pub ipv4_gateway: String,
    /// Its IPv6 gateway.
    #[serde(skip_serializing_if = "empty")]
    pub ipv6_gateway: String,
    /// Profiles whose rules and labels apply, in order.
    #[serde(skip_serializing_if = "empty")]
    pub profiles: Vec<String>,
    /// The interface's name on the host's side.
    #[serde(skip_serializing_if = "empty")]
    pub interface_name: String,
    /// Ethernet address of the workload's side.
    #[serde(skip_serializing_if = "empty")]
    pub mac: String,
    /// Named ports and host ports.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<WorkloadEndpointPort>,
    /// Sources other than its own addresses that it may send from.
    #[serde(skip_serializing_if = "empty")]
    pub allow_spoofed_source_prefixes: Vec<IpNetText>,
    /// Limits on its traffic.
    #[serde(skip_serializing_if = "empty")]
    pub qos_controls: Option<QosControls>,
}

/// A port of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEndpointPort {
    /// The name; empty for a host port without one.
    pub name: String,
    /// The port's protocol.
    pub protocol: RuleProtocol,
    /// The port number, from 1.
    pub port: u16,
    /// The port of the host that leads here; 0 for none.
    pub host_port: u16,
    /// The host address on which it does; empty for all.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

/// An address that stands for another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpNat {
    /// The workload's own address.
    #[serde(rename = "internalIP")]
    pub internal_ip: String,
    /// The address that outsiders use.
    #[serde(rename = "externalIP")]
    pub external_ip: String,
}

/// Limits on a workload's traffic; 0 means no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct QosControls {
    /// Bits per second towards the workload.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_bandwidth: i64,
    /// Burst towards the workload, in bits.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_burst: i64,
    /// Peak bits per second towards the workload while it bursts.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_peakrate: i64,
    /// Smallest burst at the peak rate, in bits.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_minburst: i64,
    /// Bits per second from the workload.
    #[serde(skip_serializing_if = "empty")]
    pub egress_bandwidth: i64,
    /// Burst from the workload, in bits.
    #[serde(skip_serializing_if = "empty")]
    pub egress_burst: i64,
    /// Peak bits per second from the workload while it bursts.
    #[serde(skip_serializing_if = "empty")]
    pub egress_peakrate: i64,
    /// Smallest burst at the peak rate, in bits.
    #[serde(skip_serializing_if = "empty")]
    pub egress_minburst: i64,
    /// Packets per second towards the workload.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_packet_rate: i64,
    /// Burst of packets towards the workload.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_packet_burst: i64,
    /// Packets per second from the workload.
    #[serde(skip_serializing_if = "empty")]
    pub egress_packet_rate: i64,
    /// Burst of packets from the workload.
    #[serde(skip_serializing_if = "empty")]
    pub egress_packet_burst: i64,
    /// Connections towards the workload at once.
    #[serde(skip_serializing_if = "empty")]
    pub ingress_max_connections: i64,
    /// Connections from the workload at once.
    #[serde(skip_serializing_if = "empty")]
    pub egress_max_connections: i64,
    /// DSCP value of packets that leave the cluster.
    #[serde(skip_serializing_if = "empty")]
    pub dscp: Option<Dscp>,
}
