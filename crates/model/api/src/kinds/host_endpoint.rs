//! HostEndpoint: an interface of a host, as a thing that policy selects.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::RuleProtocol;
use crate::empty::empty;
use crate::resource::resource;

resource! {
    /// An interface of a host (or all of them) that policy selects by this resource's labels.
    HostEndpoint { spec: HostEndpointSpec }
}

/// The specification of a HostEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostEndpointSpec {
    /// The node whose interface it is.
    #[serde(skip_serializing_if = "empty")]
    pub node: String,
    /// The interface, at most 15 bytes; `*` means all of the host's.
    #[serde(skip_serializing_if = "empty")]
    pub interface_name: String,
    /// Addresses by which to find the interface where no name is given.
    #[serde(rename = "expectedIPs", skip_serializing_if = "empty")]
    pub expected_ips: Vec<IpNetText>,
    /// Profiles whose rules and labels apply, in order.
    #[serde(skip_serializing_if = "empty")]
    pub profiles: Vec<String>,
    /// Named ports, for rules that match ports by name.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<EndpointPort>,
}

/// A port of an endpoint, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// The name.
    pub name: String,
    /// The port's protocol.
    pub protocol: RuleProtocol,
    /// The port number, from 1.
    pub port: u16,
}
