//! Numbers as Go prints them.

/// `%v` of a float: the shortest form, with an exponent when that is below -4 or above 5 (`1e+06`).
pub(super) fn float(value: f64) -> String {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if value != 0.0 && !(-4..6).contains(&exponent) { scientific(digits, exponent) } else { value.to_string() }
}

fn scientific(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%.5g`: at most five digits.
pub(crate) fn g5(value: f64) -> String {
    let text = format!("{value:.4e}");
    let (digits, exponent) = text.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let short = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if (-4..5).contains(&exponent) {
        let decimals = usize::try_from(4 - exponent).expect("the exponent is below five");
        short(&format!("{value:.decimals$}"))
    } else {
        scientific(&short(digits), exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (100.0, "100"),
            (1.5, "1.5"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (-0.000_01, "-1e-05"),
            (0.0001, "0.0001"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn five_digits_are_enough() {
        for (value, text) in [
            (0.0, "0"),
            (64.0, "64"),
            (65_536.0, "65536"),
            (1_048_576.0, "1.0486e+06"),
            (65_535.5, "65536"),
            (1.0, "1"),
        ] {
            assert_eq!(g5(value), text);
        }
    }
}
