//! The clock of a shard's log. Its stamps are what dedup, windows and retention take for the time, so they must be the same on every replica
//! (they travel in the entries), never go back, and not jump ahead with one machine's wall clock.

use std::time::Duration;

/// How much faster than the monotonic clock the stamps may run while they catch up with a wall clock that is ahead, in percent.
const CATCH_UP_PERCENT: i64 = 1;

/// Pure: the wall and monotonic clocks are inputs.
#[derive(Clone, Debug)]
pub struct StampClock {
    /// In microseconds: counted in milliseconds, frequent stamps would each round the time passed down to nothing and the clock would stand.
    last_us: i64,
    /// Monotonic time of the last stamp; none before the first of the term.
    last_at: Option<Duration>,
}

impl StampClock {
    /// `last_stamp_ms` is the newest stamp in the log, UTC milliseconds.
    pub fn new(last_stamp_ms: i64) -> Self {
        Self { last_us: last_stamp_ms.saturating_mul(1_000), last_at: None }
    }

    /// A new term: its first stamp follows the wall clock again, but not below `last_stamp_ms`, the newest stamp of the log, nor below its own last.
    pub fn begin_term(&mut self, last_stamp_ms: i64) {
        self.last_us = self.last_us.max(last_stamp_ms.saturating_mul(1_000));
        self.last_at = None;
    }

    /// The stamp of the next entry, UTC milliseconds: in a term `min(wall, last + monotonic elapsed x 1.01)`, never below the last.
    pub fn stamp(&mut self, wall_ms: i64, monotonic: Duration) -> i64 {
        let wall_us = wall_ms.saturating_mul(1_000);
        let target = match self.last_at {
            None => wall_us,
            Some(at) => {
                let elapsed = i64::try_from(monotonic.saturating_sub(at).as_micros()).unwrap_or(i64::MAX);
                wall_us.min(self.last_us.saturating_add(elapsed).saturating_add(elapsed / 100 * CATCH_UP_PERCENT))
            }
        };
        self.last_us = self.last_us.max(target);
        self.last_at = Some(monotonic);
        self.last_us.div_euclid(1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn first_stamp_of_a_term_is_the_later_of_wall_and_log() {
        assert_eq!(StampClock::new(500).stamp(1_000, at(0)), 1_000);
        assert_eq!(StampClock::new(5_000).stamp(1_000, at(0)), 5_000);
    }

    #[test]
    fn wall_clock_that_jumps_ahead_is_followed_slowly_until_a_new_term() {
        let mut clock = StampClock::new(0);
        assert_eq!(clock.stamp(1_000, at(0)), 1_000);
        assert_eq!(clock.stamp(3_600_000, at(1_000)), 2_010);
        clock.begin_term(2_010);
        assert_eq!(clock.stamp(3_600_000, at(1_001)), 3_600_000);
    }

    #[test]
    fn wall_clock_that_goes_back_stops_the_stamps_but_does_not_turn_them() {
        let mut clock = StampClock::new(0);
        assert_eq!(clock.stamp(10_000, at(0)), 10_000);
        assert_eq!(clock.stamp(4_000, at(100)), 10_000);
        assert_eq!(clock.stamp(10_050, at(6_100)), 10_050);
    }

    #[test]
    fn frequent_stamps_do_not_lose_the_time_between_them() {
        let mut clock = StampClock::new(0);
        clock.stamp(0, Duration::ZERO);
        let mut last = 0;
        for i in 1..=10_000u64 {
            last = clock.stamp(i64::MAX / 2_000, Duration::from_micros(i * 300));
        }
        assert!((3_000..=3_030).contains(&last), "3 s went by, the stamps say {last} ms");
    }

    proptest! {
        #[test]
        fn stamps_never_go_back_nor_run_ahead(steps in prop::collection::vec((0i64..10_000_000, 0u64..5_000, prop::bool::weighted(0.1)), 1..60)) {
            let mut clock = StampClock::new(0);
            let (mut mono, mut last, mut fresh) = (0u64, i64::MIN, true);
            for (wall, elapsed, new_term) in steps {
                mono += elapsed;
                if new_term {
                    clock.begin_term(last);
                    fresh = true;
                }
                let stamp = clock.stamp(wall, at(mono));
                prop_assert!(stamp >= last);
                if stamp > last {
                    prop_assert!(stamp <= wall, "never ahead of the wall clock unless the log is");
                    prop_assert!(fresh || stamp - last <= (elapsed * 101 / 100) as i64 + 1);
                }
                last = stamp;
                fresh = false;
            }
        }
    }
}
