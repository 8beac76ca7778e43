//! Replicas that this node has given up: what is on the disk of one goes, what it promised stays.
//!
//! A replica that lost its log and votes as if it had never had one could help a candidate into the lead that lacks what the replica had acked. So of one that is
//! removed two things stay in the node's log: its vote, and how far its log went ([`GivenUp`]). Placed here again it begins with nothing, as a learner, and takes no
//! part in elections before its log goes as far again ([`Floor`]).
//!
//! The removal is noted before anything goes and after everything went: one that was broken off goes on, and no replica is opened in between.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::wal::{Done, Wal};
use tokio::sync::oneshot;

use super::{Blocking, LogId, codec};

/// What the node's log keeps of a replica beside its vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// All of it is gone; else its removal has begun and must go on.
    pub is_removed: bool,
    /// The last entry of its log.
    pub last: Option<LogId>,
}

/// What there is of a replica that is not open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// It was never part of a later term.
    pub term: u64,
    pub given_up: Option<GivenUp>,
    /// The log has entries of it, or says that it had.
    pub has_log: bool,
}

impl Remains {
    /// # Errors
    /// What does not read back; the group was stopped for damage.
    pub fn of(wal: &Wal, shard: ShardId) -> Result<Self, StorageError> {
        let state = wal.state(shard.0)?;
        let vote = state.vote.map(|vote| codec::decode_vote(&vote)).transpose()?;
        let given_up = state.meta.map(|meta| codec::decode_given_up(&meta)).transpose()?;
        let has_log = state.entries.is_some() || state.purged.is_some();
        Ok(Self { term: vote.map_or(0, |vote| vote.leader_id.term), given_up, has_log })
    }

    pub fn is_going(&self) -> bool {
        self.given_up.is_some_and(|given_up| !given_up.is_removed)
    }
}

/// How far a replica's log has to go before it votes, or stands, again.
#[derive(Clone)]
pub struct Floor {
    wal: Wal,
    shard: ShardId,
    last: LogId,
}

impl Floor {
    /// None where nothing was ever removed.
    ///
    /// # Errors
    /// What does not read back, or a removal that has not ended.
    pub fn of(wal: &Wal, shard: ShardId) -> Result<Option<Self>, StorageError> {
        let remains = Remains::of(wal, shard)?;
        if remains.is_going() {
            return Err(StorageError::Invalid(format!("the removal of shard {shard}'s replica has not ended")));
        }
        let last = remains.given_up.and_then(|given_up| given_up.last);
        Ok(last.map(|last| Self { wal: wal.clone(), shard, last }))
    }

    pub fn is_reached(&self) -> bool {
        last_of(&self.wal, self.shard).is_ok_and(|last| last >= Some(self.last))
    }
}

/// The last entry that a replica has, or had before a snapshot.
fn last_of(wal: &Wal, shard: ShardId) -> Result<Option<LogId>, StorageError> {
    let state = wal.state(shard.0)?;
    let purged = state.purged.map(|(index, meta)| codec::decode_log_id(index, &meta)).transpose()?;
    let Some((_, last)) = state.entries else { return Ok(purged) };
    let entries = wal.read(shard.0, last..last + 1)?;
    let last = entries.first().map(|entry| codec::decode_log_id(entry.index, &entry.meta)).transpose()?;
    Ok(last.max(purged))
}

/// Removes what there is of a replica that is not open: its directory's files, then its log. The caller knows that its group does without it, and that
/// nobody brings files into its directory. May be broken off at any point, and is then done again. The bytes of the files that went.
///
/// # Errors
/// The disk's or the log's; what is left goes the next time.
pub async fn remove(wal: &Wal, shard: ShardId, disk: Arc<dyn Disk>, dir: PathBuf, blocking: Blocking) -> Result<u64, StorageError> {
    let before = wal.state(shard.0)?.meta.map(|meta| codec::decode_given_up(&meta)).transpose()?;
    let last = last_of(wal, shard)?.max(before.and_then(|before| before.last));
    let note = async |is_removed| {
        let meta = codec::encode_given_up(&GivenUp { is_removed, last })?;
        synced(|done| wal.meta(shard.0, meta, done)).await
    };
    note(false).await?;
    let removed = blocking.run(move || ShardFiles::remove_all(&*disk, &dir)).await;
    let bytes = removed.map_err(|e| StorageError::Invalid(format!("removing a replica's files ended: {e}")))??;
    synced(|done| wal.forget(shard.0, done)).await?;
    note(true).await?;
    Ok(bytes)
}

async fn synced(request: impl FnOnce(Done)) -> Result<(), StorageError> {
    let (sender, receiver) = oneshot::channel();
    request(Box::new(move |result| {
        // Whoever asked may have gone.
        let _ = sender.send(result);
    }));
    receiver.await.unwrap_or_else(|_| Err(StorageError::Poisoned("the log was closed".to_owned())))
}

#[cfg(test)]
mod tests;
