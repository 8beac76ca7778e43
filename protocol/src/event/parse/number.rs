//! JSON numbers as doubles, rounded to nearest as serde_json with `float_roundtrip` does.

const POWERS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

/// `text` is a JSON number; infinite when it is out of range.
pub(super) fn parse(text: &str) -> f64 {
    short(text.as_bytes()).unwrap_or_else(|| text.parse().unwrap_or(f64::NAN))
}

/// Whether the bytes of a word are digits.
#[inline]
pub(super) fn is_eight_digits(word: u64) -> bool {
    const TOPS: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const ZEROES: u64 = 0x3030_3030_3030_3030;
    // `0` to `?`, and no carry out of any digit when six are added.
    (word & TOPS) == ZEROES && (word.wrapping_add(0x0606_0606_0606_0606) & TOPS) == ZEROES
}

/// The number that eight digits are, the first in the lowest byte: pairs, then fours, then all are joined (D. Lemire, "Quickly parsing eight digits", 2018).
#[inline]
pub(super) fn eight_digits(word: u64) -> u64 {
    let digits = word & 0x0F0F_0F0F_0F0F_0F0F;
    let pairs = (digits.wrapping_mul(10).wrapping_add(digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF
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

    #[test]
    fn every_byte_at_every_place_is_one_of_eight_digits_or_not() {
        for byte in 0..=255u8 {
            for place in 0..8 {
                let mut text = *b"19283746";
                text[place] = byte;
                let word = u64::from_le_bytes(text);
                assert_eq!(is_eight_digits(word), byte.is_ascii_digit(), "{byte:#x} at {place}");
                if byte.is_ascii_digit() {
                    assert_eq!(eight_digits(word).to_string(), std::str::from_utf8(&text).expect("digits").trim_start_matches('0'));
                }
            }
        }
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
