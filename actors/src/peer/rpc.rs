//! What nodes ask each other, and how it can fail.

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::hash::ShardId;
use tokio::time::Instant;

use super::NodeId;

/// The numbers are the wire format: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RpcKind {
    Vote = 1,
    AppendEntries = 2,
    InstallSnapshot = 3,
    /// Between nodes that have no cluster yet.
    Founding = 16,
    Join = 17,
    /// A shard's part of a request, to the shard's leader.
    Ingest = 32,
    Query = 33,
    ReadIndex = 34,
    /// A query to a replica that need not lead: it asks the leader how far it has to be.
    FollowerQuery = 35,
    /// Placement, definitions, drain: what the metadata group decides.
    Metadata = 48,
}

impl RpcKind {
    const ALL: [Self; 10] = [
        Self::Vote,
        Self::AppendEntries,
        Self::InstallSnapshot,
        Self::Founding,
        Self::Join,
        Self::Ingest,
        Self::Query,
        Self::ReadIndex,
        Self::FollowerQuery,
        Self::Metadata,
    ];

    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }

    /// Whether it may be asked of and by nodes that are not known to be of one cluster.
    pub fn before_founding(self) -> bool {
        matches!(self, Self::Founding | Self::Join)
    }
}

/// What is urgent never waits behind what is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes and heartbeats, of at most [`super::limits::URGENT_BYTES_MAX`].
    Urgent,
    Normal,
}

/// A question to a peer. What the body holds is the kind's own format, with a version of its own.
#[derive(Clone, Debug)]
pub struct Rpc {
    pub kind: RpcKind,
    /// Zero where the kind is not about a shard.
    pub shard: ShardId,
    pub lane: Lane,
    pub body: Bytes,
}

/// A question from a peer.
#[derive(Clone, Debug)]
pub struct Request {
    pub from: NodeId,
    pub kind: RpcKind,
    pub shard: ShardId,
    /// Nobody waits for the answer after it.
    pub deadline: Instant,
    /// At least 16-aligned.
    pub body: Bytes,
}

/// Why a peer does not answer what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum RefusalCode {
    /// Not now: its queues are full.
    Overloaded = 1,
    /// It has no such shard, or does not know this kind of request.
    Unknown = 2,
    /// The body does not read.
    Invalid = 3,
    /// It, or whoever asks, belongs to no cluster yet, or to another one.
    NotMember = 4,
    /// The replica asked is there, and stopped.
    Stopped = 5,
    /// It failed while it worked on the request.
    Failed = 6,
}

impl RefusalCode {
    pub fn from_wire(number: u8) -> Self {
        [Self::Overloaded, Self::Unknown, Self::Invalid, Self::NotMember, Self::Stopped]
            .into_iter()
            .find(|code| *code as u8 == number)
            .unwrap_or(Self::Failed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub detail: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Why there is no answer. Except for [`PeerError::Unreachable`] and [`PeerError::Overloaded`], the peer may have done what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nothing was sent.
    #[error("no connection to node {0}")]
    Unreachable(NodeId),
    /// Nothing was sent: what waits for this peer is at its limit.
    #[error("node {node} is behind: {limit} {what} wait for it already")]
    Overloaded { node: NodeId, limit: usize, what: &'static str },
    #[error("node {node} takes no {bytes} bytes in one message: at most {limit_bytes}")]
    TooLarge { node: NodeId, bytes: usize, limit_bytes: usize },
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    #[error("the connection to node {0} ended")]
    Lost(NodeId),
    #[error("node {node} refused: {refusal}")]
    Refused { node: NodeId, refusal: Refusal },
}

/// Who answers on this node. The future is dropped when the asker goes away, its session ends or its deadline passes: what must be finished belongs to an owner
/// of its own.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, Refusal>>;
}
