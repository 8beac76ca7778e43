//! The wall clock, in one place.

/// UTC, milliseconds since 1970.
pub fn wall_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// `12:34:56.789`, UTC: as in the logs of the nodes.
pub fn clock_time() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S.%3f").to_string()
}

/// RFC 3339, UTC, to the millisecond.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// The start of a step, as answers write it: whole seconds.
pub fn step_time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
