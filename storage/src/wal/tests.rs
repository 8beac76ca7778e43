//! A small log on the simulated disk, and the oracle: plain maps that say what each group must hold.

mod damage;
mod golden;
mod oracle;
mod power_cut;
mod removal;
mod requests;
mod thread;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::disk::{PowerCut, SimDisk, Unsynced};

const DIR: &str = "/wal";
const MODES: [Unsynced; 3] = [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero];

/// Each reading is a millisecond after the one before.
#[derive(Default)]
struct TestClock(std::sync::atomic::AtomicU64);

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// So small that segments roll, batches split and reads go to the disk.
fn small() -> WalOptions {
    WalOptions { segment_bytes: 2_048, batch_bytes_max: 2_048, queue_bytes_max: 1 << 20, cache_bytes_max: 1_500, ahead_bytes: 0 }
}

/// The same, written ahead of most batches.
fn ahead() -> WalOptions {
    WalOptions { ahead_bytes: 4_096, ..small() }
}

fn try_open(disk: &SimDisk) -> Result<Opened, StorageError> {
    try_open_with(disk, small())
}

fn try_open_with(disk: &SimDisk, options: WalOptions) -> Result<Opened, StorageError> {
    Wal::open(Arc::new(disk.clone()), Arc::new(TestClock::default()), Path::new(DIR), options)
}

fn open(disk: &SimDisk) -> Opened {
    try_open(disk).unwrap()
}

fn entry(index: u64, body: &[u8]) -> LogEntry {
    LogEntry { index, meta: Bytes::from(format!("meta {index}")), body: Bytes::copy_from_slice(body) }
}

/// Entries from `first` to `last` with bodies of `len` bytes.
fn entries(first: u64, last: u64, len: usize) -> Vec<LogEntry> {
    (first..=last).map(|index| entry(index, &vec![index as u8; len])).collect()
}

type Outcome = Receiver<Result<(), StorageError>>;

fn told() -> (Done, Outcome) {
    let (sender, receiver) = channel();
    (Box::new(move |outcome| drop(sender.send(outcome))), receiver)
}

impl Opened {
    fn step_all(&mut self) {
        while self.writer.step() > 0 {}
    }

    fn append_now(&mut self, group: u16, entries: Vec<LogEntry>) -> Result<(), StorageError> {
        self.now(|wal, done| wal.append(group, entries, done))
    }

    fn now(&mut self, request: impl FnOnce(&Wal, Done)) -> Result<(), StorageError> {
        let (done, outcome) = told();
        request(&self.wal, done);
        self.step_all();
        outcome.try_recv().expect("told once all is written")
    }
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files().into_keys().filter(|path| path.extension().is_some_and(|e| e == "wal")).collect()
}
