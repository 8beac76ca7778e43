//! Refuses writes before the disk is full (507), and takes them again by itself. Reads go on throughout.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_storage::disk::{Disk, Space};
use tallymesh_storage::space::{SpaceMode, SpaceThresholds, SpaceWatch};

use crate::limits::RETRY_AFTER_DISK_MS;

/// Requests let in between two looks at the disk, at most: others may fill it too.
const REQUESTS_UNSEEN_MAX: u64 = 64;

pub struct SpaceGate {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    thresholds: SpaceThresholds,
    /// What one request writes at most, in bytes.
    request_bytes_max: u64,
    /// Requests that the room which was seen last is enough for, whatever they bring.
    unseen: AtomicU32,
    watch: Mutex<SpaceWatch>,
    read_only: AtomicBool,
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl SpaceGate {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, thresholds: SpaceThresholds, request_bytes_max: u64) -> Self {
        Self {
            disk,
            dir,
            thresholds,
            request_bytes_max,
            unseen: AtomicU32::new(0),
            watch: Mutex::new(SpaceWatch::default()),
            read_only: AtomicBool::new(false),
            free_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
        }
    }

    /// Looks at the disk: a fast writer fills a small one in less than a second.
    pub fn measure(&self) {
        let space = match self.disk.space(&self.dir) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "cannot see how much room the disk has");
                return;
            }
        };
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        self.total_bytes.store(space.total_bytes, Ordering::Relaxed);
        let spare = space.free_bytes.saturating_sub(self.thresholds.read_only_below(space.total_bytes));
        let unseen = (spare / self.request_bytes_max.max(1)).min(REQUESTS_UNSEEN_MAX);
        self.unseen.store(u32::try_from(unseen).unwrap_or(u32::MAX), Ordering::Relaxed);
        let read_only = self.watch.lock().step(space, &self.thresholds) == SpaceMode::ReadOnly;
        if self.read_only.swap(read_only, Ordering::Relaxed) != read_only {
            if read_only {
                tracing::error!(free_bytes = space.free_bytes, "the disk is nearly full: writes are refused until there is room");
            } else {
                tracing::info!(free_bytes = space.free_bytes, "the disk has room again: writes are taken");
            }
        }
    }

    /// Looks at the disk unless there was more room a little earlier than the requests since then can have filled.
    ///
    /// # Errors
    /// [`ErrorCode::DiskFull`] while there is too little room.
    pub fn admit(&self) -> Result<(), Problem> {
        let is_sure = self.unseen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if !is_sure || self.is_read_only() {
            self.measure();
        }
        if !self.is_read_only() {
            return Ok(());
        }
        let limit = self.thresholds.read_only_below(self.total_bytes.load(Ordering::Relaxed));
        let detail =
            format!("{} bytes are free; writes go on once there are well over {limit}; queries still work", self.space().free_bytes);
        Err(Problem::new(ErrorCode::DiskFull, detail).limit(limit).retry_after_ms(RETRY_AFTER_DISK_MS))
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// As last measured.
    pub fn space(&self) -> Space {
        Space { free_bytes: self.free_bytes.load(Ordering::Relaxed), total_bytes: self.total_bytes.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tallymesh_storage::disk::SimDisk;

    use super::*;

    const TOTAL_BYTES: u64 = 1 << 20;
    const REQUEST_BYTES: u64 = 1 << 10;

    /// A disk with so much room, and a file to fill it with.
    fn gate(free_bytes: u64) -> (SimDisk, Box<dyn FnMut(u64)>, SpaceGate) {
        let disk = SimDisk::new();
        disk.set_capacity(Some(TOTAL_BYTES));
        let mut file = disk.create(Path::new("filler")).expect("created");
        let mut fill = move |bytes: u64| file.append(&vec![0; bytes as usize]).expect("room");
        fill(TOTAL_BYTES - free_bytes);
        let gate = SpaceGate::new(Arc::new(disk.clone()), PathBuf::new(), SpaceThresholds::default(), REQUEST_BYTES);
        (disk, Box::new(fill), gate)
    }

    #[test]
    fn no_number_of_large_requests_gets_below_the_threshold_unseen() {
        let low = SpaceThresholds::default().read_only_below(TOTAL_BYTES);
        for spare in [0, 1, REQUEST_BYTES - 1, REQUEST_BYTES, 5 * REQUEST_BYTES, 500 * REQUEST_BYTES] {
            let (_, mut fill, gate) = gate(low + spare);
            let mut let_in = 0;
            while gate.admit().is_ok() {
                fill(REQUEST_BYTES);
                let_in += 1;
            }
            assert_eq!(let_in, spare / REQUEST_BYTES + 1, "the last that begins above the threshold is let in ({spare})");
        }
    }

    #[test]
    fn with_room_only_some_requests_look_and_without_all_do() {
        let (disk, mut fill, gate) = gate(TOTAL_BYTES / 2);
        (0..10 * (REQUESTS_UNSEEN_MAX + 1)).for_each(|_| gate.admit().expect("room"));
        assert_eq!(disk.counts().reads, 10);
        fill(TOTAL_BYTES / 2);
        gate.measure();
        for looks in 12..15 {
            assert_eq!(gate.admit().map_err(|problem| problem.code), Err(ErrorCode::DiskFull));
            assert_eq!(disk.counts().reads, looks);
        }
        disk.set_capacity(Some(2 * TOTAL_BYTES));
        gate.admit().expect("room again, at once");
    }
}
