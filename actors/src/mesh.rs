//! The handle that the process holds: all shards of the cluster as this node reaches them.

mod boot;
mod cardinality;
mod cluster_file;
mod log_runner;
mod read;
pub(crate) mod room;
mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tallymesh_protocol::answer::PartialAnswer;
use tallymesh_protocol::command::ShardSettings;
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::dir_lock::DirLock;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::wal::{Wal, WalStats};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use cardinality::{MetricUse, Offender};

use crate::raft::Blocking;
use crate::shard::{Reserved, Shard};
use log_runner::LogRunner;
use room::LogDoor;
use upkeep::Upkeep;

/// How to start.
#[derive(Clone)]
pub struct MeshOptions {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub data_dir: PathBuf,
    pub shards: u16,
    pub settings: ShardSettings,
    /// Size of one log file, in bytes.
    pub log_segment_bytes: u64,
    /// Log kept on disk, over all shards, before the shards that hold it back write a snapshot, in bytes.
    pub log_bytes_max: u64,
    /// Deduplication entries kept in memory, over all shards, in bytes.
    pub dedup_memory_bytes: u64,
    /// Batches waiting for one shard's log, in bytes; more is refused.
    pub shard_queue_bytes_max: usize,
    /// How often an idle shard is told the time.
    pub tick_interval: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Invalid(String),
    #[error("starting shard {shard}: {detail}")]
    Shard { shard: ShardId, detail: String },
}

/// What became of one request's batch for one shard. It is durable and can be queried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartOutcome {
    /// Newly counted events.
    pub counted: u32,
    /// Events that had been counted before.
    pub duplicates: u32,
    /// Log index, for the token.
    pub index: u64,
}

/// Why a batch is not known to be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Its queue is full.
    #[error("shard {shard} is behind: {limit_bytes} bytes wait for it already")]
    Overloaded { shard: ShardId, limit_bytes: usize },
    /// Snapshots are behind the log.
    #[error("the log holds {limit_bytes} bytes that no snapshot covers yet")]
    LogFull { limit_bytes: u64 },
    #[error("shard {shard} did not answer within {waited_ms} ms")]
    Timeout { shard: ShardId, waited_ms: u64 },
    #[error("shard {shard} stopped: {detail}")]
    Stopped { shard: ShardId, detail: String },
    /// The bytes are no batch: a fault of the sender's code, a retry cannot help.
    #[error("shard {shard} cannot read the batch: {detail}")]
    Refused { shard: ShardId, detail: String },
}

impl AppendError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Overloaded { .. } | Self::LogFull { .. } => ErrorCode::Overloaded,
            Self::Timeout { .. } => ErrorCode::ShardUnavailable,
            Self::Stopped { .. } => ErrorCode::StorageFailed,
            Self::Refused { .. } => ErrorCode::Internal,
        }
    }
}

pub type ShardAnswer = Result<PartialAnswer, tallymesh_protocol::error::Problem>;

/// The answers of all shards that were asked.
#[derive(Debug)]
pub struct Gathered {
    pub answers: Vec<(ShardId, ShardAnswer)>,
    /// Age of the oldest view that was read.
    pub freshness: Duration,
}

/// One shard as `/v1/cluster`, `/health` and `/metrics` show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStatus {
    pub shard: u16,
    pub leader: Option<u64>,
    pub term: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Events counted since the shard was made.
    pub events: u64,
    pub duplicates: u64,
    /// First arrivals whose own time is older than the dedup horizon.
    pub older_than_horizon: u64,
    pub queued_bytes: u64,
    pub open_rows: u64,
    pub blocks: u64,
    pub windows: u64,
    pub window_bytes: u64,
    /// Memory of totals kept beside windows for queries.
    pub totals_bytes: u64,
    pub keys: u64,
    pub keys_memory_bytes: u64,
    /// Rows beyond a cardinality budget.
    pub other_rows: u64,
    pub dedup_entries: u64,
    pub dedup_memory_bytes: u64,
    pub dedup_disk_bytes: u64,
    pub snapshot_bytes: u64,
    /// Wall time of the last snapshot, UTC milliseconds.
    pub last_snapshot_ms: Option<i64>,
    pub watermark_ms: i64,
}

/// Cheap to clone; all clones are the same mesh.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    cluster_id: String,
    definitions: Arc<DefinitionSet>,
    clock: Arc<dyn Clock>,
    blocking: Blocking,
    shards: Vec<Slot>,
    /// Set once nothing is taken in any more.
    closing: AtomicBool,
    door: LogDoor,
    /// Lanes of queries that compute at the same time.
    lanes: Arc<Semaphore>,
    /// Lanes that one query is spread over.
    lane_count: usize,
    log: Wal,
    /// What has to be ended, in this order; taken by the first shutdown.
    owned: tokio::sync::Mutex<Option<Owned>>,
}

impl Drop for Inner {
    /// A mesh that is dropped without [`Mesh::shutdown`] still ends what it began; only nobody waits for it.
    fn drop(&mut self) {
        self.shards.iter().filter_map(Slot::running).for_each(Shard::stop);
    }
}

/// One shard of the data directory.
enum Slot {
    Running(Shard),
    /// It could not be opened; the others go on.
    Stopped {
        shard: ShardId,
        detail: String,
    },
}

impl Slot {
    fn running(&self) -> Option<&Shard> {
        match self {
            Self::Running(shard) => Some(shard),
            Self::Stopped { .. } => None,
        }
    }
}

/// Handles that end with the mesh.
struct Owned {
    upkeep: Upkeep,
    actors: Vec<JoinHandle<()>>,
    log: LogRunner,
    /// Last: another process may open the directory from then on.
    _lock: Option<DirLock>,
}

/// A shard that holds more log than this at a clean end writes a snapshot, so that the next start need not read it, in bytes.
const END_SNAPSHOT_LOG_BYTES_MIN: u64 = 1 << 20;
/// No further snapshot is begun at the end after this time.
const END_SNAPSHOTS_TIME_MAX: Duration = Duration::from_secs(2);
/// What is in the queues at the end has this long to become durable.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

impl Mesh {
    /// Opens or makes the data, recovers every shard and waits until each can take writes.
    ///
    /// A shard whose data is damaged is stopped and says so in its status; the others start.
    ///
    /// # Errors
    /// A directory of another shape or in use, a disk that does not work, settings that do not fit the data.
    pub async fn start(options: MeshOptions) -> Result<Self, StartError> {
        options.disk.create_dir_all(&options.data_dir).map_err(|e| StorageError::io("create", &options.data_dir, e))?;
        let lock = DirLock::acquire(&options.data_dir)?;
        boot::start(options, Blocking::Threads, Some(lock)).await
    }

    pub fn shards(&self) -> u16 {
        self.inner.shards.len() as u16
    }

    /// Made with the cluster, the same for ever; differs from that of every other cluster.
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    pub fn definitions(&self) -> Arc<DefinitionSet> {
        self.inner.definitions.clone()
    }

    /// Appends each part (an encoded [`tallymesh_protocol::batch::ShardBatch`]) to its shard; answers when all are durable and applied, or have failed.
    /// Results are in the order of `parts`. Nothing is sent unless every shard that works has room for its part.
    pub async fn append(&self, parts: Vec<(ShardId, Bytes)>, timeout: Duration) -> Vec<Result<PartOutcome, AppendError>> {
        let arrived = self.inner.clock.monotonic();
        let deadline = Instant::now() + timeout;
        let mut reserved = Vec::with_capacity(parts.len());
        for (shard, bytes) in &parts {
            match self.reserve(*shard, bytes.len()) {
                Err(error @ (AppendError::Overloaded { .. } | AppendError::LogFull { .. })) => {
                    return parts.iter().map(|_| Err(error.clone())).collect();
                }
                other => reserved.push(other),
            }
        }
        let mut sent = Vec::with_capacity(parts.len());
        for ((_, bytes), reserved) in parts.into_iter().zip(reserved) {
            sent.push(reserved.map(|(shard, room)| (shard, shard.append(room, bytes, arrived, arrived + timeout))));
        }
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(match sent {
                Ok((shard, answer)) => self.outcome(shard, answer, arrived, deadline).await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    fn reserve(&self, shard: ShardId, bytes: usize) -> Result<(&Shard, Reserved), AppendError> {
        let stopped = |detail: &str| AppendError::Stopped { shard, detail: detail.to_owned() };
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(stopped("the node is shutting down"));
        }
        match self.inner.shards.get(usize::from(shard.0)) {
            None => Err(AppendError::Refused { shard, detail: format!("there are {} shards", self.inner.shards.len()) }),
            Some(Slot::Stopped { detail, .. }) => Err(stopped(detail)),
            Some(Slot::Running(running)) => {
                let log = self.inner.door.enter(bytes)?;
                running.reserve(bytes, log).map(|room| (running, room))
            }
        }
    }

    async fn outcome(
        &self,
        shard: &Shard,
        answer: oneshot::Receiver<Result<PartOutcome, AppendError>>,
        arrived: Duration,
        deadline: Instant,
    ) -> Result<PartOutcome, AppendError> {
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(shard.ended()),
            Err(_) => {
                let waited = self.inner.clock.monotonic().saturating_sub(arrived);
                Err(AppendError::Timeout { shard: shard.parts.id, waited_ms: waited.as_millis() as u64 })
            }
        }
    }

    /// Every shard, in order. Waits for nothing: where a shard is busy applying, the figures are those of a moment ago.
    pub fn status(&self) -> Vec<ShardStatus> {
        let mut shards: Vec<ShardStatus> = self.inner.shards.iter().map(Slot::status).collect();
        // A shard only notices at its next write that the log is gone; until then it would look well.
        if let Some(reason) = self.inner.log.stats().poisoned {
            shards.iter_mut().for_each(|shard| {
                shard.stopped.get_or_insert_with(|| format!("the log stopped: {reason}"));
            });
        }
        shards
    }

    /// The log that all shards share.
    pub fn log_stats(&self) -> WalStats {
        self.inner.log.stats()
    }

    /// Whether every shard has a leader that can take writes now.
    pub fn is_ready(&self) -> bool {
        let leads = |slot: &Slot| {
            slot.running().is_some_and(|shard| {
                let status = shard.parts.replica.status();
                status.is_leader && status.stopped.is_none()
            })
        };
        let has_log = self.inner.log.stats().poisoned.is_none();
        !self.inner.closing.load(Ordering::Acquire) && has_log && self.inner.shards.iter().all(leads)
    }

    /// Finishes what is queued, writes snapshots where that is quick, closes the log. Idempotent.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        // A second caller waits for the first.
        let mut owned = self.inner.owned.lock().await;
        let Some(owned) = owned.take() else { return };
        let running: Vec<&Shard> = self.inner.shards.iter().filter_map(Slot::running).collect();
        let drained = futures::future::join_all(running.iter().map(|shard| shard.drained()));
        if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
            tracing::warn!("what was queued did not become durable in time; it was not acked");
        }
        owned.upkeep.end().await;
        self.end_snapshots(&running, &owned.log.wal).await;
        for shard in &running {
            shard.stop();
        }
        for actor in owned.actors {
            if let Err(error) = actor.await {
                tracing::warn!(%error, "a shard's actor did not end cleanly");
            }
        }
        futures::future::join_all(running.iter().map(|shard| shard.parts.replica.shutdown())).await;
        owned.log.close(self.inner.blocking).await;
    }

    /// One shard after the other, most log first, as long as there is time.
    async fn end_snapshots(&self, running: &[&Shard], wal: &Wal) {
        let began = self.inner.clock.monotonic();
        let stats = wal.stats();
        let live_bytes = |shard: &Shard| stats.groups.iter().find(|g| g.group == shard.parts.id.0).map_or(0, |g| g.live_bytes);
        let mut behind: Vec<&&Shard> = running.iter().filter(|s| live_bytes(s) >= END_SNAPSHOT_LOG_BYTES_MIN).collect();
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

#[cfg(test)]
mod tests;
