//! The protocol of a rule: a name or a number, written back as it came.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tortie_net::Protocol;

/// A protocol as written in policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleProtocol {
    /// One of the six names that the API knows.
    Name(Protocol),
    /// A protocol number.
    Number(u8),
}

impl Default for RuleProtocol {
    fn default() -> Self {
        RuleProtocol::Name(Protocol::TCP)
    }
}

impl RuleProtocol {
    /// The names that the API knows, in upstream's spelling.
    pub const NAMES: &'static [&'static str] = &["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];

    /// The protocol, whichever way it was written.
    pub fn protocol(self) -> Protocol {
        match self {
            RuleProtocol::Name(protocol) => protocol,
            RuleProtocol::Number(number) => Protocol(number),
        }
    }
}

impl From<Protocol> for RuleProtocol {
    /// By name where there is one.
    fn from(protocol: Protocol) -> Self {
        match protocol.name() {
            Some(_) => RuleProtocol::Name(protocol),
            None => RuleProtocol::Number(protocol.0),
        }
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleProtocol::Name(protocol) => protocol.fmt(f),
            RuleProtocol::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for RuleProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RuleProtocol::Name(protocol) => serializer.collect_str(protocol),
            RuleProtocol::Number(number) => serializer.serialize_u8(*number),
        }
    }
}

impl<'de> Deserialize<'de> for RuleProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = RuleProtocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol name or a number from 1 to 255")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RuleProtocol, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u8::try_from(number).map(RuleProtocol::Number).map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RuleProtocol, E> {
                if let Ok(number) = text.parse() {
                    return Ok(RuleProtocol::Number(number));
                }
                let exact = Protocol::NAMES.iter().find(|(name, _)| *name == text);
                exact
                    .map(|(_, protocol)| RuleProtocol::Name(*protocol))
                    .ok_or_else(|| E::unknown_variant(text, RuleProtocol::NAMES))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_stay_what_they_were() {
        for (json, again) in [(r#""UDPLite""#, r#""UDPLite""#), ("6", "6"), (r#""6""#, "6")] {
            let protocol: RuleProtocol = serde_json::from_str(json).expect(json);
            assert_eq!(serde_json::to_string(&protocol).expect("writes"), again);
        }
        for wrong in [r#""tcp""#, "256", r#""GRE""#] {
            assert!(serde_json::from_str::<RuleProtocol>(wrong).is_err(), "{wrong}");
        }
    }
}
