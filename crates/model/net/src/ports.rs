//! Port ranges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An inclusive range of port numbers; `first <= last` always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Text or numbers that are no port range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no port or range of ports: expected N or MIN:MAX, each 0 to 65535, MIN not above MAX")]
pub struct PortRangeError(String);

impl PortRange {
    /// The range of one port.
    pub fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// The range from `first` to `last`, both included; an error if `first > last`.
    pub fn new(first: u16, last: u16) -> Result<PortRange, PortRangeError> {
        if first > last { Err(PortRangeError(format!("{first}:{last}"))) } else { Ok(PortRange { first, last }) }
    }

    /// The lowest port of the range.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port of the range.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the range holds this port.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    /// Reads `80` and `8000:8080`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PortRangeError(text.to_owned());
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        PortRange::new(first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}:{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_printed() {
        for text in ["0", "80", "8000:8080", "65535"] {
            assert_eq!(text.parse::<PortRange>().expect("a good range").to_string(), text);
        }
        for wrong in ["", "80:79", "65536", "a", "1:2:3"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }
}
