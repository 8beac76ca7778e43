//! Event times by the calendar of `jiff` and exact decimals.

use jiff::civil::{Date, date};

const FIRST_MS: i128 = -62_135_596_800_000;
const LAST_MS: i128 = 253_402_300_799_999;

fn in_range(ms: i128) -> Option<i64> {
    (FIRST_MS..=LAST_MS).contains(&ms).then_some(ms as i64)
}

/// RFC 3339, section 5.6, with a space for `T` and second 60 as the instant after second 59.
pub(super) fn of_text(text: &str) -> Option<i64> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c.to_ascii_uppercase() }).collect();
    let (date_time, rest) = shape.split_at_checked(19)?;
    if date_time != "0000-00-00T00:00:00" && date_time != "0000-00-00 00:00:00" {
        return None;
    }
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let digits = if fraction.is_empty() { "" } else { fraction.strip_prefix('.').filter(|d| !d.is_empty())? };
    if !digits.bytes().all(|b| b == b'0') || !matches!(zone, "Z" | "+00:00" | "-00:00") {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i16>().ok();
    let day = Date::new(number(0, 4)?, number(5, 7)? as i8, number(8, 10)? as i8).ok()?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let zone_text = &text[19 + zone_at..];
    let offset = match zone {
        "Z" => 0,
        _ => {
            let (hours, minutes) = (zone_text[1..3].parse::<i16>().ok()?, zone_text[4..6].parse::<i16>().ok()?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if zone_text.starts_with('-') { -1 } else { 1 }
        }
    };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = day.duration_since(date(1970, 1, 1)).as_hours() / 24;
    let seconds = i128::from(days) * 86_400 + (i128::from(hour) * 60 + i128::from(minute) - i128::from(offset)) * 60 + i128::from(second);
    let millis: String = text[20.min(19 + zone_at)..19 + zone_at].chars().chain("000".chars()).take(3).collect();
    in_range(seconds * 1_000 + millis.parse::<i128>().ok()?)
}

/// Seconds below 10^11 either way, else milliseconds; what is finer than a millisecond is cut off downwards.
pub(super) fn of_number(text: &str) -> Option<i64> {
    if text.contains(['e', 'E']) {
        let number: f64 = text.parse().ok()?;
        let ms = if number.abs() < 1e11 { number * 1_000.0 } else { number };
        return if ms.is_finite() && ms.abs() < 1e18 { in_range(ms.floor() as i128) } else { None };
    }
    let (is_negative, magnitude) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    if whole.trim_start_matches('0').len() > 18 {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let shift = if whole < 100_000_000_000 { 3 } else { 0 };
    // Thousandths (or ones) as digits, and whether anything is left behind them.
    let digits: String = fraction.chars().chain("000".chars()).take(shift).collect();
    let is_exact = fraction.bytes().skip(shift).all(|b| b == b'0');
    let ms = whole * 10i128.pow(shift as u32) + digits.parse::<i128>().unwrap_or(0);
    in_range(if is_negative { -ms - i128::from(!is_exact) } else { ms })
}
