//! A DSCP value (RFC 2474): a number or a name, written back as it came.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A DSCP value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dscp {
    /// 0 to 63.
    Number(u8),
    /// One of [`Dscp::NAMES`], in any case.
    Name(String),
}

impl Dscp {
    /// The names, as the RFCs spell them.
    pub const NAMES: &'static [&'static str] = &[
        "DF", "EF", "AF11", "AF12", "AF13", "AF21", "AF22", "AF23", "AF31", "AF32", "AF33", "AF41", "AF42", "AF43",
        "CS0", "CS1", "CS2", "CS3", "CS4", "CS5", "CS6",
    ];
    const VALUES: [u8; 21] = [0, 46, 10, 12, 14, 18, 20, 22, 26, 28, 30, 34, 36, 38, 0, 8, 16, 24, 32, 40, 48];

    /// The value from 0 to 63.
    pub fn value(&self) -> u8 {
        match self {
            Dscp::Number(number) => *number,
            Dscp::Name(name) => Dscp::of_name(name).unwrap_or(0),
        }
    }

    fn of_name(name: &str) -> Option<u8> {
        Dscp::NAMES.iter().position(|n| n.eq_ignore_ascii_case(name.trim())).map(|at| Dscp::VALUES[at])
    }
}

impl Serialize for Dscp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Dscp::Number(number) => serializer.serialize_u8(*number),
            Dscp::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Dscp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a DSCP name or a number from 0 to 63")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Dscp, E> {
                let good = u8::try_from(number).ok().filter(|n| *n <= 63).map(Dscp::Number);
                good.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dscp, E> {
                match (text.parse(), Dscp::of_name(text)) {
                    (Ok(number), _) => self.visit_u64(number),
                    (Err(_), Some(_)) => Ok(Dscp::Name(text.to_owned())),
                    (Err(_), None) => Err(E::unknown_variant(text, Dscp::NAMES)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
