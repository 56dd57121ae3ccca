//! One record, in the form in which it is told to people and programs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A packet that ended. Absent fields are not known or make no sense for the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Number of the record since the node started, from 1.
    pub number: u64,
    /// When the node heard of it, milliseconds since 1970.
    pub time_ms: u64,
    /// One word for the kind of cause: `rule`, `end-of-tier`, `spoofed`, …
    pub cause: String,
    /// `ingress` or `egress`, as seen from the endpoint.
    pub direction: String,
    /// The endpoint whose rules ended the packet: `namespace/name` of a workload, or the name of a host endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether that is a host endpoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_endpoint: bool,
    /// Tier of the policy, or the one that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The policy, by its kind's short name: `gnp/NAME`, `np/NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Number of the rule in its list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Where no rule decided: the policies and profiles that were asked in vain, and so made it a denial.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The workload of this node with that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_endpoint: Option<String>,
    /// Destination address, as it was where the packet ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The workload of this node with that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_endpoint: Option<String>,
    /// Name or number of the IP protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The interface that it came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The interface that it was to leave by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Where on its way it was: `prerouting`, `input`, `forward`, `output`, `postrouting`.
    pub hook: String,
}
