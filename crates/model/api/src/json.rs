//! JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators are escaped, floats are short.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};

/// Compact JSON with Go's escapes.
pub fn go_json(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, GoFormatter);
    value.serialize(&mut serializer).expect("a Vec takes every byte and map keys are strings");
    String::from_utf8(out).expect("JSON is UTF-8")
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let found = rest[at..].chars().next().expect("find returned a character boundary");
            write!(writer, "\\u{:04x}", u32::from(found))?;
            rest = &rest[at + found.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        match whole(value) {
            Some(integer) => CompactFormatter.write_i64(writer, integer),
            None => CompactFormatter.write_f64(writer, value),
        }
    }
}

/// The integer that a float is, if it is one that both can hold exactly.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

/// For `serialize_with`: an optional float without a needless `.0`.
pub(crate) fn short_float<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value.map(|v| whole(v).ok_or(v)) {
        None => serializer.serialize_none(),
        Some(Ok(integer)) => serializer.serialize_i64(integer),
        Some(Err(float)) => serializer.serialize_f64(float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_go_does() {
        assert_eq!(go_json(&"a<b>&\u{2028}\"é\n"), r#""a\u003cb\u003e\u0026\u2028\"é\n""#);
        assert_eq!(go_json(&(100.0, 1.5, -0.25)), "[100,1.5,-0.25]");
    }
}
