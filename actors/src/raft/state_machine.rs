//! The state machine of one group: a shard's state, what of the log it has applied, and its snapshots.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{Entry, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError};
use parking_lot::{Mutex, RwLock};
use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::planted::{self, Bug};
use tallymesh_storage::shard::{ApplyError, PartApplied, PartError, ShardOptions, ShardState};
use tokio::sync::watch;

use super::log_store::StopReason;
use super::runtime::{self, ChangedBy, StateChange};
use super::{CommandOutcome, LogId, Membership, Peer, RaftStorageError, ShardRaft, SnapshotTail};
use crate::replicator::AppliedPart;

/// Where work that waits for a disk or computes for long runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for blocking work.
    Threads,
    /// In place: in a simulation everything happens in one thread, in a fixed order, and takes the time that its hooks say.
    Inline,
}

impl Blocking {
    /// Runs `work` and waits for it.
    ///
    /// # Errors
    /// What it panicked with, or that the runtime is going down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        match self {
            Self::Inline => {
                runtime::pause().await;
                let done = work();
                runtime::pause().await;
                Ok(done)
            }
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string()),
        }
    }
}

/// A shard's state with what of the log is in it.
pub struct Applied {
    pub state: ShardState,
    pub last_log_id: Option<LogId>,
    pub membership: Membership,
}

pub type SharedState = Arc<RwLock<Applied>>;

/// A snapshot as it is handed over: its manifest. The immutable files that it names go another way, and are in the receiver's directory before it is
/// installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSnapshot {
    pub manifest: Bytes,
}

/// Figures of the newest durable snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotGauges {
    /// What it wrote: files and manifest. What it refers to besides was written by earlier ones.
    pub written_bytes: u64,
    pub finished_wall_ms: Option<i64>,
}

/// Shared by the state machine and its builders.
pub struct Snapshots {
    files: ShardFiles,
    options: ShardOptions,
    clock: Arc<dyn Clock>,
    blocking: Blocking,
    stop: StopReason,
    durable: watch::Sender<Option<u64>>,
    current: Mutex<Option<Snapshot<ShardRaft>>>,
    gauges: Mutex<SnapshotGauges>,
    /// Held while a snapshot is built or installed, so that neither overwrites the other's newer one; false once the directory must not be touched any more.
    turn: tokio::sync::Mutex<bool>,
}

impl Snapshots {
    pub fn gauges(&self) -> SnapshotGauges {
        *self.gauges.lock()
    }

    /// Last entry that the newest durable one covers.
    pub(super) fn current_index(&self) -> Option<u64> {
        self.current.lock().as_ref().and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index)
    }

    /// Where the files of snapshots are, for whoever brings those of another replica or hands them out.
    pub fn files(&self) -> &ShardFiles {
        &self.files
    }

    /// Waits for a snapshot that is being written; none is begun after it.
    pub async fn close(&self) {
        *self.turn.lock().await = false;
    }
}

#[derive(Clone)]
pub struct StateMachine {
    shared: SharedState,
    snapshots: Arc<Snapshots>,
}

/// What a state machine is opened with.
pub struct OpenState {
    pub files: ShardFiles,
    pub options: ShardOptions,
    pub clock: Arc<dyn Clock>,
    pub blocking: Blocking,
    pub stop: StopReason,
    /// Told of every snapshot that became durable; see [`super::DurableIndex`].
    pub durable: watch::Sender<Option<u64>>,
}

impl StateMachine {
    /// Reads the newest snapshot, or begins with an empty state.
    ///
    /// # Errors
    /// The disk's, or damage, naming the file.
    pub fn open(open: OpenState) -> Result<Self, StorageError> {
        let OpenState { files, options, clock, blocking, stop, durable } = open;
        let (applied, current) = match ShardState::open(&files, options)? {
            None => (Applied { state: ShardState::new(options), last_log_id: None, membership: Membership::default() }, None),
            Some((state, tail)) => {
                let tail = SnapshotTail::decode(&tail)?;
                durable.send_replace(tail.last_log_id.map(|id| id.index));
                let manifest = files.read_manifest()?.unwrap_or_default();
                let current = describe(&tail, ShardSnapshot { manifest });
                (Applied { state, last_log_id: tail.last_log_id, membership: tail.membership }, Some(current))
            }
        };
        let gauges = Mutex::new(SnapshotGauges::default());
        let turn = tokio::sync::Mutex::new(true);
        let snapshots = Snapshots { files, options, clock, blocking, stop, durable, current: Mutex::new(current), gauges, turn };
        Ok(Self { shared: Arc::new(RwLock::new(applied)), snapshots: Arc::new(snapshots) })
    }

    pub fn shared(&self) -> SharedState {
        self.shared.clone()
    }

    pub fn snapshots(&self) -> Arc<Snapshots> {
        self.snapshots.clone()
    }

    pub(super) fn apply_one(&self, entry: Entry<ShardRaft>) -> Result<CommandOutcome, ApplyError> {
        let mut applied = self.shared.write();
        // Dropped before the lock: who gets that next knows that the state is half of what it should be.
        let _unwinding = StopOnUnwind(&self.snapshots.stop);
        let index = entry.log_id.index;
        let done = match &entry.payload {
            EntryPayload::Normal(command) if planted::has(Bug::LocalClock) => {
                let mut command = command.0.to_vec();
                command[8..16].copy_from_slice(&self.snapshots.clock.wall_ms().to_le_bytes());
                applied.state.apply(index, &command)
            }
            EntryPayload::Normal(command) => applied.state.apply(index, &command.0),
            EntryPayload::Blank => applied.state.skip(index).map(|()| Default::default()),
            EntryPayload::Membership(membership) => {
                applied.membership = Membership::new(Some(entry.log_id), membership.clone());
                applied.state.skip(index).map(|()| Default::default())
            }
        };
        let done = done?;
        applied.last_log_id = Some(entry.log_id);
        let part = |part: PartApplied| AppliedPart {
            counted: part.counted,
            duplicates: part.duplicates,
            stale: matches!(part.error, Some(PartError::StaleDefinitions { .. })),
            refused: part.error.map(|e| e.to_string()),
        };
        let outcome = CommandOutcome { parts: done.parts.into_iter().map(part).collect() };
        let by = ChangedBy::Entry(match &entry.payload {
            EntryPayload::Normal(command) => Some((&command.0, &outcome)),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        });
        runtime::tell(StateChange { shard: self.snapshots.stop.shard(), log_id: entry.log_id, state: &applied.state, by });
        Ok(outcome)
    }
}

struct StopOnUnwind<'a>(&'a StopReason);

impl Drop for StopOnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(&"applying an entry panicked");
        }
    }
}

impl StateMachine {
    /// Takes what is new since the last snapshot and writes it; the lock is held only to take it.
    async fn build(&self) -> Result<Snapshot<ShardRaft>, StorageError> {
        let open = self.snapshots.turn.lock().await;
        if !*open {
            return Err(StorageError::Invalid("the shard is closed".to_owned()));
        }
        let _turn = (!planted::has(Bug::OlderSnapshotOverwrites)).then_some(open);
        let (save, mut tail) = {
            let applied = self.shared.read();
            if let Some(why) = self.snapshots.stop.get() {
                return Err(StorageError::Invalid(why));
            }
            (applied.state.save_plan(), SnapshotTail { last_log_id: applied.last_log_id, membership: applied.membership.clone() })
        };
        if planted::has(Bug::MembershipMissingFromSnapshot) {
            tail.membership = Membership::default();
        }
        let encoded = tail.encode()?;
        let files = self.snapshots.files.clone();
        let written = self.snapshots.blocking.run(move || save.write(&files, &encoded)).await;
        let saved = written.map_err(|e| StorageError::Invalid(format!("writing a snapshot ended: {e}")))??;
        let replaced = self.shared.write().state.mark_saved(&saved);
        drop(replaced);
        Ok(self.settle(&tail, saved.manifest().clone(), saved.written_bytes()))
    }

    async fn install(&self, meta: &SnapshotMeta<u64, Peer>, snapshot: ShardSnapshot) -> Result<(), StorageError> {
        let open = self.snapshots.turn.lock().await;
        if !*open {
            return Err(StorageError::Invalid("the shard is closed".to_owned()));
        }
        let files = self.snapshots.files.clone();
        let options = self.snapshots.options;
        let manifest = snapshot.manifest.clone();
        let installed = self.snapshots.blocking.run(move || ShardState::install(&files, &manifest, options)).await;
        let (mut state, tail) = installed.map_err(|e| StorageError::Invalid(format!("installing a snapshot ended: {e}")))??;
        let tail = SnapshotTail::decode(&tail)?;
        if tail.last_log_id != meta.last_log_id {
            return Err(StorageError::Invalid(format!(
                "the snapshot ends with {:?}, it was announced with {:?}",
                tail.last_log_id, meta.last_log_id
            )));
        }
        let mut shared = self.shared.write();
        state.replace(&shared.state);
        *shared = Applied { state, last_log_id: tail.last_log_id, membership: tail.membership.clone() };
        if let Some(log_id) = tail.last_log_id {
            runtime::tell(StateChange { shard: self.snapshots.stop.shard(), log_id, state: &shared.state, by: ChangedBy::Snapshot });
        }
        drop(shared);
        self.settle(&tail, snapshot.manifest, 0);
        Ok(())
    }

    /// The snapshot is durable: the log that it covers may go.
    fn settle(&self, tail: &SnapshotTail, manifest: Bytes, written_bytes: u64) -> Snapshot<ShardRaft> {
        let snapshot = describe(tail, ShardSnapshot { manifest });
        *self.snapshots.current.lock() = Some(snapshot.clone());
        *self.snapshots.gauges.lock() = SnapshotGauges { written_bytes, finished_wall_ms: Some(self.snapshots.clock.wall_ms()) };
        self.snapshots.durable.send_replace(tail.last_log_id.map(|id| id.index));
        snapshot
    }
}

fn describe(tail: &SnapshotTail, data: ShardSnapshot) -> Snapshot<ShardRaft> {
    let snapshot_id = tail.last_log_id.map_or_else(|| "empty".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index));
    let meta = SnapshotMeta { last_log_id: tail.last_log_id, last_membership: tail.membership.clone(), snapshot_id };
    Snapshot { meta, snapshot: Box::new(data) }
}

impl RaftStateMachine<ShardRaft> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), RaftStorageError> {
        let applied = self.shared.read();
        Ok((applied.last_log_id, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<CommandOutcome>, RaftStorageError>
    where
        I: IntoIterator<Item = Entry<ShardRaft>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::with_capacity(1);
        for entry in entries {
            if !outcomes.is_empty() {
                // After a restart the whole log comes at once; others share this thread.
                tokio::task::yield_now().await;
            }
            let log_id = entry.log_id;
            let outcome = self.apply_one(entry).map_err(|error| {
                self.snapshots.stop.set(&error);
                StorageIOError::apply(log_id, openraft::AnyError::new(&error))
            });
            outcomes.push(outcome?);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<ShardSnapshot>, RaftStorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta<u64, Peer>, snapshot: Box<ShardSnapshot>) -> Result<(), RaftStorageError> {
        self.install(meta, *snapshot).await.map_err(|error| {
            self.snapshots.stop.set(&error);
            StorageIOError::write_snapshot(Some(meta.signature()), openraft::AnyError::new(&error)).into()
        })
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<ShardRaft>>, RaftStorageError> {
        Ok(self.snapshots.current.lock().clone())
    }
}

impl RaftSnapshotBuilder<ShardRaft> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<ShardRaft>, RaftStorageError> {
        self.build().await.map_err(|error| {
            self.snapshots.stop.set(&error);
            StorageIOError::write_snapshot(None, openraft::AnyError::new(&error)).into()
        })
    }
}
