//! AS numbers in JSON: read from a number or from text, plain or dotted; written as a number.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use tortie_net::AsNumber;

struct Read(AsNumber);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Read;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number from 0 to 4294967295, or HIGH.LOW")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Read, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(|n| Read(AsNumber(n))).map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Read, E> {
                text.parse().map(Read).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

pub(crate) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AsNumber>, D::Error> {
    Ok(Option::<Read>::deserialize(deserializer)?.map(|read| read.0))
}

pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AsNumber>, D::Error> {
    Ok(Vec::<Read>::deserialize(deserializer)?.into_iter().map(|read| read.0).collect())
}
