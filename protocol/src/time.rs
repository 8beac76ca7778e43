//! Grains of windows and arithmetic on UTC milliseconds. No clock: the time always comes in.

use serde::{Deserialize, Serialize};

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Width of a tumbling window, in UTC.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[rkyv(derive(Debug, PartialEq, Eq, Clone, Copy))]
pub enum Grain {
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "1d")]
    Day,
}

impl Grain {
    pub const ALL: [Grain; 3] = [Grain::Minute, Grain::Hour, Grain::Day];

    pub const fn ms(self) -> i64 {
        match self {
            Grain::Minute => MINUTE_MS,
            Grain::Hour => HOUR_MS,
            Grain::Day => DAY_MS,
        }
    }

    /// Start of the window that holds `time_ms`; right before 1970 too.
    pub const fn floor(self, time_ms: i64) -> i64 {
        time_ms - time_ms.rem_euclid(self.ms())
    }

    /// First window start at or after `time_ms`.
    pub const fn ceil(self, time_ms: i64) -> i64 {
        self.floor(time_ms + self.ms() - 1)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Grain::Minute => "1m",
            Grain::Hour => "1h",
            Grain::Day => "1d",
        }
    }
}

/// What nearly every answer prints, by the thousand: whole seconds of the years 1970 to 9999.
fn whole_seconds(time_ms: i64) -> Option<String> {
    const SECONDS_MAX: u64 = 253_402_300_799;
    let seconds = u64::try_from(time_ms).ok().filter(|ms| ms % 1_000 == 0)? / 1_000;
    if seconds > SECONDS_MAX {
        return None;
    }
    // Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, eras of 400 years on 0000-03-01.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = seconds % 86_400;
    let mut text = *b"0000-00-00T00:00:00Z";
    for (at, value) in
        [(0, year / 100), (2, year % 100), (5, month), (8, day), (11, second / 3_600), (14, second / 60 % 60), (17, second % 60)]
    {
        text[at] = b'0' + (value / 10) as u8;
        text[at + 1] = b'0' + (value % 10) as u8;
    }
    String::from_utf8(text.to_vec()).ok()
}

/// RFC 3339 with milliseconds and `Z`, as every answer prints time.
pub fn rfc3339(time_ms: i64) -> String {
    if let Some(text) = whole_seconds(time_ms) {
        return text;
    }
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(t) if time_ms.rem_euclid(1_000) == 0 => format!("{t:.0}"),
        Ok(t) => format!("{t:.3}"),
        Err(_) => last_days(time_ms),
    }
}

/// jiff's timestamps end where a day before the year 10000 is left for every time zone; RFC 3339 goes on to its end.
fn last_days(time_ms: i64) -> String {
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    match epoch.checked_add(jiff::SignedDuration::from_millis(time_ms)) {
        Ok(t) if time_ms.rem_euclid(1_000) == 0 => format!("{t:.0}Z"),
        Ok(t) => format!("{t:.3}Z"),
        // Beyond the calendar; no moment that an event or a query may name.
        Err(_) => format!("{time_ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_before_1970_start_at_or_before_their_time() {
        assert_eq!(Grain::Minute.floor(-1), -MINUTE_MS);
        assert_eq!(Grain::Hour.ceil(1), HOUR_MS);
        assert_eq!(Grain::Day.ceil(DAY_MS), DAY_MS);
    }

    #[test]
    fn whole_seconds_are_printed_as_the_calendar_has_them() {
        let mut seconds = 0i64;
        while seconds < 253_402_300_800 {
            let calendar = jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).ok();
            if let Some(calendar) = calendar {
                assert_eq!(rfc3339(seconds * 1_000), calendar);
            }
            seconds += 7_000_003;
        }
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2100-03-01T00:00:00Z", "2026-12-31T12:00:01Z"] {
            let time: jiff::Timestamp = text.parse().expect("a time");
            assert_eq!(rfc3339(time.as_millisecond()), text);
        }
    }

    #[test]
    fn time_is_printed_in_utc_with_as_many_digits_as_it_has() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.500Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_799_000), "9999-12-31T23:59:59Z");
    }
}
