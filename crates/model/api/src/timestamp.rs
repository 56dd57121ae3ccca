//! Times as Kubernetes writes them: RFC 3339, UTC, whole seconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in whole seconds; anything finer is dropped when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The moment this many seconds after the Unix epoch, if a calendar has it.
    pub fn from_unix_seconds(seconds: i64) -> Option<Timestamp> {
        jiff::Timestamp::from_second(seconds).ok().map(Timestamp)
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Reads RFC 3339 text.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let exact: jiff::Timestamp = text.parse().ok()?;
        // Floor, so that times before the epoch lose their fraction in the same direction as Go's.
        Timestamp::from_unix_seconds(exact.as_nanosecond().div_euclid(1_000_000_000).try_into().ok()?)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"a time such as 2026-01-31T12:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_fractions_are_normalised() {
        let time = Timestamp::parse("2023-07-25T08:42:33.9+02:00").expect("good time");
        assert_eq!(time.to_string(), "2023-07-25T06:42:33Z");
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
