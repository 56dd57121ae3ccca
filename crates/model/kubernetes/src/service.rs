//! Service of `v1`.

use serde::Deserialize;
use tortie_api::{IntOrString, KubernetesService, KubernetesServiceSpec, ServicePort};

use crate::ObjectMeta;
use crate::endpoint_slice::protocol;
use crate::error::{ConversionError, Converted, Object};
use crate::meta::or_default;

/// A Service of `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
    /// What was observed.
    #[serde(deserialize_with = "or_default")]
    pub status: ServiceStatus,
}

/// The specification of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The first address inside the cluster.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The addresses inside the cluster.
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    /// Addresses of outside.
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    pub external_ips: Vec<String>,
    /// The address that was asked of the load balancer.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: String,
    /// Who is to balance the load.
    pub load_balancer_class: Option<String>,
    /// Sources from which the load balancer's addresses may be used.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// The ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<Port>,
    /// `Cluster` or `Local`, for traffic from outside.
    pub external_traffic_policy: String,
    /// `Cluster` or `Local`, for traffic from inside.
    pub internal_traffic_policy: Option<String>,
    /// `None` or `ClientIP`.
    pub session_affinity: String,
    /// The port on which nodes answer whether they have endpoints.
    pub health_check_node_port: i32,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The name.
    pub name: String,
    /// The protocol; none means TCP.
    pub protocol: Option<String>,
    /// The port of the Service's addresses.
    pub port: i32,
    /// The port of the endpoints, or its name.
    pub target_port: Option<IntOrString>,
    /// The port of every node that leads here.
    pub node_port: i32,
}

/// The status of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The load balancer's addresses.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// The load balancer's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// One an entry.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerIngress {
    /// The address; empty where the load balancer has a host name.
    pub ip: String,
}

/// The Service as a fact, with its annotations and labels. A port that is no port is left out and told.
pub fn service(from: &Service) -> Result<Converted, ConversionError> {
    let Service { metadata: meta, spec, status } = from;
    let object = Object { kind: "Service", namespace: &meta.namespace, name: &meta.name };
    let mut problems = Vec::new();
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (at, port) in spec.ports.iter().enumerate() {
        let Port { name, protocol: written, port, target_port, node_port } = port;
        match (protocol(written.as_deref()), u16::try_from(*port), u16::try_from(*node_port)) {
            (Some(protocol), Ok(port), Ok(node_port)) => {
                let target_port = target_port.clone();
                ports.push(ServicePort { name: name.clone(), protocol, port, node_port, target_port });
            }
            (_, _, _) => {
                let found = format!("{} {port}, on nodes {node_port}", written.as_deref().unwrap_or("TCP"));
                let expected = "TCP, UDP or SCTP, and ports up to 65535";
                problems.push(object.error(format!("spec.ports[{at}]"), found, expected));
            }
        }
    }
    let one = [&spec.cluster_ip].into_iter().filter(|text| !text.is_empty() && spec.cluster_ips.is_empty());
    let ingress = status.load_balancer.ingress.iter().map(|LoadBalancerIngress { ip }| ip);
    let spec = KubernetesServiceSpec {
        service_type: spec.service_type.clone(),
        cluster_ips: one.chain(&spec.cluster_ips).cloned().collect(),
        external_ips: spec.external_ips.clone(),
        load_balancer_ip: spec.load_balancer_ip.clone(),
        load_balancer_class: spec.load_balancer_class.clone().unwrap_or_default(),
        load_balancer_source_ranges: spec.load_balancer_source_ranges.clone(),
        load_balancer_ingress: ingress.filter(|ip| !ip.is_empty()).cloned().collect(),
        ports,
        external_traffic_policy: spec.external_traffic_policy.clone(),
        internal_traffic_policy: spec.internal_traffic_policy.clone().unwrap_or_default(),
        session_affinity: spec.session_affinity.clone(),
        health_check_node_port: u16::try_from(spec.health_check_node_port).unwrap_or_default(),
    };
    let mut metadata = meta.identity(meta.uid.clone());
    metadata.labels = meta.labels.clone();
    metadata.annotations = meta.annotations.clone();
    Ok(Converted::of(KubernetesService { metadata, spec }, problems))
}
