use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite, blank_ent};
use openraft::{RaftLogReader, RaftSnapshotBuilder};
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{Disk, RealDisk, SimDisk};
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::ShardOptions;
use tallymesh_storage::wal::{Wal, WalOptions, WalThread};

use super::*;
use tallymesh_protocol::hash::ShardId;

const SHARD: ShardId = ShardId(2);

pub fn open_state(disk: Arc<dyn Disk>, dir: &Path, durable: tokio::sync::watch::Sender<Option<u64>>, blocking: Blocking) -> StateMachine {
    open_stoppable(disk, dir, durable, blocking, StopReason::new(SHARD))
}

/// As a shard has it: one reason for its log and its state.
pub fn open_stoppable(
    disk: Arc<dyn Disk>,
    dir: &Path,
    durable: tokio::sync::watch::Sender<Option<u64>>,
    blocking: Blocking,
    stop: StopReason,
) -> StateMachine {
    let files = ShardFiles::open(disk, dir).expect("directory");
    let options = ShardOptions { dedup_memory_bytes_max: 1 << 20 };
    let clock = Arc::new(SystemClock::new());
    StateMachine::open(OpenState { files, options, clock, blocking, stop, durable }).expect("state")
}

/// Fresh stores in a directory of their own.
struct Stores<F>(F);

struct Guard {
    _log: WalThread,
    _dir: Option<tempfile::TempDir>,
}

impl<F> StoreBuilder<ShardRaft, LogStore, StateMachine, Guard> for Stores<F>
where
    F: Fn() -> (Arc<dyn Disk>, PathBuf, Option<tempfile::TempDir>) + Send + Sync,
{
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), RaftStorageError> {
        let (disk, dir, guard) = (self.0)();
        let opened = Wal::open(disk.clone(), Arc::new(SystemClock::new()), &dir.join("log"), WalOptions::default()).expect("log");
        let log = WalThread::spawn(opened.writer).expect("thread");
        // The suite purges without snapshots; that a purge waits for one is tested below.
        let (_, everything) = DurableIndex::new(Some(u64::MAX));
        let store = LogStore::open(opened.wal, SHARD, everything, StopReason::new(SHARD)).expect("store");
        let (durable, _) = DurableIndex::new(None);
        let state = open_state(disk, &dir.join("state"), durable, Blocking::Threads);
        Ok((Guard { _log: log, _dir: guard }, store, state))
    }
}

#[test]
fn suite_of_openraft_passes_on_real_files() {
    let stores = Stores(|| {
        let dir = tempfile::tempdir().expect("directory");
        (Arc::new(RealDisk) as Arc<dyn Disk>, dir.path().to_owned(), Some(dir))
    });
    Suite::test_all(stores).expect("suite");
}

#[test]
fn suite_of_openraft_passes_on_the_simulated_disk() {
    Suite::test_all(Stores(|| (Arc::new(SimDisk::new()) as Arc<dyn Disk>, PathBuf::from("/data"), None))).expect("suite");
}

#[tokio::test]
async fn purge_waits_until_a_durable_snapshot_covers_it() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let opened = Wal::open(disk.clone(), Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
    let _log = WalThread::spawn(opened.writer).expect("thread");
    let (durable, covered) = DurableIndex::new(None);
    let mut store = LogStore::open(opened.wal, SHARD, covered, StopReason::new(SHARD)).expect("store");
    let mut state = open_state(disk, Path::new("/state"), durable, Blocking::Inline);
    let entries = || (0..4).map(|index| blank_ent::<ShardRaft>(1, 1, index));
    store.blocking_append(entries()).await.expect("appended");
    state.apply(entries()).await.expect("applied");
    let mut purged = Box::pin(store.purge(codec::log_id(1, 3)));
    assert!(futures::poll!(&mut purged).is_pending(), "no snapshot is there");
    state.get_snapshot_builder().await.build_snapshot().await.expect("built");
    purged.await.expect("purged");
    assert!(store.try_get_log_entries(..).await.expect("reads").is_empty());
    assert_eq!(store.get_log_state().await.expect("state").last_log_id, Some(codec::log_id(1, 3)));
}

#[tokio::test]
async fn purge_without_a_state_machine_fails_instead_of_waiting_for_ever() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let opened = Wal::open(disk, Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
    let (durable, covered) = DurableIndex::new(Some(2));
    drop(durable);
    let stop = StopReason::new(SHARD);
    let mut store = LogStore::open(opened.wal, SHARD, covered, stop.clone()).expect("store");
    assert!(store.purge(codec::log_id(1, 3)).await.is_err());
    assert!(stop.get().is_some());
}

#[tokio::test]
async fn snapshot_reads_back_with_what_it_was_applied_up_to() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (durable, _covered) = DurableIndex::new(None);
    let mut state = open_state(disk.clone(), Path::new("/state"), durable, Blocking::Inline);
    let members = openraft::testing::membership_ent::<ShardRaft>(1, 1, 1, vec![std::collections::BTreeSet::from([1])]);
    state.apply([blank_ent::<ShardRaft>(1, 1, 0), members]).await.expect("applied");
    let built = state.get_snapshot_builder().await.build_snapshot().await.expect("built");
    state.apply([blank_ent::<ShardRaft>(2, 1, 2)]).await.expect("applied");

    let (durable, covered) = DurableIndex::new(None);
    let mut again = open_state(disk, Path::new("/state"), durable, Blocking::Inline);
    let (last, membership) = again.applied_state().await.expect("state");
    assert_eq!((last, membership), (built.meta.last_log_id, built.meta.last_membership.clone()));
    assert_eq!(again.get_current_snapshot().await.expect("snapshot").map(|s| (s.meta, s.snapshot)), Some((built.meta, built.snapshot)));
    drop(covered);
}
