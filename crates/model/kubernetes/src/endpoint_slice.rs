//! EndpointSlice of `discovery.k8s.io/v1`.

use serde::Deserialize;
use tortie_api::{KubernetesEndpointSlice, KubernetesEndpointSliceSpec, KubernetesProtocol, SliceEndpoint, SlicePort};

use crate::ObjectMeta;
use crate::error::{ConversionError, Converted, Object};
use crate::meta::or_default;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice of `discovery.k8s.io/v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint has.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[serde(deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    /// The node on which it runs.
    pub node_name: Option<String>,
    /// The zone in which it runs.
    pub zone: Option<String>,
}

/// The state of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Whether it takes new connections.
    pub ready: Option<bool>,
    /// Whether it answers.
    pub serving: Option<bool>,
    /// Whether it terminates.
    pub terminating: Option<bool>,
}

/// One port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the Service's port.
    pub name: Option<String>,
    /// The protocol; none means TCP.
    pub protocol: Option<String>,
    /// The port number.
    pub port: Option<i32>,
}

/// The slice as a fact. A port that is no port is left out: no policy then allows it.
pub fn endpoint_slice(from: &EndpointSlice) -> Result<Converted, ConversionError> {
    let EndpointSlice { metadata: meta, address_type, endpoints, ports } = from;
    let object = Object { kind: "EndpointSlice", namespace: &meta.namespace, name: &meta.name };
    let mut problems = Vec::new();
    let mut kept = Vec::with_capacity(ports.len());
    for (at, EndpointPort { name, protocol, port }) in ports.iter().enumerate() {
        let field = |name: &str| format!("ports[{at}].{name}");
        let Some(protocol) = self::protocol(protocol.as_deref()) else {
            let found = format!("{:?}", protocol.as_deref().unwrap_or_default());
            problems.push(object.error(field("protocol"), found, "TCP, UDP or SCTP"));
            continue;
        };
        let number = port.map(|port| u16::try_from(port).ok().filter(|number| *number > 0).ok_or(port)).transpose();
        let port = match number {
            Ok(port) => port,
            Err(wrong) => {
                problems.push(object.error(field("port"), wrong.to_string(), "a port from 1 to 65535"));
                continue;
            }
        };
        kept.push(SlicePort { name: name.clone().unwrap_or_default(), protocol, port });
    }
    let endpoint = |Endpoint { addresses, conditions, node_name, zone }: &Endpoint| {
        let EndpointConditions { ready, serving, terminating } = conditions;
        SliceEndpoint {
            addresses: addresses.clone(),
            ready: *ready,
            serving: *serving,
            terminating: *terminating,
            node_name: node_name.clone().unwrap_or_default(),
            zone: zone.clone().unwrap_or_default(),
        }
    };
    let spec = KubernetesEndpointSliceSpec {
        service: meta.labels.get(SERVICE_NAME).unwrap_or_default().to_owned(),
        address_type: address_type.clone(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        ports: kept,
    };
    let metadata = meta.identity(meta.uid.clone());
    Ok(Converted::of(KubernetesEndpointSlice { metadata, spec }, problems))
}

/// A protocol of Services; none means TCP.
pub(crate) fn protocol(name: Option<&str>) -> Option<KubernetesProtocol> {
    let name = name.filter(|name| !name.is_empty()).unwrap_or("TCP");
    KubernetesProtocol::ALL.iter().find(|known| known.as_str() == name).copied()
}
