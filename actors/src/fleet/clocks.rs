//! How this node's wall clock stands to those of its peers. Stamps of a log follow the median of a majority, so that no single clock moves windows and horizons; a node
//! that is far off does not lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A node whose clock is further than this from the median does not lead.
pub const OFF_MAX_MS: i64 = 1_000;
/// What was heard longer ago says nothing about a clock.
const HEARD_AGE_MAX: Duration = Duration::from_secs(10);
/// An answer that took longer than this says too little about the moment that it was given.
const TRIP_MAX: Duration = Duration::from_millis(500);

/// What to add to this node's wall clock to get the median. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct MedianOffset(Arc<AtomicI64>);

impl MedianOffset {
    pub fn ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn is_far_off(&self) -> bool {
        self.ms().abs() > OFF_MAX_MS
    }
}

#[derive(Default)]
pub struct Clocks {
    /// By member: how far its clock is ahead of this node's, and when that was heard.
    ahead: Mutex<BTreeMap<u64, (i64, Duration)>>,
    offset: MedianOffset,
}

impl Clocks {
    pub fn offset(&self) -> MedianOffset {
        self.offset.clone()
    }

    /// A member's clock said `its_ms` when it answered a question that was asked at `asked_at`, as this node's said `own_ms` then; the answer took `trip`. `members` is how many
    /// there are. Returns whether this node has become far off by it, or is so no more.
    pub fn heard(&self, member: u64, its_ms: i64, own_ms: i64, trip: Duration, asked_at: Duration, members: usize) -> Option<bool> {
        if trip > TRIP_MAX {
            return None;
        }
        let mut ahead = self.ahead.lock();
        let midway = own_ms.saturating_add(trip.as_millis() as i64 / 2);
        ahead.insert(member, (its_ms.saturating_sub(midway), asked_at));
        ahead.retain(|_, (_, at)| asked_at.saturating_sub(*at) <= HEARD_AGE_MAX);
        let mut all: Vec<i64> = ahead.values().map(|(ms, _)| *ms).chain([0]).collect();
        all.sort_unstable();
        // Of a minority the median says nothing.
        let median = if 2 * all.len() > members { all[(all.len() - 1) / 2] } else { 0 };
        let before = self.offset.is_far_off();
        self.offset.0.store(median, Ordering::Relaxed);
        let after = self.offset.is_far_off();
        (before != after).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_wrong_clock_among_three_is_outvoted_and_knows_it() {
        let right = Clocks::default();
        assert_eq!(right.heard(2, 1_000_010, 1_000_000, at(10), at(0), 3), None);
        assert_eq!(right.heard(3, 8_000_000, 1_000_100, at(10), at(100), 3), None);
        assert!(right.offset().ms().abs() < 10);

        let wrong = Clocks::default();
        assert_eq!(wrong.heard(1, 1_000_000, 8_000_000, at(10), at(0), 3), Some(true), "of two the lower counts");
        wrong.heard(2, 1_000_100, 8_000_100, at(10), at(100), 3);
        assert!(wrong.offset().is_far_off() && (wrong.offset().ms() + 7_000_000).abs() < 20);
        assert_eq!(wrong.heard(1, 1_000_200, 1_000_200, at(10), at(200), 3), Some(false), "it was set right");
    }

    #[test]
    fn minority_and_slow_answers_say_nothing() {
        let clocks = Clocks::default();
        clocks.heard(2, 9_000_000, 1_000_000, at(10), at(0), 5);
        assert_eq!(clocks.offset().ms(), 0);
        clocks.heard(3, 9_000_000, 1_000_000, at(900), at(10), 3);
        assert_eq!(clocks.ahead.lock().len(), 1);
    }
}
