//! What changed windows that were closed already, by day: whoever keeps an answer about closed time can tell whether it still holds.
//!
//! No part of the state: it counts from the start of the process, and replicas may differ.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tallymesh_protocol::question::query::TimeRange;
use tallymesh_protocol::time::DAY_MS;

/// Days told apart; rows of more count as changes of every day.
const DAYS_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub struct LateChanges {
    /// Rows by the day of their event time.
    days: Mutex<BTreeMap<i64, u64>>,
    /// Changes that may have been anywhere.
    everywhere: AtomicU64,
}

impl LateChanges {
    /// A number that only rises, and rises with every late row in the days that `range` touches.
    pub fn count(&self, range: TimeRange) -> u64 {
        let (first, last) = (range.from_ms.div_euclid(DAY_MS), range.to_ms.saturating_sub(1).div_euclid(DAY_MS));
        let in_days: u64 = if first <= last { self.days.lock().range(first..=last).map(|(_, n)| n).sum() } else { 0 };
        in_days + self.everywhere.load(Ordering::Acquire)
    }

    /// Another state took the place of the one that was counted.
    pub fn replaced(&self) {
        self.everywhere.fetch_add(1, Ordering::AcqRel);
    }

    fn add(&self, day: i64, rows: u64) {
        let mut days = self.days.lock();
        if days.len() < DAYS_MAX || days.contains_key(&day) {
            *days.entry(day).or_default() += rows;
        } else {
            drop(days);
            self.everywhere.fetch_add(rows, Ordering::AcqRel);
        }
    }
}

/// Notes the rows of one batch; late ones of a day usually come together.
pub struct LateRows<'a> {
    changes: &'a LateChanges,
    closed_ms: i64,
    day: i64,
    rows: u64,
}

impl<'a> LateRows<'a> {
    /// `closed_ms` is the event time before which windows were closed when the batch came.
    pub fn new(changes: &'a LateChanges, closed_ms: i64) -> Self {
        Self { changes, closed_ms, day: 0, rows: 0 }
    }

    #[inline]
    pub fn note(&mut self, time_ms: i64) {
        if time_ms < self.closed_ms {
            self.note_late(time_ms.div_euclid(DAY_MS));
        }
    }

    fn note_late(&mut self, day: i64) {
        if day != self.day {
            self.flush();
            self.day = day;
        }
        self.rows += 1;
    }

    fn flush(&mut self) {
        if self.rows > 0 {
            self.changes.add(self.day, std::mem::take(&mut self.rows));
        }
    }
}

impl Drop for LateRows<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(from: i64, to: i64) -> TimeRange {
        TimeRange { from_ms: from * DAY_MS, to_ms: to * DAY_MS }
    }

    #[test]
    fn only_late_rows_of_the_days_of_a_range_count() {
        let changes = LateChanges::default();
        let mut rows = LateRows::new(&changes, 10 * DAY_MS);
        for time_ms in [3 * DAY_MS, 3 * DAY_MS + 5, 5 * DAY_MS, 10 * DAY_MS, 11 * DAY_MS, -1] {
            rows.note(time_ms);
        }
        drop(rows);
        assert_eq!([days(3, 4), days(3, 6), days(4, 5), days(10, 12), days(-1, 0)].map(|r| changes.count(r)), [2, 3, 0, 0, 1]);
        assert_eq!(changes.count(TimeRange { from_ms: 5 * DAY_MS + 7, to_ms: 5 * DAY_MS + 8 }), 1, "the whole day counts");
    }

    #[test]
    fn days_beyond_the_bound_count_everywhere() {
        let changes = LateChanges::default();
        let mut rows = LateRows::new(&changes, i64::MAX);
        for day in 0..=DAYS_MAX as i64 {
            rows.note(day * DAY_MS);
        }
        drop(rows);
        assert_eq!(changes.days.lock().len(), DAYS_MAX);
        assert_eq!([days(0, 1), days(9_000, 9_001)].map(|r| changes.count(r)), [2, 1]);
        changes.replaced();
        assert_eq!(changes.count(days(9_000, 9_001)), 2);
    }
}
