//! JSON numbers as doubles, rounded to nearest as serde_json with `float_roundtrip` does.

const POWERS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

/// `text` is a JSON number; infinite when it is out of range.
pub(super) fn parse(text: &str) -> f64 {
    short(text.as_bytes()).unwrap_or_else(|| text.parse().unwrap_or(f64::NAN))
}

/// Up to 15 digits with a point: digits and power of ten are exact, so one division rounds once (Clinger 1990). Up to 16 without: the conversion rounds.
fn short(text: &[u8]) -> Option<f64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut point = None;
    for (i, &b) in digits.iter().enumerate() {
        match b {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(b - b'0'),
            b'.' => point = Some(digits.len() - i - 1),
            _ => return None,
        }
    }
    let magnitude = mantissa as f64 / POWERS[point.unwrap_or(0)];
    Some(if digits.len() < text.len() { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn serde(text: &str) -> Option<f64> {
        serde_json::from_str::<serde_json::Value>(text).ok()?.as_f64()
    }

    #[test]
    fn hard_numbers_are_rounded_as_serde_json_rounds_them() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "9007199254740993",
            "9007199254740992.5",
            "0.1",
            "1e-400",
            "123456789012345678901234567890",
            "2.2250738585072011e-308",
        ] {
            assert_eq!(Some(parse(text).to_bits()), serde(text).map(f64::to_bits), "{text}");
        }
        assert!(parse("1e999").is_infinite());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn numbers_about_as_long_as_a_double_is_exact_are_rounded_once(text in "-?[1-9][0-9]{0,9}\\.[0-9]{4,8}|[1-9][0-9]{13,17}") {
            prop_assert_eq!(Some(parse(&text).to_bits()), serde(&text).map(f64::to_bits), "{}", text);
        }

        #[test]
        fn numbers_are_rounded_as_serde_json_rounds_them(text in "-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,19})?([eE][+-]?[0-9]{1,3})?") {
            let ours = parse(&text);
            prop_assert_eq!(ours.is_finite().then(|| ours.to_bits()), serde(&text).map(f64::to_bits));
        }
    }
}
