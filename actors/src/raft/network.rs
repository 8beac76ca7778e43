//! How replicas of a shard reach each other. A group of one has nobody to reach: every call says so, and openraft backs off.

use std::future::Future;
use std::io;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot, Vote};

use super::{Peer, ShardRaft};

/// The network of a node without peers.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

fn unreachable() -> Unreachable {
    Unreachable::new(&io::Error::new(io::ErrorKind::NotConnected, "this node has no connection to peers"))
}

impl RaftNetworkFactory<ShardRaft> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &Peer) -> Self::Network {
        Self
    }
}

impl RaftNetwork<ShardRaft> for Alone {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<ShardRaft>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        Err(unreachable().into())
    }

    async fn vote(&mut self, _rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<u64>,
        _snapshot: Snapshot<ShardRaft>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<ShardRaft, Fatal<u64>>> {
        Err(unreachable().into())
    }
}
