//! The files of a snapshot on their way from node to node: in blocks, over the same bad network, and from a directory where they may be gone meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tallymesh_actors::peer::NodeId;
use tallymesh_actors::raft::peers::SnapshotFetch;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::files::{FileRef, ImmutableFiles, ShardFiles};
use tallymesh_storage::shard::ShardState;
use tokio::time::sleep;

use super::world::World;

const BLOCK_BYTES: usize = 4 << 10;
/// A block that does not come is given up after this time.
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Fetch {
    world: Arc<World>,
    me: u64,
}

impl Fetch {
    pub fn new(world: Arc<World>, me: u64) -> Self {
        Self { world, me }
    }
}

impl SnapshotFetch for Fetch {
    fn fetch(&self, from: NodeId, shard: ShardId, manifest: Bytes) -> BoxFuture<'static, Result<(), String>> {
        let (world, me) = (self.world.clone(), self.me);
        async move {
            let node = world.node(me).ok_or("this node is gone")?;
            // A node that still starts has no files to take anything in.
            let running = node.running().ok_or("this node has not started yet")?;
            let files = running.replicas.get(&shard).map(|replica| replica.files.clone()).ok_or("no such shard")?;
            let named = ShardState::files_of(&files, &manifest).map_err(|e| e.to_string())?;
            for file in files.expect(named).map_err(|e| e.to_string())? {
                world.note(format_args!("n{me} fetches {} of n{}", file.name, from.member()));
                bring(&world, (from.member(), me), shard, &files, &file).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

async fn bring(world: &World, (from, me): (u64, u64), shard: ShardId, files: &ShardFiles, file: &FileRef) -> Result<(), String> {
    let mut arriving = files.arrive(file.clone()).map_err(|e| e.to_string())?;
    loop {
        let at = arriving.bytes() as usize;
        let copies = world.net.copies(world.is_healing());
        let Some(delay) = copies.first().filter(|_| world.net.passes(from, me) && world.net.passes(me, from)) else {
            sleep(PATIENCE).await;
            return Err(format!("{} broke off after {at} bytes", file.name));
        };
        sleep(*delay).await;
        let theirs = world.node(from).and_then(|node| node.running()).and_then(|running| Some(running.replicas.get(&shard)?.files.clone()));
        let bytes = theirs.ok_or("the sender is gone")?.read(file).map_err(|e| e.to_string())?;
        let end = (at + BLOCK_BYTES).min(bytes.len());
        arriving.append(&bytes[at..end]).map_err(|e| e.to_string())?;
        *world.given.lock().entry((from, me, shard)).or_default() += (end - at) as u64;
        if end == bytes.len() {
            return arriving.finish().map_err(|e| e.to_string());
        }
    }
}
