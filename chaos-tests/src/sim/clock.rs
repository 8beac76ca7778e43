//! The clocks of a simulated machine: virtual time, with a wall clock that is wrong and jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallymesh_storage::clock::Clock;
use tokio::time::Instant;

/// Wall time at the beginning of every simulation: 2026-01-01 00:10 UTC, so that windows of an hour and a day close soon before and after.
pub const BEGAN_MS: i64 = 1_767_226_200_000;

#[derive(Clone)]
pub struct SimClock {
    began: Instant,
    ahead_ms: Arc<AtomicI64>,
    /// How much faster it runs, in millionths.
    drift: i64,
}

impl SimClock {
    pub fn new(began: Instant, ahead_ms: i64, drift: i64) -> Self {
        Self { began, ahead_ms: Arc::new(AtomicI64::new(ahead_ms)), drift }
    }

    pub fn jump(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        BEGAN_MS + self.monotonic().as_millis() as i64 + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        let micros = self.began.elapsed().as_micros() as i64;
        Duration::from_micros((micros + micros / 1_000_000 * self.drift) as u64)
    }
}
