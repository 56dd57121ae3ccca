//! A rule of a policy or profile, as written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::empty::{Empty, empty};
use crate::enums::string_enum;
use crate::{IcmpFields, IpNetText, Port, RuleProtocol};

string_enum! {
    /// What a rule does with a packet that it matches.
    Action {
        /// Accept it.
        Allow = "Allow",
        /// Drop it.
        #[default]
        Deny = "Deny",
        /// Log it and go on with the next rule.
        Log = "Log",
        /// Leave the tier and go on with the next.
        Pass = "Pass",
    }
}

/// All matches of a rule must hold for its action to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What happens to a packet that matches.
    pub action: Action,
    /// 4 or 6.
    #[serde(default, skip_serializing_if = "empty")]
    pub ip_version: Option<u8>,
    /// Only packets of this protocol.
    #[serde(default, skip_serializing_if = "empty")]
    pub protocol: Option<RuleProtocol>,
    /// Only ICMP packets of this type and code.
    #[serde(default, skip_serializing_if = "empty")]
    pub icmp: Option<IcmpFields>,
    /// Only packets of other protocols.
    #[serde(default, skip_serializing_if = "empty")]
    pub not_protocol: Option<RuleProtocol>,
    /// Not ICMP packets of this type and code.
    #[serde(default, rename = "notICMP", skip_serializing_if = "empty")]
    pub not_icmp: Option<IcmpFields>,
    /// Where the packet comes from.
    #[serde(default, skip_serializing_if = "empty")]
    pub source: EntityRule,
    /// Where the packet goes.
    #[serde(default, skip_serializing_if = "empty")]
    pub destination: EntityRule,
    /// HTTP requests, for layer-7 enforcement.
    #[serde(default, skip_serializing_if = "empty")]
    pub http: Option<HttpMatch>,
    /// Notes on the rule.
    #[serde(default, skip_serializing_if = "empty")]
    pub metadata: Option<RuleMetadata>,
}

/// What is matched about one end of a packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EntityRule {
    /// The address is in one of these.
    #[serde(skip_serializing_if = "empty")]
    pub nets: Vec<IpNetText>,
    /// The address is that of an endpoint or network set that this selects.
    #[serde(skip_serializing_if = "empty")]
    pub selector: String,
    /// Narrows (or, alone, replaces) the selector to these namespaces.
    #[serde(skip_serializing_if = "empty")]
    pub namespace_selector: String,
    /// The address and port are those of a Kubernetes service's endpoints.
    #[serde(skip_serializing_if = "empty")]
    pub services: Option<ServiceMatch>,
    /// The port is one of these.
    #[serde(skip_serializing_if = "empty")]
    pub ports: Vec<Port>,
    /// The address is in none of these.
    #[serde(skip_serializing_if = "empty")]
    pub not_nets: Vec<IpNetText>,
    /// The address is not that of anything that this selects.
    #[serde(skip_serializing_if = "empty")]
    pub not_selector: String,
    /// The port is none of these.
    #[serde(skip_serializing_if = "empty")]
    pub not_ports: Vec<Port>,
    /// The endpoint runs as one of these service accounts.
    #[serde(skip_serializing_if = "empty")]
    pub service_accounts: Option<ServiceAccountMatch>,
}

impl Empty for EntityRule {
    /// Go's `omitzero`: every field is at its zero value.
    fn is_empty_value(&self) -> bool {
        let EntityRule {
            nets,
            selector,
            namespace_selector,
            services,
            ports,
            not_nets,
            not_selector,
            not_ports,
            service_accounts,
        } = self;
        empty(nets)
            && empty(selector)
            && empty(namespace_selector)
            && empty(services)
            && empty(ports)
            && empty(not_nets)
            && empty(not_selector)
            && empty(not_ports)
            && empty(service_accounts)
    }
}

/// A Kubernetes service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceMatch {
    /// The service's name.
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
    /// Its namespace; empty means that of the policy.
    #[serde(skip_serializing_if = "empty")]
    pub namespace: String,
}

/// Service accounts; where both fields are given, both must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceAccountMatch {
    /// Any of these names.
    #[serde(skip_serializing_if = "empty")]
    pub names: Vec<String>,
    /// The account's labels match.
    #[serde(skip_serializing_if = "empty")]
    pub selector: String,
}

/// HTTP requests; methods and paths must both match where given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpMatch {
    /// Any of these methods, such as GET.
    #[serde(skip_serializing_if = "empty")]
    pub methods: Vec<String>,
    /// Any of these paths.
    #[serde(skip_serializing_if = "empty")]
    pub paths: Vec<HttpPath>,
}

/// An HTTP path: either exact or a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpPath {
    /// The whole path.
    #[serde(skip_serializing_if = "empty")]
    pub exact: String,
    /// How the path begins.
    #[serde(skip_serializing_if = "empty")]
    pub prefix: String,
}

/// Notes on a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RuleMetadata {
    /// Free notes for programs.
    #[serde(skip_serializing_if = "empty")]
    pub annotations: BTreeMap<String, String>,
}
