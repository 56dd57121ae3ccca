//! Pod: the workload endpoint that it is.

use std::net::IpAddr;

use serde::Deserialize;
use tortie_api::wep::{EndpointName, interface_name};
use tortie_api::{IpNetText, Timestamp, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec};
use tortie_net::Protocol;

use crate::error::{ConversionError, Converted, Object};
use crate::meta::or_default;
use crate::pod_annotations::{self, AWS_POD_IPS, CONTAINER_ID, NETWORK_STATUS, POD_IP, POD_IPS};
use crate::{ObjectMeta, namespace_profile_name, qos, service_account_profile_name};

/// A Pod of `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// What was observed.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

impl Pod {
    /// Gives it these addresses, whatever is told of it so far.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) {
        for key in [POD_IP, POD_IPS, AWS_POD_IPS] {
            self.metadata.annotations.remove(key);
        }
        self.status.pod_ip.clear();
        self.status.pod_ips = addresses.iter().map(|addr| PodIp { ip: addr.to_string() }).collect();
    }
}

/// The specification of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node on which it runs; empty before that is decided.
    pub node_name: String,
    /// Whether it has no network of its own.
    pub host_network: bool,
    /// The service account as which it runs.
    pub service_account_name: String,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Containers that come before, or beside, the others.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
}

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The ports that it declares.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
}

/// A port that a container declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// The name, if any.
    pub name: String,
    /// The protocol; empty means TCP.
    pub protocol: String,
    /// The port number.
    pub container_port: i32,
    /// The port of the host that leads here; 0 for none.
    pub host_port: i32,
    /// The host address on which it does.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

/// The status of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// How far it is, such as `Running`.
    pub phase: String,
    /// The first address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// The addresses.
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pub pod_ips: Vec<PodIp>,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// The name of a pod's endpoint; an error if node or pod can't stand in one.
pub fn endpoint_name(node: &str, namespace: &str, pod: &str) -> Result<String, ConversionError> {
    let object = Object { kind: "Pod", namespace, name: pod };
    let name = EndpointName::of_pod(node, pod, "eth0").join();
    name.map_err(|error| {
        object.error(error.part, format!("{:?}", error.value), "text that neither begins nor ends with '-'")
    })
}

/// The endpoint of a pod; `None` for pods without a network of their own and for those that no node runs yet.
///
/// `interface_prefix` begins the name of the host's interface, such as `cali`. A pod that is finished has no addresses:
/// they are free for others.
pub fn pod(from: &Pod, interface_prefix: &str) -> Result<Option<Converted>, ConversionError> {
    let Pod { metadata: meta, spec, status: _ } = from;
    if spec.host_network || spec.node_name.is_empty() {
        return Ok(None);
    }
    let object = Object { kind: "Pod", namespace: &meta.namespace, name: &meta.name };
    let mut problems = Vec::new();
    let addresses = if is_finished(from) { Vec::new() } else { addresses(from, &object)? };
    let account = spec.service_account_name.as_str();
    let mut profiles = vec![namespace_profile_name(&meta.namespace)];
    let mut labels = meta.labels.clone();
    labels.insert("projectcalico.org/namespace", &meta.namespace);
    labels.insert("projectcalico.org/orchestrator", "k8s");
    if !account.is_empty() {
        profiles.push(service_account_profile_name(&meta.namespace, account));
        // Upstream's limit, one short of what a label may hold.
        if account.len() < 63 {
            labels.insert("projectcalico.org/serviceaccount", account);
        }
    }
    let spoofed = pod_annotations::allowed_sources(meta, &object, &mut problems);
    let nats = pod_annotations::floating_ips(meta, &addresses, &object, &mut problems);
    let qos_controls = qos::controls(&meta.annotations, |field, value, expected| {
        problems.push(object.error(format!("metadata.annotations[{field}]"), format!("{value:?}"), expected));
    });
    let ports = ports(spec, &object, &mut problems);
    let status = meta.annotations.get(NETWORK_STATUS).map(|text| (NETWORK_STATUS.to_owned(), text.clone()));
    let mut metadata = meta.identity(meta.uid.clone());
    metadata.name = endpoint_name(&spec.node_name, &meta.namespace, &meta.name)?;
    metadata.generate_name = meta.generate_name.clone();
    metadata.labels = labels;
    metadata.annotations = status.into_iter().collect();
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: spec.node_name.clone(),
        pod: meta.name.clone(),
        container_id: meta.annotations.get(CONTAINER_ID).cloned().unwrap_or_default(),
        endpoint: "eth0".to_owned(),
        service_account_name: account.to_owned(),
        ip_networks: addresses.into_iter().map(|addr| IpNetText::from(tortie_net::host_net(addr))).collect(),
        ip_nats: nats,
        profiles,
        interface_name: interface_name(interface_prefix, &meta.namespace, &meta.name),
        ports,
        allow_spoofed_source_prefixes: spoofed,
        qos_controls,
        ..WorkloadEndpointSpec::default()
    };
    Ok(Some(Converted::of(WorkloadEndpoint { metadata, spec }, problems)))
}

/// Whether the pod gave its addresses back: it ended, or it is being deleted and the CNI plugin said so.
fn is_finished(pod: &Pod) -> bool {
    let deleting: Option<Timestamp> = pod.metadata.deletion_timestamp;
    deleting.is_some() && (is_emptied(&pod.metadata, POD_IP) || is_emptied(&pod.metadata, AWS_POD_IPS))
        || matches!(pod.status.phase.as_str(), "Failed" | "Succeeded" | "Completed")
}

fn is_emptied(meta: &ObjectMeta, key: &str) -> bool {
    meta.annotations.get(key).is_some_and(String::is_empty)
}

/// The addresses from the first place that tells: what the CNI plugin noted, the status, what Amazon's plugin noted.
/// An empty note of the CNI plugin's says that there are none. The status comes later than either: kubelet leaves there
/// the addresses of a sandbox that died, until the next one is ready.
fn addresses(pod: &Pod, object: &Object<'_>) -> Result<Vec<IpAddr>, ConversionError> {
    let Pod { metadata: meta, spec: _, status: PodStatus { phase: _, pod_ip, pod_ips } } = pod;
    let noted =
        |key: &'static str| meta.annotation(key).map(|text| (format!("metadata.annotations[{key}]"), text.split(',')));
    let (field, texts): (String, Vec<&str>) = if let Some((field, texts)) = noted(POD_IPS).or_else(|| noted(POD_IP)) {
        (field, texts.collect())
    } else if is_emptied(meta, POD_IPS) || is_emptied(meta, POD_IP) {
        return Ok(Vec::new());
    } else if !pod_ips.is_empty() {
        ("status.podIPs".to_owned(), pod_ips.iter().map(|PodIp { ip }| ip.as_str()).collect())
    } else if !pod_ip.is_empty() {
        ("status.podIP".to_owned(), vec![pod_ip])
    } else if let Some((field, texts)) = noted(AWS_POD_IPS) {
        (field, texts.collect())
    } else {
        return Ok(Vec::new());
    };
    let parse = |text: &str| {
        let net = IpNetText::from(text).interface().filter(|net| net.prefix_len() == net.max_prefix_len());
        net.map(|net| net.addr()).ok_or_else(|| object.error(&field, format!("{text:?}"), "an address"))
    };
    texts.into_iter().map(parse).collect()
}

/// Ports that have a name or a port of the host; an error of one leaves that one out.
fn ports(spec: &PodSpec, object: &Object<'_>, problems: &mut Vec<ConversionError>) -> Vec<WorkloadEndpointPort> {
    let mut out = Vec::new();
    let lists = [("containers", &spec.containers), ("initContainers", &spec.init_containers)];
    let containers = lists.iter().flat_map(|(list, found)| found.iter().enumerate().map(move |(at, c)| (list, at, c)));
    for (list, container, port) in containers.flat_map(|(list, at, c)| c.ports.iter().map(move |port| (list, at, port)))
    {
        let ContainerPort { name, protocol, container_port, host_port, host_ip } = port;
        if *container_port == 0 || (*host_port == 0 && name.is_empty()) {
            continue;
        }
        let protocol = match protocol.as_str() {
            "" | "TCP" => Some(Protocol::TCP),
            "UDP" => Some(Protocol::UDP),
            "SCTP" => Some(Protocol::SCTP),
            _ => None,
        };
        match (protocol, u16::try_from(*container_port), u16::try_from(*host_port)) {
            (Some(protocol), Ok(port), Ok(host_port)) => out.push(WorkloadEndpointPort {
                name: name.clone(),
                protocol: protocol.into(),
                port,
                host_port,
                host_ip: host_ip.clone(),
            }),
            (_, _, _) => {
                let found = format!("{:?} {container_port}, on the host {host_port}", port.protocol);
                let field = format!("spec.{list}[{container}].ports");
                problems.push(object.error(field, found, "TCP, UDP or SCTP, and ports up to 65535"));
            }
        }
    }
    out
}
