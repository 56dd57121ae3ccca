//! What an unquoted word means in YAML 1.1 as Go's library reads it; the writer quotes whatever would mean something.

use serde_json::{Number, Value};

/// The meaning of an unquoted word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    /// Infinity or not-a-number, which JSON cannot hold.
    NotFinite,
    /// A date or time; read as text, but quoted when written.
    Time,
    /// The mark of a merge.
    Merge,
    Text,
}

impl Scalar {
    pub(crate) fn of(word: &str) -> Scalar {
        match word {
            "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
            | "-.INF" => Scalar::NotFinite,
            "<<" => Scalar::Merge,
            _ => match word.as_bytes()[0] {
                b'.' => float(word),
                b'0'..=b'9' | b'+' | b'-' if is_time(word) => Scalar::Time,
                b'0'..=b'9' | b'+' | b'-' => number(&word.replace('_', "")),
                _ => Scalar::Text,
            },
        }
    }

    /// The value as JSON; text and times stay what was written.
    pub(crate) fn value(self, word: &str) -> Option<Value> {
        match self {
            Scalar::Null => Some(Value::Null),
            Scalar::Bool(b) => Some(Value::Bool(b)),
            Scalar::Number(n) => Some(Value::Number(n)),
            Scalar::Time | Scalar::Merge | Scalar::Text => Some(Value::String(word.to_owned())),
            Scalar::NotFinite => None,
        }
    }
}

/// Whether old readers would take the word for a number of base 60, such as `12:30`.
pub(crate) fn is_base_60(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or("");
    let mut sixties = 0;
    for part in parts {
        let good = match part.as_bytes() {
            [a] => a.is_ascii_digit(),
            [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
            _ => false,
        };
        if !good {
            return false;
        }
        sixties += 1;
    }
    sixties > 0 && first.as_bytes().first().is_some_and(u8::is_ascii_digit) && digits(first) && digits(fraction)
}

fn number(plain: &str) -> Scalar {
    let (negative, digits) = match plain.as_bytes() {
        [b'-', ..] => (true, &plain[1..]),
        [b'+', ..] => (false, &plain[1..]),
        _ => (false, plain),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] if digits.bytes().all(|b| b.is_ascii_digit()) => (8, &digits[1..]),
        _ => (10, digits),
    };
    let whole = if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() };
    match (negative, whole) {
        (false, Some(n)) => Scalar::Number(n.into()),
        (true, Some(n)) if n <= i64::MIN.unsigned_abs() => Scalar::Number(0i64.wrapping_sub_unsigned(n).into()),
        (_, None) | (true, Some(_)) => float(plain),
    }
}

fn float(plain: &str) -> Scalar {
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let formed = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !formed || exponent.is_empty() || !digits(exponent) {
        return Scalar::Text;
    }
    match plain.parse::<f64>().ok().map(Number::from_f64) {
        Some(Some(number)) => Scalar::Number(number),
        Some(None) => Scalar::NotFinite,
        None => Scalar::Text,
    }
}

/// `2006-1-2`, alone or followed by a time of day.
fn is_time(word: &str) -> bool {
    let digits = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let (date, time) = match word.find(['T', 't', ' ']) {
        Some(at) => (&word[..at], Some((word.as_bytes()[at], &word[at + 1..]))),
        None => (word, None),
    };
    let date: Vec<&str> = date.split('-').collect();
    let [year, month, day] = date.as_slice() else { return false };
    let day_good = digits(year, 4..=4) && digits(month, 1..=2) && digits(day, 1..=2);
    let in_range = |text: &str, low: u8, high: u8| text.parse::<u8>().is_ok_and(|n| (low..=high).contains(&n));
    if !day_good || !in_range(month, 1, 12) || !in_range(day, 1, 31) {
        return false;
    }
    let Some((mark, time)) = time else { return true };
    let clock = match time.find(['Z', '+', '-']) {
        Some(at) => &time[..at],
        // Only after a blank may the zone be missing.
        None if mark == b' ' => time,
        None => return false,
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return false };
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    in_range(hour, 0, 23) && in_range(minute, 0, 59) && in_range(second, 0, 59) && digits(fraction, 1..=9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_go_takes_them_for() {
        let number = |n: f64| Scalar::Number(Number::from_f64(n).expect("finite"));
        for (word, meaning) in [
            ("010", Scalar::Number(8.into())),
            ("1_000", Scalar::Number(1000.into())),
            ("0x1F", Scalar::Number(31.into())),
            ("0b11", Scalar::Number(3.into())),
            ("-5", Scalar::Number((-5).into())),
            ("18446744073709551615", Scalar::Number(u64::MAX.into())),
            ("1.5", number(1.5)),
            ("1e3", number(1000.0)),
            (".5", number(0.5)),
            ("089", number(89.0)),
            ("10.0.0.1", Scalar::Text),
            ("-", Scalar::Text),
            ("1e", Scalar::Text),
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("~", Scalar::Null),
            ("2023-07-25T06:42:33Z", Scalar::Time),
            ("2023-07-25", Scalar::Time),
            ("2023-13-25", Scalar::Text),
            ("1-2-3", Scalar::Text),
            ("node-1", Scalar::Text),
        ] {
            assert_eq!(Scalar::of(word), meaning, "{word}");
        }
        assert!(is_base_60("12:30") && is_base_60("1:2:3.4") && !is_base_60("1:99") && !is_base_60("a:30"));
    }
}
