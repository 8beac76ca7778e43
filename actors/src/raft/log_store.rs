//! Log storage of one group over the write-ahead log that all groups of the node share.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::StorageError;
use tallymesh_storage::planted::{self, Bug};
use tallymesh_storage::wal::{Done, Wal};
use tokio::sync::{oneshot, watch};

use super::given_up::Floor;
use super::{LogId, RaftStorageError, ShardRaft, codec};

/// Entries read for one replication message, in bytes; at least one entry is read whatever its size.
const REPLICATED_BYTES_MAX: usize = 1 << 20;

/// Why a shard stopped: the first reason stays.
#[derive(Clone, Debug)]
pub struct StopReason {
    shard: ShardId,
    reason: Arc<OnceLock<String>>,
}

impl StopReason {
    pub fn new(shard: ShardId) -> Self {
        Self { shard, reason: Arc::default() }
    }

    /// Loud: the operator has to learn the file and the offset.
    pub fn set(&self, error: &dyn std::fmt::Display) {
        if self.reason.set(error.to_string()).is_ok() {
            tracing::error!(shard = self.shard.0, %error, "shard stopped");
        }
    }

    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub fn is_set(&self) -> bool {
        self.reason.get().is_some()
    }

    pub fn get(&self) -> Option<String> {
        self.reason.get().cloned()
    }
}

/// The log index that a durable snapshot covers. Entries up to it may go; those above it are all there is.
#[derive(Clone, Debug)]
pub struct DurableIndex(watch::Receiver<Option<u64>>);

impl DurableIndex {
    pub fn new(initial: Option<u64>) -> (watch::Sender<Option<u64>>, Self) {
        let (sender, receiver) = watch::channel(initial);
        (sender, Self(receiver))
    }

    async fn reaches(&mut self, index: u64) -> Result<(), StorageError> {
        match self.0.wait_for(|durable| durable.is_some_and(|d| d >= index)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StorageError::Invalid("the state machine is gone".to_owned())),
        }
    }
}

#[derive(Clone)]
pub struct LogStore {
    wal: Wal,
    shard: ShardId,
    durable: DurableIndex,
    stop: StopReason,
    floor: Option<Floor>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entry that is known to be committed. Written with the entries that follow, which costs no sync of its own.
    committed: Option<LogId>,
}

impl LogStore {
    /// # Errors
    /// A log that does not read back.
    pub fn open(wal: Wal, shard: ShardId, durable: DurableIndex, stop: StopReason) -> Result<Self, StorageError> {
        let floor = Floor::of(&wal, shard)?;
        let state = wal.state(shard.0)?;
        let purged = match &state.purged {
            Some((index, meta)) => Some(codec::decode_log_id(*index, meta)?),
            None => None,
        };
        let mut store = Self { wal, shard, durable, stop, floor, purged, last: purged, committed: None };
        if let Some((_, last)) = state.entries {
            store.last = store.id_at(last)?;
            let entry = store.wal.read(shard.0, last..last + 1)?;
            let committed = entry.first().map_or(0, |entry| codec::decode_committed(&entry.meta));
            // No entry says this of itself or of later ones; 0 is what says nothing.
            store.committed = if committed == 0 { None } else { store.id_at(committed.min(last))? };
        }
        Ok(store)
    }

    /// The same, as the log is now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn reopened(&self) -> Result<Self, StorageError> {
        Self::open(self.wal.clone(), self.shard, self.durable.clone(), self.stop.clone())
    }

    /// What its log has to reach before the replica takes part in elections; none for one that was never removed.
    pub fn floor(&self) -> Option<Floor> {
        self.floor.clone()
    }

    fn vote(&self) -> Result<Option<Vote<u64>>, StorageError> {
        let vote: Option<Bytes> = self.wal.state(self.shard.0)?.vote;
        vote.map(|bytes| codec::decode_vote(&bytes)).transpose()
    }

    /// The term that this node led when its process ended, and leads again without an election; with the last entry of its log.
    ///
    /// # Errors
    /// A vote that does not read back.
    pub(super) fn resumes(&self, node: u64) -> Result<Option<(u64, u64)>, StorageError> {
        let led = self.vote()?.filter(|vote| vote.committed && vote.leader_id.voted_for == Some(node));
        Ok(led.map(|vote| (vote.leader_id.term, self.last.map_or(0, |last| last.index))))
    }

    fn id_at(&self, index: u64) -> Result<Option<LogId>, StorageError> {
        match self.wal.read(self.shard.0, index..index + 1)?.first() {
            Some(entry) => codec::decode_log_id(entry.index, &entry.meta).map(Some),
            None => Ok(self.purged.filter(|p| p.index == index)),
        }
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry<ShardRaft>>, StorageError> {
        self.wal.read_up_to(self.shard.0, from..to, bytes_max)?.into_iter().map(codec::decode_entry).collect()
    }

    /// Notes why the shard stops; openraft ends the group with the error.
    fn failed(&self, subject: fn(openraft::AnyError) -> StorageIOError<u64>, error: &StorageError) -> RaftStorageError {
        self.stop.set(error);
        subject(openraft::AnyError::new(error)).into()
    }

    async fn synced(
        &self,
        subject: fn(openraft::AnyError) -> StorageIOError<u64>,
        request: impl FnOnce(&Wal, Done),
    ) -> Result<(), RaftStorageError> {
        let (sender, receiver) = oneshot::channel();
        request(
            &self.wal,
            Box::new(move |result| {
                // The group may have been given up meanwhile; then nobody needs to know.
                let _ = sender.send(result);
            }),
        );
        let result = receiver.await.unwrap_or_else(|_| Err(StorageError::Poisoned("the log was closed".to_owned())));
        result.map_err(|e| self.failed(subject, &e))
    }
}

impl RaftLogReader<ShardRaft> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<ShardRaft>>, RaftStorageError> {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&to) => to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).map_err(|e| self.failed(StorageIOError::read_logs, &e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<ShardRaft>>, RaftStorageError> {
        self.read(start, end, REPLICATED_BYTES_MAX).map_err(|e| self.failed(StorageIOError::read_logs, &e))
    }
}

impl RaftLogStorage<ShardRaft> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<ShardRaft>, RaftStorageError> {
        Ok(LogState { last_purged_log_id: self.purged, last_log_id: self.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), RaftStorageError> {
        if planted::has(Bug::VoteNotPersisted) {
            return Ok(());
        }
        let bytes = codec::encode_vote(vote).map_err(|e| self.failed(StorageIOError::write_vote, &e))?;
        if planted::has(Bug::VoteNotAwaited) {
            self.wal.vote(self.shard.0, bytes, Box::new(drop));
            return Ok(());
        }
        self.synced(StorageIOError::write_vote, |wal, done| wal.vote(self.shard.0, bytes, done)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, RaftStorageError> {
        self.vote().map_err(|e| self.failed(StorageIOError::read_vote, &e))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), RaftStorageError> {
        self.committed = self.committed.max(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, RaftStorageError> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<ShardRaft>) -> Result<(), RaftStorageError>
    where
        I: IntoIterator<Item = Entry<ShardRaft>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut last = self.last;
        let mut encoded = Vec::with_capacity(1);
        for entry in entries {
            last = last.max(Some(entry.log_id));
            if self.purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
                // A snapshot covers it: it may come late, from a leader that did not know.
                continue;
            }
            let committed = self.committed.map_or(0, |id| id.index);
            encoded.push(codec::encode_own_entry(entry, committed).map_err(|e| self.failed(StorageIOError::write_logs, &e))?);
        }
        let stop = self.stop.clone();
        self.wal.append(
            self.shard.0,
            encoded,
            Box::new(move |result| {
                callback.log_io_completed(result.map_err(|error| {
                    stop.set(&error);
                    io::Error::other(error)
                }));
            }),
        );
        self.last = last;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), RaftStorageError> {
        self.synced(StorageIOError::write_logs, |wal, done| wal.truncate(self.shard.0, log_id.index, done)).await?;
        self.last = match log_id.index.checked_sub(1) {
            Some(before) => self.id_at(before).map_err(|e| self.failed(StorageIOError::read_logs, &e))?,
            None => None,
        };
        Ok(())
    }

    /// Waits until a durable snapshot covers what goes: openraft queues the purge beside the installation of the snapshot that allows it, and a crash
    /// between the two would leave neither.
    async fn purge(&mut self, log_id: LogId) -> Result<(), RaftStorageError> {
        let mut durable = self.durable.clone();
        if !planted::has(Bug::PurgeBeforeDurable) {
            durable.reaches(log_id.index).await.map_err(|e| self.failed(StorageIOError::write_logs, &e))?;
        }
        self.synced(StorageIOError::write_logs, |wal, done| wal.purge(self.shard.0, log_id.index, codec::encode_log_id(&log_id), done))
            .await?;
        self.purged = self.purged.max(Some(log_id));
        self.last = self.last.max(Some(log_id));
        Ok(())
    }
}
