//! Back-pressure at the door (I7): bytes of all requests that have not been answered yet, bounded for the whole node.
//!
//! A request takes permits for what it is about to hold *before* it holds it. When there is no room it waits shortly, in a line of bounded
//! length; then it is refused. Waiters are served in order, so a large request is not starved by small ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Bytes of all requests together; at most `u32::MAX`.
    pub bytes_max: usize,
    /// Longest wait for room.
    pub wait: Duration,
    /// Requests that may wait at once.
    pub waiters_max: usize,
}

/// Why a request was not let in. Retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{limit_bytes} bytes of requests are in flight already")]
    Full { limit_bytes: usize },
    #[error("{limit} requests wait for room already")]
    LineFull { limit: usize },
    #[error("a request may hold at most {limit_bytes} bytes")]
    NeverFits { limit_bytes: usize },
}

/// Counters since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionStats {
    pub held_bytes: usize,
    pub limit_bytes: usize,
    pub waiting: usize,
    pub waited: u64,
    pub refused: u64,
}

/// Cheap to clone; all clones are the same door.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    permits: Arc<Semaphore>,
    limits: AdmissionLimits,
    waiting: AtomicUsize,
    waited: AtomicU64,
    refused: AtomicU64,
}

/// Room for some bytes; given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(limits: AdmissionLimits) -> Self {
        let limits = AdmissionLimits { bytes_max: limits.bytes_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize), ..limits };
        Self {
            shared: Arc::new(Shared {
                permits: Arc::new(Semaphore::new(limits.bytes_max)),
                limits,
                waiting: AtomicUsize::new(0),
                waited: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
        }
    }

    /// Takes room for `bytes`, waiting shortly if need be.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn enter(&self, bytes: usize) -> Result<Room, Refused> {
        let permit = self.shared.take(bytes, self.shared.limits.wait).await?;
        Ok(Room { shared: self.shared.clone(), permit })
    }

    /// Whether room is short: requests wait for it, or less than a quarter is left.
    pub fn is_pressed(&self) -> bool {
        let shared = &self.shared;
        shared.waiting.load(Ordering::Relaxed) > 0 || shared.permits.available_permits() < shared.limits.bytes_max / 4
    }

    pub fn stats(&self) -> AdmissionStats {
        let shared = &self.shared;
        AdmissionStats {
            held_bytes: shared.limits.bytes_max - shared.permits.available_permits(),
            limit_bytes: shared.limits.bytes_max,
            waiting: shared.waiting.load(Ordering::Relaxed),
            waited: shared.waited.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl Room {
    /// Longest wait for room, as every request has it.
    pub fn patience(&self) -> Duration {
        self.shared.limits.wait
    }

    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Holds `bytes` from now on: gives back what is too much, or takes more as [`Admission::enter`] does. What is held stays held on failure.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn resize(&mut self, bytes: usize) -> Result<(), Refused> {
        self.resize_within(bytes, self.shared.limits.wait).await
    }

    /// The same with a patience of its own.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn resize_within(&mut self, bytes: usize, wait: Duration) -> Result<(), Refused> {
        let held = self.bytes();
        if bytes <= held {
            drop(self.permit.split(held - bytes));
            return Ok(());
        }
        if bytes > self.shared.limits.bytes_max {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::NeverFits { limit_bytes: self.shared.limits.bytes_max });
        }
        let more = self.shared.take(bytes - held, wait).await?;
        self.permit.merge(more);
        Ok(())
    }
}

impl Shared {
    async fn take(&self, bytes: usize, wait: Duration) -> Result<OwnedSemaphorePermit, Refused> {
        let result = self.try_take(bytes, wait).await;
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn try_take(&self, bytes: usize, wait: Duration) -> Result<OwnedSemaphorePermit, Refused> {
        let limits = &self.limits;
        let full = Refused::Full { limit_bytes: limits.bytes_max };
        let count = u32::try_from(bytes).ok().filter(|_| bytes <= limits.bytes_max);
        let count = count.ok_or(Refused::NeverFits { limit_bytes: limits.bytes_max })?;
        if let Ok(permit) = self.permits.clone().try_acquire_many_owned(count) {
            return Ok(permit);
        }
        if wait.is_zero() {
            return Err(full);
        }
        let _place = Place::take(&self.waiting, limits.waiters_max).ok_or(Refused::LineFull { limit: limits.waiters_max })?;
        self.waited.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(wait, self.permits.clone().acquire_many_owned(count)).await {
            Ok(Ok(permit)) => Ok(permit),
            // Never closed, so only the time-out is left.
            Ok(Err(_)) | Err(_) => Err(full),
        }
    }
}

/// A place in the line, given up on drop: also when the client has gone away.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).ok().map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(bytes_max: usize, wait_ms: u64, waiters_max: usize) -> Admission {
        Admission::new(AdmissionLimits { bytes_max, wait: Duration::from_millis(wait_ms), waiters_max })
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_refuses_after_a_short_wait_and_opens_when_room_is_given_back() {
        let door = door(100, 50, 4);
        let first = door.enter(80).await.expect("room");
        assert_eq!(door.enter(30).await.expect_err("full"), Refused::Full { limit_bytes: 100 });
        assert_eq!(door.stats(), AdmissionStats { held_bytes: 80, limit_bytes: 100, waiting: 0, waited: 1, refused: 1 });
        drop(first);
        assert_eq!(door.enter(100).await.expect("room").bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gets_in_as_soon_as_there_is_room() {
        let door = door(100, 1_000, 4);
        let mut first = door.enter(100).await.expect("room");
        let waiter = tokio::spawn({
            let door = door.clone();
            async move { door.enter(60).await.map(|r| r.bytes()) }
        });
        tokio::task::yield_now().await;
        assert_eq!(door.stats().waiting, 1);
        first.resize(40).await.expect("shrinking always works");
        assert_eq!(waiter.await.expect("no panic"), Ok(60));
    }

    #[tokio::test(start_paused = true)]
    async fn pressure_is_felt_before_the_door_is_full() {
        let door = door(100, 50, 4);
        let mut room = door.enter(75).await.expect("room");
        assert!(!door.is_pressed());
        room.resize(76).await.expect("room");
        assert!(door.is_pressed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded_and_a_gone_waiter_leaves_it() {
        let door = door(10, 1_000, 1);
        let _all = door.enter(10).await.expect("room");
        let waiter = tokio::spawn({
            let door = door.clone();
            async move { door.enter(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(door.enter(1).await.expect_err("line is full"), Refused::LineFull { limit: 1 });
        waiter.abort();
        assert!(waiter.await.expect_err("aborted").is_cancelled());
        assert_eq!(door.stats().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn growing_keeps_what_is_held_when_there_is_no_room() {
        let door = door(100, 0, 4);
        let mut room = door.enter(60).await.expect("room");
        let other = door.enter(30).await.expect("room");
        assert_eq!(room.resize(90).await, Err(Refused::Full { limit_bytes: 100 }));
        assert_eq!(room.bytes(), 60);
        drop(other);
        room.resize(90).await.expect("room");
        assert_eq!((room.bytes(), door.stats().held_bytes), (90, 90));
        assert_eq!(room.resize(101).await, Err(Refused::NeverFits { limit_bytes: 100 }));
    }
}
