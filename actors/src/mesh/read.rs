//! Scatter and gather: queries and figures over all shards.

pub(super) mod cardinality;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::key::MetricKind;
use tallymesh_protocol::question::query::{ShardQuery, TimeRange};
use tallymesh_storage::clock::Clock;
use tallymesh_storage::shard::QueryFailed;
use tokio::time::Instant;

use super::slots::Slot;
use super::{Gathered, Mesh, ShardAnswer, ShardStatus};
use crate::fleet::messages::{Ask, NodeStatus, ReplicaReport};
use crate::fleet::{Fleet, Route};
use crate::peer::RpcKind;
use crate::raft::SharedState;
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

/// How long shards without a leader are waited for, within a query's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The answer is worth nothing without them.
    All,
    /// What there is is asked for.
    Partial,
}

impl Patience {
    const fn wait(self) -> Duration {
        match self {
            Self::All => Duration::from_secs(5),
            Self::Partial => Duration::from_millis(500),
        }
    }
}

/// Between attempts to reach a shard's leader.
const PAUSE: Duration = Duration::from_millis(20);
/// A leader that has not answered by then has its followers asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(400);

impl Mesh {
    /// Asks every shard; each answer has seen every write acked before the call.
    pub async fn query(&self, query: Arc<ShardQuery>, timeout: Duration, patience: Patience) -> Gathered {
        let shards: Vec<ShardId> = (0..self.shards()).map(ShardId).collect();
        match &self.inner.fleet {
            None => self.query_here(&shards, query, timeout, false).await,
            Some(fleet) => self.query_anywhere(fleet, shards, query, timeout, patience).await,
        }
    }

    /// In rounds: what has not answered is asked again where it is led now.
    async fn query_anywhere(
        &self,
        fleet: &Fleet,
        mut shards: Vec<ShardId>,
        query: Arc<ShardQuery>,
        timeout: Duration,
        patience: Patience,
    ) -> Gathered {
        let (began, deadline) = (Instant::now(), Instant::now() + timeout);
        let give_up = began + patience.wait().min(timeout);
        let mut answers: BTreeMap<ShardId, ShardAnswer> = BTreeMap::new();
        loop {
            let round = Instant::now();
            let (mut here, mut there) = (Vec::new(), BTreeMap::<u64, Vec<ShardId>>::new());
            for shard in shards {
                match fleet.route(shard) {
                    Route::Here => here.push(shard),
                    Route::There(member) => there.entry(member).or_default().push(shard),
                    Route::Nowhere => {
                        let problem =
                            Problem::new(ErrorCode::ShardUnavailable, format!("shard {shard} has no leader that this node reaches"));
                        answers.insert(shard, Err(problem));
                    }
                }
            }
            let left = deadline.saturating_duration_since(round);
            let theirs = there.iter().map(|(member, shards)| self.query_hedged(fleet, *member, shards, &query, deadline));
            let (mine, theirs) = tokio::join!(self.query_here(&here, query.clone(), left, false), join_all(theirs));
            answers.extend(mine.answers.into_iter().chain(theirs.into_iter().flatten()));
            let again = |answer: &ShardAnswer| answer.as_ref().is_err_and(|problem| problem.code == ErrorCode::ShardUnavailable);
            shards = answers.iter().filter(|(_, answer)| again(answer)).map(|(shard, _)| *shard).collect();
            if shards.is_empty() || Instant::now() + PAUSE >= give_up {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // What was seen is at most as old as the question.
        Gathered { answers: answers.into_iter().collect(), freshness: began.elapsed() }
    }

    /// Asks the leader; when that takes long, followers that have what the leader has as well.
    async fn query_hedged(
        &self,
        fleet: &Fleet,
        member: u64,
        shards: &[ShardId],
        query: &Arc<ShardQuery>,
        deadline: Instant,
    ) -> Vec<(ShardId, ShardAnswer)> {
        let first = self.query_there(fleet, member, shards, query, RpcKind::Query, deadline);
        tokio::pin!(first);
        if let Ok(answers) = tokio::time::timeout(HEDGE_AFTER, &mut first).await {
            return answers;
        }
        let second = self.query_followers(fleet, member, shards, query, deadline);
        tokio::pin!(second);
        let is_whole = |answers: &[(ShardId, ShardAnswer)]| answers.iter().all(|(_, answer)| answer.is_ok());
        tokio::select! {
            answers = &mut first => answers,
            answers = &mut second => if is_whole(&answers) { answers } else { first.await },
        }
    }

    async fn query_followers(
        &self,
        fleet: &Fleet,
        leader: u64,
        shards: &[ShardId],
        query: &Arc<ShardQuery>,
        deadline: Instant,
    ) -> Vec<(ShardId, ShardAnswer)> {
        let mut by_member: BTreeMap<u64, Vec<ShardId>> = BTreeMap::new();
        for shard in shards {
            by_member.entry(fleet.follower(*shard, leader).unwrap_or(leader)).or_default().push(*shard);
        }
        let asked = by_member.iter().map(|(member, shards)| async move {
            if *member == fleet.me() {
                let left = deadline.saturating_duration_since(Instant::now());
                self.query_here(shards, query.clone(), left, true).await.answers
            } else {
                self.query_there(fleet, *member, shards, query, RpcKind::FollowerQuery, deadline).await
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks the replicas here; they lead, or find out from who does how far they have to be.
    pub(crate) async fn query_here(&self, shards: &[ShardId], query: Arc<ShardQuery>, timeout: Duration, as_follower: bool) -> Gathered {
        let inner = &self.inner;
        let began = inner.clock.monotonic();
        let until = Instant::now() + timeout;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let run = Run { query, clock: inner.clock.clone(), deadline: began + timeout, cancelled };

        let current = join_all(shards.iter().map(|shard| self.barrier(*shard, until, as_follower))).await;
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

    /// The shard, with every write in its state that was acked before the call.
    async fn barrier(&self, shard: ShardId, until: Instant, as_follower: bool) -> Result<Arc<Shard>, (ShardId, Problem)> {
        let unavailable = |detail: String| (shard, Problem::new(ErrorCode::ShardUnavailable, detail));
        let running = match self.inner.shards.get(shard) {
            Some(Slot::Running(running)) => running,
            Some(Slot::Stopped { detail, .. }) => return Err(unavailable(format!("shard {shard} stopped: {detail}"))),
            Some(Slot::Elsewhere { .. }) => return Err(unavailable(format!("shard {shard} has no replica here"))),
            None => return Err(unavailable(format!("there is no shard {shard}"))),
        };
        let barrier = async {
            match (&self.inner.fleet, as_follower) {
                (Some(fleet), true) => fleet.follow_up(shard).await,
                _ => running.parts.replica.read_barrier().await.map(drop),
            }
        };
        match tokio::time::timeout_at(until, barrier).await {
            Ok(Ok(())) => Ok(running),
            Ok(Err(error)) => Err(unavailable(format!("shard {shard}: {error}"))),
            Err(_) => Err((shard, timed_out())),
        }
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

    /// A number that changes whenever rows are acked that belong to windows of these ranges' days and came after their windows had closed; as far as replicas here
    /// know.
    pub fn late_changes(&self, ranges: &[TimeRange]) -> u64 {
        let of = |shard: Arc<Shard>| ranges.iter().map(|range| shard.late_changes().count(*range)).fold(0, u64::wrapping_add);
        self.inner.shards.running().into_iter().map(of).fold(0, u64::wrapping_add)
    }

    /// A number that is another one some milliseconds after anything was acked, or a shard stopped. Waits for nothing. What happens in shards without a replica here
    /// shows within a second.
    pub fn changes(&self) -> u64 {
        let seconds = self.inner.clock.monotonic().as_secs();
        let of = |slot: &Slot| match slot {
            // Entries are never taken back, so equal sums are equal states.
            Slot::Running(shard) => {
                let status = shard.parts.replica.status();
                status.applied_index.wrapping_mul(2).wrapping_add(u64::from(status.stopped.is_none()))
            }
            Slot::Stopped { .. } => 0,
            Slot::Elsewhere { .. } => seconds,
        };
        self.inner.shards.all().iter().map(of).fold(0, u64::wrapping_add)
    }

    /// Every event name ever seen, for the catalogue and `did_you_mean`. The keys of defined metrics are no events. What cannot be reached is left out.
    pub async fn event_names(&self) -> Vec<String> {
        let Some(fleet) = &self.inner.fleet else { return self.event_names_here(&self.shards_here()).await };
        let (here, there) = self.by_replica(fleet);
        let asked = there.into_iter().map(|(member, shards)| fleet.ask_for(member, Ask::EventNames { shards }));
        let (mut names, theirs) = tokio::join!(self.event_names_here(&here), join_all(asked));
        names.extend(theirs.into_iter().flat_map(|names: Option<Vec<String>>| names.unwrap_or_default()));
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) async fn event_names_here(&self, shards: &[u16]) -> Vec<String> {
        let states = self.states(shards);
        let names = move || {
            let of = |state: &SharedState| state.read().state.metrics();
            let events = states.iter().flat_map(of).filter(|m| m.kind == MetricKind::Default);
            events.map(|m| m.metric).collect::<BTreeSet<String>>().into_iter().collect()
        };
        self.inner.blocking.run(names).await.unwrap_or_default()
    }

    /// States of these shards, as far as they have a replica here.
    pub(super) fn states(&self, shards: &[u16]) -> Vec<SharedState> {
        let running = self.inner.shards.running();
        running.into_iter().filter(|s| shards.contains(&s.parts.id.0)).map(|s| s.parts.state.clone()).collect()
    }

    pub(super) fn shards_here(&self) -> Vec<u16> {
        self.inner.shards.running().iter().map(|shard| shard.parts.id.0).collect()
    }

    /// Shards with a replica here, and who has the others.
    pub(super) fn by_replica(&self, fleet: &Fleet) -> (Vec<u16>, BTreeMap<u64, Vec<u16>>) {
        let here = self.shards_here();
        let mut there: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
        for shard in (0..self.shards()).filter(|shard| !here.contains(shard)) {
            let has = match fleet.route(ShardId(shard)) {
                Route::There(member) => Some(member),
                Route::Here | Route::Nowhere => fleet.follower(ShardId(shard), fleet.me()),
            };
            if let Some(member) = has {
                there.entry(member).or_default().push(shard);
            }
        }
        (here, there)
    }

    /// What this node knows of its own replicas.
    pub(crate) async fn reports(&self) -> NodeStatus {
        let running = self.inner.shards.running();
        let deviates = self.inner.fleet.as_ref().map(Fleet::deviations);
        let report = move || {
            let of = |shard: &Arc<Shard>| {
                // The checksum only means something at the index that goes with it.
                let (checksum, applied) = {
                    let applied = shard.parts.state.read();
                    (applied.state.checksum(), applied.state.applied_index())
                };
                let status = ShardStatus { applied_index: applied, ..running_status(shard) };
                ReplicaReport { status, checksum: Some(checksum) }
            };
            NodeStatus { shards: running.iter().map(of).collect(), deviates }
        };
        self.inner.blocking.run(report).await.unwrap_or_default()
    }
}

impl Slot {
    pub fn status(&self, fleet: Option<&Fleet>) -> ShardStatus {
        match self {
            Self::Stopped { shard, detail } => ShardStatus { shard: shard.0, stopped: Some(detail.clone()), ..ShardStatus::default() },
            Self::Running(shard) => running_status(shard),
            Self::Elsewhere { shard } => {
                let leader = fleet.and_then(|fleet| match fleet.route(*shard) {
                    Route::There(member) => Some(member),
                    Route::Here | Route::Nowhere => None,
                });
                ShardStatus { shard: shard.0, leader, watermark_ms: i64::MIN, ..ShardStatus::default() }
            }
        }
    }
}

fn running_status(shard: &Shard) -> ShardStatus {
    let replica = shard.parts.replica.status();
    let state = shard.stats();
    let snapshot = shard.parts.snapshots.gauges();
    ShardStatus {
        shard: shard.parts.id.0,
        is_open: true,
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
