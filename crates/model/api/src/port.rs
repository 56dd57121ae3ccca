//! Ports in policy: a number, a range `min:max`, or the name of a port of an endpoint.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tortie_net::PortRange;

/// A port match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// One port or an inclusive range.
    Range(PortRange),
    /// The ports that endpoints declare under this name.
    Named(String),
}

impl Port {
    /// One port.
    pub fn number(port: u16) -> Port {
        Port::Range(PortRange::single(port))
    }

    /// Reads text: all digits or `min:max` is numeric, anything else of `[A-Za-z0-9_.-]{1,128}` is a name.
    pub fn parse(text: &str) -> Option<Port> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if text.split(':').all(digits) {
            return text.parse().ok().map(Port::Range);
        }
        let named = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        named.then(|| Port::Named(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Range(range) => range.fmt(f),
            Port::Named(name) => f.write_str(name),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Port::Range(range) if range.first() == range.last() => serializer.serialize_u16(range.first()),
            Port::Range(_) | Port::Named(_) => serializer.collect_str(self),
        }
    }
}

const EXPECTED: &str = "a port from 0 to 65535, a range such as 8000:8080, or a port name";

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u16::try_from(number).map(Port::number).map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                Port::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_forms() {
        for (json, again) in
            [("80", "80"), (r#""80""#, "80"), (r#""80:90""#, r#""80:90""#), (r#""http-alt""#, r#""http-alt""#)]
        {
            let port: Port = serde_json::from_str(json).expect(json);
            assert_eq!(serde_json::to_string(&port).expect("writes"), again);
        }
        for wrong in ["65536", "-1", r#""90:80""#, r#""1:2:3""#, r#""a b""#, r#""""#, "null", "1.5"] {
            assert!(serde_json::from_str::<Port>(wrong).is_err(), "{wrong}");
        }
    }
}
