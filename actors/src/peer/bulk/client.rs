//! The side that lacks a file.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::NodeId;
use super::super::auth::credentials::Credentials;
use super::super::auth::handshake::{HandshakeError, Hello, Purpose};
use super::super::limits::BULK_BLOCK_BYTES;
use super::super::transport::{Stream, dial};
use super::server::in_time;
use super::{ASK_VERSION, Ask, STATUS_BUSY, STATUS_NOT_FOUND, STATUS_OK};

#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("at {address} there is node {found}, not {wanted}")]
    OtherNode { address: String, found: NodeId, wanted: NodeId },
    /// Try again later.
    #[error("the peer serves as many files as it may")]
    Busy,
    #[error("the peer has no file {0}")]
    NotFound(String),
    #[error("the peer could not read {0}")]
    Failed(String),
    #[error("a block of {name} at {offset} came damaged")]
    Damaged { name: String, offset: u64 },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// Fetches files of peers.
#[derive(Clone)]
pub struct BulkClient {
    me: Arc<RwLock<Hello>>,
    credentials: Arc<Credentials>,
}

impl BulkClient {
    pub(in crate::peer) fn new(me: Arc<RwLock<Hello>>, credentials: Arc<Credentials>) -> Self {
        Self { me, credentials }
    }

    /// Fetches a file of the node at `address` from `offset` on and gives `sink` each block as it comes, checked. What the sink was given is good even if the rest
    /// fails: ask again from there. The caller checks the whole against what the snapshot says of it.
    ///
    /// # Errors
    /// The connection's, the peer's, the sink's.
    pub async fn fetch(
        &self,
        (node, address): (NodeId, &str),
        (shard, name): (ShardId, &str),
        offset: u64,
        mut sink: impl FnMut(Bytes, Progress) -> io::Result<()> + Send,
    ) -> Result<Progress, BulkError> {
        let me = self.me.read().clone();
        let (mut stream, agreed) = dial(address, &self.credentials, &me, Purpose::Bulk).await?;
        if agreed.peer.node != node {
            return Err(BulkError::OtherNode { address: address.to_owned(), found: agreed.peer.node, wanted: node });
        }
        let ask = Ask { version: ASK_VERSION, shard: shard.0, name: name.to_owned(), offset };
        let json = serde_json::to_vec(&ask).map_err(io::Error::other)?;
        let mut message = (json.len() as u32).to_le_bytes().to_vec();
        message.extend_from_slice(&json);
        in_time(stream.write_all(&message)).await?;
        in_time(stream.flush()).await?;
        match in_time(stream.read_u8()).await? {
            STATUS_OK => {}
            STATUS_BUSY => return Err(BulkError::Busy),
            STATUS_NOT_FOUND => return Err(BulkError::NotFound(name.to_owned())),
            _ => return Err(BulkError::Failed(name.to_owned())),
        }
        let mut progress = Progress { done_bytes: offset, total_bytes: in_time(stream.read_u64_le()).await? };
        while let Some(block) = next_block(&mut stream, name, progress).await? {
            progress.done_bytes += block.len() as u64;
            sink(block, progress)?;
        }
        if progress.done_bytes != progress.total_bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(progress)
    }
}

async fn next_block(stream: &mut Box<dyn Stream>, name: &str, progress: Progress) -> Result<Option<Bytes>, BulkError> {
    let damaged = || BulkError::Damaged { name: name.to_owned(), offset: progress.done_bytes };
    let length = in_time(stream.read_u32_le()).await? as usize;
    let crc32 = in_time(stream.read_u32_le()).await?;
    if length == 0 {
        return Ok(None);
    }
    if length > BULK_BLOCK_BYTES || progress.done_bytes + length as u64 > progress.total_bytes {
        return Err(damaged());
    }
    let mut block = vec![0; length];
    in_time(stream.read_exact(&mut block)).await?;
    if crc32fast::hash(&block) != crc32 {
        return Err(damaged());
    }
    Ok(Some(block.into()))
}
