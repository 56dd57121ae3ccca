//! WorkloadEndpoint: an interface of a workload.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::RuleProtocol;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::kinds::dscp::Dscp;
use crate::path::Path;
use crate::resource::resource;
use crate::text;
use crate::wep::{EndpointName, EndpointNameError};
use tortie_net::{Family, Mac, Protocol};

resource! {
    /// An interface of a workload, such as a pod's `eth0`.
    WorkloadEndpoint { spec: WorkloadEndpointSpec }
}

/// The specification of a WorkloadEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

impl WorkloadEndpointSpec {
    /// The name that a WorkloadEndpoint of this specification has to carry.
    pub fn endpoint_name(&self) -> EndpointName {
        let workload = match self.orchestrator.as_str() {
            "k8s" => &self.pod,
            "cni" => &self.container_id,
            "libnetwork" => &self.orchestrator,
            _ => &self.workload,
        };
        EndpointName {
            node: self.node.clone(),
            orchestrator: self.orchestrator.clone(),
            workload: workload.clone(),
            endpoint: self.endpoint.clone(),
        }
    }
}

impl Checked for WorkloadEndpoint {
    /// Without a name, the endpoint gets the one that its specification asks for; two labels say where it belongs.
    fn apply_defaults(&mut self) {
        let WorkloadEndpoint { metadata, spec } = self;
        if metadata.name.is_empty()
            && let Ok(name) = spec.endpoint_name().join()
        {
            metadata.name = name;
        }
        metadata.labels.insert("projectcalico.org/namespace", &metadata.namespace);
        metadata.labels.insert("projectcalico.org/orchestrator", &spec.orchestrator);
    }

    fn check(&self, out: &mut Findings) {
        let spec = &self.spec;
        let path = Path::root("spec");
        match spec.endpoint_name().join() {
            Err(error) => {
                let part = match (error.part, spec.orchestrator.as_str()) {
                    ("workload", "k8s") => "pod",
                    ("workload", "cni") => "containerID",
                    (part, _) => part,
                };
                out.wrong(&path.field(part), format!("{:?}", error.value), EndpointNameError::EXPECTED);
            }
            Ok(name) if name != self.metadata.name => {
                let found = format!("{:?}", self.metadata.name);
                out.wrong(&Path::root("metadata").field("name"), found, format!("{name:?}, as the specification says"));
            }
            Ok(_) => {}
        }
        addresses(spec, &path, out);
        out.given(&path.field("interfaceName"), &spec.interface_name, "the name of an interface");
        out.interface(&path.field("interfaceName"), &spec.interface_name, "");
        if !spec.mac.is_empty() && spec.mac.parse::<Mac>().is_err() {
            out.wrong(&path.field("mac"), format!("{:?}", spec.mac), "an Ethernet address such as ee:ee:ee:ee:ee:ee");
        }
        out.names(&path.field("profiles"), &spec.profiles);
        for (i, port) in spec.ports.iter().enumerate() {
            check_port(port, &path.field("ports").index(i), out);
        }
        out.nets(&path.field("allowSpoofedSourcePrefixes"), &spec.allow_spoofed_source_prefixes);
    }
}

fn addresses(spec: &WorkloadEndpointSpec, path: &Path<'_>, out: &mut Findings) {
    for (i, net) in spec.ip_networks.iter().enumerate() {
        if net.plain().is_none_or(|net| net.prefix_len() != net.max_prefix_len()) {
            out.wrong(&path.field("ipNetworks").index(i), format!("{:?}", net.as_str()), "one address: /32 or /128");
        }
    }
    out.ip(&path.field("ipv4Gateway"), &spec.ipv4_gateway, Some(Family::V4));
    out.ip(&path.field("ipv6Gateway"), &spec.ipv6_gateway, Some(Family::V6));
    for (i, IpNat { internal_ip, external_ip }) in spec.ip_nats.iter().enumerate() {
        let at = path.field("ipNATs");
        let at = at.index(i);
        let inside = IpNetText(internal_ip.clone());
        let family = inside.family();
        if inside.addr().is_none_or(|addr| !spec.ip_networks.iter().any(|n| n.net().is_some_and(|n| n.contains(&addr))))
        {
            out.wrong(&at.field("internalIP"), format!("{internal_ip:?}"), "an address of the endpoint");
        }
        if family.is_none() || IpNetText(external_ip.clone()).family() != family {
            out.wrong(
                &at.field("externalIP"),
                format!("{external_ip:?}"),
                "an address of the same family as internalIP",
            );
        }
    }
}

fn check_port(port: &WorkloadEndpointPort, path: &Path<'_>, out: &mut Findings) {
    let WorkloadEndpointPort { name, protocol, port, host_port, host_ip } = port;
    if name.is_empty() && *host_port == 0 {
        out.wrong(&path.field("name"), "", "a name, or a hostPort");
    } else if !name.is_empty() && !text::is_port_name(name) {
        out.wrong(
            &path.field("name"),
            format!("{name:?}"),
            "a port name: at most 15 of a-z, 0-9 and '-', with a letter",
        );
    }
    if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol.protocol()) {
        out.wrong(&path.field("protocol"), protocol, "TCP, UDP or SCTP");
    }
    if *port == 0 {
        out.wrong(&path.field("port"), 0, "a port from 1 to 65535");
    }
    if !host_ip.is_empty() {
        out.net(&path.field("hostIP"), &IpNetText(host_ip.clone()));
    }
}
