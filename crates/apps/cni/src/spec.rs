//! The CNI specification's own shapes: versions, errors, results (CNI spec 1.1.0, with the forms back to 0.3.1).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The versions that the plugin speaks, oldest first.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Error codes of the specification.
pub mod code {
    /// The configuration's `cniVersion` is none that the plugin speaks.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration that is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container or its namespace does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A necessary environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The configuration is no JSON.
    pub const DECODE: u32 = 6;
    /// The configuration is JSON but wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// A passing condition: the same call may work later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: the plugin can't do ADD now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// First of the plugin's own codes: no address could be had.
    pub const NO_ADDRESS: u32 = 100;
    /// CHECK: what is there is not what ADD made.
    pub const CHECK_FAILED: u32 = 101;
    /// Anything else that went wrong in the node.
    pub const INTERNAL: u32 = 102;
}

/// An error as the runtime gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct CniError {
    /// One of [`code`].
    pub code: u32,
    /// One line.
    pub msg: String,
    /// What to do, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    pub fn with_details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The JSON that the plugin prints.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.code, "msg": self.msg, "details": self.details })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CniError { code: _, msg, details } = self;
        if details.is_empty() { f.write_str(msg) } else { write!(f, "{msg}: {details}") }
    }
}

/// An interface of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Ethernet address, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// MTU; only told from version 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace's path; empty: the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway, if the IPAM plugin named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A result, whatever its version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<Address>,
    /// Routes, as the IPAM plugin or the node named them.
    #[serde(default)]
    pub routes: Vec<Value>,
    /// Name service, passed through.
    #[serde(default)]
    pub dns: Value,
}

impl Outcome {
    /// The JSON of the result in one version of the specification.
    pub fn to_json(&self, version: &str) -> Value {
        let Outcome { interfaces, ips, routes, dns } = self;
        let with_version = matches!(version, "0.3.1" | "0.4.0");
        let interfaces: Vec<Value> = interfaces
            .iter()
            .map(|interface| {
                let mut value = json!(interface);
                if version != "1.1.0"
                    && let Some(object) = value.as_object_mut()
                {
                    object.remove("mtu");
                }
                value
            })
            .collect();
        let ips: Vec<Value> = ips
            .iter()
            .map(|ip| {
                let mut value = json!(ip);
                if with_version {
                    value["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
                }
                value
            })
            .collect();
        let mut result = json!({ "cniVersion": version, "ips": ips });
        if !interfaces.is_empty() {
            result["interfaces"] = json!(interfaces);
        }
        if !routes.is_empty() {
            result["routes"] = json!(routes);
        }
        result["dns"] = if dns.is_null() { json!({}) } else { dns.clone() };
        result
    }

    /// Reads a result of any version.
    pub fn from_json(value: &Value) -> Result<Outcome, serde_json::Error> {
        Outcome::deserialize(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            mac: "ee:ee:ee:ee:ee:ee".into(),
            mtu: Some(1440),
            sandbox: sandbox.into(),
        };
        Outcome {
            interfaces: vec![interface("cali12345", ""), interface("eth0", "/run/netns/x")],
            ips: vec![Address {
                address: "10.0.0.1/32".parse().expect("a literal"),
                gateway: None,
                interface: Some(1),
            }],
            routes: vec![],
            dns: Value::Null,
        }
    }

    #[test]
    fn each_version_has_its_own_shape_and_reads_back() {
        for version in VERSIONS {
            let json = outcome().to_json(version);
            assert_eq!(json["cniVersion"], version);
            assert_eq!(json["ips"][0].get("version").is_some(), version < "1.0.0", "{version}");
            assert_eq!(json["interfaces"][0].get("mtu").is_some(), version == "1.1.0", "{version}");
            assert_eq!(Outcome::from_json(&json).expect("our own result").ips, outcome().ips);
        }
    }
}
