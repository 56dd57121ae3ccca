//! BGP communities as text.

pub(crate) const EXPECTED: &str = "a community AA:NN of 16-bit numbers, or a large one AA:NN:MM of 32-bit numbers";

/// Whether the text is a standard community (RFC 1997) or a large one (RFC 8092).
pub(crate) fn is_value(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let digits = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    parts.iter().all(digits)
        && match parts.as_slice() {
            [a, b] => a.parse::<u16>().is_ok() && b.parse::<u16>().is_ok(),
            [a, b, c] => [a, b, c].iter().all(|part| part.parse::<u32>().is_ok()),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_known() {
        for good in ["65535:0", "1:2:4294967295"] {
            assert!(is_value(good), "{good}");
        }
        for bad in ["", "1", "65536:0", "1:2:3:4", "a:b", "1:", "+1:2"] {
            assert!(!is_value(bad), "{bad}");
        }
    }
}
