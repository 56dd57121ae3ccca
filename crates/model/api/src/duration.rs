//! Durations in the text form of Go: `1h30m`, `10s`, `1.5ms`, `0s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A signed duration in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub i64);

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: expected numbers with units ns, us, ms, s, m or h, such as 1m30s")]
pub struct GoDurationError(String);

const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

impl GoDuration {
    /// This many whole seconds.
    pub const fn from_seconds(seconds: i64) -> GoDuration {
        GoDuration(seconds.saturating_mul(1_000_000_000))
    }

    /// The duration as std's type; a negative one is zero.
    pub fn as_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl FromStr for GoDuration {
    type Err = GoDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || GoDurationError(text.to_owned());
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = 0i64;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            total = total.checked_add(nanos(number, *scale).ok_or_else(wrong)?).ok_or_else(wrong)?;
            rest = tail;
        }
        Ok(GoDuration(if negative { -total } else { total }))
    }
}

/// Whole part exactly, fraction by floating point, as the fraction is below one unit.
fn nanos(number: &str, scale: f64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    // The scale is a whole number of nanoseconds below 2^53 and the fraction is below one.
    #[allow(clippy::cast_possible_truncation, reason = "both products are checked or bounded above")]
    whole.checked_mul(scale as i64)?.checked_add((fraction * scale) as i64)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        let decimal = |n: u64, unit: u64| {
            let width = unit.ilog10() as usize;
            let fraction = format!("{:0width$}", n % unit);
            let fraction = fraction.trim_end_matches('0');
            if unit == 1 || fraction.is_empty() { format!("{}", n / unit) } else { format!("{}.{fraction}", n / unit) }
        };
        match n {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{sign}{n}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", decimal(n, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", decimal(n, 1_000_000)),
            _ => {
                let minutes = n / 60_000_000_000;
                let seconds = decimal(n % 60_000_000_000, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, m) => write!(f, "{sign}{m}m{seconds}s"),
                    (h, m) => write!(f, "{sign}{h}h{m}m{seconds}s"),
                }
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_: GoDurationError| {
            de::Error::invalid_value(de::Unexpected::Str(&text), &"a duration such as 1m30s")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_written_as_go_does() {
        for (text, written) in [
            ("90s", "1m30s"),
            ("10m", "10m0s"),
            ("1h", "1h0m0s"),
            ("0", "0s"),
            ("1.5s", "1.5s"),
            ("-250ms", "-250ms"),
            ("1h1ns", "1h0m0.000000001s"),
            ("3us", "3µs"),
        ] {
            let read: GoDuration = text.parse().expect(text);
            assert_eq!(read.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(read), "{written}");
        }
        for wrong in ["", "10", "s", "1x", "1m30", ".s", "9999999999h"] {
            assert!(wrong.parse::<GoDuration>().is_err(), "{wrong}");
        }
    }
}
