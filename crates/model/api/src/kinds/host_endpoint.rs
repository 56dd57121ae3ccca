//! HostEndpoint: an interface of a host, as a thing that policy selects.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::RuleProtocol;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;
use crate::text;
use tortie_net::Protocol;

resource! {
    /// An interface of a host (or all of them) that policy selects by this resource's labels.
    HostEndpoint { spec: HostEndpointSpec }
}

/// The specification of a HostEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// The name.
    pub name: String,
    /// The port's protocol.
    pub protocol: RuleProtocol,
    /// The port number, from 1.
    pub port: u16,
}

impl Checked for HostEndpoint {
    fn check(&self, out: &mut Findings) {
        let HostEndpointSpec { node, interface_name, expected_ips, profiles, ports } = &self.spec;
        let path = Path::root("spec");
        if node.is_empty() {
            out.wrong(&path.field("node"), "", "the name of a node");
        }
        out.name(&path.field("node"), node);
        if interface_name != "*" {
            out.interface(&path.field("interfaceName"), interface_name, "");
        }
        if interface_name.is_empty() && expected_ips.is_empty() {
            out.wrong(&path.field("interfaceName"), "", "interfaceName or expectedIPs");
        }
        for (i, address) in expected_ips.iter().enumerate() {
            out.given(&path.field("expectedIPs").index(i), address.as_str(), "an IP address");
            out.ip(&path.field("expectedIPs").index(i), address.as_str(), None);
        }
        out.names(&path.field("profiles"), profiles);
        for (i, EndpointPort { name, protocol, port }) in ports.iter().enumerate() {
            let at = path.field("ports");
            let at = at.index(i);
            if !text::is_port_name(name) {
                out.wrong(
                    &at.field("name"),
                    format!("{name:?}"),
                    "a port name: at most 15 of a-z, 0-9 and '-', with a letter",
                );
            }
            if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol.protocol()) {
                out.wrong(&at.field("protocol"), protocol, "TCP, UDP or SCTP");
            }
            if *port == 0 {
                out.wrong(&at.field("port"), 0, "a port from 1 to 65535");
            }
        }
    }
}
