//! What happens by itself: shards are told the time, and those that hold the log back write snapshots.

pub(super) mod room;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::key::MetricKind;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::wal::Wal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::MeshOptions;
use super::slots::Slots;
use crate::raft::MeshRuntime;
use crate::shard::Shard;
use room::{Holding, LogDoor, LogRoom};

/// How often the log is looked at: at the rate at which one node can write it, it grows by some megabytes meanwhile.
const LOG_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Below this much room shards are not told the time: a tick is an entry, and one that does not fit ends the log for good.
pub(super) const TICK_FREE_BYTES_MIN: u64 = 4 << 20;

pub struct Upkeep {
    task: JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Upkeep {
    pub fn start(shards: Slots, wal: Wal, door: LogDoor, options: &MeshOptions) -> Self {
        let (end, ended) = watch::channel(false);
        let work = Work {
            shards,
            set_aside: HashSet::new(),
            wal,
            door,
            clock: options.clock.clone(),
            disk: options.disk.clone(),
            dir: options.data_dir.clone(),
            room: LogRoom::new(options.log_bytes_max),
            log_is_full: false,
            warned: HashSet::new(),
        };
        Self { task: MeshRuntime::spawn_task(work.run(options.tick_interval, ended)), end }
    }

    pub async fn end(self) {
        self.end.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "upkeep did not end cleanly");
        }
    }
}

struct Work {
    shards: Slots,
    /// Stopped, and their log let go.
    set_aside: HashSet<u16>,
    wal: Wal,
    door: LogDoor,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    room: LogRoom,
    log_is_full: bool,
    /// Metrics that were said to be over their cardinality budget.
    warned: HashSet<(MetricKind, String, String)>,
}

impl Work {
    async fn run(mut self, tick_interval: Duration, mut ended: watch::Receiver<bool>) {
        let mut last_tick = self.clock.monotonic();
        loop {
            let wait = LOG_CHECK_INTERVAL.min(tick_interval.max(Duration::from_millis(1)));
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(last_tick) >= tick_interval {
                last_tick = now;
                if self.has_room_for_ticks() {
                    self.shards.running().iter().for_each(|shard| shard.time());
                }
                self.warn_of_budgets();
            }
            self.make_room(now);
        }
    }

    /// Once for each metric: their number is bounded as the metrics are.
    fn warn_of_budgets(&mut self) {
        for metric in self.shards.running().iter().flat_map(|shard| shard.metrics_over_budget()) {
            if self.warned.insert((metric.kind, metric.tenant.clone(), metric.metric.clone())) {
                tracing::warn!(
                    metric = metric.metric,
                    keys = metric.keys,
                    other_events = metric.other_rows,
                    "the cardinality budget is used up: new keys count in `{OTHER}`; /v1/metrics names what uses it"
                );
            }
        }
    }

    fn has_room_for_ticks(&self) -> bool {
        // Where the disk cannot tell, time goes on.
        self.disk.space(&self.dir).map_or(true, |space| space.free_bytes >= TICK_FREE_BYTES_MIN)
    }

    fn make_room(&mut self, now: Duration) {
        let (stopped, running): (Vec<_>, Vec<_>) = self.shards.running().into_iter().partition(|shard| shard.parts.stop.get().is_some());
        for shard in stopped {
            if self.set_aside.insert(shard.parts.id.0) {
                self.wal.set_aside(shard.parts.id.0);
            }
        }
        let stats = self.wal.stats();
        let pins = self.wal.pinned_by();
        let holding = |shard: &Arc<Shard>| {
            let status = shard.parts.replica.status();
            let live_bytes = stats.groups.iter().find(|g| g.group == shard.parts.id.0).map_or(0, |g| g.live_bytes);
            Holding {
                shard: shard.parts.id,
                live_bytes,
                is_behind: status.applied_index > status.snapshot_index,
                snapshot_index: status.snapshot_index,
                pins_oldest: pins.iter().any(|p| p.group == shard.parts.id.0),
            }
        };
        let holdings: Vec<Holding> = running.iter().map(holding).collect();
        for id in self.room.plan(now, stats.held_bytes, &holdings) {
            if let Some(shard) = running.iter().find(|s| s.parts.id == id) {
                shard.parts.replica.trigger_snapshot();
            }
        }
        let is_full = self.door.is_full();
        if std::mem::replace(&mut self.log_is_full, is_full) != is_full {
            tracing::warn!(
                is_full,
                disk_bytes = stats.disk_bytes,
                held_bytes = stats.held_bytes,
                "the log is at its limit (appends are refused), or no more"
            );
        }
    }
}
