//! Numbers that no other request has, on this node or any other.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::TryRngCore;
use rand::rngs::OsRng;

/// A random start for each process, then one step for each number: as unique as random ones, without a random number generator on the hot path.
#[derive(Debug)]
pub struct UniqueNumbers {
    start: u128,
    next: AtomicU64,
}

impl UniqueNumbers {
    /// # Errors
    /// The system has no randomness to give.
    pub fn new() -> Result<Self, rand::rand_core::OsError> {
        let start = u128::from(OsRng.try_next_u64()?) << 64 | u128::from(OsRng.try_next_u64()?);
        Ok(Self { start, next: AtomicU64::new(0) })
    }

    pub fn next(&self) -> u128 {
        self.start.wrapping_add(u128::from(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_within_and_between_processes() {
        let (one, other) = (UniqueNumbers::new().expect("randomness"), UniqueNumbers::new().expect("randomness"));
        let mut all: Vec<u128> = (0..100).flat_map(|_| [one.next(), other.next()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
