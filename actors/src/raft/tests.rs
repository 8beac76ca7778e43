use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{Disk, RealDisk, SimDisk};
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::ShardOptions;
use tallymesh_storage::wal::{Wal, WalOptions, WalThread};

use super::*;
use tallymesh_protocol::hash::ShardId;

const SHARD: ShardId = ShardId(2);

pub fn open_state(disk: Arc<dyn Disk>, dir: &Path, durable: tokio::sync::watch::Sender<Option<u64>>, blocking: Blocking) -> StateMachine {
    let files = ShardFiles::open(disk, dir).expect("directory");
    let options = ShardOptions { dedup_memory_bytes_max: 1 << 20 };
    let (clock, stop) = (Arc::new(SystemClock::new()), StopReason::new(SHARD));
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
