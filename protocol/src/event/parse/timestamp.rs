//! Event time: RFC 3339 text in full, or a number of epoch milliseconds or seconds.

use super::number;

/// 0001-01-01T00:00:00Z.
const FIRST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;
/// A number nearer to zero than this is seconds (year 5138), else milliseconds.
const SECONDS_BELOW: i64 = 100_000_000_000;

fn in_range(ms: i64) -> Option<i64> {
    (FIRST_MS..=LAST_MS).contains(&ms).then_some(ms)
}

/// Date-time of RFC 3339 as UTC milliseconds, finer digits cut off. Lower-case `t` and `z`, a space for `T`, any number of fractional digits, and
/// second 60, which is the instant after second 59, are accepted. `None` when it is none of these, or outside the years 0001-9999 in UTC.
pub(super) fn from_rfc3339(text: &str) -> Option<i64> {
    let (date_time, mut rest) = text.as_bytes().split_first_chunk::<19>()?;
    let number =
        |from: usize, to: usize| date_time[from..to].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')));
    let separators = [date_time[4], date_time[7], date_time[13], date_time[16]];
    if separators != *b"--::" || !matches!(date_time[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        millis = first_three(&fraction[..digits]);
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(u8::is_ascii_digit) => {
            let two = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = ((days_from_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes) * 60 + second;
    in_range(seconds * 1_000 + millis)
}

/// A JSON number: milliseconds since 1970, or seconds when it is below 10^11 either way; what is finer than a millisecond is cut off downwards.
pub(super) fn from_number(text: &str) -> Option<i64> {
    // By far the most: a whole number of milliseconds.
    if text.len() == 13
        && let Some((head, tail)) = text.as_bytes().split_first_chunk::<8>()
        && let head = u64::from_le_bytes(*head)
        && number::is_eight_digits(head)
        && let Some(ms) =
            tail.iter().try_fold(number::eight_digits(head) as i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    {
        return in_range(ms);
    }
    if text.contains(['e', 'E']) {
        let number = number::parse(text);
        let ms = if number.abs() < SECONDS_BELOW as f64 { number * 1_000.0 } else { number };
        return if ms.abs() < 1e15 { in_range(ms.floor() as i64) } else { None };
    }
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let whole: i64 = whole.parse().ok()?;
    let fraction = fraction.as_bytes();
    let (ms, finer) = if whole < SECONDS_BELOW {
        (whole * 1_000 + first_three(fraction), fraction.get(3..).unwrap_or_default())
    } else {
        (whole, fraction)
    };
    if magnitude.len() == text.len() {
        return in_range(ms);
    }
    in_range(-ms - i64::from(finer.iter().any(|&d| d != b'0')))
}

/// The first three of some fractional digits, as thousandths.
fn first_three(digits: &[u8]) -> i64 {
    (0..3).fold(0, |n, i| n * 10 + digits.get(i).map_or(0, |d| i64::from(d - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`; years from 0 on.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_rfc_3339_is_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T12:00:00.123Z", 1_767_268_800_123),
            ("2026-01-01t12:00:00.123456789z", 1_767_268_800_123),
            ("2026-01-01 12:00:00.1239999999999Z", 1_767_268_800_123),
            ("2026-01-01T17:45:00.5+05:45", 1_767_268_800_500),
            ("2026-01-01T04:00:00-08:00", 1_767_268_800_000),
            ("2026-01-01T12:00:00-00:00", 1_767_268_800_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000),
            ("2016-12-31T23:59:60.25Z", 1_483_228_800_250),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("0001-01-01T00:00:00Z", FIRST_MS),
            ("9999-12-31T23:59:59.9999Z", LAST_MS),
        ] {
            assert_eq!(from_rfc3339(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for text in [
            "",
            "1767268800000",
            "2026-01-01",
            "2026-01-01T12:00Z",
            "2026-01-01T12:00:00",
            "2026-01-01T12:00:00.Z",
            "2026-01-01T12:00:00,5Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T12:60:00Z",
            "2026-01-01T12:00:61Z",
            "2026-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-01T12:00:00+0100",
            "2026-01-01T12:00:00+24:00",
            "2026-01-01T12:00:00+01:60",
            "2026-01-01T12:00:00Z ",
            " 2026-01-01T12:00:00Z",
            "2026-01-01T12:00:00[UTC]",
            "+026-01-01T12:00:00Z",
            "2026-01-01T1２:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_milliseconds_or_below_ten_to_the_eleventh_seconds() {
        for (text, ms) in [
            ("0", Some(0)),
            ("-1", Some(-1_000)),
            ("1767268800", Some(1_767_268_800_000)),
            ("1767268800.123", Some(1_767_268_800_123)),
            ("1767268800.1239", Some(1_767_268_800_123)),
            ("-1.0005", Some(-1_001)),
            ("-1.0010", Some(-1_001)),
            ("99999999999", Some(99_999_999_999_000)),
            ("99999999999.9999", Some(99_999_999_999_999)),
            ("100000000000", Some(100_000_000_000)),
            ("-100000000000.5", Some(-100_000_000_001)),
            ("1767268800123", Some(1_767_268_800_123)),
            ("1767268800123.9", Some(1_767_268_800_123)),
            ("1.767268800123e12", Some(1_767_268_800_123)),
            ("1.7672688e9", Some(1_767_268_800_000)),
            ("253402300799999", Some(LAST_MS)),
            ("253402300800000", None),
            ("-62135596800000", Some(FIRST_MS)),
            ("-62135596800001", None),
            ("-62135596800", Some(FIRST_MS)),
            ("1e300", None),
            ("99999999999999999999999999", None),
        ] {
            assert_eq!(from_number(text), ms, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_agree_with_jiff(
            year in 1i64..=9999, month in 0u8..=13, day in 0u8..=32, hour in 0u8..=24, minute in 0u8..=60, second in 0u8..=59,
            nanos in 0u32..1_000_000_000, offset in -1439i64..=1439,
        ) {
            let sign = if offset < 0 { '-' } else { '+' };
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60);
            // jiff folds 24:00:00 into the next day, RFC 3339 does not have it.
            let jiff = if hour == 24 { None } else { text.parse::<jiff::Timestamp>().ok() };
            let jiff = jiff.map(|t| t.as_nanosecond().div_euclid(1_000_000) as i64).and_then(in_range);
            prop_assert_eq!(from_rfc3339(&text), jiff, "{}", text);
        }
    }
}
