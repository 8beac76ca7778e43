//! A clock that a test turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallymesh_storage::clock::Clock;

/// Wall and monotonic time go together, as far as they are told to.
#[derive(Clone)]
pub struct TestClock {
    began: i64,
    now: Arc<AtomicI64>,
}

impl TestClock {
    pub fn at(now: i64) -> Self {
        Self { began: now, now: Arc::new(AtomicI64::new(now)) }
    }

    pub fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis((self.now() - self.began) as u64)
    }
}
