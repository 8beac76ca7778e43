//! From a data directory to a mesh that takes writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::future::join_all;
use tallymesh_protocol::command::{ShardSettings, encode_configure, encode_tick};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::SHARDS_MAX;
use tallymesh_storage::StorageError;
use tallymesh_storage::dir_lock::DirLock;
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::ShardOptions;
use tallymesh_storage::wal::{Recovered as LogRecovered, Wal, WalOptions};
use tokio::sync::Semaphore;

use super::cluster_file::ClusterFile;
use super::log_runner::LogRunner;
use super::upkeep::Upkeep;
use super::{Inner, Mesh, MeshOptions, Owned, Slot, StartError};
use crate::raft::{Blocking, DurableIndex, LogStore, OpenReplica, OpenState, RaftReplica, StateMachine, StopReason};
use crate::replicator::Replicator;
use crate::shard::stamp::StampClock;
use crate::shard::{Shard, ShardParts};

/// Id of the only node of a cluster of one.
const ONLY_NODE: u64 = 1;
/// Recent log in memory for the entries that are applied right after they are written, in bytes.
const LOG_CACHE_BYTES_MAX: usize = 64 << 20;
/// Beside what the queues of the shards may hold, the log's own queue takes this much: votes, marks, ticks, in bytes.
const LOG_QUEUE_SPARE_BYTES: usize = 16 << 20;

pub async fn start(options: MeshOptions, blocking: Blocking, lock: Option<DirLock>) -> Result<Mesh, StartError> {
    check(&options)?;
    DefinitionSet::compile(options.settings.definitions_version, options.settings.definitions.clone())
        .map_err(|e| StartError::Invalid(e.to_string()))?;
    let (wal, log) = open_log(&options, blocking)?;
    let result = start_shards(options, blocking, lock, wal, log).await;
    match result {
        Ok(mesh) => Ok(mesh),
        Err((error, log)) => {
            log.close(blocking).await;
            Err(error)
        }
    }
}

fn check(options: &MeshOptions) -> Result<(), StartError> {
    if options.shards == 0 || usize::from(options.shards) > SHARDS_MAX {
        return Err(StartError::Invalid(format!("shards = {}: must be 1 to {SHARDS_MAX}", options.shards)));
    }
    let Some(cluster) = ClusterFile::read(&*options.disk, &options.data_dir)? else { return Ok(()) };
    if cluster.shards != options.shards {
        return Err(StartError::Invalid(format!(
            "shards = {}, but {} was made with {}: the number of shards is fixed when a cluster is made; set it back, or start with an empty directory",
            options.shards,
            options.data_dir.display(),
            cluster.shards
        )));
    }
    let log_dir = log_dir(options);
    let is_there = options.disk.list(&log_dir).is_ok_and(|files| !files.is_empty());
    if !is_there {
        // An empty log would look like a new cluster, and forget what was acked.
        return Err(StartError::Invalid(format!(
            "{} belongs to cluster {}, but its log in {} is gone: restore it, or start with an empty directory",
            options.data_dir.display(),
            cluster.cluster_id,
            log_dir.display()
        )));
    }
    Ok(())
}

fn log_dir(options: &MeshOptions) -> std::path::PathBuf {
    options.data_dir.join("log")
}

fn open_log(options: &MeshOptions, blocking: Blocking) -> Result<(Wal, LogRunner), StartError> {
    let queues = usize::from(options.shards).saturating_mul(options.shard_queue_bytes_max);
    let wal_options = WalOptions {
        segment_bytes: options.log_segment_bytes,
        queue_bytes_max: queues.saturating_add(LOG_QUEUE_SPARE_BYTES),
        cache_bytes_max: LOG_CACHE_BYTES_MAX,
        ..WalOptions::default()
    };
    let opened = Wal::open(options.disk.clone(), options.clock.clone(), &log_dir(options), wal_options)?;
    report(&opened.recovered);
    let wal = opened.wal.clone();
    if ClusterFile::read(&*options.disk, &options.data_dir)?.is_none() {
        // After the log exists: a directory that has this file and no log has lost it.
        ClusterFile::new(options.shards).write(&*options.disk, &options.data_dir)?;
    }
    let runner = LogRunner::start(opened.wal, opened.writer, blocking)?;
    Ok((wal, runner))
}

fn report(found: &LogRecovered) {
    tracing::info!(segments = found.segments, records = found.records, bytes = found.bytes, "log read");
    if let Some(torn) = &found.torn {
        tracing::warn!(path = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, "cut off writes that were never acked");
    }
    for damage in &found.damage {
        let error = damage.error();
        tracing::error!(%error, stopped = ?damage.groups, unknown_too = damage.stops_unknown_groups, "the log is damaged");
    }
}

/// A shard with its log applied, before it has an owner.
struct Recovered {
    parts: ShardParts,
    replica: Arc<RaftReplica>,
}

async fn start_shards(
    options: MeshOptions,
    blocking: Blocking,
    lock: Option<DirLock>,
    wal: Wal,
    log: LogRunner,
) -> Result<Mesh, (StartError, LogRunner)> {
    let opening = (0..options.shards).map(|shard| open_shard(&options, blocking, &wal, ShardId(shard)));
    let opened: Vec<Result<Recovered, (ShardId, String)>> = join_all(opening).await;
    let running: Vec<&Recovered> = opened.iter().filter_map(|o| o.as_ref().ok()).collect();
    let configured = configure(&options, &running).await;
    let version = match configured {
        Ok(version) => version,
        Err(error) => {
            join_all(running.iter().map(|r| r.replica.shutdown())).await;
            return Err((error, log));
        }
    };
    let definitions = match DefinitionSet::compile(version, options.settings.definitions.clone()) {
        Ok(definitions) => Arc::new(definitions),
        Err(error) => return Err((StartError::Invalid(error.to_string()), log)),
    };
    let mut shards = Vec::with_capacity(opened.len());
    let mut actors = Vec::with_capacity(opened.len());
    for opened in opened {
        shards.push(match opened {
            Err((shard, detail)) => Slot::Stopped { shard, detail },
            Ok(recovered) => match Shard::spawn(recovered.parts).await {
                Ok((shard, actor)) => {
                    actors.push(actor);
                    Slot::Running(shard)
                }
                Err(detail) => return Err((StartError::Invalid(detail), log)),
            },
        });
    }
    let log_is_full = Arc::new(AtomicBool::new(false));
    let running: Vec<Shard> = shards.iter().filter_map(Slot::running).cloned().collect();
    let upkeep =
        Upkeep::start(running, log.wal.clone(), options.clock.clone(), options.log_bytes_max, options.tick_interval, log_is_full.clone());
    let lanes = std::thread::available_parallelism().map_or(2, usize::from);
    let inner = Inner {
        definitions,
        clock: options.clock,
        blocking,
        shards,
        closing: AtomicBool::new(false),
        log_is_full,
        lanes: Arc::new(Semaphore::new(lanes * super::read::QUERIES_PER_LANE)),
        lane_count: lanes,
        owned: tokio::sync::Mutex::new(Some(Owned { upkeep, actors, log, _lock: lock })),
    };
    Ok(Mesh { inner: Arc::new(inner) })
}

async fn open_shard(options: &MeshOptions, blocking: Blocking, wal: &Wal, id: ShardId) -> Result<Recovered, (ShardId, String)> {
    let stop = StopReason::new(id);
    match recover(options, blocking, wal, id, &stop).await {
        Ok(recovered) => Ok(recovered),
        Err(detail) => {
            stop.set(&detail);
            Err((id, stop.get().unwrap_or(detail)))
        }
    }
}

async fn recover(options: &MeshOptions, blocking: Blocking, wal: &Wal, id: ShardId, stop: &StopReason) -> Result<Recovered, String> {
    let (durable, durable_index) = DurableIndex::new(None);
    let dir = options.data_dir.join("shards").join(id.to_string());
    let (disk, clock, its_stop) = (options.disk.clone(), options.clock.clone(), stop.clone());
    let state_options = ShardOptions { dedup_memory_bytes_max: options.dedup_memory_bytes as usize / usize::from(options.shards) };
    let open = move || -> Result<StateMachine, StorageError> {
        let files = ShardFiles::open(disk, dir)?;
        StateMachine::open(OpenState { files, options: state_options, clock, blocking, stop: its_stop, durable })
    };
    let state = blocking.run(open).await?.map_err(|e| e.to_string())?;
    let log = LogStore::open(wal.clone(), id, durable_index, stop.clone()).map_err(|e| e.to_string())?;
    let (shared, snapshots) = (state.shared(), state.snapshots());
    let open = OpenReplica { node: ONLY_NODE, shard: id, log, state, stop: stop.clone() };
    let replica = Arc::new(RaftReplica::open(open).await.map_err(|e| e.to_string())?);
    let parts = ShardParts {
        id,
        replica: replica.clone(),
        state: shared,
        snapshots,
        stop: stop.clone(),
        clock: options.clock.clone(),
        queue_bytes_max: options.shard_queue_bytes_max,
    };
    Ok(Recovered { parts, replica })
}

/// Brings every shard's settings to what was asked, through its log; the version of the definitions that holds then.
async fn configure(options: &MeshOptions, shards: &[&Recovered]) -> Result<u64, StartError> {
    let wanted = &options.settings;
    for shard in shards {
        catch_up(shard, options).await?;
    }
    let is_used = |s: &&&Recovered| s.parts.state.read().state.stats().counters.events > 0;
    let any_used = shards.iter().find(is_used);
    if let Some(used) = any_used {
        let there = used.parts.state.read().state.settings().clone();
        if there.definitions != wanted.definitions {
            return Err(StartError::Invalid(definitions_differ(&options.data_dir, &there, wanted)));
        }
    }
    // The same definitions under a lower number would be answered as stale by shards that know the higher one.
    let known = shards.iter().map(|s| s.parts.state.read().state.settings().definitions_version).max().unwrap_or(0);
    let version = if any_used.is_some() { known.max(wanted.definitions_version) } else { wanted.definitions_version.max(known) };
    let wanted = ShardSettings { definitions_version: version, ..wanted.clone() };
    for shard in shards {
        if *shard.parts.state.read().state.settings() != wanted {
            propose(shard, options, |stamp| encode_configure(stamp, &wanted)).await?;
        }
    }
    Ok(version)
}

/// An entry of an earlier term is applied only behind one of the present: give it one, so that the state is whole before anybody looks at it.
async fn catch_up(shard: &Recovered, options: &MeshOptions) -> Result<(), StartError> {
    let status = shard.replica.status();
    if status.applied_index < status.last_log_index {
        propose(shard, options, encode_tick).await?;
    }
    Ok(())
}

async fn propose(shard: &Recovered, options: &MeshOptions, command: impl FnOnce(i64) -> bytes::Bytes) -> Result<(), StartError> {
    let last = shard.parts.state.read().state.stamp_ms();
    let stamp = StampClock::new(last).stamp(options.clock.wall_ms(), options.clock.monotonic());
    match shard.replica.propose(command(stamp)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::Shard { shard: shard.parts.id, detail: error.to_string() }),
    }
}

fn definitions_differ(dir: &Path, there: &ShardSettings, wanted: &ShardSettings) -> String {
    let names = |settings: &ShardSettings| -> Vec<String> { settings.definitions.iter().map(|d| d.name.clone()).collect() };
    let (there_names, wanted_names) = (names(there), names(wanted));
    let mut differences = Vec::new();
    for definition in &wanted.definitions {
        match there.definitions.iter().find(|d| d.name == definition.name) {
            None => differences.push(format!("`{}` is new", definition.name)),
            Some(known) if known != definition => differences.push(format!("`{}` has changed", definition.name)),
            Some(_) => {}
        }
    }
    differences.extend(there_names.iter().filter(|n| !wanted_names.contains(n)).map(|n| format!("`{n}` is missing")));
    if differences.is_empty() {
        differences.push("their order has changed".to_owned());
    }
    format!(
        "[[metrics]] differs from what {} was founded with ({}): the file only founds the set. Restore it as it was, or start with an empty directory and \
         send the events again",
        dir.display(),
        differences.join(", ")
    )
}
