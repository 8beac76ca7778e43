//! One simulated machine: the production log, state machines, replicas and owners of its shards, on a disk and a clock that are not to be trusted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_actors::raft::peers::{Behind, PeerNetworks, ReplicaServer};
use tallymesh_actors::raft::runtime::scoped;
use tallymesh_actors::raft::{
    Blocking, DurableIndex, LogStore, MeshRuntime, OpenReplica, OpenState, RaftReplica, SharedState, StateMachine, StopReason,
};
use tallymesh_actors::replicator::Replicator;
use tallymesh_actors::shard::{Shard, ShardParts};
use tallymesh_actors::{LogDoor, LogShare};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::disk::{Disk, PowerCut, SimDisk};
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::ShardOptions;
use tallymesh_storage::wal::{MARK_AFTER_IDLE, Wal, WalOptions, WalWriter};
use tokio::sync::Notify;

use super::clock::SimClock;
use super::fetch::Fetch;
use super::net::Channel;
use super::random::Random;
use super::world::World;

/// Where a node keeps its log and its shards.
pub const LOG_DIR: &str = "/log";
pub const SHARDS_DIR: &str = "/shards";
const QUEUE_BYTES_MAX: usize = 1 << 20;
const LOG_BYTES_MAX: u64 = 64 << 20;

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// What it wrote stays in the cache of the machine.
    Kill,
    Power(PowerCut),
}

pub struct Node {
    pub id: u64,
    pub disk: SimDisk,
    pub clock: SimClock,
    /// Of a sync, in microseconds, above the usual.
    pub slower_us: AtomicU64,
    boots: AtomicU64,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
pub struct Running {
    pub replicas: Arc<BTreeMap<ShardId, Replica>>,
    server: ReplicaServer,
    door: LogDoor,
}

/// One shard on this node.
pub struct Replica {
    pub raft: Arc<RaftReplica>,
    pub state: SharedState,
    pub owner: Shard,
    pub files: ShardFiles,
    /// Whether a voter's log goes further.
    pub behind: Behind,
}

impl Running {
    /// Room in the log for a request.
    pub fn enter(&self, bytes: usize) -> Option<LogShare> {
        self.door.enter(bytes).ok()
    }

    /// Why replicas of it have stopped.
    pub fn stopped(&self) -> Vec<(ShardId, String)> {
        self.replicas.iter().filter_map(|(shard, replica)| Some((*shard, replica.raft.status().stopped?))).collect()
    }
}

impl Node {
    pub fn new(world: &World, id: u64) -> Arc<Self> {
        let mut random = Random::new(world.seed.wrapping_add(id << 40), "machine");
        let ahead_ms = random.range(0, 400) as i64 - 200;
        let drift = random.range(0, 400) as i64 - 200;
        let clock = SimClock::new(world.began, ahead_ms, drift);
        Arc::new(Self {
            id,
            disk: SimDisk::new(),
            clock,
            slower_us: AtomicU64::new(0),
            boots: AtomicU64::new(0),
            running: Mutex::new(None),
        })
    }

    pub fn running(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    pub fn server(&self) -> Option<ReplicaServer> {
        self.running.lock().as_ref().map(|running| running.server.clone())
    }

    /// Starts the process.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn boot(self: &Arc<Self>, world: &Arc<World>) -> Result<(), String> {
        let running = scoped(self.id, self.open(world)).await?;
        *self.running.lock() = Some(running);
        Ok(())
    }

    async fn open(self: &Arc<Self>, world: &Arc<World>) -> Result<Running, String> {
        let plan = &world.plan;
        // Another number for each run of each node, as its boot id is.
        let run = (self.id << 32) + self.boots.fetch_add(1, Ordering::Relaxed);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock = Arc::new(self.clock.clone());
        let options = WalOptions {
            segment_bytes: plan.log_segment_bytes,
            cache_bytes_max: plan.log_cache_bytes,
            batch_bytes_max: 8 << 10,
            ..WalOptions::default()
        };
        let opened = Wal::open(disk.clone(), clock.clone(), Path::new(LOG_DIR), options).map_err(|e| e.to_string())?;
        world.judge.lock().disks.recovered(self.id, &opened.recovered);
        let wal = opened.wal.clone();
        let work = Arc::new(Notify::new());
        let queued = work.clone();
        wal.on_work(Box::new(move || queued.notify_one()));
        drop(MeshRuntime::spawn_task(drive(opened.writer, work, self.clone(), world.clone())));

        let server = ReplicaServer::new(Arc::new(Fetch::new(world.clone(), self.id)));
        let channel = Arc::new(Channel::new(world.clone(), self.id));
        let mut replicas = BTreeMap::new();
        for shard in (0..plan.shards).map(ShardId) {
            let (durable, covered) = DurableIndex::new(None);
            let stop = StopReason::new(shard);
            let files =
                ShardFiles::open_for(disk.clone(), Path::new(SHARDS_DIR).join(shard.to_string()), run).map_err(|e| e.to_string())?;
            let options = ShardOptions { dedup_memory_bytes_max: plan.dedup_memory_bytes };
            let open =
                OpenState { files: files.clone(), options, clock: clock.clone(), blocking: Blocking::Inline, stop: stop.clone(), durable };
            let state = StateMachine::open(open).map_err(|e| e.to_string())?;
            let log = LogStore::open(wal.clone(), shard, covered, stop.clone()).map_err(|e| e.to_string())?;
            let (shared, snapshots) = (state.shared(), state.snapshots());
            let networks = PeerNetworks::new(channel.clone(), shard);
            let behind = networks.behind();
            let open = OpenReplica { node: self.id, shard, log, state, stop: stop.clone() };
            let raft =
                if plan.keeps_entries { RaftReplica::join_fleet(open, networks).await } else { RaftReplica::join(open, networks).await };
            let raft = Arc::new(raft.map_err(|e| e.to_string())?);
            // Who stands is the guard's to say, as in every fleet.
            raft.raft().runtime_config().elect(false);
            self.watch(world, shard, &raft);
            server.add(shard, raft.raft().clone());
            let parts = ShardParts {
                id: shard,
                replica: raft.clone(),
                state: shared.clone(),
                snapshots,
                stop,
                clock: clock.clone(),
                clock_offset: Default::default(),
                queue_bytes_max: QUEUE_BYTES_MAX,
            };
            let (owner, actor) = Shard::spawn(parts).await?;
            world.adopt(self.id, actor.abort_handle());
            replicas.insert(shard, Replica { raft, state: shared, owner, files, behind });
        }
        Ok(Running { replicas: Arc::new(replicas), server, door: LogDoor::new(wal, LOG_BYTES_MAX) })
    }

    /// Tells the judge who leads.
    fn watch(&self, world: &Arc<World>, shard: ShardId, raft: &RaftReplica) {
        let (mut metrics, id, judge) = (raft.raft().metrics(), self.id, world.clone());
        world.spawn(self.id, async move {
            loop {
                {
                    let seen = metrics.borrow_and_update();
                    if seen.state == openraft::ServerState::Leader {
                        judge.judge.lock().leads(id, shard, seen.vote.leader_id().term);
                    }
                }
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// The process is gone, and with it what had not reached the disk.
    pub async fn end(&self, world: &World, how: End) {
        // Nothing that its tasks still do on their way out may count.
        self.disk.fail_after(1);
        let running = self.running.lock().take();
        world.end_tasks(self.id).await;
        drop(running);
        match how {
            End::Kill => self.disk.kill(),
            End::Power(cut) => self.disk.crash(cut),
        }
        self.disk.set_capacity(None);
        world.judge.lock().disks.begin(self.id);
    }
}

/// The writer of the log, with syncs that take time.
async fn drive(mut writer: WalWriter, work: Arc<Notify>, node: Arc<Node>, world: Arc<World>) {
    loop {
        tokio::select! {
            biased;
            () = work.notified() => loop {
                let (from, to) = world.plan.sync_us;
                let usual = world.random(node.id, |random| random.micros(from, to));
                tokio::time::sleep(usual + Duration::from_micros(node.slower_us.load(Ordering::Relaxed))).await;
                if writer.step() == 0 {
                    break;
                }
            },
            () = tokio::time::sleep(MARK_AFTER_IDLE) => writer.mark(),
        }
    }
}
