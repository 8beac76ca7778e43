//! Where a node is in its life: serving, or on its way out.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Cheap to clone; all clones are the same life.
#[derive(Clone, Debug, Default)]
pub struct Life {
    draining: CancellationToken,
}

impl Life {
    /// From now on `/ready` answers 503, answers carry `Connection: close` and endless answers end.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends when the node starts to drain.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Runs `work` every `interval` until the node drains.
    pub async fn every(&self, interval: Duration, mut work: impl FnMut()) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return,
                _ = ticks.tick() => work(),
            }
        }
    }
}
