//! Scatter and gather: queries and figures over all shards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::key::MetricKind;
use tallymesh_protocol::query::{ShardQuery, TimeRange};
use tallymesh_storage::clock::Clock;
use tallymesh_storage::shard::QueryFailed;
use tokio::time::Instant;

use super::{Gathered, Mesh, ShardAnswer, ShardStatus, Slot};
use crate::raft::SharedState;
use crate::replicator::ReplicatorError;
use crate::shard::Shard;

/// Parts of queries that compute at the same time, for each processor.
pub const QUERIES_PER_LANE: usize = 2;

/// Tells the threads that compute for a caller who is gone.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the computing threads need to know of a query.
#[derive(Clone)]
struct Run {
    query: Arc<ShardQuery>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    cancelled: Arc<AtomicBool>,
}

impl Run {
    fn should_stop(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.clock.monotonic() >= self.deadline
    }

    /// The answer, and when what it shows was current.
    fn answer(&self, state: &SharedState) -> (ShardAnswer, Duration) {
        let (prepared, seen_at) = {
            let applied = state.read();
            (applied.state.prepare(&self.query), self.clock.monotonic())
        };
        let answer = prepared.run(&|| self.should_stop()).map_err(|failed| match failed {
            QueryFailed::TooManyCells { cells_max } => Problem::new(
                ErrorCode::TooManyCells,
                format!(
                    "the answer has more than {cells_max} cells (groups x steps): ask for a shorter range, a coarser step or fewer groups"
                ),
            )
            .limit(cells_max as u64),
            QueryFailed::Cancelled => timed_out(),
        });
        (answer, seen_at)
    }
}

fn timed_out() -> Problem {
    Problem::new(ErrorCode::QueryTimeout, "a shard did not answer in time: ask for a shorter range or give more time")
}

fn unavailable(shard: ShardId, error: &ReplicatorError) -> Problem {
    Problem::new(ErrorCode::ShardUnavailable, format!("shard {shard}: {error}"))
}

impl Mesh {
    /// Asks every shard; each answer has seen every write acked before the call.
    pub async fn query(&self, query: Arc<ShardQuery>, timeout: Duration) -> Gathered {
        let inner = &self.inner;
        let began = inner.clock.monotonic();
        let until = Instant::now() + timeout;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let run = Run { query, clock: inner.clock.clone(), deadline: began + timeout, cancelled };

        let current = join_all(inner.shards.iter().map(|slot| barrier(slot, until))).await;
        let mut answers: Vec<(ShardId, ShardAnswer)> = Vec::with_capacity(current.len());
        let mut lanes: Vec<Vec<(ShardId, SharedState)>> = vec![Vec::new(); inner.lane_count.max(1)];
        for (i, current) in current.into_iter().enumerate() {
            match current {
                Ok(shard) => {
                    let lane = i % lanes.len();
                    lanes[lane].push((shard.parts.id, shard.parts.state.clone()));
                }
                Err((shard, problem)) => answers.push((shard, Err(problem))),
            }
        }
        let lanes = lanes.into_iter().filter(|lane| !lane.is_empty());
        let mut oldest = None;
        for (seen_at, lane) in join_all(lanes.map(|lane| self.compute(lane, run.clone(), until))).await {
            oldest = seen_at.into_iter().chain(oldest).min();
            answers.extend(lane);
        }
        answers.sort_by_key(|(shard, _)| *shard);
        let freshness = inner.clock.monotonic().saturating_sub(oldest.unwrap_or(began));
        Gathered { answers, freshness }
    }

    async fn compute(
        &self,
        shards: Vec<(ShardId, SharedState)>,
        run: Run,
        until: Instant,
    ) -> (Option<Duration>, Vec<(ShardId, ShardAnswer)>) {
        let ids: Vec<ShardId> = shards.iter().map(|(id, _)| *id).collect();
        let failed = |problem: Problem| (None, ids.iter().map(|id| (*id, Err(problem.clone()))).collect());
        let lane = match tokio::time::timeout_at(until, self.inner.lanes.clone().acquire_owned()).await {
            Ok(Ok(lane)) => lane,
            Ok(Err(_)) | Err(_) => return failed(timed_out()),
        };
        let work = move || {
            // Held until the computing ends, also when nobody waits for it any more.
            let _lane = lane;
            let mut oldest: Option<Duration> = None;
            let answer = |(id, state): (ShardId, SharedState)| {
                let (answer, seen_at) = run.answer(&state);
                oldest = oldest.into_iter().chain([seen_at]).min();
                (id, answer)
            };
            let answers: Vec<_> = shards.into_iter().map(answer).collect();
            (oldest, answers)
        };
        match self.inner.blocking.run(work).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!(%error, "computing a query ended");
                failed(Problem::new(ErrorCode::Internal, "computing the answer failed"))
            }
        }
    }

    /// A number that changes whenever rows are acked that belong to windows of these ranges' days and came after their windows had closed.
    pub fn late_changes(&self, ranges: &[TimeRange]) -> u64 {
        let shards = self.inner.shards.iter().filter_map(Slot::running);
        let of = |shard: &Shard| ranges.iter().map(|range| shard.late_changes().count(*range)).fold(0, u64::wrapping_add);
        shards.map(of).fold(0, u64::wrapping_add)
    }

    /// A number that is another one some milliseconds after anything was acked, or a shard stopped. Waits for nothing.
    pub fn changes(&self) -> u64 {
        let of = |slot: &Slot| {
            let status = slot.running().map(|shard| shard.parts.replica.status());
            // Entries are never taken back, so equal sums are equal states.
            status.map_or(0, |status| status.applied_index.wrapping_mul(2).wrapping_add(u64::from(status.stopped.is_none())))
        };
        self.inner.shards.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// Every event name ever seen, for the catalogue and `did_you_mean`. The keys of defined metrics are no events.
    pub async fn event_names(&self) -> Vec<String> {
        let states: Vec<SharedState> = self.inner.shards.iter().filter_map(Slot::running).map(|s| s.parts.state.clone()).collect();
        let names = move || {
            let of = |state: &SharedState| state.read().state.metrics();
            let events = states.iter().flat_map(of).filter(|m| m.kind == MetricKind::Default);
            events.map(|m| m.metric).collect::<BTreeSet<String>>().into_iter().collect()
        };
        self.inner.blocking.run(names).await.unwrap_or_default()
    }
}

async fn barrier(slot: &Slot, until: Instant) -> Result<&Shard, (ShardId, Problem)> {
    match slot {
        Slot::Stopped { shard, detail } => {
            Err((*shard, Problem::new(ErrorCode::ShardUnavailable, format!("shard {shard} stopped: {detail}"))))
        }
        Slot::Running(shard) => match tokio::time::timeout_at(until, shard.parts.replica.read_barrier()).await {
            Ok(Ok(_)) => Ok(shard),
            Ok(Err(error)) => Err((shard.parts.id, unavailable(shard.parts.id, &error))),
            Err(_) => Err((shard.parts.id, timed_out())),
        },
    }
}

impl Slot {
    pub fn status(&self) -> ShardStatus {
        match self {
            Self::Stopped { shard, detail } => ShardStatus { shard: shard.0, stopped: Some(detail.clone()), ..ShardStatus::default() },
            Self::Running(shard) => running_status(shard),
        }
    }
}

fn running_status(shard: &Shard) -> ShardStatus {
    let replica = shard.parts.replica.status();
    let state = shard.stats();
    let snapshot = shard.parts.snapshots.gauges();
    ShardStatus {
        shard: shard.parts.id.0,
        leader: replica.leader,
        term: replica.term,
        last_log_index: replica.last_log_index,
        committed_index: replica.applied_index,
        applied_index: replica.applied_index,
        snapshot_index: replica.snapshot_index,
        stopped: replica.stopped,
        events: state.counters.events,
        duplicates: state.counters.duplicates,
        older_than_horizon: state.counters.older_than_horizon,
        queued_bytes: shard.queued_bytes() as u64,
        open_rows: state.windows.open_rows,
        blocks: state.windows.blocks,
        windows: state.windows.windows.iter().sum(),
        window_bytes: state.windows.bytes,
        totals_bytes: state.windows.totals_bytes,
        keys: state.keys,
        keys_memory_bytes: state.keys_memory_bytes,
        other_rows: state.other_rows,
        dedup_entries: state.dedup.entries,
        dedup_memory_bytes: state.dedup.memory_bytes,
        dedup_disk_bytes: state.dedup.disk_bytes,
        snapshot_bytes: snapshot.written_bytes,
        last_snapshot_ms: snapshot.finished_wall_ms,
        watermark_ms: state.watermark_ms,
    }
}
