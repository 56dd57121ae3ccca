//! Endpoints of hosts and of workloads.

use std::net::IpAddr;

use serde::Deserialize;
use tortie_api::{
    EndpointPort, FieldError, HostEndpoint, HostEndpointSpec, IpNat, IpNetText, LabelMap, Metadata, WorkloadEndpoint,
    WorkloadEndpointPort, WorkloadEndpointSpec,
};

use crate::values::{Address, Ethernet, NAMESPACE, Net, OLD_NAMESPACE, Protocol, wrong};
use crate::{Converted, Old, converted, names};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldPort {
    name: String,
    protocol: Protocol,
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostMetadata {
    name: String,
    node: String,
    #[serde(default)]
    labels: LabelMap,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldHostSpec {
    interface_name: String,
    #[serde(rename = "expectedIPs")]
    expected_ips: Vec<Address>,
    profiles: Vec<String>,
    ports: Vec<OldPort>,
}

/// IPv4 first, otherwise in their order.
fn by_family<T>(mut items: Vec<T>, is_v6: impl Fn(&T) -> bool) -> Vec<T> {
    items.sort_by_key(is_v6);
    items
}

fn profiles(old: &[String]) -> Vec<String> {
    old.iter().map(|name| names::profile(name)).collect()
}

pub(crate) fn host(old: Old<HostMetadata, OldHostSpec>) -> Result<Converted, FieldError> {
    let HostMetadata { name, node, labels } = old.metadata;
    let OldHostSpec { interface_name, expected_ips, profiles: old_profiles, ports } = old.spec;
    let node = names::node(&node);
    // Names were per node, and are the cluster's now.
    let mut metadata = Metadata::named(names::name(&format!("{node}.{name}")));
    metadata.labels = labels;
    let spec = HostEndpointSpec {
        node,
        interface_name,
        expected_ips: by_family(expected_ips, |ip| ip.0.is_ipv6()).into_iter().map(|ip| ip.0.into()).collect(),
        profiles: profiles(&old_profiles),
        ports: ports
            .into_iter()
            .map(|OldPort { name, protocol, port }| EndpointPort { name, protocol: protocol.0, port })
            .collect(),
    };
    Ok(converted(HostEndpoint { metadata, spec }, None))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkloadMetadata {
    name: String,
    workload: String,
    orchestrator: String,
    node: String,
    #[serde(default, rename = "activeInstanceID")]
    active_instance_id: String,
    #[serde(default)]
    labels: LabelMap,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OldWorkloadSpec {
    ip_networks: Vec<Net>,
    #[serde(rename = "ipNATs")]
    ip_nats: Vec<OldNat>,
    ipv4_gateway: Option<Address>,
    ipv6_gateway: Option<Address>,
    profiles: Vec<String>,
    interface_name: String,
    mac: Option<Ethernet>,
    ports: Vec<OldPort>,
    #[serde(rename = "allow_spoofed_source_prefixes")]
    allow_spoofed_source_prefixes: Vec<Net>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OldNat {
    #[serde(rename = "internalIP")]
    internal: Address,
    #[serde(rename = "externalIP")]
    external: Address,
}

/// What an orchestrator calls the workload.
#[derive(Default)]
struct Place {
    namespace: Option<String>,
    pod: String,
    container_id: String,
    workload: String,
}

fn place(orchestrator: &str, workload: &str, instance: &str) -> Result<Place, FieldError> {
    Ok(match orchestrator {
        "k8s" => {
            let Some((namespace, pod)) = workload.split_once('.') else {
                return Err(wrong(
                    "metadata.workload",
                    format!("{workload:?}"),
                    "NAMESPACE.POD for the orchestrator k8s",
                ));
            };
            let namespace = Some(namespace.to_owned());
            Place { namespace, pod: pod.to_owned(), container_id: instance.to_owned(), ..Place::default() }
        }
        "cni" => Place { container_id: workload.to_owned(), ..Place::default() },
        "libnetwork" => Place { workload: "libnetwork".to_owned(), ..Place::default() },
        _ => Place { workload: names::name(workload), ..Place::default() },
    })
}

pub(crate) fn workload(old: Old<WorkloadMetadata, OldWorkloadSpec>) -> Result<Converted, FieldError> {
    let WorkloadMetadata { name, workload, orchestrator, node, active_instance_id, mut labels } = old.metadata;
    let Place { namespace, pod, container_id, workload } = place(&orchestrator, &workload, &active_instance_id)?;
    if let Some(value) = labels.remove(OLD_NAMESPACE) {
        labels.insert(NAMESPACE, value);
    }
    let spec = WorkloadEndpointSpec {
        orchestrator: names::name(&orchestrator),
        workload,
        node: names::node(&node),
        container_id,
        pod,
        endpoint: names::name(&name),
        ..new_spec(old.spec)
    };
    let new_name = match spec.endpoint_name().join() {
        Ok(name) => name,
        Err(error) => return Err(wrong("metadata", "", &error.to_string())),
    };
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let mut metadata = Metadata::in_namespace(namespace, new_name.clone());
    metadata.labels = labels;
    let mut new = converted(WorkloadEndpoint { metadata, spec }, None);
    if orchestrator != "k8s" && !active_instance_id.is_empty() {
        let what = format!("metadata.activeInstanceID {active_instance_id:?} is left out: v3 has no counterpart");
        new.notes.push(format!("WorkloadEndpoint({new_name}): {what}"));
    }
    Ok(new)
}

/// What does not depend on the orchestrator.
fn new_spec(old: OldWorkloadSpec) -> WorkloadEndpointSpec {
    let OldWorkloadSpec {
        ip_networks,
        ip_nats,
        ipv4_gateway,
        ipv6_gateway,
        profiles: old_profiles,
        interface_name,
        mac,
        ports,
        allow_spoofed_source_prefixes,
    } = old;
    let nets = |nets: Vec<Net>| -> Vec<IpNetText> {
        by_family(nets, |net| net.0.addr().is_ipv6()).into_iter().map(|net| net.0.trunc().into()).collect()
    };
    let text = |address: Option<Address>| address.map(|address| address.0.to_string()).unwrap_or_default();
    let nat = |OldNat { internal, external }| {
        let text = |Address(address): Address| IpAddr::to_string(&address);
        IpNat { internal_ip: text(internal), external_ip: text(external) }
    };
    let port = |OldPort { name, protocol, port }| WorkloadEndpointPort {
        name,
        protocol: protocol.0,
        port,
        ..WorkloadEndpointPort::default()
    };
    WorkloadEndpointSpec {
        ip_networks: nets(ip_networks),
        ip_nats: by_family(ip_nats, |nat| nat.internal.0.is_ipv6()).into_iter().map(nat).collect(),
        ipv4_gateway: text(ipv4_gateway),
        ipv6_gateway: text(ipv6_gateway),
        profiles: profiles(&old_profiles),
        interface_name,
        mac: mac.map(|Ethernet(mac)| mac.to_string()).unwrap_or_default(),
        ports: ports.into_iter().map(port).collect(),
        allow_spoofed_source_prefixes: nets(allow_spoofed_source_prefixes),
        ..WorkloadEndpointSpec::default()
    }
}
