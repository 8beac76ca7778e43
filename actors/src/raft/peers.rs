//! Replicas of a shard on different nodes: openraft's questions as calls to peers ([`PeerNetwork`]), and the other side that answers them ([`ReplicaServer`]).
//!
//! - Heartbeats and votes travel in the urgent lane, entries in the other one. How many bytes of entries go at once is capped by the log store.
//! - openraft gives an append up after the heartbeat interval and sends it again. One that is still on its way is not sent twice: the second attempt goes on waiting
//!   for the first, and a beat in the urgent lane keeps the follower from standing for election meanwhile.
//! - A snapshot travels as a notice with its manifest; the receiver fetches the files that it lacks by itself ([`SnapshotFetch`]) before it installs it. It fetches
//!   them from this node, so this node sees it move: one that takes nothing for [`SNAPSHOT_STALL_MAX`] and does not answer is announced its snapshot anew.

mod message;
mod server;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot, Vote};
use parking_lot::Mutex;
use tallymesh_protocol::hash::ShardId;
use tokio::time::Instant;

pub use server::{NoFetch, ReplicaServer, SnapshotFetch};

use super::{LogId, Peer, ShardRaft};
use crate::peer::limits::BULK_STALL_MAX;
use crate::peer::{Lane, PeerError, Peers, Rpc, RpcKind};

/// An append is given up, and its bytes with it, after this time.
const APPEND_TIME_MAX: Duration = Duration::from_secs(15);
/// A receiver has this long to fetch the files of a snapshot and to install it, as long as it moves.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(3_600);
/// One that fetches nothing for so long and does not answer hangs, or its answer is lost: it is told again. Nothing that it has is lost by that; one that is
/// busy with the installation finishes it and answers the next notice.
const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether it moves.
const SNAPSHOT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A follower that cannot be reached is tried again this often.
const UNREACHABLE_WAIT: Duration = Duration::from_millis(100);

// A stream that stands still is given up by both of its ends, and tried again, before the whole transfer is.
const _: () = assert!(SNAPSHOT_STALL_MAX.as_millis() > 2 * BULK_STALL_MAX.as_millis());
const _: () = assert!(SNAPSHOT_STALL_MAX.as_millis() < SNAPSHOT_TIME_MAX.as_millis());

/// Carries questions to replicas on other nodes; the peers, or a simulation.
pub trait ReplicaChannel: Send + Sync + 'static {
    /// The question is on its way when this returns; dropping the future takes it back. `member` is the node's number in replica groups.
    fn call(&self, member: u64, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Bytes of the shard's files that this node has given to the member. It only rises, and it does while the files of a snapshot go there.
    fn given_bytes(&self, member: u64, shard: ShardId) -> u64;
}

impl ReplicaChannel for Peers {
    fn call(&self, member: u64, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.call_member(member, rpc, deadline)
    }

    fn given_bytes(&self, member: u64, shard: ShardId) -> u64 {
        Self::given_bytes(self, member, shard)
    }
}

/// Whether the files of a snapshot move. Pure.
#[derive(Clone, Copy, Debug)]
struct Moving {
    given_bytes: u64,
    since: Instant,
}

impl Moving {
    /// Notes what was given by now; whether that has been all for too long.
    fn is_stalled(&mut self, given_bytes: u64, now: Instant) -> bool {
        if given_bytes != self.given_bytes {
            *self = Self { given_bytes, since: now };
        }
        now >= self.since + SNAPSHOT_STALL_MAX
    }
}

/// When a voter last refused this replica because its own log goes further. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Behind(Arc<Mutex<Option<Instant>>>);

impl Behind {
    fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether that was within `age`.
    pub fn within(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < age)
    }
}

/// Makes the networks of one shard's replica.
#[derive(Clone)]
pub struct PeerNetworks {
    channel: Arc<dyn ReplicaChannel>,
    shard: ShardId,
    behind: Behind,
}

impl PeerNetworks {
    pub fn new(channel: Arc<dyn ReplicaChannel>, shard: ShardId) -> Self {
        Self { channel, shard, behind: Behind::default() }
    }

    /// Is kept up to date from here on.
    pub fn behind(&self) -> Behind {
        self.behind.clone()
    }
}

impl RaftNetworkFactory<ShardRaft> for PeerNetworks {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> Self::Network {
        PeerNetwork { channel: self.channel.clone(), shard: self.shard, behind: self.behind.clone(), target, on_its_way: None }
    }
}

/// What tells one append from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AppendKey {
    vote: Vote<u64>,
    prev: Option<LogId>,
    last: Option<LogId>,
}

struct OnItsWay {
    key: AppendKey,
    /// Waited for by one attempt after the other.
    answer: Shared<BoxFuture<'static, Result<Bytes, PeerError>>>,
}

/// One follower, as its leader or a candidate reaches it.
pub struct PeerNetwork {
    channel: Arc<dyn ReplicaChannel>,
    shard: ShardId,
    behind: Behind,
    target: u64,
    on_its_way: Option<OnItsWay>,
}

type Failed = RPCError<u64, Peer, RaftError<u64>>;

impl PeerNetwork {
    fn call(&self, kind: RpcKind, lane: Lane, body: Bytes, wait: Duration) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.channel.call(self.target, Rpc { kind, shard: self.shard, lane, body }, Instant::now() + wait)
    }

    /// Ends when the follower has fetched nothing for too long.
    async fn stalls(&self) {
        let given_bytes = || self.channel.given_bytes(self.target, self.shard);
        let mut moving = Moving { given_bytes: given_bytes(), since: Instant::now() };
        while !moving.is_stalled(given_bytes(), Instant::now()) {
            tokio::time::sleep(SNAPSHOT_LOOK_INTERVAL).await;
        }
    }

    /// An append without entries and without anything that is to be committed: it says that the leader lives.
    fn beat(&self, vote: Vote<u64>, wait: Duration) -> Result<BoxFuture<'static, Result<Bytes, PeerError>>, Failed> {
        let beat = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let body = message::encode_append(beat).map_err(not_encoded)?;
        Ok(self.call(RpcKind::AppendEntries, Lane::Urgent, body, wait))
    }
}

fn not_encoded(error: impl std::error::Error + 'static) -> Failed {
    NetworkError::new(&error).into()
}

/// Whether to try again at once is openraft's to decide by the kind.
fn failed(error: &PeerError) -> Failed {
    match error {
        PeerError::Lost(_) | PeerError::Timeout(_) => NetworkError::new(error).into(),
        PeerError::Unreachable(_) | PeerError::Overloaded { .. } | PeerError::TooLarge { .. } | PeerError::Refused { .. } => {
            Unreachable::new(error).into()
        }
    }
}

impl RaftNetwork<ShardRaft> for PeerNetwork {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<ShardRaft>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let Some(last) = rpc.entries.last() else {
            let body = message::encode_append(rpc).map_err(not_encoded)?;
            let answer = self.call(RpcKind::AppendEntries, Lane::Urgent, body, option.hard_ttl()).await.map_err(|e| failed(&e))?;
            return message::decode_append_answer(&answer).map_err(not_encoded);
        };
        let key = AppendKey { vote: rpc.vote, prev: rpc.prev_log_id, last: Some(last.log_id) };
        let beat = if self.on_its_way.as_ref().is_some_and(|on_its_way| on_its_way.key == key) {
            Some(self.beat(rpc.vote, option.hard_ttl())?)
        } else {
            // What was on its way is taken back.
            self.on_its_way = None;
            let body = message::encode_append(rpc).map_err(not_encoded)?;
            let answer = self.call(RpcKind::AppendEntries, Lane::Normal, body, APPEND_TIME_MAX).shared();
            self.on_its_way = Some(OnItsWay { key, answer });
            None
        };
        let Some(on_its_way) = &mut self.on_its_way else { return Err(unreachable("nothing is on its way")) };
        let answer = match beat {
            None => (&mut on_its_way.answer).await,
            Some(beat) => {
                let beat = async {
                    // Only a higher vote ends the wait; a lost beat is made up for by the next.
                    match beat.await.ok().and_then(|answer| message::decode_append_answer(&answer).ok()) {
                        Some(higher @ AppendEntriesResponse::HigherVote(_)) => higher,
                        _ => futures::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    answer = &mut on_its_way.answer => answer,
                    higher = beat => return Ok(higher),
                }
            }
        };
        self.on_its_way = None;
        message::decode_append_answer(&answer.map_err(|e| failed(&e))?).map_err(not_encoded)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, Failed> {
        let body = message::encode_vote(&rpc).map_err(not_encoded)?;
        let answer = self.call(RpcKind::Vote, Lane::Urgent, body, option.hard_ttl()).await.map_err(|e| failed(&e))?;
        let answer = message::decode_vote_answer(&answer).map_err(not_encoded)?;
        if !answer.vote_granted && answer.last_log_id > rpc.last_log_id {
            self.behind.note();
        }
        Ok(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<ShardRaft>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<ShardRaft, Fatal<u64>>> {
        let body = message::encode_snapshot(vote, &snapshot).map_err(|e| StreamingError::from(NetworkError::new(&e)))?;
        let answer = self.call(RpcKind::InstallSnapshot, Lane::Normal, body, SNAPSHOT_TIME_MAX);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = answer => answer.map_err(|e| StreamingError::from(Unreachable::new(&e)))?,
            () = self.stalls() => {
                let seconds = SNAPSHOT_STALL_MAX.as_secs();
                tracing::warn!(shard = %self.shard, member = self.target, seconds, "a snapshot's receiver neither fetches nor answers: it is told again");
                let stalled = io::Error::new(io::ErrorKind::TimedOut, format!("the receiver of a snapshot has not moved for {seconds} s"));
                return Err(Unreachable::new(&stalled).into());
            }
        };
        message::decode_snapshot_answer(&answer).map_err(|e| NetworkError::new(&e).into())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_WAIT))
    }
}

fn unreachable(what: &str) -> Failed {
    Unreachable::new(&io::Error::new(io::ErrorKind::NotConnected, what.to_owned())).into()
}
