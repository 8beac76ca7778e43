//! Refuses writes before the disk is full (507), and takes them again by itself. Reads go on throughout.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_storage::disk::{Disk, Space};
use tallymesh_storage::space::{SpaceMode, SpaceThresholds, SpaceWatch};

use crate::limits::RETRY_AFTER_DISK_MS;

pub struct SpaceGate {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    thresholds: SpaceThresholds,
    watch: Mutex<SpaceWatch>,
    read_only: AtomicBool,
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl SpaceGate {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, thresholds: SpaceThresholds) -> Self {
        Self {
            disk,
            dir,
            thresholds,
            watch: Mutex::new(SpaceWatch::default()),
            read_only: AtomicBool::new(false),
            free_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
        }
    }

    /// Looks at the disk. Cheap (one system call), so that it is done for every request: a fast writer fills a small disk in less than a second.
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
        let read_only = self.watch.lock().step(space, &self.thresholds) == SpaceMode::ReadOnly;
        if self.read_only.swap(read_only, Ordering::Relaxed) != read_only {
            if read_only {
                tracing::error!(free_bytes = space.free_bytes, "the disk is nearly full: writes are refused until there is room");
            } else {
                tracing::info!(free_bytes = space.free_bytes, "the disk has room again: writes are taken");
            }
        }
    }

    /// # Errors
    /// [`ErrorCode::DiskFull`] while there is too little room.
    pub fn admit(&self) -> Result<(), Problem> {
        self.measure();
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
