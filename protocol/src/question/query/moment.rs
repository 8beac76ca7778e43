//! Moments, ranges and time zones as clients write them.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, civil};

use super::QueryParams;
use crate::error::{ErrorCode, Problem, nearest};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, rfc3339};

/// 0001-01-02 and 9999-12-30: far enough inside of what the calendar has that a day more in any time zone exists.
const MOMENT_MS_MIN: i64 = -62_135_510_400_000;
const MOMENT_MS_MAX: i64 = 253_402_128_000_000;

/// The time zone rules built into the program, so that every node answers alike whatever its system has.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Half-open, UTC milliseconds, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub from_ms: i64,
    pub to_ms: i64,
}

/// A time zone by its IANA name.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    pub name: String,
    pub rules: TimeZone,
}

impl Zone {
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// # Errors
    /// 422 with the nearest name there is.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        match ZONES.get(name) {
            Ok(rules) => Ok(Self { name: rules.iana_name().unwrap_or(name).to_owned(), rules }),
            Err(_) => {
                let names: Vec<String> = ZONES.available().map(|n| n.to_string()).collect();
                let slip = nearest(name, names.iter().map(String::as_str));
                let city = || names.iter().find(|n| n.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(name))).cloned();
                Err(Problem::new(ErrorCode::BadTimeZone, format!("`{name}` is no IANA time zone; write it as `Europe/Berlin` or `UTC`"))
                    .field("tz")
                    .did_you_mean(slip.or_else(city)))
            }
        }
    }
}

impl TimeRange {
    /// From `range` or `from` / `to`; what is left out ends now.
    ///
    /// # Errors
    /// 422 when neither or both are given, one does not parse, or the range is reversed or empty.
    pub(super) fn parse(params: &QueryParams, now_ms: i64, zone: &Zone) -> Result<Self, Problem> {
        let (from_ms, to_ms) = match (params.get("range"), params.get("from"), params.get("to")) {
            (Some(range), None, None) => (now_ms.saturating_sub(span(range)?), now_ms),
            (None, Some(from), to) => {
                let to_ms = to.map_or(Ok(now_ms), |to| moment("to", to, zone))?;
                (moment("from", from, zone)?, to_ms)
            }
            (Some(_), ..) => return Err(bad_range("range", "give `range` or `from` and `to`, not both")),
            (None, None, Some(_)) => return Err(bad_range("from", "`to` needs a `from`")),
            (None, None, None) => {
                return Err(bad_range(
                    "range",
                    "say which time: `range=24h` (15m, 7d, 4w), or `from` and `to` as RFC 3339 or epoch milliseconds",
                ));
            }
        };
        if from_ms < MOMENT_MS_MIN {
            return Err(bad_range(if params.get("range").is_some() { "range" } else { "from" }, "the range begins before the year 1"));
        }
        if from_ms >= to_ms {
            let detail = format!("`from` ({}) must be before `to` ({})", rfc3339(from_ms), rfc3339(to_ms));
            return Err(bad_range("from", detail));
        }
        Ok(Self { from_ms, to_ms })
    }

    /// Whether [`Self::parse`] could have made it: in order, and inside of the calendar, so that arithmetic on it cannot overflow.
    pub(super) fn is_possible(&self) -> bool {
        MOMENT_MS_MIN <= self.from_ms && self.from_ms < self.to_ms && self.to_ms <= MOMENT_MS_MAX
    }

    pub fn length_ms(&self) -> i64 {
        self.to_ms - self.from_ms
    }
}

fn bad_range(field: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadRange, detail).field(field)
}

/// `90s`, `15m`, `24h`, `7d`, `4w` in milliseconds.
fn span(text: &str) -> Result<i64, Problem> {
    let bad = || bad_range("range", format!("`{text}` is no range; write a whole number and s, m, h, d or w, such as 15m, 24h, 7d"));
    let unit = text.bytes().last().ok_or_else(bad)?;
    let unit_ms = match unit {
        b's' => SECOND_MS,
        b'm' => MINUTE_MS,
        b'h' => HOUR_MS,
        b'd' => DAY_MS,
        b'w' => 7 * DAY_MS,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let count: i64 = digits.parse().map_err(|_| bad_range("range", format!("`{text}` is longer than time has been")))?;
    match count.checked_mul(unit_ms) {
        Some(0) => Err(bad_range("range", "the range is empty")),
        Some(ms) if ms <= MOMENT_MS_MAX - MOMENT_MS_MIN => Ok(ms),
        _ => Err(bad_range("range", format!("`{text}` is longer than time has been"))),
    }
}

/// RFC 3339, epoch milliseconds, or a date, which is its first moment in `zone`.
fn moment(field: &str, text: &str, zone: &Zone) -> Result<i64, Problem> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let ms = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else if text.len() == 10 {
        text.parse::<civil::Date>().ok().and_then(|d| d.to_zoned(zone.rules.clone()).ok()).map(|z| z.timestamp().as_millisecond())
    } else {
        // A `+` that was not escaped in a URL arrives as a space.
        let mended = text.rfind(' ').filter(|i| text[..*i].contains([':'])).map(|i| format!("{}+{}", &text[..i], &text[i + 1..]));
        text.parse::<Timestamp>().ok().or_else(|| mended?.parse().ok()).map(floor_ms)
    };
    match ms {
        Some(ms) if (MOMENT_MS_MIN..=MOMENT_MS_MAX).contains(&ms) => Ok(ms),
        Some(_) => Err(bad_range(field, format!("`{text}` is outside the years 1 to 9999"))),
        None => {
            let hint = if text.parse::<civil::DateTime>().is_ok() { "; add `Z` or an offset such as `+02:00`" } else { "" };
            let detail =
                format!("`{text}` is no moment: write RFC 3339 (2026-01-01T12:00:00Z), epoch milliseconds or a date (2026-01-01){hint}");
            Err(bad_range(field, detail))
        }
    }
}

/// Rounded towards the past before 1970 too, so that `from` never moves later.
fn floor_ms(moment: Timestamp) -> i64 {
    moment.as_nanosecond().div_euclid(1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_268_800_000; // 2026-01-01T12:00:00Z

    fn range(pairs: &[(&str, &str)], tz: &str) -> Result<(i64, i64), Problem> {
        let params = QueryParams::from_pairs(pairs.iter().copied()).expect("known names");
        TimeRange::parse(&params, NOW, &Zone::parse(tz).expect("zone")).map(|r| (r.from_ms, r.to_ms))
    }

    #[test]
    fn ranges_end_now() {
        for (text, ms) in [("90s", 90_000), ("15m", 900_000), ("24h", DAY_MS), ("7d", 7 * DAY_MS), ("4w", 28 * DAY_MS)] {
            assert_eq!(range(&[("range", text)], "UTC"), Ok((NOW - ms, NOW)), "{text}");
        }
        for bad in ["", "h", "0h", "-1h", "1.5h", "24", "24 h", "7y", "1H", "99999999999999999999h", "99999999999999h", "9999999d", "é"] {
            if bad.is_empty() {
                continue;
            }
            let problem = range(&[("range", bad)], "UTC").expect_err(bad);
            assert_eq!((problem.code, problem.field.as_deref()), (ErrorCode::BadRange, Some("range")), "{bad}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_epoch_milliseconds_or_dates_of_the_zone() {
        let from = |text, tz| range(&[("from", text), ("to", "2100-01-01")], tz).map(|r| r.0);
        for (text, tz, ms) in [
            ("2026-01-01T12:00:00Z", "UTC", NOW),
            ("2026-01-01T17:45:00+05:45", "UTC", NOW),
            ("2026-01-01T17:45:00 05:45", "UTC", NOW),
            ("2026-01-01T12:00:00.5Z", "UTC", NOW + 500),
            ("1767268800000", "UTC", NOW),
            ("0", "UTC", 0),
            ("-1", "UTC", -1),
            ("1969-12-31T23:59:59.9999Z", "UTC", -1),
            ("2026-01-01", "UTC", NOW - DAY_MS / 2),
            ("2026-01-01", "Asia/Kathmandu", NOW - DAY_MS / 2 - 20_700_000),
        ] {
            assert_eq!(from(text, tz), Ok(ms), "{text} in {tz}");
        }
        for bad in ["yesterday", "2026-01-01T12:00:00", "2026-13-01", "99999999999999999", "12345678901234567890", "2026-01-01T25:00:00Z"] {
            let problem = from(bad, "UTC").expect_err(bad);
            assert_eq!((problem.code, problem.field.as_deref()), (ErrorCode::BadRange, Some("from")), "{bad}");
        }
        assert!(from("2026-01-01T12:00:00", "UTC").expect_err("no offset").detail.contains("offset"));
    }

    #[test]
    fn reversed_empty_and_contradicting_ranges_are_refused() {
        for pairs in [
            &[("from", "2026-01-02"), ("to", "2026-01-01")][..],
            &[("from", "2026-01-01"), ("to", "2026-01-01")],
            &[("from", "2027-01-01")],
            &[("to", "2026-01-01")],
            &[("range", "1h"), ("from", "2026-01-01")],
            &[],
        ] {
            assert_eq!(range(pairs, "UTC").expect_err("refused").code, ErrorCode::BadRange, "{pairs:?}");
        }
        assert_eq!(range(&[("from", "2025-01-01")], "UTC").map(|r| r.1), Ok(NOW), "a missing `to` is now");
    }

    #[test]
    fn unknown_zones_name_the_nearest() {
        for (asked, near) in [("Europe/Berln", Some("Europe/Berlin")), ("kathmandu", Some("Asia/Kathmandu")), ("Mars/Olympus", None)] {
            let problem = Zone::parse(asked).expect_err(asked);
            assert_eq!((problem.code, problem.did_you_mean.as_deref()), (ErrorCode::BadTimeZone, near));
        }
    }
}
