//! A node among others: who it is, whom it reaches, what all have agreed on, which replicas it has. [`crate::Mesh`] asks here where a shard is led; what happens
//! by itself is in [`watch`] (leaders that are lost), [`placement::steward`] (who is in which group) and [`placement::settle`] (which replicas are open here).

mod admin;
pub mod clocks;
pub(crate) mod files;
mod handler;
pub mod messages;
pub mod meta;
pub mod placement;
pub(crate) mod start;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::Raft;
use parking_lot::RwLock;
use tallymesh_protocol::event::command::ShardSettings;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::clock::Clock;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use admin::{ClusterNode, ClusterReplica, ClusterShard, ClusterView, MoveRefused};
pub use files::Arriving;
pub use placement::leftovers::RemovedLeftovers;

use crate::founding::driver::FoundingService;
use crate::membership::View;
use crate::membership::gossip::Gossip;
use crate::membership::sealed::Dropped;
use crate::mesh::Inner as MeshInner;
use crate::peer::{Lane, NodeId, PeerError, Peers, Rpc, RpcKind, TlsFiles};
use crate::raft::peers::{Behind, PeerNetworks, ReplicaServer};
use crate::raft::{RaftReplica, ShardRaft};
use crate::replicator::ReplicatorError;
use clocks::{Clocks, MedianOffset};
use files::PeerFiles;
use messages::{Ask, Proposed};
use meta::group::{META, MetaGroup};
use meta::{MetaCommand, MetaState};
use placement::leftovers::Removals;
use watch::failovers::Failovers;
use watch::leaders::Leaders;

/// A small question to a peer.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// Whoever is asked about a lost leader answers at once or is lost too.
const LOST_TIME_MAX: Duration = Duration::from_millis(200);
/// Of so many voters an heir and the old leader are a majority. Of more, others have to vote too, and their leases on the old leader forbid it until they let go of it.
pub(crate) const VOTERS_BY_TWO_MAX: usize = 3;
/// Voters let go of a leader that hands over within this time, or are waited for no longer.
const LET_GO_TIME_MAX: Duration = Duration::from_millis(200);
/// An heir has so long to lead before it, or a voter that let go of the old leader for it, takes the lead for lost.
const HANDED_TIME_MAX: Duration = Duration::from_millis(300);
/// Pause before a proposal to the metadata group is tried again.
const PROPOSE_PAUSE: Duration = Duration::from_millis(50);

/// How a node takes part in a fleet.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub name: String,
    pub cluster_name: String,
    /// Where peers connect to; gossip has the UDP port of the same number.
    pub listen: SocketAddr,
    /// What others dial; a host name is resolved when the node starts.
    pub advertise: String,
    /// Peer addresses of all founders, or of any members.
    pub founders: Vec<String>,
    /// Where this node serves HTTP, for people.
    pub http: String,
    pub cookie: String,
    /// Mutual TLS between nodes; none is for one host only.
    pub tls: Option<TlsFiles>,
    /// Copies of every shard; none is three where there are three founders, else one.
    pub replication: Option<u8>,
    pub version: String,
    /// A member that was not seen for so long gives its places to others.
    pub lost_after: Duration,
    /// What is left of a replica that was given up is kept for so long after its group is known to do without it.
    pub leftover_grace: Duration,
    /// What all peers together may fetch, in bytes a second.
    pub bulk_bytes_per_second: u64,
}

/// Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    /// This node's number in replica groups.
    me: u64,
    options: FleetOptions,
    clock: Arc<dyn Clock>,
    peers: Peers,
    gossip: tokio::sync::Mutex<Option<Gossip>>,
    gossip_dropped: Dropped,
    view: channel::Receiver<View>,
    founding: Arc<FoundingService>,
    meta: OnceLock<MetaGroup>,
    /// What the node was configured with; founds the cluster's.
    settings: ShardSettings,
    shards: u16,
    replicas: RwLock<BTreeMap<ShardId, Arc<RaftReplica>>>,
    /// Of each group, whether a voter's log goes further than the one here.
    behind: RwLock<BTreeMap<ShardId, Behind>>,
    server: ReplicaServer,
    files: PeerFiles,
    leaders: Leaders,
    clocks: Clocks,
    /// Since when this node leads what, and in which term.
    leading: RwLock<BTreeMap<ShardId, (u64, Duration)>>,
    /// Until when the lead of a shard is on its way to an heir.
    handed: RwLock<BTreeMap<ShardId, Duration>>,
    failovers: RwLock<Failovers>,
    removals: Removals,
    mesh: OnceLock<Weak<MeshInner>>,
    leaving: AtomicBool,
    /// Set when everything below has to end.
    end: channel::Sender<bool>,
    tasks: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// Where a shard is led, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Here,
    There(u64),
    Nowhere,
}

impl Fleet {
    pub fn me(&self) -> u64 {
        self.inner.me
    }

    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// Gossip datagrams that no holder of the cluster's cookie has sealed.
    pub fn gossip_dropped(&self) -> u64 {
        self.inner.gossip_dropped.count()
    }

    /// What was removed here of replicas that were given up.
    pub fn leftovers_removed(&self) -> RemovedLeftovers {
        self.inner.removals.so_far()
    }

    pub(crate) fn removals(&self) -> &Removals {
        &self.inner.removals
    }

    pub(crate) fn meta(&self) -> Option<&MetaGroup> {
        self.inner.meta.get()
    }

    /// What all have agreed on; as it was before this node belonged to a cluster, that is nothing.
    pub fn state(&self) -> Arc<MetaState> {
        self.meta().map(MetaGroup::state).unwrap_or_default()
    }

    fn now(&self) -> Duration {
        self.inner.clock.monotonic()
    }

    fn replica(&self, shard: ShardId) -> Option<Arc<RaftReplica>> {
        self.inner.replicas.read().get(&shard).cloned()
    }

    fn replicas(&self) -> Vec<(ShardId, Arc<RaftReplica>)> {
        self.inner.replicas.read().iter().map(|(shard, replica)| (*shard, replica.clone())).collect()
    }

    /// The replica here of a shard's group, or of the metadata group.
    fn raft_of(&self, group: ShardId) -> Option<Raft<ShardRaft>> {
        if group == META { self.meta().map(MetaGroup::raft) } else { self.replica(group).map(|replica| replica.raft().clone()) }
    }

    /// Members that a session is open with, and this one.
    fn connected(&self) -> BTreeSet<u64> {
        let table = self.inner.peers.watch();
        let table = table.borrow();
        table.connected.keys().map(|node| node.member()).chain([self.inner.me]).collect()
    }

    /// Members that gossip sees alive, and this one.
    fn alive(&self) -> BTreeSet<u64> {
        self.inner.view.borrow().alive().map(|info| info.node.member()).chain([self.inner.me]).collect()
    }

    /// An heir is told to stand: for so long this node does not stand by itself, which would spoil the heir's election.
    pub(crate) fn hands_over(&self, shard: ShardId, time: Duration) {
        self.inner.handed.write().insert(shard, self.now() + time);
    }

    fn is_handing_over(&self, shard: ShardId) -> bool {
        self.inner.handed.read().get(&shard).is_some_and(|until| self.now() < *until)
    }

    pub fn is_leaving(&self) -> bool {
        self.inner.leaving.load(Ordering::Acquire)
    }

    /// Where to send what is for the shard's leader.
    pub fn route(&self, shard: ShardId) -> Route {
        let heard = self.inner.leaders.of(shard.0, self.now());
        let Some(group) = self.replica(shard).map(|replica| replica.leadership()) else {
            return heard.map_or(Route::Nowhere, |heard| Route::There(heard.leader));
        };
        // Somebody else may have heard of a later term than this node's replica.
        match (heard.filter(|heard| heard.lead.term > group.term), group.leader) {
            (Some(heard), _) if heard.leader != self.inner.me => Route::There(heard.leader),
            (_, Some(leader)) if leader == self.inner.me && group.leads => Route::Here,
            (_, Some(leader)) if leader != self.inner.me => Route::There(leader),
            _ => Route::Nowhere,
        }
    }

    /// A member said that it does not lead the shard, or cannot be reached.
    pub fn not_there(&self, shard: ShardId, member: u64) {
        self.inner.leaders.forget(shard.0, member);
    }

    /// Whether this node reached the shard's leader a moment ago.
    pub fn reaches_leader(&self, shard: ShardId) -> bool {
        match self.route(shard) {
            Route::Here => true,
            Route::There(member) => {
                let last = self.inner.leaders.last_beat(member);
                last.is_some_and(|at| self.now().saturating_sub(at) <= watch::leaders::HEARD_AGE_MAX) && self.connected().contains(&member)
            }
            Route::Nowhere => false,
        }
    }

    /// Asks a member; of itself, nothing is asked.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn call(&self, member: u64, kind: RpcKind, lane: Lane, body: Bytes, deadline: Instant) -> Result<Bytes, PeerError> {
        let rpc = Rpc { kind, shard: ShardId(0), lane, body };
        self.inner.peers.call_member(member, rpc, deadline).await
    }

    async fn ask(&self, member: u64, ask: Ask, wait: Duration) -> Result<Bytes, String> {
        let urgent = matches!(ask, Ask::Beat | Ask::Lost { .. } | Ask::Stand { .. } | Ask::LetGo { .. });
        let body = messages::to_bytes(ask).map_err(|e| e.to_string())?;
        let lane = if urgent { Lane::Urgent } else { Lane::Normal };
        self.call(member, RpcKind::Metadata, lane, body, Instant::now() + wait).await.map_err(|e| e.to_string())
    }

    pub(crate) fn local(&self, shard: ShardId) -> Option<Arc<RaftReplica>> {
        self.replica(shard)
    }

    /// How this node's clock stands to the others'.
    pub(crate) fn clock_offset(&self) -> MedianOffset {
        self.inner.clocks.offset()
    }

    /// What a replica here reaches the others of its group with.
    pub(crate) fn networks(&self, shard: ShardId) -> PeerNetworks {
        let networks = PeerNetworks::new(Arc::new(self.inner.peers.clone()), shard);
        self.inner.behind.write().insert(shard, networks.behind());
        networks
    }

    /// Whether a voter refused this node for its shorter log within `age`.
    fn is_behind(&self, shard: ShardId, age: Duration) -> bool {
        self.inner.behind.read().get(&shard).is_some_and(|behind| behind.within(age))
    }

    /// Notes whether this node leads the shard.
    fn note_lead(&self, shard: ShardId, led_in_term: Option<u64>) {
        let known = self.inner.leading.read().get(&shard).map(|(term, _)| *term);
        if known != led_in_term {
            let mut leading = self.inner.leading.write();
            match led_in_term {
                Some(term) => drop(leading.insert(shard, (term, self.now()))),
                None => drop(leading.remove(&shard)),
            }
        }
    }

    /// How long this node has led the shard without a break.
    pub(crate) fn led_for(&self, shard: ShardId) -> Duration {
        let since = self.inner.leading.read().get(&shard).map(|(_, since)| *since);
        since.map_or(Duration::ZERO, |since| self.now().saturating_sub(since))
    }

    pub(crate) fn stays(&self, member: u64) -> bool {
        self.inner.leaders.stays(member, self.now()) && self.connected().contains(&member)
    }

    pub(crate) fn add_replica(&self, shard: ShardId, replica: Arc<RaftReplica>) {
        self.inner.server.add_with_floor(shard, replica.raft().clone(), replica.floor());
        self.inner.replicas.write().insert(shard, replica);
    }

    pub(crate) fn remove_replica(&self, shard: ShardId) {
        self.inner.replicas.write().remove(&shard);
        self.inner.server.remove(shard);
        self.inner.files.remove(shard);
    }

    pub(crate) fn files(&self) -> &PeerFiles {
        &self.inner.files
    }

    /// Tells a follower to stand for election; its leader has stopped writing.
    pub(crate) async fn ask_to_stand(&self, member: u64, shard: ShardId) {
        if let Err(error) = self.ask(member, Ask::Stand { shard: shard.0 }, ASK_TIME_MAX).await {
            tracing::info!(%shard, member, error, "the heir does not answer");
        }
    }

    /// Has as many voters let go of this node, which leads the shard, as an heir needs beside itself and this node. After that there is no way back.
    pub(crate) async fn have_let_go(&self, shard: ShardId, term: u64, voters: &BTreeSet<u64>, heir: u64) {
        let others = voters.iter().copied().filter(|member| *member != self.me() && *member != heir);
        let mut asked: FuturesUnordered<_> = others
            .map(|member| async move {
                let answer = self.ask(member, Ask::LetGo { shard: shard.0, term, heir }, LET_GO_TIME_MAX).await;
                answer.ok().and_then(|answer| messages::from_bytes::<bool>(&answer).ok()).unwrap_or(false)
            })
            .collect();
        let mut needed = (voters.len() / 2 + 1).saturating_sub(2);
        while needed > 0
            && let Some(has_let_go) = asked.next().await
        {
            needed -= usize::from(has_let_go);
        }
        if needed > 0 {
            tracing::info!(%shard, heir, needed, "too few voters let go of this leader: its heir needs an election");
        }
    }

    /// Another replica than the leader's that this node reaches; its own before others.
    pub(crate) fn follower(&self, shard: ShardId, leader: u64) -> Option<u64> {
        if self.inner.me != leader && self.replica(shard).is_some() {
            return Some(self.inner.me);
        }
        let connected = self.connected();
        let state = self.state();
        let replicas = &state.placement.get(usize::from(shard.0))?.replicas;
        replicas.iter().copied().find(|member| *member != leader && *member != self.inner.me && connected.contains(member))
    }

    /// Waits until the replica here has what the shard's leader had when it was asked.
    ///
    /// # Errors
    /// There is no leader that can be asked.
    pub(crate) async fn follow_up(&self, shard: ShardId) -> Result<(), ReplicatorError> {
        let replica = self.replica(shard).ok_or(ReplicatorError::NotLeader { leader: None })?;
        let leader = replica.leadership().leader.ok_or(ReplicatorError::NotLeader { leader: None })?;
        let rpc = Rpc { kind: RpcKind::ReadIndex, shard, lane: Lane::Normal, body: Bytes::new() };
        let answer = self.inner.peers.call_member(leader, rpc, Instant::now() + ASK_TIME_MAX).await;
        let index = answer.ok().and_then(|answer| messages::from_bytes::<u64>(&answer).ok());
        let index = index.ok_or(ReplicatorError::NotLeader { leader: Some(leader) })?;
        let applied = replica.raft().wait(Some(ASK_TIME_MAX)).applied_index_at_least(Some(index), "what the leader had").await;
        applied.map(drop).map_err(|_| ReplicatorError::NoQuorum)
    }

    pub(crate) async fn ask_for<T: serde::de::DeserializeOwned>(&self, member: u64, ask: Ask) -> Option<T> {
        let wait = if matches!(ask, Ask::Lost { .. }) { LOST_TIME_MAX } else { ASK_TIME_MAX };
        messages::from_bytes(&self.ask(member, ask, wait).await.ok()?).ok()
    }

    fn mesh_here(&self) -> Result<crate::Mesh, ()> {
        self.inner.mesh.get().and_then(Weak::upgrade).map(crate::Mesh::from_inner).ok_or(())
    }

    /// Has the metadata group decide; wherever it is led, through an election if need be.
    ///
    /// # Errors
    /// Why it was refused, or that it is not known to be decided in time; for people.
    pub async fn propose(&self, command: MetaCommand, wait: Duration) -> Result<(), String> {
        let deadline = Instant::now() + wait;
        let mut last = "the metadata group has no leader".to_owned();
        let mut hint = None;
        while Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(meta) = self.meta() else { return Err("this node belongs to no cluster yet".to_owned()) };
            match hint.take().or_else(|| meta.leader()) {
                Some(leader) if leader == self.inner.me => match meta.propose(command.clone(), left).await {
                    Ok(decided) => return decided,
                    Err(ReplicatorError::NotLeader { leader }) => hint = leader.filter(|leader| *leader != self.inner.me),
                    Err(error) => last = error.to_string(),
                },
                Some(leader) => match self.ask(leader, Ask::Propose(command.clone()), left.min(ASK_TIME_MAX)).await {
                    Ok(answer) => match messages::from_bytes(&answer).map_err(|e| e.to_string())? {
                        Proposed::Done => return Ok(()),
                        Proposed::Refused(reason) => return Err(reason),
                        Proposed::NotLeader(other) => hint = other.filter(|other| *other != leader),
                        Proposed::Failed(reason) => last = reason,
                    },
                    Err(error) => last = error,
                },
                None => {}
            }
            if hint.is_none() {
                tokio::time::sleep(PROPOSE_PAUSE).await;
            }
        }
        Err(last)
    }
}
