//! From a data directory to a mesh that takes writes.

pub(super) mod cluster_file;
pub(super) mod log_runner;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::event::command::{ShardSettings, encode_configure, encode_tick};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::SHARDS_MAX;
use tallymesh_storage::dir_lock::DirLock;
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::ShardOptions;
use tallymesh_storage::wal::{Recovered as LogRecovered, Wal, WalOptions};
use tokio::sync::{Semaphore, watch};

use super::append::RequestNumbers;
use super::slots::{Slot, Slots};
use super::upkeep::Upkeep;
use super::upkeep::room::LogDoor;
use super::{Inner, Mesh, MeshOptions, Owned, StartError};
use crate::fleet::clocks::MedianOffset;
use crate::fleet::{self, Fleet, FleetOptions};
use crate::raft::{
    Blocking, DurableIndex, LogStore, OpenReplica, OpenState, RaftReplica, SharedState, Snapshots, SoloReplica, StateMachine, StopReason,
};
use crate::shard::stamp::StampClock;
use crate::shard::{Shard, ShardParts};
use cluster_file::ClusterFile;
use log_runner::LogRunner;

/// Id of the only node of a cluster of one.
pub(crate) const ONLY_NODE: u64 = 1;
/// Recent log in memory, for entries that are applied right after they are written and sent to other nodes, in bytes.
const LOG_CACHE_BYTES_MAX: usize = 64 << 20;
/// The same where nobody else wants them: what is to be applied is at hand.
const LOG_CACHE_ALONE_BYTES_MAX: usize = 1 << 20;
/// Beside what the queues of the shards may hold, the log's own queue takes this much: votes, marks, ticks, in bytes.
const LOG_QUEUE_SPARE_BYTES: usize = 16 << 20;

pub async fn start(options: MeshOptions, blocking: Blocking, lock: Option<DirLock>) -> Result<Mesh, StartError> {
    check(&options)?;
    DefinitionSet::compile(options.settings.definitions_version, options.settings.definitions.clone())
        .map_err(|e| StartError::Invalid(e.to_string()))?;
    let log = open_log(&options, blocking, LOG_CACHE_ALONE_BYTES_MAX)?;
    let cluster = match ClusterFile::read(&*options.disk, &options.data_dir)? {
        Some(cluster) => cluster,
        None => {
            let cluster = ClusterFile::new(options.shards);
            // After the log exists: a directory that has this file and no log has lost it.
            cluster.write(&*options.disk, &options.data_dir)?;
            cluster
        }
    };
    let result = start_shards(options, blocking, lock, cluster.cluster_id, log).await;
    match result {
        Ok(mesh) => Ok(mesh),
        Err((error, log)) => {
            log.close(blocking).await;
            Err(error)
        }
    }
}

/// The same with other nodes; waits until it belongs to a cluster.
pub async fn start_fleet(
    options: MeshOptions,
    fleet: FleetOptions,
    lock: Option<DirLock>,
    waiting: &watch::Sender<String>,
) -> Result<Mesh, StartError> {
    let known = ClusterFile::read(&*options.disk, &options.data_dir)?;
    check(&options)?;
    let definitions = DefinitionSet::compile(options.settings.definitions_version, options.settings.definitions.clone())
        .map_err(|e| StartError::Invalid(e.to_string()))?;
    let log = open_log(&options, Blocking::Threads, LOG_CACHE_BYTES_MAX)?;
    let alone_before = known.as_ref().map(|known| known.cluster_id.clone());
    let fleet = match fleet::start::start(&options, fleet, log.wal.clone(), alone_before, waiting).await {
        Ok(fleet) => fleet,
        Err(error) => {
            log.close(Blocking::Threads).await;
            return Err(error);
        }
    };
    let state = fleet.state();
    let shards = state.placement.len() as u16;
    if shards != options.shards {
        fleet.shutdown().await;
        log.close(Blocking::Threads).await;
        return Err(StartError::Invalid(format!(
            "shards = {}, but the cluster was made with {shards}: the number of shards is fixed when a cluster is made; set cluster.shards = {shards}",
            options.shards
        )));
    }
    if known.is_none() {
        let file = ClusterFile { cluster_id: state.cluster_id.clone(), ..ClusterFile::new(options.shards) };
        if let Err(error) = file.write(&*options.disk, &options.data_dir) {
            fleet.shutdown().await;
            log.close(Blocking::Threads).await;
            return Err(error.into());
        }
    }
    let slots = Slots::new((0..options.shards).map(|shard| Slot::Elsewhere { shard: ShardId(shard) }));
    let mesh = assemble(options, Blocking::Threads, lock, state.cluster_id.clone(), definitions, slots, Some(fleet.clone()), log);
    fleet.attach(&mesh.inner).await;
    Ok(mesh)
}

/// All that is there, as one mesh.
#[expect(clippy::too_many_arguments, reason = "each is used once, here")]
fn assemble(
    options: MeshOptions,
    blocking: Blocking,
    lock: Option<DirLock>,
    cluster_id: String,
    definitions: DefinitionSet,
    shards: Slots,
    fleet: Option<Fleet>,
    log: LogRunner,
) -> Mesh {
    let door = LogDoor::new(log.wal.clone(), options.log_bytes_max);
    let upkeep = Upkeep::start(shards.clone(), log.wal.clone(), door.clone(), &options);
    let lanes = std::thread::available_parallelism().map_or(2, usize::from);
    let inner = Inner {
        cluster_id,
        definitions: RwLock::new(Arc::new(definitions)),
        defining: tokio::sync::Mutex::default(),
        clock: options.clock.clone(),
        blocking,
        shards,
        closing: AtomicBool::new(false),
        door,
        requests: RequestNumbers::new(),
        lanes: Arc::new(Semaphore::new(lanes * super::read::QUERIES_PER_LANE)),
        lane_count: lanes,
        log: log.wal.clone(),
        fleet,
        options,
        actors: Mutex::default(),
        owned: tokio::sync::Mutex::new(Some(Owned { upkeep, log, _lock: lock })),
    };
    Mesh { inner: Arc::new(inner) }
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

fn open_log(options: &MeshOptions, blocking: Blocking, cache_bytes_max: usize) -> Result<LogRunner, StartError> {
    let queues = usize::from(options.shards).saturating_mul(options.shard_queue_bytes_max);
    let wal_options = WalOptions {
        segment_bytes: options.log_segment_bytes,
        queue_bytes_max: queues.saturating_add(LOG_QUEUE_SPARE_BYTES),
        cache_bytes_max,
        ..WalOptions::default()
    };
    let opened = Wal::open(options.disk.clone(), options.clock.clone(), &log_dir(options), wal_options)?;
    report(&opened.recovered);
    Ok(LogRunner::start(opened.wal, opened.writer, blocking)?)
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

async fn start_shards(
    options: MeshOptions,
    blocking: Blocking,
    lock: Option<DirLock>,
    cluster_id: String,
    log: LogRunner,
) -> Result<Mesh, (StartError, LogRunner)> {
    let opening = (0..options.shards).map(|shard| open_alone(&options, blocking, &log.wal, ShardId(shard)));
    let opened: Vec<Result<ShardParts, (ShardId, String)>> = join_all(opening).await;
    let running: Vec<&ShardParts> = opened.iter().filter_map(|o| o.as_ref().ok()).collect();
    let definitions = match configure(&options, &running).await {
        Ok(definitions) => definitions,
        Err(error) => {
            join_all(running.iter().map(|parts| parts.replica.shutdown())).await;
            return Err((error, log));
        }
    };
    let mut shards = Vec::with_capacity(opened.len());
    let mut actors = BTreeMap::new();
    for opened in opened {
        let spawned = match opened {
            Err(stopped) => Err(stopped),
            Ok(parts) => {
                let id = parts.id;
                Shard::spawn(parts).await.map_err(|detail| (id, detail))
            }
        };
        shards.push(match spawned {
            Err((shard, detail)) => {
                log.wal.set_aside(shard.0);
                Slot::Stopped { shard, detail }
            }
            Ok((shard, actor)) => {
                actors.insert(shard.parts.id, actor);
                Slot::Running(shard.into())
            }
        });
    }
    let mesh = assemble(options, blocking, lock, cluster_id, definitions, Slots::new(shards), None, log);
    *mesh.inner.actors.lock() = actors;
    Ok(mesh)
}

async fn open_alone(options: &MeshOptions, blocking: Blocking, wal: &Wal, id: ShardId) -> Result<ShardParts, (ShardId, String)> {
    let stop = StopReason::new(id);
    let open = async {
        let files = open_files(options, blocking, id, None).await?;
        let open = recover(options, blocking, wal, id, files, ONLY_NODE, &stop).await?;
        let (shared, snapshots) = (open.state.shared(), open.state.snapshots());
        let (log, state) = (open.log.clone(), open.state.clone());
        let raft = Arc::new(RaftReplica::open(open).await.map_err(|e| e.to_string())?);
        let parts = parts_of(options, id, raft.clone(), shared, snapshots, &stop);
        catch_up(&parts).await?;
        if raft.group().voters != BTreeSet::from([ONLY_NODE]) {
            // It was among others: nothing is committed without them, wherever it runs.
            return Ok(parts);
        }
        let replica = SoloReplica::take_over(&raft, ONLY_NODE, wal.clone(), &log, state, stop.clone()).await?;
        Ok(ShardParts { replica: Arc::new(replica), ..parts })
    };
    open.await.map_err(|detail| {
        stop.set(&detail);
        (id, stop.get().unwrap_or(detail))
    })
}

/// A replica among others: it waits for nobody.
pub async fn open_in_fleet(
    options: &MeshOptions,
    wal: &Wal,
    fleet: &Fleet,
    id: ShardId,
) -> Result<(ShardParts, Arc<RaftReplica>), (ShardId, String)> {
    let stop = StopReason::new(id);
    let open = async {
        let files = open_files(options, Blocking::Threads, id, Some(fleet.run_number())).await?;
        fleet.files().add(id, files.clone());
        let open = recover(options, Blocking::Threads, wal, id, files, fleet.me(), &stop).await?;
        let (shared, snapshots) = (open.state.shared(), open.state.snapshots());
        let replica = Arc::new(RaftReplica::join_fleet(open, fleet.networks(id)).await.map_err(|e| e.to_string())?);
        let parts = ShardParts { clock_offset: fleet.clock_offset(), ..parts_of(options, id, replica.clone(), shared, snapshots, &stop) };
        Ok((parts, replica))
    };
    open.await.map_err(|detail: String| {
        stop.set(&detail);
        (id, stop.get().unwrap_or(detail))
    })
}

fn parts_of(
    options: &MeshOptions,
    id: ShardId,
    replica: Arc<RaftReplica>,
    state: SharedState,
    snapshots: Arc<Snapshots>,
    stop: &StopReason,
) -> ShardParts {
    ShardParts {
        id,
        replica,
        state,
        snapshots,
        stop: stop.clone(),
        clock: options.clock.clone(),
        clock_offset: MedianOffset::default(),
        queue_bytes_max: options.shard_queue_bytes_max,
    }
}

/// Where a shard's files are.
pub fn shard_dir(options: &MeshOptions, shard: ShardId) -> std::path::PathBuf {
    options.data_dir.join("shards").join(shard.to_string())
}

async fn open_files(options: &MeshOptions, blocking: Blocking, id: ShardId, run: Option<u64>) -> Result<ShardFiles, String> {
    let (disk, dir) = (options.disk.clone(), shard_dir(options, id));
    let open = move || match run {
        Some(run) => ShardFiles::open_for(disk, dir, run),
        None => ShardFiles::open(disk, dir),
    };
    blocking.run(open).await?.map_err(|e| e.to_string())
}

async fn recover(
    options: &MeshOptions,
    blocking: Blocking,
    wal: &Wal,
    id: ShardId,
    files: ShardFiles,
    node: u64,
    stop: &StopReason,
) -> Result<OpenReplica, String> {
    let (durable, durable_index) = DurableIndex::new(None);
    let (clock, its_stop) = (options.clock.clone(), stop.clone());
    let state_options = ShardOptions { dedup_memory_bytes_max: options.dedup_memory_bytes as usize / usize::from(options.shards) };
    let open = move || StateMachine::open(OpenState { files, options: state_options, clock, blocking, stop: its_stop, durable });
    let state = blocking.run(open).await?.map_err(|e| e.to_string())?;
    let log = LogStore::open(wal.clone(), id, durable_index, stop.clone()).map_err(|e| e.to_string())?;
    Ok(OpenReplica { node, shard: id, log, state, stop: stop.clone() })
}

/// An entry of an earlier term is applied only behind one of the present: give it one, so that the state is whole before anybody looks at it.
async fn catch_up(shard: &ShardParts) -> Result<(), String> {
    let status = shard.replica.status();
    if status.applied_index < status.last_log_index {
        propose(shard, encode_tick).await?;
    }
    Ok(())
}

pub async fn propose(shard: &ShardParts, command: impl FnOnce(i64) -> bytes::Bytes) -> Result<(), String> {
    let last = shard.state.read().state.stamp_ms();
    let stamp = StampClock::new(last).stamp(shard.clock.wall_ms(), shard.clock.monotonic());
    shard.replica.propose(command(stamp)).await.map(drop).map_err(|e| e.to_string())
}

/// Brings every shard's settings to what was asked, through its log; the definitions that hold then.
async fn configure(options: &MeshOptions, shards: &[&ShardParts]) -> Result<DefinitionSet, StartError> {
    let newest = shards.iter().map(|shard| shard.state.read().state.settings().clone()).max_by_key(|settings| settings.definitions_version);
    // Metrics that were defined while the node ran count, not those that it was founded with.
    let changed = newest.filter(|newest| newest.definitions_version > options.settings.definitions_version);
    let wanted = match changed {
        Some(newest) => {
            if !options.settings.definitions.is_empty() && options.settings.definitions != newest.definitions {
                tracing::warn!("[[metrics]] of the configuration is not what there is by now (/v1/definitions), which counts");
            }
            ShardSettings { definitions: newest.definitions, definitions_version: newest.definitions_version, ..options.settings.clone() }
        }
        None => options.settings.clone(),
    };
    let wanted = &wanted;
    let used = shards.iter().find(|shard| shard.state.read().state.counters().events > 0);
    if let Some(used) = used {
        let there = used.state.read().state.settings().clone();
        if there.definitions != wanted.definitions && there.definitions_version >= wanted.definitions_version {
            return Err(StartError::Invalid(definitions_differ(&options.data_dir.display().to_string(), &there, wanted)));
        }
    }
    // Definitions under a lower number than a shard knows would make every batch stale to it.
    let known = shards.iter().map(|shard| shard.state.read().state.settings().definitions_version).max();
    let version = wanted.definitions_version.max(known.unwrap_or(0));
    let wanted = ShardSettings { definitions_version: version, ..wanted.clone() };
    let definitions = DefinitionSet::compile(version, wanted.definitions.clone()).map_err(|e| StartError::Invalid(e.to_string()))?;
    for shard in shards {
        let differs = *shard.state.read().state.settings() != wanted;
        if differs {
            let proposed = propose(shard, |stamp| encode_configure(stamp, &wanted)).await;
            proposed.map_err(|detail| StartError::Shard { shard: shard.id, detail })?;
        }
    }
    Ok(definitions)
}

/// `what` was founded with other definitions than it is configured with now.
pub(crate) fn definitions_differ(what: &str, there: &ShardSettings, wanted: &ShardSettings) -> String {
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
        what,
        differences.join(", ")
    )
}
