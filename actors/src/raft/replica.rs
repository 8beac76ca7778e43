//! A shard's replica on openraft.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::network::RaftNetworkFactory;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{ChangeMembers, Raft, ServerState, SnapshotPolicy, Vote};
use parking_lot::Mutex;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::planted::{self, Bug};

use super::given_up::Floor;
use super::log_store::StopReason;
use super::network::Alone;
use super::oneshot::Lost;
use super::state_machine::Snapshots;
use super::{Command, LogStore, Peer, ShardRaft, SharedState, StateMachine};
use crate::replicator::{Committed, Done, ReplicaStatus, Replicator, ReplicatorError};

/// Time between heartbeats to followers, and 2/3 of the tick that drives elections, in milliseconds.
const HEARTBEAT_MS: u64 = 250;
const ELECTION_MIN_MS: u64 = 1_000;
const ELECTION_MAX_MS: u64 = 1_500;
/// Entries of one replication message at most; their bytes are capped by the log store.
const PAYLOAD_ENTRIES_MAX: u64 = 64;
/// A restarted or new replica must lead (alone) or know its leader within this time.
const LEADER_WAIT: Duration = Duration::from_secs(30);

/// Entries that a member of a fleet keeps behind its snapshot.
const KEPT_ENTRIES: u64 = 4;

/// What all groups have in common; `kept` entries stay behind a snapshot.
pub fn config(name: &str, kept: u64) -> openraft::Config {
    openraft::Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // When to take one is decided over all shards, by the bytes of log that they hold back.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: kept,
        purge_batch_size: 1,
        ..openraft::Config::default()
    }
}

/// What a replica is opened with.
pub struct OpenReplica {
    pub node: u64,
    pub shard: ShardId,
    pub log: LogStore,
    pub state: StateMachine,
    pub stop: StopReason,
}

/// Who leads, as one replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<u64>,
    pub leads: bool,
    pub term: u64,
}

/// A group as one of its replicas sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub leader: Option<u64>,
    pub leads: bool,
    pub term: u64,
    pub last_log_index: u64,
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// A change is under way.
    pub is_joint: bool,
    /// Who is in it is committed, as far as this replica has applied.
    pub is_settled: bool,
    /// On the leader: the last entry that each member is known to have.
    pub matched: BTreeMap<u64, u64>,
}

type Barrier = Shared<BoxFuture<'static, Result<u64, ReplicatorError>>>;

/// One round asks for everybody who came before it began.
#[derive(Clone, Default)]
struct Barriers {
    /// The round that has not begun yet.
    next: Arc<Mutex<Option<Barrier>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Barriers {
    fn join(&self, round: impl FnOnce() -> BoxFuture<'static, Result<u64, ReplicatorError>> + Send + 'static) -> Barrier {
        let mut next = self.next.lock();
        if let Some(waiting) = &*next {
            return waiting.clone();
        }
        let (slot, turn) = (self.next.clone(), self.turn.clone());
        let barrier = async move {
            let _turn = turn.lock().await;
            // From here on a newcomer needs another round: this one may not see what was acked just before it asked.
            slot.lock().take();
            round().await
        }
        .boxed()
        .shared();
        *next = Some(barrier.clone());
        barrier
    }
}

pub struct RaftReplica {
    node: u64,
    raft: Raft<ShardRaft>,
    shared: SharedState,
    snapshots: Arc<Snapshots>,
    stop: StopReason,
    barriers: Barriers,
    resumed: Resumed,
    floor: Option<Floor>,
}

/// A node whose process ended as leader goes on leading the same term, and openraft takes what it had committed before for what its snapshot says: a read would
/// miss entries that were acked. All of those are in the log as it was found.
#[derive(Clone, Copy, Debug, Default)]
struct Resumed(Option<(u64, u64)>);

impl Resumed {
    /// Log index that a read has to see, when openraft says that of an entry of this term.
    fn floor(self, term: u64) -> u64 {
        self.0.filter(|(resumed, _)| term <= *resumed && !planted::has(Bug::ResumedLeaderReadsStale)).map_or(0, |(_, last)| last)
    }
}

impl RaftReplica {
    /// Why openraft ended it, where nothing is wrong with its disk or its state: it can be opened again.
    pub fn ended_by_itself(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let error = metrics.running_state.as_ref().err()?;
        self.stop.get().is_none().then(|| error.to_string())
    }

    /// Starts the replica; alone it is made a group of one if it is new, and it leads when this returns, with its whole log applied.
    ///
    /// # Errors
    /// What stopped it.
    pub async fn open(open: OpenReplica) -> Result<Self, ReplicatorError> {
        let replica = Self::join(open, Alone).await?;
        replica.lead().await?;
        Ok(replica)
    }

    /// Starts the replica as one of several; it waits for nobody. Whoever makes the group, or changes who is in it, does so with [`RaftReplica::raft`].
    ///
    /// # Errors
    /// What stopped it.
    pub async fn join<N: RaftNetworkFactory<ShardRaft>>(open: OpenReplica, network: N) -> Result<Self, ReplicatorError> {
        Self::open_in(open, network, 0).await
    }

    /// As [`Self::join`], as one of a fleet: a little of the log is kept behind a snapshot, so that a replica that lags by a moment needs none.
    ///
    /// # Errors
    /// What stopped it.
    pub async fn join_fleet<N: RaftNetworkFactory<ShardRaft>>(open: OpenReplica, network: N) -> Result<Self, ReplicatorError> {
        let replica = Self::open_in(open, network, KEPT_ENTRIES).await?;
        // When to stand is decided elsewhere, by who has lost whom.
        replica.raft.runtime_config().elect(false);
        Ok(replica)
    }

    async fn open_in<N: RaftNetworkFactory<ShardRaft>>(open: OpenReplica, network: N, kept: u64) -> Result<Self, ReplicatorError> {
        let OpenReplica { node, shard, log, state, stop } = open;
        let config = config(&format!("shard-{shard}"), kept).validate().map_err(|e| ReplicatorError::Stopped(e.to_string()))?;
        let (shared, snapshots, floor) = (state.shared(), state.snapshots(), log.floor());
        let resumed = Resumed(log.resumes(node).map_err(|e| ReplicatorError::Stopped(e.to_string()))?);
        let raft = Raft::new(node, Arc::new(config), network, log, state).await.map_err(|e| fatal(&stop, &e))?;
        Ok(Self { node, raft, shared, snapshots, stop, barriers: Barriers::default(), resumed, floor })
    }

    pub fn raft(&self) -> &Raft<ShardRaft> {
        &self.raft
    }

    /// Makes the group of these members, if it is new and this node is one of them.
    ///
    /// # Errors
    /// It stopped.
    pub async fn found(&self, members: BTreeMap<u64, Peer>) -> Result<(), ReplicatorError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(e)) => Err(ReplicatorError::Stopped(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(fatal(&self.stop, &e)),
        }
    }

    /// Whether the group was made as far as this replica knows.
    pub async fn is_founded(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(true)
    }

    /// Who is in the group, and how far they are.
    pub fn group(&self) -> Group {
        Self::group_of(&self.raft)
    }

    /// The same of a group that is no shard's.
    pub fn group_of(raft: &Raft<ShardRaft>) -> Group {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        Group {
            leader: metrics.current_leader,
            leads: metrics.state == ServerState::Leader && metrics.running_state.is_ok(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            is_settled: metrics.membership_config.log_id().is_some_and(|id| Some(id) <= metrics.last_applied),
            is_joint: membership.get_joint_config().len() > 1,
            matched: matched.map(|(member, id)| (*member, id.map_or(0, |id| id.index))).collect(),
        }
    }

    /// The part of [`Self::group`] that every request asks for.
    pub fn leadership(&self) -> Leadership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        Leadership { leader: metrics.current_leader, leads, term: metrics.current_term }
    }

    /// One step of a change of who is in the group.
    ///
    /// # Errors
    /// It does not lead (any more), or the step is not one that can be taken.
    pub async fn change(&self, change: ChangeMembers<u64, Peer>, retain: bool) -> Result<(), String> {
        self.raft.change_membership(change, retain).await.map(drop).map_err(|e| e.to_string())
    }

    /// Whether a leader wrote or beat within `age`. Asks the group itself: for rare occasions.
    pub async fn hears_leader(raft: &Raft<ShardRaft>, age: Duration) -> bool {
        let heard = raft.with_raft_state(|state| state.vote_ref().is_committed().then(|| state.vote_last_modified()).flatten()).await;
        heard.ok().flatten().is_some_and(|at| at.elapsed() < age)
    }

    /// What the log has to reach before this replica takes part in elections; none for one that was never removed.
    pub fn floor(&self) -> Option<Floor> {
        self.floor.clone()
    }

    /// Whether it may stand: one that was removed and has not got back what it had would win with less.
    pub fn may_stand(&self) -> bool {
        self.floor.as_ref().is_none_or(Floor::is_reached)
    }

    /// Stands for election, if it may; the leader does nothing.
    pub async fn stand(&self) {
        if !self.may_stand() {
            return;
        }
        // A group that has ended elects nobody.
        let _ = self.raft.trigger().elect().await;
    }

    /// Lets go of the leader of `term`, in favour of `heir`: this replica's lease on the leader, which each of its messages renews, forbids no vote any more. It gives
    /// its vote of the next term to nobody else; whether the heir gets it is decided when it asks, by its log, as ever.
    pub async fn let_go(&self, term: u64, heir: u64) -> bool {
        Self::let_go_of(&self.raft, term, heir).await
    }

    /// The same in a group that is no shard's.
    pub async fn let_go_of(raft: &Raft<ShardRaft>, term: u64, heir: u64) -> bool {
        // Of a message of a later term a replica notes the vote first, durably. An append that follows an entry which nobody has does nothing else.
        let nowhere = super::codec::log_id(term + 1, u64::MAX);
        let note =
            AppendEntriesRequest { vote: Vote::new(term + 1, heir), prev_log_id: Some(nowhere), entries: Vec::new(), leader_commit: None };
        matches!(raft.append_entries(note).await, Ok(AppendEntriesResponse::Conflict))
    }

    async fn lead(&self) -> Result<(), ReplicatorError> {
        if !self.raft.is_initialized().await.map_err(|e| fatal(&self.stop, &e))? {
            let members = BTreeMap::from([(self.node, Peer::default())]);
            match self.raft.initialize(members).await {
                Ok(()) => {}
                Err(RaftError::APIError(e)) => return Err(ReplicatorError::Stopped(e.to_string())),
                Err(RaftError::Fatal(e)) => return Err(fatal(&self.stop, &e)),
            }
        }
        // A group of one need not wait for a time-out to find out that nobody leads; one that restarts with its committed vote leads already.
        self.raft.trigger().elect().await.map_err(|e| fatal(&self.stop, &e))?;
        let wait = self.raft.wait(Some(LEADER_WAIT));
        let led = wait.metrics(|m| m.state == ServerState::Leader && m.current_leader == Some(self.node), "leads alone").await;
        led.map_err(|e| ReplicatorError::Stopped(self.stop.get().unwrap_or_else(|| e.to_string())))?;
        Ok(())
    }

    pub fn shared(&self) -> SharedState {
        self.shared.clone()
    }

    pub fn snapshots(&self) -> Arc<Snapshots> {
        self.snapshots.clone()
    }
}

fn fatal(stop: &StopReason, error: &Fatal<u64>) -> ReplicatorError {
    // What a storage call noted names the file; openraft's own words are for what did not come from there.
    ReplicatorError::Stopped(stop.get().unwrap_or_else(|| error.to_string()))
}

fn ended(stop: &StopReason) -> ReplicatorError {
    ReplicatorError::Stopped(stop.get().unwrap_or_else(|| Lost.to_string()))
}

impl Replicator for RaftReplica {
    fn submit(&self, command: Bytes, done: Done) {
        let stop = self.stop.clone();
        // Sending does not wait, unless the group has ended: the order of calls is the order of the log.
        let Some(sent) = self.raft.client_write_ff(Command(command)).now_or_never() else {
            return done(Err(ended(&stop)));
        };
        match sent {
            Err(e) => done(Err(fatal(&stop, &e))),
            Ok(outcome) => outcome.on_settled(move |outcome| {
                done(match outcome {
                    Ok(Ok(written)) => Ok(Committed { index: written.log_id.index, parts: written.data.parts }),
                    Ok(Err(ClientWriteError::ForwardToLeader(to))) => Err(ReplicatorError::NotLeader { leader: to.leader_id }),
                    Ok(Err(ClientWriteError::ChangeMembershipError(e))) => Err(ReplicatorError::Stopped(e.to_string())),
                    Err(Lost) => Err(ended(&stop)),
                });
            }),
        }
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<u64, ReplicatorError>> {
        {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let alone = metrics.membership_config.voter_ids().eq([self.node]);
            let alone = alone || planted::has(Bug::ReadWithoutBarrier);
            let applied = metrics.last_applied.map_or(0, |id| id.index);
            let is_whole = applied >= self.resumed.floor(metrics.current_term) || planted::has(Bug::ReadWithoutBarrier);
            if alone && is_whole && metrics.state == ServerState::Leader && metrics.running_state.is_ok() {
                // The only voter leads until it stops, and answers a proposal after it applied it: what was acked is in the state already.
                return futures::future::ready(Ok(applied)).boxed();
            }
        }
        let (raft, stop, resumed) = (self.raft.clone(), self.stop.clone(), self.resumed);
        let round = move || {
            async move {
                match raft.ensure_linearizable().await {
                    Ok(read) => {
                        let (term, read) = read.map_or((0, 0), |id| (id.leader_id.term, id.index));
                        let floor = resumed.floor(term);
                        if floor <= read {
                            return Ok(read);
                        }
                        let applied = raft.wait(None).applied_index_at_least(Some(floor), "what was there before").await;
                        applied.map(|_| floor).map_err(|_| ended(&stop))
                    }
                    Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                        Err(ReplicatorError::NotLeader { leader: to.leader_id })
                    }
                    Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(ReplicatorError::NoQuorum),
                    Err(RaftError::Fatal(e)) => Err(fatal(&stop, &e)),
                }
            }
            .boxed()
        };
        self.barriers.join(round).boxed()
    }

    fn status(&self) -> ReplicaStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let stopped = match &metrics.running_state {
            Ok(()) => self.stop.get(),
            Err(e) => Some(self.stop.get().unwrap_or_else(|| e.to_string())),
        };
        ReplicaStatus {
            leader: metrics.current_leader,
            is_leader: metrics.state == ServerState::Leader && stopped.is_none(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |id| id.index),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            stopped,
        }
    }

    fn trigger_snapshot(&self) {
        // Only a send; a group that has ended takes none.
        let _ = self.raft.trigger().snapshot().now_or_never();
    }

    fn snapshot_of_now(&self) -> BoxFuture<'static, ()> {
        let mut metrics = self.raft.metrics();
        let applied = metrics.borrow().last_applied;
        async move {
            if metrics.wait_for(|m| m.snapshot >= applied).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let (raft, snapshots) = (self.raft.clone(), self.snapshots.clone());
        async move {
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%error, "a replica did not end cleanly");
            }
            snapshots.close().await;
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Rounds that wait for a permit each; a round answers with its number.
    fn round(
        rounds: &Arc<AtomicU64>,
        gate: &Arc<Semaphore>,
    ) -> impl FnOnce() -> BoxFuture<'static, Result<u64, ReplicatorError>> + Send + 'static {
        let (rounds, gate) = (rounds.clone(), gate.clone());
        move || {
            async move {
                let number = rounds.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.expect("gate").forget();
                Ok(number)
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn reads_that_wait_share_a_round_that_began_after_they_came() {
        let (barriers, rounds, gate) = (Barriers::default(), Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let mut first = barriers.join(round(&rounds, &gate));
        assert!(futures::poll!(&mut first).is_pending(), "its round has begun");
        let late: Vec<Barrier> = (0..5).map(|_| barriers.join(round(&rounds, &gate))).collect();
        gate.add_permits(2);
        assert_eq!(first.await, Ok(0));
        for read in late {
            assert_eq!(read.await, Ok(1), "not the round that had begun before");
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn reader_that_goes_away_does_not_keep_others_waiting() {
        let (barriers, rounds, gate) = (Barriers::default(), Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let mut first = barriers.join(round(&rounds, &gate));
        assert!(futures::poll!(&mut first).is_pending());
        let second = barriers.join(round(&rounds, &gate));
        drop(first);
        gate.add_permits(1);
        assert_eq!(second.await, Ok(1));
    }
}
