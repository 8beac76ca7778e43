//! How many queries run at once, and how many may wait for that (Q7).

use std::sync::Arc;
use std::time::Duration;

use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const RETRY_AFTER_MS: u64 = 1_000;

/// Places to run and places to wait; cheap to share.
#[derive(Clone)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    concurrency: usize,
    waiters_max: usize,
}

/// A place to run, given back when dropped: at the answer, or when the client goes away.
#[derive(Debug)]
pub struct Admitted {
    _place: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(concurrency: usize, waiters_max: usize) -> Self {
        let places = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Self { running: places(concurrency), waiting: places(waiters_max), concurrency, waiters_max }
    }

    /// Queries that run now.
    pub fn running(&self) -> usize {
        self.concurrency - self.running.available_permits()
    }

    /// Waits up to `patience` for a place to run.
    ///
    /// # Errors
    /// 429 when too many wait already, or none became free in time.
    pub async fn enter(&self, patience: Duration) -> Result<Admitted, Problem> {
        if let Ok(place) = self.running.clone().try_acquire_owned() {
            return Ok(Admitted { _place: place });
        }
        let busy =
            |detail: String, limit: usize| Problem::new(ErrorCode::Overloaded, detail).limit(limit as u64).retry_after_ms(RETRY_AFTER_MS);
        let Ok(_waiting) = self.waiting.clone().try_acquire_owned() else {
            return Err(busy(format!("{} queries run and {} wait", self.concurrency, self.waiters_max), self.waiters_max));
        };
        match tokio::time::timeout(patience, self.running.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Admitted { _place: place }),
            Ok(Err(_)) => Err(Problem::new(ErrorCode::ShuttingDown, "no more queries are taken").retry_after_ms(RETRY_AFTER_MS)),
            Err(_) => {
                Err(busy(format!("none of {} places became free in {} ms", self.concurrency, patience.as_millis()), self.concurrency))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_the_places_to_run_and_to_wait_queries_are_refused() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(Duration::ZERO).await.expect("free");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(Duration::from_secs(5)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = gate.enter(Duration::from_secs(5)).await.expect_err("no place to wait");
        assert_eq!((refused.status, refused.retry_after_ms), (429, Some(RETRY_AFTER_MS)));
        drop(first);
        assert_eq!(waiting.await.expect("runs"), Ok(()));
        assert_eq!(gate.running(), 0, "every place is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let gate = Gate::new(1, 1);
        let _held = gate.enter(Duration::ZERO).await.expect("free");
        assert_eq!(gate.enter(Duration::from_millis(50)).await.expect_err("still held").code, ErrorCode::Overloaded);
    }
}
