//! Values of v1 that v3 writes otherwise: protocols in any case, addresses and ranges as Go prints them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;
use tortie_api::{FieldError, RuleProtocol};
use tortie_net::Mac;

/// A value of the old form that can't be used.
pub(crate) fn wrong(path: &str, value: impl ToString, expected: &str) -> FieldError {
    FieldError { path: path.to_owned(), value: value.to_string(), expected: expected.to_owned(), nearest: None }
}

/// A protocol by number, or by name in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol(pub(crate) RuleProtocol);

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Value::String(text) = &mut value
            && let Some(name) = RuleProtocol::NAMES.iter().find(|name| name.eq_ignore_ascii_case(text))
        {
            *text = (*name).to_owned();
        }
        RuleProtocol::deserialize(value).map(Protocol).map_err(Error::custom)
    }
}

/// Reads text by its `FromStr`.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| Error::custom(format!("invalid value: string {text:?}, expected {expected}")))
}

/// An address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) IpAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| text.parse().ok().map(Address), "an IP address")
    }
}

/// A range, or an address that stands for itself; bits of the host stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net(pub(crate) IpNet);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| {
            let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            net.map(Net)
        };
        parsed(deserializer, parse, "an IP address or a range such as 10.0.0.0/8")
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet(pub(crate) Mac);

impl<'de> Deserialize<'de> for Ethernet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| text.parse().ok().map(Ethernet), "an Ethernet address such as 02:00:00:00:00:01")
    }
}

/// A selector: the label of the namespace has another name now.
pub(crate) fn selector(old: &str) -> String {
    old.replace(OLD_NAMESPACE, NAMESPACE)
}

/// The label that names a workload's namespace, in v1.
pub(crate) const OLD_NAMESPACE: &str = "calico/k8s_ns";

/// The same in v3.
pub(crate) const NAMESPACE: &str = "projectcalico.org/namespace";
