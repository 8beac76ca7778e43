//! Local time of a few zones from their published rules for 2019-2029, and the steps of an answer found by walking through the minutes.

use super::ask::Width;

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// Days since 1970-01-01 of a date, counted year by year and month by month.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let is_leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let years: i64 = (1970..year).map(|y| if is_leap(y) { 366 } else { 365 }).sum();
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    years + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1
}

/// 0 is Sunday; 1970-01-01 was a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

fn first(weekday_wanted: i64, from: i64) -> i64 {
    (from..from + 7).find(|d| weekday(*d) == weekday_wanted).expect("a week has it")
}

fn last(weekday_wanted: i64, until: i64) -> i64 {
    (until - 6..=until).find(|d| weekday(*d) == weekday_wanted).expect("a week has it")
}

/// `YYYY-MM-DD` of a day since 1970.
pub fn date_text(day: i64) -> String {
    // Never too late: no year is longer.
    let (mut year, mut month) = (1970 + day / 366, 1);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", day - days(year, month, 1) + 1)
}

#[derive(Clone, Debug)]
pub struct Zone {
    pub name: &'static str,
    /// Offset from UTC in milliseconds from each instant on; the first is for all time before.
    changes: Vec<(i64, i64)>,
}

impl Zone {
    fn new(name: &'static str, standard: i64, summer: i64, begin_and_end: impl Fn(i64) -> [i64; 2]) -> Self {
        let mut changes = Vec::new();
        for year in 2019..2030 {
            let [begin, end] = begin_and_end(year);
            changes.extend([(begin, summer), (end, standard)]);
        }
        changes.sort_unstable();
        let before = if changes[0].1 == summer { standard } else { summer };
        changes.insert(0, (i64::MIN, before));
        Self { name, changes }
    }

    pub fn all() -> Vec<Self> {
        let fixed = |name, offset| Self { name, changes: vec![(i64::MIN, offset)] };
        vec![
            fixed("UTC", 0),
            fixed("Asia/Kathmandu", 5 * HOUR + 45 * MINUTE),
            // Last Sundays of March and October, 01:00 UTC.
            Self::new("Europe/Berlin", HOUR, 2 * HOUR, |y| [last(0, days(y, 3, 31)) * DAY + HOUR, last(0, days(y, 10, 31)) * DAY + HOUR]),
            // Second Sunday of March, first of November, 02:00 local time.
            Self::new("America/New_York", -5 * HOUR, -4 * HOUR, |y| {
                [first(0, days(y, 3, 8)) * DAY + 7 * HOUR, first(0, days(y, 11, 1)) * DAY + 6 * HOUR]
            }),
            // First Sundays of October and April, 02:00 local time; half an hour.
            Self::new("Australia/Lord_Howe", 10 * HOUR + 30 * MINUTE, 11 * HOUR, |y| {
                [first(0, days(y, 10, 1)) * DAY - 8 * HOUR - 30 * MINUTE, first(0, days(y, 4, 1)) * DAY - 9 * HOUR]
            }),
            // At local midnight, so that a day begins at 01:00: first Sunday from September 2 on, first from April 2 on (24:00 of Saturday).
            Self::new("America/Santiago", -4 * HOUR, -3 * HOUR, |y| {
                let begin = if y == 2022 { days(y, 9, 11) } else { first(0, days(y, 9, 2)) };
                [begin * DAY + 4 * HOUR, first(0, days(y, 4, 2)) * DAY + 3 * HOUR]
            }),
        ]
    }

    pub fn offset(&self, at: i64) -> i64 {
        let i = self.changes.partition_point(|(from, _)| *from <= at);
        self.changes[i - 1].1
    }

    /// The instant of a local time: the earlier of two, and where the clock skips it as much later as the clock skips.
    pub fn instant(&self, local: i64) -> i64 {
        let offsets = || self.changes.iter().map(|(_, offset)| *offset);
        let real = offsets().map(|o| local - o).filter(|at| at + self.offset(*at) == local).min();
        let skipped = || {
            let mut pairs = self.changes.windows(2).map(|w| (w[1].0, w[0].1, w[1].1));
            pairs.find(|(from, before, after)| (from + before..from + after).contains(&local)).map(|(_, before, _)| local - before)
        };
        real.or_else(skipped).expect("a local time is there once, twice or is skipped")
    }

    /// The same local time some days before.
    pub fn days_before(&self, at: i64, days: i64) -> i64 {
        self.instant(at + self.offset(at) - days * DAY)
    }

    /// Starts of the steps that touch `[from, to)`, aligned to the local clock; a change of the offset begins one too.
    pub fn steps(&self, from: i64, to: i64, width: Width) -> Vec<i64> {
        let place = |at: i64| {
            let (offset, local) = (self.offset(at), at + self.offset(at));
            if width == Width::Day { (0, local.div_euclid(DAY)) } else { (offset, local.div_euclid(width.ms())) }
        };
        // Every border lies on one of these.
        let stride = width.ms().min(15 * MINUTE);
        let mut at = from.div_euclid(stride) * stride;
        while place(at - stride) == place(at) {
            at -= stride;
        }
        let mut starts = vec![at];
        let mut here = place(at);
        while at < to {
            let next = place(at);
            if next != here {
                starts.push(at);
                here = next;
            }
            at += stride;
        }
        starts
    }
}
