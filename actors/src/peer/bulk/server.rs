//! The side that has the files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tallymesh_protocol::hash::ShardId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::super::auth::handshake::Hello;
use super::super::limits::{BULK_BLOCK_BYTES, BULK_STALL_MAX, BULK_STREAMS_MAX};
use super::{ASK_BYTES_MAX, ASK_VERSION, Ask, Pace, STATUS_BUSY, STATUS_FAILED, STATUS_NOT_FOUND, STATUS_OK, is_plain_name};

/// Where the files are. They are immutable: the same name is the same bytes for ever.
pub trait BulkSource: Send + Sync + 'static {
    /// Length of a file in bytes; none if there is no such file. Names are checked before: no paths.
    ///
    /// # Errors
    /// The disk's.
    fn length(&self, shard: ShardId, name: &str) -> io::Result<Option<u64>>;

    /// Exactly `len` bytes from `offset`; called where blocking is allowed.
    ///
    /// # Errors
    /// The disk's.
    fn read_at(&self, shard: ShardId, name: &str, offset: u64, len: usize) -> io::Result<Bytes>;
}

pub struct BulkServer {
    source: Arc<dyn BulkSource>,
    pace: Pace,
    streams: Semaphore,
    /// Bytes that members took of shards' files; as many numbers as there are members and shards.
    given: Mutex<BTreeMap<(u64, ShardId), u64>>,
}

impl BulkServer {
    /// `bytes_per_second` is what all streams together may take.
    pub fn new(source: Arc<dyn BulkSource>, bytes_per_second: u64) -> Self {
        Self { source, pace: Pace::new(bytes_per_second), streams: Semaphore::new(BULK_STREAMS_MAX), given: Mutex::default() }
    }

    /// Bytes of a shard's files that a member took so far.
    pub fn given_bytes(&self, member: u64, shard: ShardId) -> u64 {
        self.given.lock().get(&(member, shard)).copied().unwrap_or(0)
    }

    /// Answers the one question of a connection whose peer is known.
    pub async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: &Hello) {
        if let Err(error) = self.answer(&mut stream, peer.node.member()).await {
            tracing::info!(node = %peer.node, name = peer.name, %error, "a bulk stream ended early");
        }
    }

    async fn answer(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), member: u64) -> io::Result<()> {
        let ask = in_time(read_ask(stream)).await?;
        let Ok(_stream) = self.streams.try_acquire() else {
            return only(stream, STATUS_BUSY).await;
        };
        let source = self.source.clone();
        let shard = ShardId(ask.shard);
        let name: Arc<str> = ask.name.into();
        let its = name.clone();
        let found = blocking(move || if is_plain_name(&its) { source.length(shard, &its) } else { Ok(None) }).await;
        let length = match found {
            Ok(Some(length)) if ask.version == ASK_VERSION && ask.offset <= length => length,
            Ok(_) => return only(stream, STATUS_NOT_FOUND).await,
            Err(error) => {
                tracing::error!(shard = shard.0, name = &*name, %error, "a file cannot be given to a peer");
                return only(stream, STATUS_FAILED).await;
            }
        };
        in_time(stream.write_all(&[STATUS_OK])).await?;
        in_time(stream.write_all(&length.to_le_bytes())).await?;
        let mut offset = ask.offset;
        while offset < length {
            let len = (length - offset).min(BULK_BLOCK_BYTES as u64) as usize;
            self.pace.pass(len).await;
            let (source, name) = (self.source.clone(), name.clone());
            let block = blocking(move || source.read_at(shard, &name, offset, len)).await?;
            let mut head = [0; 8];
            head[..4].copy_from_slice(&(block.len() as u32).to_le_bytes());
            head[4..].copy_from_slice(&crc32fast::hash(&block).to_le_bytes());
            in_time(stream.write_all(&head)).await?;
            in_time(stream.write_all(&block)).await?;
            // The next block may wait for its turn; TLS would keep the end of this one.
            in_time(stream.flush()).await?;
            offset += len as u64;
            *self.given.lock().entry((member, shard)).or_default() += len as u64;
        }
        in_time(stream.write_all(&[0; 8])).await?;
        in_time(stream.flush()).await
    }
}

async fn only(stream: &mut (impl AsyncWrite + Unpin), status: u8) -> io::Result<()> {
    in_time(stream.write_all(&[status])).await?;
    in_time(stream.flush()).await
}

async fn read_ask(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Ask> {
    let length = stream.read_u32_le().await? as usize;
    if length > ASK_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an ask of {length} bytes: at most {ASK_BYTES_MAX}")));
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json).await?;
    serde_json::from_slice(&json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

pub(super) async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(BULK_STALL_MAX, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}
