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

/// RFC 3339 with milliseconds and `Z`, as every answer prints time.
pub fn rfc3339(time_ms: i64) -> String {
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
    fn time_is_printed_in_utc_with_as_many_digits_as_it_has() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.500Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_799_000), "9999-12-31T23:59:59Z");
    }
}
