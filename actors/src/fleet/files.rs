//! The immutable files of snapshots, from node to node: this node's as peers fetch them, and those that it lacks itself before it installs a snapshot.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::files::{FileRef, ShardFiles};
use tallymesh_storage::shard::ShardState;
use tokio::sync::OwnedMutexGuard;

use super::meta::group::META;
use crate::peer::bulk::{BulkError, BulkSource};
use crate::peer::{NodeId, Peers};
use crate::raft::peers::SnapshotFetch;

/// A peer that serves as many files as it may, or broke off, is asked again after this time, so often.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
const TRIES_MAX: u32 = 50;

/// What this node gives to peers.
pub struct LocalFiles {
    pub disk: Arc<dyn Disk>,
    /// Each shard's directory is below it.
    pub dir: PathBuf,
}

impl LocalFiles {
    fn path(&self, shard: ShardId, name: &str) -> PathBuf {
        self.dir.join(shard.to_string()).join(name)
    }
}

impl BulkSource for LocalFiles {
    fn length(&self, shard: ShardId, name: &str) -> io::Result<Option<u64>> {
        let path = self.path(shard, name);
        if self.disk.exists(&path) { self.disk.len(&path).map(Some) } else { Ok(None) }
    }

    fn read_at(&self, shard: ShardId, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        self.disk.read_at(&self.path(shard, name), offset, len)
    }
}

/// How far a snapshot is that is on its way here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arriving {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// Fetches what snapshots name and this node lacks.
#[derive(Clone, Default)]
pub struct PeerFiles {
    /// Set when there are peers; nothing is fetched before.
    peers: Arc<RwLock<Option<Peers>>>,
    /// Directories of the replicas here.
    shards: Arc<RwLock<BTreeMap<ShardId, ShardFiles>>>,
    arriving: Arc<Mutex<BTreeMap<ShardId, Arriving>>>,
    turns: Arc<Mutex<BTreeMap<ShardId, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Nobody else brings files into a shard's directory, or takes them out, as long as it is held. Work that waits for the disk holds it too: it goes on when
/// whoever began it has been given up.
pub struct Turn {
    _held: OwnedMutexGuard<()>,
    shard: ShardId,
    arriving: Arc<Mutex<BTreeMap<ShardId, Arriving>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.arriving.lock().remove(&self.shard);
    }
}

impl PeerFiles {
    pub fn set_peers(&self, peers: Peers) {
        *self.peers.write() = Some(peers);
    }

    pub fn add(&self, shard: ShardId, files: ShardFiles) {
        self.shards.write().insert(shard, files);
    }

    pub fn remove(&self, shard: ShardId) {
        self.shards.write().remove(&shard);
    }

    /// Snapshots that are on their way here.
    pub fn arriving(&self) -> BTreeMap<ShardId, Arriving> {
        self.arriving.lock().clone()
    }

    pub async fn turn(&self, shard: ShardId) -> Arc<Turn> {
        let turn = self.turns.lock().entry(shard).or_default().clone();
        Arc::new(Turn { _held: turn.lock_owned().await, shard, arriving: self.arriving.clone() })
    }

    async fn fetch_all(&self, from: NodeId, shard: ShardId, manifest: Bytes) -> Result<(), String> {
        let turn = self.turn(shard).await;
        let peers = self.peers.read().clone().ok_or("there are no peers yet")?;
        let files = self.shards.read().get(&shard).cloned().ok_or("there is no such replica here")?;
        let address = peers.watch().borrow().connected.get(&from).map(|hello| hello.address.clone());
        let address = address.ok_or("the node that sent the snapshot is not connected")?;
        let missing = {
            let (files, turn) = (files.clone(), turn.clone());
            let look = move || {
                let _turn = turn;
                files.expect(ShardState::files_of(&files, &manifest)?)
            };
            tokio::task::spawn_blocking(look).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?
        };
        let total_bytes: u64 = missing.iter().map(|file| file.bytes).sum();
        let mut done_bytes = 0;
        if total_bytes > 0 {
            tracing::info!(%shard, %from, files = missing.len(), bytes = total_bytes, "fetching a snapshot");
        }
        for file in missing {
            let bytes = file.bytes;
            self.fetch(&peers, (from, &address), &turn, &files, file, Arriving { done_bytes, total_bytes }).await?;
            done_bytes += bytes;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        peers: &Peers,
        (node, address): (NodeId, &str),
        turn: &Arc<Turn>,
        files: &ShardFiles,
        file: FileRef,
        before: Arriving,
    ) -> Result<(), String> {
        let shard = turn.shard;
        let name = file.name.clone();
        let mut arriving = files.arrive(file).map_err(|e| e.to_string())?;
        for tries in 1.. {
            let offset = arriving.bytes();
            let sink = |block: Bytes, progress: crate::peer::bulk::Progress| {
                let done_bytes = before.done_bytes + progress.done_bytes;
                self.arriving.lock().insert(shard, Arriving { done_bytes, ..before });
                arriving.append(&block)
            };
            match peers.bulk().fetch((node, address), (shard, &name), offset, sink).await {
                Ok(_) => break,
                Err(error @ (BulkError::NotFound(_) | BulkError::OtherNode { .. })) => return Err(error.to_string()),
                Err(error) if tries >= TRIES_MAX => return Err(error.to_string()),
                // What came so far is good.
                Err(_) => tokio::time::sleep(TRY_AGAIN_AFTER).await,
            }
        }
        let turn = turn.clone();
        let finish = move || {
            let _turn = turn;
            arriving.finish()
        };
        tokio::task::spawn_blocking(finish).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

impl SnapshotFetch for PeerFiles {
    fn fetch(&self, from: NodeId, shard: ShardId, manifest: Bytes) -> BoxFuture<'static, Result<(), String>> {
        let this = self.clone();
        async move {
            if shard == META {
                // Its snapshot is all in the manifest.
                return Ok(());
            }
            this.fetch_all(from, shard, manifest).await
        }
        .boxed()
    }
}
