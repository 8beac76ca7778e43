//! The state machine of the metadata group. Its state is small: a snapshot is the whole of it, as JSON in one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{Entry, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError};
use serde::{Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::{Disk, replace_file};
use tokio::sync::watch;

use super::{MetaCommand, MetaState};
use crate::raft::{
    Blocking, Command, CommandOutcome, LogId, Membership, Peer, RaftStorageError, ShardRaft, ShardSnapshot, SnapshotTail, StopReason,
};
use crate::replicator::AppliedPart;

const NAME: &str = "metadata.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format_version: u32,
    tail: SnapshotTail,
    state: MetaState,
}

#[derive(Serialize, Deserialize)]
struct WireCommand {
    version: u32,
    command: MetaCommand,
}

/// As it is in the log.
///
/// # Errors
/// It cannot be written as JSON.
pub fn encode(command: MetaCommand) -> Result<Command, String> {
    serde_json::to_vec(&WireCommand { version: VERSION, command }).map(|json| Command(json.into())).map_err(|e| e.to_string())
}

fn decode(bytes: &[u8]) -> Result<MetaCommand, String> {
    let read: WireCommand = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if read.version != VERSION {
        return Err(format!("version {} of a metadata command; this build knows {VERSION}", read.version));
    }
    Ok(read.command)
}

/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct MetaMachine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    blocking: Blocking,
    stop: StopReason,
    tail: Arc<parking_lot::Mutex<SnapshotTail>>,
    state: watch::Sender<Arc<MetaState>>,
    durable: watch::Sender<Option<u64>>,
    current: Arc<parking_lot::Mutex<Option<Snapshot<ShardRaft>>>>,
    /// Held while a snapshot is written.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl MetaMachine {
    /// # Errors
    /// The disk's, or a file that is not of this format.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        blocking: Blocking,
        stop: StopReason,
        durable: watch::Sender<Option<u64>>,
    ) -> Result<Self, StorageError> {
        let path = dir.join(NAME);
        let mut current = None;
        let (tail, state) = if disk.exists(&path) {
            let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
            let file = read(&path, &bytes)?;
            durable.send_replace(file.tail.last_log_id.map(|id| id.index));
            current = Some(describe(&file.tail, bytes));
            (file.tail, file.state)
        } else {
            (SnapshotTail::default(), MetaState::default())
        };
        Ok(Self {
            disk,
            dir,
            blocking,
            stop,
            tail: Arc::new(parking_lot::Mutex::new(tail)),
            state: watch::Sender::new(Arc::new(state)),
            durable,
            current: Arc::new(parking_lot::Mutex::new(current)),
            turn: Arc::default(),
        })
    }

    /// What a directory's last saved state is; for who needs it before the group is open.
    ///
    /// # Errors
    /// The disk's, or a file that is not of this format.
    pub fn peek(disk: &dyn Disk, dir: &Path) -> Result<Option<MetaState>, StorageError> {
        let path = dir.join(NAME);
        if !disk.exists(&path) {
            return Ok(None);
        }
        let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
        read(&path, &bytes).map(|file| Some(file.state))
    }

    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.state.subscribe()
    }

    fn apply_one(&self, entry: Entry<ShardRaft>) -> CommandOutcome {
        let mut tail = self.tail.lock();
        let parts = match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Membership(membership) => {
                tail.membership = Membership::new(Some(entry.log_id), membership);
                Vec::new()
            }
            EntryPayload::Normal(command) => {
                let mut state = MetaState::clone(&self.state.borrow());
                // One that this build does not know is refused by every replica of this build alike.
                let refused = decode(&command.0).and_then(|command| state.apply(command)).err();
                if refused.is_none() {
                    self.state.send_if_modified(|before| {
                        let differs = **before != state;
                        *before = Arc::new(state);
                        differs
                    });
                }
                vec![AppliedPart { refused, ..AppliedPart::default() }]
            }
        };
        tail.last_log_id = Some(entry.log_id);
        CommandOutcome { parts }
    }

    async fn save(&self, file: File) -> Result<Snapshot<ShardRaft>, StorageError> {
        let json = serde_json::to_vec(&file).map_err(|e| StorageError::Invalid(e.to_string()))?;
        let (disk, path, bytes) = (self.disk.clone(), self.dir.join(NAME), Bytes::from(json));
        let written = bytes.clone();
        let write = move || replace_file(&*disk, &path, &written).map_err(|e| StorageError::io("write", &path, e));
        self.blocking.run(write).await.map_err(StorageError::Invalid)??;
        let snapshot = describe(&file.tail, bytes);
        *self.current.lock() = Some(snapshot.clone());
        self.durable.send_replace(file.tail.last_log_id.map(|id| id.index));
        Ok(snapshot)
    }

    fn failed(&self, error: &StorageError) -> RaftStorageError {
        self.stop.set(error);
        StorageIOError::write_snapshot(None, openraft::AnyError::new(error)).into()
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<File, StorageError> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| StorageError::damaged(path, e.column() as u64, e.to_string()))?;
    if file.format_version != VERSION {
        return Err(StorageError::Version { path: path.to_owned(), found: file.format_version, known: VERSION });
    }
    Ok(file)
}

fn describe(tail: &SnapshotTail, manifest: Bytes) -> Snapshot<ShardRaft> {
    let snapshot_id = tail.last_log_id.map_or_else(|| "empty".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index));
    let meta = SnapshotMeta { last_log_id: tail.last_log_id, last_membership: tail.membership.clone(), snapshot_id };
    Snapshot { meta, snapshot: Box::new(ShardSnapshot { manifest }) }
}

impl RaftStateMachine<ShardRaft> for MetaMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), RaftStorageError> {
        let tail = self.tail.lock();
        Ok((tail.last_log_id, tail.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<CommandOutcome>, RaftStorageError>
    where
        I: IntoIterator<Item = Entry<ShardRaft>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<ShardSnapshot>, RaftStorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta<u64, Peer>, snapshot: Box<ShardSnapshot>) -> Result<(), RaftStorageError> {
        let _turn = self.turn.lock().await;
        let file = read(&self.dir.join(NAME), &snapshot.manifest).map_err(|e| self.failed(&e))?;
        if file.tail.last_log_id != meta.last_log_id {
            return Err(self.failed(&StorageError::Invalid("a snapshot of the metadata does not end where it was said to".to_owned())));
        }
        let (tail, state) = (file.tail.clone(), Arc::new(file.state.clone()));
        self.save(file).await.map_err(|e| self.failed(&e))?;
        *self.tail.lock() = tail;
        self.state.send_replace(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<ShardRaft>>, RaftStorageError> {
        Ok(self.current.lock().clone())
    }
}

impl RaftSnapshotBuilder<ShardRaft> for MetaMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<ShardRaft>, RaftStorageError> {
        let _turn = self.turn.lock().await;
        let file = {
            let tail = self.tail.lock();
            File { format_version: VERSION, tail: tail.clone(), state: MetaState::clone(&self.state.borrow()) }
        };
        // One that was installed meanwhile is not older: both are taken in turn, and the state never goes back.
        self.save(file).await.map_err(|e| self.failed(&e))
    }
}
