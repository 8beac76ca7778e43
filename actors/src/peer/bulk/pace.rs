//! Bytes per second, over all streams of a node.

use std::time::Duration;

use tokio::time::Instant;

/// Lets bytes pass at a rate; what is early waits.
pub struct Pace {
    bytes_per_second: u64,
    /// When the bytes that were let pass will have been paid for.
    paid_until: tokio::sync::Mutex<Option<Instant>>,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: tokio::sync::Mutex::new(None) }
    }

    /// Waits until `bytes` more may pass.
    pub async fn pass(&self, bytes: usize) {
        let turn = {
            let mut paid_until = self.paid_until.lock().await;
            let now = Instant::now();
            let turn = paid_until.map_or(now, |until| until.max(now));
            *paid_until = Some(turn + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64));
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
