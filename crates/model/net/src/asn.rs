//! Autonomous system numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An autonomous system number of four bytes (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AsNumber(pub u32);

/// Text that is no AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no AS number: expected 0 to 4294967295, or HIGH.LOW with both halves at most 65535")]
pub struct AsNumberError(String);

impl FromStr for AsNumber {
    type Err = AsNumberError;

    /// Accepts plain decimal and dotted notation (RFC 5396 "asdot+").
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AsNumberError(text.to_owned());
        match text.split_once('.') {
            None => text.parse().map(AsNumber).map_err(|_| wrong()),
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| wrong())?;
                let low: u16 = low.parse().map_err(|_| wrong())?;
                Ok(AsNumber(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_read() {
        assert_eq!("64512".parse(), Ok(AsNumber(64512)));
        assert_eq!("1.10".parse(), Ok(AsNumber(65546)));
        for wrong in ["", "4294967296", "1.65536", "-1", "x"] {
            assert!(wrong.parse::<AsNumber>().is_err(), "{wrong}");
        }
    }
}
