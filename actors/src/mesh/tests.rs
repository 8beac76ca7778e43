mod fleet;
mod idle;
mod life;
mod power_cut;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::event::batch::{NO_IDENTITY, NO_VALUE, ShardBatch};
use tallymesh_protocol::event::command::ShardSettings;
use tallymesh_protocol::hash::{DEFAULT_TENANT, ShardId, event_hash, key_hash};
use tallymesh_protocol::key::{MetricKind, encode_key};
use tallymesh_protocol::question::query::{MetricSelector, ScanPlan, ShardQuery, Slice};
use tallymesh_protocol::time::Grain;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::Disk;
use tokio::time::Instant;

use super::*;

const EVENT: &str = "page_view";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Event time of everything here.
const EVENT_TIME_MS: i64 = 1_767_225_600_000;

fn settings() -> ShardSettings {
    ShardSettings {
        lateness_ms: 120_000,
        dedup_horizon_ms: 24 * 3_600_000,
        retention_minute_ms: None,
        retention_hour_ms: None,
        retention_day_ms: None,
        definitions_version: 1,
        definitions: Vec::new(),
        cardinality: None,
    }
}

fn options(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, shards: u16) -> MeshOptions {
    MeshOptions {
        disk,
        clock,
        data_dir: dir.to_owned(),
        shards,
        settings: settings(),
        log_segment_bytes: 16 << 20,
        log_bytes_max: 128 << 20,
        dedup_memory_bytes: 64 << 20,
        shard_queue_bytes_max: 8 << 20,
        tick_interval: Duration::from_secs(1),
    }
}

/// A batch of the events with these numbers; equal numbers are the same event.
fn batch(events: impl IntoIterator<Item = u64>) -> Bytes {
    let mut key = Vec::new();
    encode_key(&mut key, MetricKind::Default, DEFAULT_TENANT, EVENT, [Some("web"), None, None]);
    let home = key_hash(&key);
    let ids: Vec<u128> = events.into_iter().map(|n| event_hash(home, format!("e{n}").as_bytes())).collect();
    let n = ids.len();
    let batch = ShardBatch {
        definitions_version: 1,
        routing_version: 0,
        key_hashes: vec![home],
        key_ends: vec![key.len() as u32],
        key_bytes: key,
        keys: vec![0; n],
        times: vec![EVENT_TIME_MS; n],
        ids,
        users: vec![NO_IDENTITY; n],
        sessions: vec![NO_IDENTITY; n],
        values: vec![NO_VALUE; n],
        ..ShardBatch::default()
    };
    Bytes::from_owner(batch.encode())
}

fn count_query() -> Arc<ShardQuery> {
    let day = Grain::Day.floor(EVENT_TIME_MS);
    let slice = Slice { from_ms: day, to_ms: day + 24 * 3_600_000, grain: Grain::Day, bucket: 0 };
    Arc::new(ShardQuery {
        tenant: DEFAULT_TENANT.to_owned(),
        metric: MetricSelector::Event(EVENT.to_owned()),
        group_by: Vec::new(),
        filters: Vec::new(),
        plan: ScanPlan { slices: vec![slice], buckets: 1 },
        wants: Wants::default(),
        cells_max: 1_000,
    })
}

/// Events counted by each shard, as a query sees them.
async fn counts(mesh: &Mesh) -> BTreeMap<u16, u64> {
    let gathered = mesh.query(count_query(), TIMEOUT, Patience::All).await;
    let count = |(shard, answer): (ShardId, ShardAnswer)| {
        let answer = answer.expect("answer");
        (shard.0, answer.with_cells_only().cells.iter().map(|c| c.values.count).sum())
    };
    gathered.answers.into_iter().map(count).collect()
}

/// The clock of the paused runtime.
struct VirtualClock {
    start: Instant,
}

impl Clock for VirtualClock {
    fn wall_ms(&self) -> i64 {
        EVENT_TIME_MS + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Runs in a runtime of its own; whatever still runs at the end is gone like the process.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
    runtime.block_on(future)
}
