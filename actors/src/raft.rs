//! The replicated log of a shard on `openraft`: its types, its storage over the node's write-ahead log, its state machine over the shard's state.

mod codec;
pub mod given_up;
mod log_store;
mod network;
mod oneshot;
pub mod peers;
mod replica;
pub mod runtime;
mod solo;
mod state_machine;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use codec::SnapshotTail;
pub use given_up::{Floor, Remains};
pub use log_store::{DurableIndex, LogStore, StopReason};
pub use replica::{Group, Leadership, OpenReplica, RaftReplica, config};
pub use runtime::MeshRuntime;
pub use solo::SoloReplica;
pub use state_machine::{Blocking, OpenState, ShardSnapshot, SharedState, SnapshotGauges, Snapshots, StateMachine};

use crate::replicator::AppliedPart;

/// What `openraft` is instantiated with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardRaft;

impl openraft::RaftTypeConfig for ShardRaft {
    type D = Command;
    type R = CommandOutcome;
    type NodeId = u64;
    type Node = Peer;
    type Entry = openraft::Entry<Self>;
    type SnapshotData = ShardSnapshot;
    type AsyncRuntime = MeshRuntime;
    type Responder = openraft::impls::OneshotResponder<Self>;
}

pub type LogId = openraft::LogId<u64>;
pub type Membership = openraft::StoredMembership<u64, Peer>;
pub type RaftStorageError = openraft::StorageError<u64>;

/// An encoded command ([`tallymesh_protocol::event::command`]). It prints as its size: logs must never hold what users sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry did; no parts for ticks, settings and the log's own entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    pub parts: Vec<AppliedPart>,
}

/// How other nodes reach a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Advertised peer address; empty on a node that has no peers.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests;
