//! The handle that the process holds: all shards of the cluster as this node reaches them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tallymesh_protocol::answer::PartialAnswer;
use tallymesh_protocol::command::ShardSettings;
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::query::ShardQuery;
use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::Disk;

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
    #[error("shard {shard}: its queue holds {limit_bytes} bytes already")]
    Overloaded { shard: ShardId, limit_bytes: usize },
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
            Self::Overloaded { .. } => ErrorCode::Overloaded,
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
    pub keys: u64,
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
    definitions: Arc<DefinitionSet>,
    shards: u16,
}

impl Mesh {
    /// Opens or makes the data, recovers every shard and waits until each can take writes.
    ///
    /// # Errors
    /// Damage, a directory of another shape, a disk that does not work.
    pub async fn start(options: MeshOptions) -> Result<Self, StartError> {
        let definitions = DefinitionSet::compile(options.settings.definitions_version, options.settings.definitions.clone())
            .map_err(|e| StartError::Invalid(e.to_string()))?;
        Ok(Self { definitions: Arc::new(definitions), shards: options.shards })
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    pub fn definitions(&self) -> Arc<DefinitionSet> {
        self.definitions.clone()
    }

    /// Appends each part (an encoded [`tallymesh_protocol::batch::ShardBatch`]) to its shard; answers when all are durable and applied, or have failed.
    /// Results are in the order of `parts`. Nothing is sent unless every shard has room for its part.
    pub async fn append(&self, parts: Vec<(ShardId, Bytes)>, timeout: Duration) -> Vec<Result<PartOutcome, AppendError>> {
        let _ = timeout;
        parts.iter().map(|(shard, _)| Err(AppendError::Stopped { shard: *shard, detail: "not wired".to_owned() })).collect()
    }

    /// Asks every shard; each answer has seen every write acked before the call.
    pub async fn query(&self, query: Arc<ShardQuery>, timeout: Duration) -> Gathered {
        let _ = (query, timeout);
        Gathered { answers: Vec::new(), freshness: Duration::ZERO }
    }

    /// Names of all metrics ever seen (event names of default metrics), for `did_you_mean` and `*`.
    pub async fn event_names(&self) -> Vec<String> {
        Vec::new()
    }

    pub fn status(&self) -> Vec<ShardStatus> {
        Vec::new()
    }

    /// Whether every shard has a leader that can take writes now.
    pub fn is_ready(&self) -> bool {
        false
    }

    /// Finishes what is queued, writes snapshots where that is quick, closes the log. Idempotent.
    pub async fn shutdown(&self) {}
}
