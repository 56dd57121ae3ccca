//! Quantities of the Kubernetes API, such as `1500m`, `10k` or `4Gi`.

/// The whole number that a quantity is, rounded away from zero; beyond what fits, the nearest that does. `None` if the
/// text is no quantity.
pub(crate) fn whole(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    if before.len() + after.len() == 0 || after.contains('.') {
        return None;
    }
    let (base, exponent) = scale(suffix)?;
    let after = after.trim_end_matches('0');
    // Beyond this many digits the value is out of range anyway, or what is lost only decides how to round.
    let digits = format!("{before}{after}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let places = i64::try_from(after.len()).ok()?;
    let magnitude = match base {
        Base::Two => binary(digits, places, exponent),
        Base::Ten => decimal(digits, exponent - places),
    };
    let magnitude = magnitude.unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

/// Digits times a power of ten, rounded up; `None` if that does not fit.
fn decimal(digits: &str, exponent: i64) -> Option<i64> {
    let length = i64::try_from(digits.len()).ok()?;
    if length + exponent > 19 {
        return None;
    }
    if length + exponent <= 0 {
        return Some(1);
    }
    if exponent >= 0 {
        let factor = 10i128.checked_pow(u32::try_from(exponent).ok()?)?;
        return i64::try_from(digits.parse::<i128>().ok()? * factor).ok();
    }
    let (whole, rest) = digits.split_at(usize::try_from(length + exponent).ok()?);
    let more = i64::from(rest.bytes().any(|digit| digit != b'0'));
    whole.parse::<i64>().ok()?.checked_add(more)
}

/// Digits with this many decimal places times a power of two, rounded up; `None` if that does not fit.
fn binary(digits: &str, places: i64, exponent: i64) -> Option<i64> {
    // A hundredth of what a suffix can add is lost beyond 20 digits; such quantities are out of every range here.
    let kept = digits.get(..digits.len().min(20))?;
    let dropped = i64::try_from(digits.len() - kept.len()).ok()?;
    let factor = 1i128 << u32::try_from(exponent).ok()?;
    let product = kept.parse::<i128>().ok()?.checked_mul(factor)?;
    decimal(&product.to_string(), dropped - places)
}

#[derive(Clone, Copy)]
enum Base {
    Two,
    Ten,
}

/// Base and exponent of a suffix.
fn scale(suffix: &str) -> Option<(Base, i64)> {
    Some(match suffix {
        "" => (Base::Ten, 0),
        "n" => (Base::Ten, -9),
        "u" => (Base::Ten, -6),
        "m" => (Base::Ten, -3),
        "k" => (Base::Ten, 3),
        "M" => (Base::Ten, 6),
        "G" => (Base::Ten, 9),
        "T" => (Base::Ten, 12),
        "P" => (Base::Ten, 15),
        "E" => (Base::Ten, 18),
        "Ki" => (Base::Two, 10),
        "Mi" => (Base::Two, 20),
        "Gi" => (Base::Two, 30),
        "Ti" => (Base::Two, 40),
        "Pi" => (Base::Two, 50),
        "Ei" => (Base::Two, 60),
        _ => (Base::Ten, i64::from(suffix.strip_prefix(['e', 'E'])?.parse::<i16>().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        let table = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("10k", Some(10_000)),
            ("1.01k", Some(1_010)),
            ("1.01P", Some(1_010_000_000_000_000)),
            ("4Gi", Some(4_294_967_296)),
            ("1.5Ki", Some(1_536)),
            ("0.5", Some(1)),
            ("1500m", Some(2)),
            ("1m", Some(1)),
            ("1e3", Some(1_000)),
            ("1E3", Some(1_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("12E", Some(i64::MAX)),
            ("16Ei", Some(i64::MAX)),
            ("1e-3", Some(1)),
            ("-5", Some(-5)),
            ("+5", Some(5)),
            (".5k", Some(500)),
            ("5.", Some(5)),
            ("000", Some(0)),
            ("", None),
            (".", None),
            ("k", None),
            ("1.2.3", None),
            ("10 k", None),
            ("10K", None),
            ("1e", None),
            ("ten", None),
        ];
        for (text, value) in table {
            assert_eq!(whole(text), value, "{text}");
        }
    }
}
