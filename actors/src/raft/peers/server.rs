//! Answers what replicas on other nodes ask of those on this one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::Raft;
use openraft::error::{Fatal, RaftError};
use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::planted::{self, Bug};

use super::super::{Floor, MeshRuntime, ShardRaft};
use super::message::{self, MessageError};
use crate::peer::{NodeId, Refusal, RefusalCode, Request, RpcKind};

/// Brings the immutable files that a manifest names into the shard's directory, from the node that sent it.
pub trait SnapshotFetch: Send + Sync + 'static {
    /// Durable when it ends well.
    ///
    /// # Errors
    /// Why not; the leader tries again later.
    fn fetch(&self, from: NodeId, shard: ShardId, manifest: Bytes) -> BoxFuture<'static, Result<(), String>>;
}

/// Where snapshots name no files.
#[derive(Clone, Copy, Debug)]
pub struct NoFetch;

impl SnapshotFetch for NoFetch {
    fn fetch(&self, _from: NodeId, _shard: ShardId, _manifest: Bytes) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Clone)]
struct Served {
    replica: Raft<ShardRaft>,
    floor: Option<Floor>,
    /// Held from the first file of a snapshot until it is installed, whoever still waits for that: the next one announced would let files of this one go.
    installing: Arc<tokio::sync::Mutex<()>>,
}

/// The replicas of this node. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaServer {
    replicas: Arc<RwLock<HashMap<ShardId, Served>>>,
    fetch: Arc<dyn SnapshotFetch>,
}

impl ReplicaServer {
    pub fn new(fetch: Arc<dyn SnapshotFetch>) -> Self {
        Self { replicas: Arc::default(), fetch }
    }

    pub fn add(&self, shard: ShardId, replica: Raft<ShardRaft>) {
        self.add_with_floor(shard, replica, None);
    }

    /// One that votes for nobody before its log goes as far as it once did.
    pub fn add_with_floor(&self, shard: ShardId, replica: Raft<ShardRaft>, floor: Option<Floor>) {
        self.replicas.write().insert(shard, Served { replica, floor, installing: Arc::default() });
    }

    pub fn remove(&self, shard: ShardId) {
        self.replicas.write().remove(&shard);
    }

    /// Answers a request of kind `Vote`, `AppendEntries` or `InstallSnapshot`. What a replica was told it does, also if the asker has gone.
    ///
    /// # Errors
    /// No such replica, or it stopped; what does not read.
    pub async fn handle(&self, request: Request) -> Result<Bytes, Refusal> {
        let served = self.replicas.read().get(&request.shard).cloned();
        let Some(Served { replica, floor, installing }) = served else {
            return Err(Refusal::new(RefusalCode::Unknown, format!("there is no replica of shard {} here", request.shard)));
        };
        match request.kind {
            RpcKind::AppendEntries => {
                let mut rpc = message::decode_append(&request.body).map_err(invalid)?;
                if planted::has(Bug::NoTermCheck) {
                    let newest = replica.metrics().borrow().vote;
                    rpc.vote = if newest > rpc.vote { newest } else { rpc.vote };
                }
                let answer = replica.append_entries(rpc).await.map_err(stopped)?;
                message::encode_append_answer(&answer).map_err(invalid)
            }
            RpcKind::Vote if floor.is_some_and(|floor| !floor.is_reached()) => {
                Err(Refusal::new(RefusalCode::Unknown, "this replica has lost what it had and does not vote before it has it again"))
            }
            RpcKind::Vote => {
                let rpc = message::decode_vote(&request.body).map_err(invalid)?;
                let answer = replica.vote(rpc).await.map_err(stopped)?;
                message::encode_vote_answer(&answer).map_err(invalid)
            }
            RpcKind::InstallSnapshot => {
                let (vote, snapshot) = message::decode_snapshot(&request.body).map_err(invalid)?;
                let manifest = snapshot.snapshot.manifest.clone();
                // Who is told again while it is at it waits for it here, and finds everything done.
                let turn = installing.lock_owned().await;
                let fetched = self.fetch.fetch(request.from, request.shard, manifest).await;
                fetched.map_err(|e| Refusal::new(RefusalCode::Failed, format!("fetching the files of a snapshot: {e}")))?;
                // It ends with the group at the latest.
                let installed = MeshRuntime::spawn_task(async move {
                    let _turn = turn;
                    replica.install_full_snapshot(vote, snapshot).await
                });
                let installed = installed.await.map_err(|e| Refusal::new(RefusalCode::Failed, format!("installing a snapshot: {e}")))?;
                message::encode_snapshot_answer(&installed.map_err(|e| stopped(RaftError::Fatal(e)))?).map_err(invalid)
            }
            other => Err(Refusal::new(RefusalCode::Unknown, format!("{other:?} is no question to a replica"))),
        }
    }
}

fn invalid(error: MessageError) -> Refusal {
    Refusal::new(RefusalCode::Invalid, error.to_string())
}

fn stopped(error: RaftError<u64>) -> Refusal {
    let detail = match error {
        RaftError::Fatal(fatal @ (Fatal::StorageError(_) | Fatal::Panicked | Fatal::Stopped)) => fatal.to_string(),
        RaftError::APIError(infallible) => match infallible {},
    };
    Refusal::new(RefusalCode::Stopped, detail)
}
