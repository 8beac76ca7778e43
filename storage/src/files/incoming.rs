//! Files of another replica's snapshot on their way into this directory, before the manifest that names them is installed.
//!
//! What an expected manifest names stays, whatever snapshots of this replica's own are committed meanwhile, and counts as there when the manifest is committed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{FileRef, ShardFiles};
use crate::StorageError;
use crate::disk::DiskFile;

/// What a file that has not arrived in full is called: a start removes it.
const TEMPORARY: &str = "arriving.";

pub(super) fn is_arriving(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

impl ShardFiles {
    /// Notes that a snapshot of these files is to be installed, in place of what was noted before; those of them that are not here yet.
    ///
    /// # Errors
    /// The disk's, or damage of one that is here.
    pub fn expect(&self, files: impl IntoIterator<Item = FileRef>) -> Result<Vec<FileRef>, StorageError> {
        let files: Vec<FileRef> = files.into_iter().collect();
        let names: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
        let no_longer = {
            let mut committed = self.shared.committed.lock();
            let before = std::mem::replace(&mut committed.expected, names);
            before.into_iter().filter(|name| !committed.is_named(name)).collect::<Vec<_>>()
        };
        no_longer.iter().try_for_each(|name| self.remove(name))?;
        let is_here = |file: &FileRef| self.disk.len(&self.dir.join(&file.name)).is_ok_and(|bytes| bytes == file.bytes);
        // Names are unique for ever and over all replicas: the same name is the same content.
        Ok(files.into_iter().filter(|file| !is_here(file)).collect())
    }

    /// Begins a file that [`Self::expect`] named.
    ///
    /// # Errors
    /// The disk's.
    pub fn arrive(&self, file: FileRef) -> Result<ArrivingFile, StorageError> {
        let path = self.dir.join(format!("{TEMPORARY}{}", file.name));
        if self.disk.exists(&path) {
            self.disk.remove(&path).map_err(|e| StorageError::io("remove", &path, e))?;
        }
        let open = self.disk.create(&path).map_err(|e| StorageError::io("create", &path, e))?;
        Ok(ArrivingFile { files: self.clone(), file, path, open, bytes: 0, crc32: crc32fast::Hasher::new() })
    }
}

/// One file while it arrives.
pub struct ArrivingFile {
    files: ShardFiles,
    file: FileRef,
    path: PathBuf,
    open: Box<dyn DiskFile>,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl ArrivingFile {
    pub fn file(&self) -> &FileRef {
        &self.file
    }

    /// Bytes of it that are here.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// # Errors
    /// The disk's.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.open.append(bytes)?;
        self.bytes += bytes.len() as u64;
        self.crc32.update(bytes);
        Ok(())
    }

    /// Durable under its name when it returns.
    ///
    /// # Errors
    /// The disk's, or what arrived is not what the snapshot says.
    pub fn finish(mut self) -> Result<(), StorageError> {
        let crc32 = self.crc32.finalize();
        if self.bytes != self.file.bytes || crc32 != self.file.crc32 {
            // Best effort: a start removes it.
            let _ = self.files.disk.remove(&self.path);
            let FileRef { bytes, crc32: wanted, .. } = self.file;
            let detail = format!("arrived with {} bytes and checksum {crc32:08x}, the snapshot says {bytes} and {wanted:08x}", self.bytes);
            return Err(StorageError::damaged(self.path, 0, detail));
        }
        self.open.sync().map_err(|e| StorageError::io("sync", &self.path, e))?;
        drop(self.open);
        let path = self.files.dir.join(&self.file.name);
        self.files.disk.rename(&self.path, &path).map_err(|e| StorageError::io("rename", &path, e))?;
        self.files.sync_dir()
    }
}
