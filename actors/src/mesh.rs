//! The handle that the process holds: all shards of the cluster as this node reaches them.

mod append;
mod boot;
mod end;
mod read;
mod remote;
mod replicas;
mod slots;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::event::command::ShardSettings;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::PartialAnswer;
use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::dir_lock::DirLock;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::wal::{Wal, WalStats};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use append::RequestNumber;
pub(crate) use append::SentPart;
pub(crate) use boot::{ONLY_NODE, definitions_differ};
pub use read::Patience;
pub use read::cardinality::{MetricUse, Offender};
pub use upkeep::room::{LogDoor, LogShare};

use crate::fleet::{Fleet, FleetOptions};
use crate::raft::Blocking;
use append::RequestNumbers;
use boot::log_runner::LogRunner;
use slots::{Slot, Slots};
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
    /// Nothing is known to be wrong: the shard is led elsewhere, or by nobody for the moment.
    #[error("shard {shard} has no leader here")]
    NotLeader { shard: ShardId, leader: Option<u64> },
    #[error("shard {shard} cannot be reached: {detail}")]
    Unreachable { shard: ShardId, detail: String },
    /// Metrics were defined anew while it was on its way.
    #[error("the metric definitions changed while the batch for shard {shard} was on its way: send it again")]
    Stale { shard: ShardId },
    /// The bytes are no batch: a fault of the sender's code, a retry cannot help.
    #[error("shard {shard} cannot read the batch: {detail}")]
    Refused { shard: ShardId, detail: String },
}

impl AppendError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Overloaded { .. } | Self::LogFull { .. } => ErrorCode::Overloaded,
            Self::Timeout { .. } | Self::NotLeader { .. } | Self::Unreachable { .. } | Self::Stale { .. } => ErrorCode::ShardUnavailable,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: u16,
    /// A replica is open here, and the figures are its own; else they say nothing. Nodes tell each other only of those.
    #[serde(skip)]
    pub is_open: bool,
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

pub(crate) struct Inner {
    cluster_id: String,
    /// Those of a single node; a fleet's are what it has agreed on.
    definitions: RwLock<Arc<DefinitionSet>>,
    /// Held while they are changed.
    defining: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
    blocking: Blocking,
    shards: Slots,
    /// Set once nothing is taken in any more.
    closing: AtomicBool,
    door: LogDoor,
    requests: RequestNumbers,
    /// Lanes of queries that compute at the same time.
    lanes: Arc<Semaphore>,
    /// Lanes that one query is spread over.
    lane_count: usize,
    log: Wal,
    /// The nodes that it works with; none is a node of its own.
    fleet: Option<Fleet>,
    /// What replicas are opened with.
    options: MeshOptions,
    /// Handles of the shards' actors.
    actors: Mutex<BTreeMap<ShardId, JoinHandle<()>>>,
    /// What has to be ended, in this order; taken by the first shutdown.
    owned: tokio::sync::Mutex<Option<Owned>>,
}

impl Drop for Inner {
    /// A mesh that is dropped without [`Mesh::shutdown`] still ends what it began; only nobody waits for it.
    fn drop(&mut self) {
        self.shards.running().iter().for_each(|shard| shard.stop());
    }
}

/// Handles that end with the mesh.
struct Owned {
    upkeep: Upkeep,
    log: LogRunner,
    /// Last: another process may open the directory from then on.
    _lock: Option<DirLock>,
}

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

    /// As [`Mesh::start`], as one of several nodes: founds a cluster with the others, or joins theirs. It waits for them as long as it takes, and says in `waiting`
    /// for whom or what. When it returns, the replicas placed here are open; whether they have leaders is [`Mesh::is_ready`].
    ///
    /// # Errors
    /// As [`Mesh::start`], and what does not fit the cluster.
    pub async fn start_fleet(options: MeshOptions, fleet: FleetOptions, waiting: &watch::Sender<String>) -> Result<Self, StartError> {
        options.disk.create_dir_all(&options.data_dir).map_err(|e| StorageError::io("create", &options.data_dir, e))?;
        let lock = DirLock::acquire(&options.data_dir)?;
        boot::start_fleet(options, fleet, Some(lock), waiting).await
    }

    /// Whether a directory belongs to a cluster already.
    pub fn is_member(disk: &dyn Disk, data_dir: &std::path::Path) -> bool {
        boot::cluster_file::ClusterFile::read(disk, data_dir).is_ok_and(|file| file.is_some())
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The nodes that this one works with; none is a node of its own.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.inner.fleet.as_ref()
    }

    pub fn shards(&self) -> u16 {
        self.inner.shards.len() as u16
    }

    /// Made with the cluster, the same for ever; differs from that of every other cluster.
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    /// What metrics there are, as far as this node has heard.
    pub fn definitions(&self) -> Arc<DefinitionSet> {
        let here = self.inner.definitions.read().clone();
        let Some(state) = self.inner.fleet.as_ref().map(Fleet::state) else { return here };
        let Some(settings) = state.settings.as_ref().filter(|settings| settings.definitions_version != here.version()) else { return here };
        match DefinitionSet::compile(settings.definitions_version, settings.definitions.clone()) {
            Ok(compiled) => {
                let compiled = Arc::new(compiled);
                *self.inner.definitions.write() = compiled.clone();
                compiled
            }
            // What does not compile is never agreed on.
            Err(_) => here,
        }
    }

    /// Every shard, in order. Waits for nothing: where a shard is busy applying, the figures are those of a moment ago.
    pub fn status(&self) -> Vec<ShardStatus> {
        let mut shards: Vec<ShardStatus> = self.inner.shards.all().iter().map(|slot| slot.status(self.inner.fleet.as_ref())).collect();
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

    /// Whether every shard has a leader that can take writes now, and this node reaches it.
    pub fn is_ready(&self) -> bool {
        let works = |slot: &Slot| match (slot, &self.inner.fleet) {
            (Slot::Stopped { .. }, _) => false,
            (Slot::Running(shard), None) => {
                let status = shard.parts.replica.status();
                status.is_leader && status.stopped.is_none()
            }
            (Slot::Running(shard), Some(fleet)) => shard.parts.replica.status().stopped.is_none() && fleet.reaches_leader(shard.parts.id),
            (Slot::Elsewhere { shard }, fleet) => fleet.as_ref().is_some_and(|fleet| fleet.reaches_leader(*shard)),
        };
        let has_log = self.inner.log.stats().poisoned.is_none();
        !self.inner.closing.load(Ordering::Acquire) && has_log && self.inner.shards.all().iter().all(works)
    }
}

#[cfg(test)]
mod tests;
