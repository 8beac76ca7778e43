//! Where steps begin in a time zone.
//!
//! A day is a day of the local calendar, 23 to 25 hours long. Shorter steps follow the local clock, so that in Kathmandu (+05:45) an hour begins at
//! 15 minutes past in UTC; where the offset changes a new step begins, so that the hour that a clock repeats in autumn is two steps, not one of double length.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{ErrorCode, Problem};
use crate::question::query::{StepWidth, TimeRange, Zone};

/// Starts in order; the first is at or before the range, the others inside.
///
/// # Errors
/// The range leaves the calendar.
pub(super) fn starts(range: TimeRange, width: StepWidth, zone: &Zone) -> Result<Vec<i64>, Problem> {
    let starts = match width {
        StepWidth::Day => days(range, &zone.rules),
        _ => clock_steps(range, width.ms(), &zone.rules),
    };
    starts.map_err(|e| Problem::new(ErrorCode::BadRange, format!("the range leaves the calendar: {e}")).field("from"))
}

fn days(range: TimeRange, rules: &TimeZone) -> Result<Vec<i64>, jiff::Error> {
    let mut date = rules.to_datetime(Timestamp::from_millisecond(range.from_ms)?).date();
    let mut starts: Vec<i64> = Vec::new();
    loop {
        // Midnight, or the first moment after it where the clock skips midnight.
        let start = date.to_zoned(rules.clone())?.timestamp().as_millisecond();
        if start >= range.to_ms {
            return Ok(starts);
        }
        // A date that a zone skipped altogether begins where the next one does.
        match starts.last_mut() {
            Some(last) if start <= *last || start <= range.from_ms => *last = start.max(*last),
            _ => starts.push(start),
        }
        date = date.tomorrow()?;
    }
}

fn clock_steps(range: TimeRange, width_ms: i64, rules: &TimeZone) -> Result<Vec<i64>, jiff::Error> {
    let first = Timestamp::from_millisecond(range.from_ms)?;
    let mut offset_ms = offset_ms(rules, first);
    let since = rules.preceding(Timestamp::from_millisecond(range.from_ms + 1)?).map(|t| t.timestamp()).find(|t| changes_offset(rules, *t));
    let mut changes = rules
        .following(first)
        .map(|t| t.timestamp())
        .take_while(|t| t.as_millisecond() < range.to_ms)
        .filter(|t| changes_offset(rules, *t))
        .peekable();
    let floor = |at: i64, offset_ms: i64| at - (at + offset_ms).rem_euclid(width_ms);
    let mut at = floor(range.from_ms, offset_ms).max(since.map_or(i64::MIN, Timestamp::as_millisecond));
    let mut starts = Vec::with_capacity((range.length_ms() / width_ms + 2) as usize);
    while at < range.to_ms {
        starts.push(at);
        at = floor(at, offset_ms) + width_ms;
        if let Some(change) = changes.next_if(|c| c.as_millisecond() <= at) {
            at = change.as_millisecond();
            offset_ms = self::offset_ms(rules, change);
        }
    }
    Ok(starts)
}

fn offset_ms(rules: &TimeZone, at: Timestamp) -> i64 {
    i64::from(rules.to_offset(at).seconds()) * 1_000
}

/// Not only the zone's name or its daylight flag.
fn changes_offset(rules: &TimeZone, at: Timestamp) -> bool {
    Timestamp::from_second(at.as_second() - 1).is_ok_and(|before| rules.to_offset(before) != rules.to_offset(at))
}
