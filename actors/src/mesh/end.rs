//! The end of a mesh: leads are handed over, what was taken in is finished, files are closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use tallymesh_storage::wal::Wal;
use tokio::time::Instant;

use super::Mesh;
use crate::shard::Shard;

/// A shard that holds more log than this at a clean end writes a snapshot, so that the next start need not read it, in bytes.
const END_SNAPSHOT_LOG_BYTES_MIN: u64 = 1 << 20;
/// No further snapshot is begun at the end after this time.
const END_SNAPSHOTS_TIME_MAX: Duration = Duration::from_secs(2);
/// Leads are handed over, tried again where it failed, for this long; whoever is left with one is elected away from.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(4);
/// The lead of the metadata group is offered so often: without it only placements and definitions wait, and a member of an older build does not take it.
const METADATA_OFFERS_MAX: usize = 2;
/// What is in the queues at the end has this long to become durable.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

impl Mesh {
    /// Hands over what this node leads, where somebody can take over. It goes on taking what comes, and sends it to where it belongs now.
    pub async fn leave(&self) {
        let Some(fleet) = &self.inner.fleet else { return };
        fleet.leave();
        let until = Instant::now() + LEAVE_TIME_MAX;
        let mut offers = 0;
        loop {
            let heirs: Vec<_> = self.inner.shards.running().iter().filter_map(|s| Some((s.parts.id, fleet.heir(s.parts.id)?))).collect();
            let metadata = fleet.metadata_heir().filter(|_| offers < METADATA_OFFERS_MAX);
            offers += usize::from(metadata.is_some());
            if (heirs.is_empty() && metadata.is_none()) || Instant::now() >= until {
                return;
            }
            let metadata = metadata.map(|heir| fleet.hand_over_metadata(heir));
            let shards = heirs.into_iter().map(|(shard, heir)| self.hand_over(shard, heir));
            tokio::join!(join_all(shards), OptionFuture::from(metadata));
        }
    }

    /// Finishes what is queued, writes snapshots where that is quick, closes the log. Idempotent.
    pub async fn shutdown(&self) {
        self.leave().await;
        self.inner.closing.store(true, Ordering::Release);
        // A second caller waits for the first.
        let mut owned = self.inner.owned.lock().await;
        let Some(owned) = owned.take() else { return };
        if let Some(fleet) = &self.inner.fleet {
            // First: nothing is opened any more.
            fleet.quiet().await;
        }
        let running = self.inner.shards.running();
        let drained = join_all(running.iter().map(|shard| shard.drained()));
        if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
            tracing::warn!("what was queued did not become durable in time; it was not acked");
        }
        owned.upkeep.end().await;
        self.end_snapshots(&running, &owned.log.wal).await;
        for shard in &running {
            shard.stop();
        }
        let actors = std::mem::take(&mut *self.inner.actors.lock());
        for actor in actors.into_values() {
            if let Err(error) = actor.await {
                tracing::warn!(%error, "a shard's actor did not end cleanly");
            }
        }
        join_all(running.iter().map(|shard| shard.parts.replica.shutdown())).await;
        if let Some(fleet) = &self.inner.fleet {
            fleet.shutdown().await;
        }
        owned.log.close(self.inner.blocking).await;
    }

    /// One shard after the other, most log first, as long as there is time.
    async fn end_snapshots(&self, running: &[Arc<Shard>], wal: &Wal) {
        let began = self.inner.clock.monotonic();
        let stats = wal.stats();
        let live_bytes = |shard: &Shard| stats.groups.iter().find(|g| g.group == shard.parts.id.0).map_or(0, |g| g.live_bytes);
        let mut behind: Vec<&Arc<Shard>> = running.iter().filter(|s| live_bytes(s) >= END_SNAPSHOT_LOG_BYTES_MIN).collect();
        behind.sort_by_key(|s| u64::MAX - live_bytes(s));
        for shard in behind {
            let left = END_SNAPSHOTS_TIME_MAX.saturating_sub(self.inner.clock.monotonic().saturating_sub(began));
            if left.is_zero() {
                return;
            }
            shard.parts.replica.trigger_snapshot();
            // One that takes longer is finished all the same, when the replica is shut down.
            let _ = tokio::time::timeout(left, shard.parts.replica.snapshot_of_now()).await;
        }
    }
}
