//! A token bucket that may be overdrawn: what something costs is known only after it was let in, so the next one waits for it.

use std::time::Duration;

use crate::limits::RATE_BURST_S;

/// Full at first; holds what [`RATE_BURST_S`] give.
#[derive(Debug)]
pub struct Bucket {
    /// 0 is no limit.
    per_s: u64,
    tokens: f64,
    /// Monotonic time that `tokens` is of.
    at: Duration,
}

impl Bucket {
    pub fn new(per_s: u64) -> Self {
        Self { per_s, tokens: Self::full(per_s), at: Duration::ZERO }
    }

    fn full(per_s: u64) -> f64 {
        per_s as f64 * RATE_BURST_S
    }

    fn refill(&mut self, now: Duration) {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + since * self.per_s as f64).min(Self::full(self.per_s));
    }

    /// Lets something in that costs `cost` as far as is known.
    ///
    /// # Errors
    /// The time until the bucket is out of debt.
    pub fn spend(&mut self, now: Duration, cost: u64) -> Result<(), Duration> {
        if self.per_s == 0 {
            return Ok(());
        }
        self.refill(now);
        // A bucket that has a little lets in whatever it is: one request may be larger than a full bucket.
        let missing = (cost as f64).min(1.0) - self.tokens;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing / self.per_s as f64));
        }
        self.tokens -= cost as f64;
        Ok(())
    }

    /// Costs that turned up later.
    pub fn charge(&mut self, now: Duration, cost: u64) {
        if self.per_s > 0 {
            self.refill(now);
            self.tokens -= cost as f64;
        }
    }

    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= Self::full(self.per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_burst_is_let_in_then_the_rate() {
        let mut bucket = Bucket::new(10);
        let burst = (RATE_BURST_S * 10.0) as u64;
        for _ in 0..burst {
            assert_eq!(bucket.spend(T(0), 1), Ok(()));
        }
        assert_eq!(bucket.spend(T(0), 1), Err(T(100)));
        assert_eq!(bucket.spend(T(50), 1), Err(T(50)));
        assert_eq!(bucket.spend(T(100), 1), Ok(()));
        let admitted = (100..10_100).filter(|ms| bucket.spend(T(*ms), 1).is_ok()).count();
        assert!((99..=101).contains(&admitted), "{admitted}");
    }

    #[test]
    fn debts_are_paid_before_the_next_is_let_in() {
        let mut bucket = Bucket::new(1_000);
        assert_eq!(bucket.spend(T(0), 1), Ok(()));
        bucket.charge(T(0), 4_999);
        assert!(!bucket.is_full(T(0)));
        let wait = bucket.spend(T(0), 0).expect_err("in debt");
        assert_eq!(wait, T(3_000));
        assert_eq!(bucket.spend(wait, 0), Ok(()));
        assert!(bucket.is_full(T(60_000)));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut bucket = Bucket::new(0);
        bucket.charge(T(0), u64::MAX);
        assert_eq!(bucket.spend(T(0), u64::MAX), Ok(()));
        assert!(bucket.is_full(T(0)));
    }
}
