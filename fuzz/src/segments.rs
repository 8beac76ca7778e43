//! The log's files: what recovery makes of them after power cuts, harm at rest, and bytes that never were a log.

mod bytes;
mod harm;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::SimDisk;
use tallymesh_storage::wal::{Opened, Wal, WalOptions};

use crate::input::Input;
use workload::Model;

const DIR: &str = "/wal";
/// So small that segments roll and reads go to the disk.
const OPTIONS: WalOptions =
    WalOptions { segment_bytes: 1_024, batch_bytes_max: 1_024, queue_bytes_max: 1 << 20, cache_bytes_max: 600, ahead_bytes: 2_048 };

/// First byte, bit 0: a workload and what happens to its files, or the files themselves.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() & 1 {
        0 => harm::run(input),
        _ => bytes::run(input),
    }
}

/// Stands still: nothing that is recovered depends on it.
struct NoClock;

impl Clock for NoClock {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn open(disk: &SimDisk) -> Result<Opened, StorageError> {
    Wal::open(Arc::new(disk.clone()), Arc::new(NoClock), Path::new(DIR), OPTIONS)
}

fn disk_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new();
    files.iter().for_each(|(path, bytes)| disk.put(path, bytes));
    disk
}

/// What each group holds, `None` when it is stopped for damage.
fn found(wal: &Wal, groups: impl IntoIterator<Item = u16>) -> BTreeMap<u16, Option<Model>> {
    let model = |group| match Model::of(wal, group) {
        Ok(model) => Some(model),
        Err(StorageError::Damaged { .. }) => None,
        Err(other) => panic!("group {group}: {other}"),
    };
    groups.into_iter().map(|group| (group, model(group))).collect()
}
