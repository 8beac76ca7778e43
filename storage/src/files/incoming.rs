//! Files of another replica's snapshot on their way into a shard's directory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{FileRef, ShardFiles};
use crate::StorageError;
use crate::disk::DiskFile;

/// What comes has this at the end of its name until it is whole; a start removes it.
pub(super) const PART_SUFFIX: &str = ".part";

impl ShardFiles {
    /// Announces a snapshot that is to be installed: of the files that it names, those that are not here. From now on no snapshot of this replica removes any
    /// of the others, until the announced one is installed or another is announced; what had come for an earlier one is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn expect(&self, files: &[FileRef]) -> Result<Vec<FileRef>, StorageError> {
        let mut committed = self.shared.committed.lock();
        let names: BTreeSet<String> = files.iter().map(|f| f.name.clone()).collect();
        for stale in committed.expected.difference(&names).filter(|name| !committed.live.contains(*name)) {
            self.remove(stale)?;
        }
        committed.expected = names;
        let is_here = |file: &FileRef| self.disk.len(&self.dir.join(&file.name)).is_ok_and(|bytes| bytes == file.bytes);
        Ok(files.iter().filter(|file| !is_here(file)).cloned().collect())
    }

    /// Begins to take in one of the files that [`Self::expect`] found missing.
    ///
    /// # Errors
    /// The disk's.
    pub fn receive(&self, file: &FileRef) -> Result<Incoming, StorageError> {
        // Two attempts at one file must not meet.
        let attempt = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{}.{attempt:x}{PART_SUFFIX}", file.name));
        let writer = self.disk.create(&path).map_err(|e| StorageError::io("create", &path, e))?;
        Ok(Incoming { files: self.clone(), file: file.clone(), path, writer, checksum: crc32fast::Hasher::new(), received_bytes: 0 })
    }
}

/// One file as it comes, in order. What is not finished is removed when it is dropped.
pub struct Incoming {
    files: ShardFiles,
    file: FileRef,
    path: PathBuf,
    writer: Box<dyn DiskFile>,
    checksum: crc32fast::Hasher,
    received_bytes: u64,
}

impl Incoming {
    /// Where to go on after a break.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// # Errors
    /// The disk's; more bytes than announced.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let received_bytes = self.received_bytes + bytes.len() as u64;
        if received_bytes > self.file.bytes {
            return Err(StorageError::Invalid(format!(
                "{} comes with {received_bytes} bytes, announced were {}",
                self.file.name, self.file.bytes
            )));
        }
        self.writer.append(bytes).map_err(|e| StorageError::io("write", &self.path, e))?;
        self.checksum.update(bytes);
        self.received_bytes = received_bytes;
        Ok(())
    }

    /// Checks the whole, syncs it and gives it its name, which becomes durable with the snapshot that needs it.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Invalid`] when it is not what was announced.
    pub fn finish(mut self) -> Result<(), StorageError> {
        let found = (self.received_bytes, std::mem::take(&mut self.checksum).finalize());
        if found != (self.file.bytes, self.file.crc32) {
            return Err(StorageError::Invalid(format!(
                "{} came as {found:x?} (bytes, checksum), announced was {:x?}",
                self.file.name, self.file
            )));
        }
        self.writer.sync().map_err(|e| {
            self.files.poison(&e);
            StorageError::io("sync", &self.path, e)
        })?;
        let path = self.files.dir.join(&self.file.name);
        self.files.disk.rename(&self.path, &path).map_err(|e| StorageError::io("rename", &self.path, e))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.files.disk.exists(&self.path) {
            // Best effort: the next start removes what stays.
            let _ = self.files.disk.remove(&self.path);
        }
    }
}
