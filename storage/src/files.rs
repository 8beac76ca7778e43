//! Immutable files of one shard that its snapshots refer to: written once, checked by CRC, removed when no snapshot names them.

mod incoming;
mod on_disk;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use incoming::ArrivingFile;
pub use on_disk::{Commit, ShardFiles, ShardWriter};

use crate::StorageError;
use crate::disk::{ReadAt, parts_within};

/// One immutable file. The name is unique for ever within the shard's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRef {
    pub name: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// Where a part of a shard's state keeps its immutable files.
pub trait ImmutableFiles {
    /// Writes and syncs a new file; `kind` (`blocks`, `keys`, `dedup`, `open`) becomes part of its name. Versioning inside is the caller's.
    ///
    /// # Errors
    /// The disk's.
    fn write(&mut self, kind: &str, bytes: &[u8]) -> Result<FileRef, StorageError>;

    /// Reads a file back (mapped where that is cheaper), length and CRC checked, 16-aligned.
    ///
    /// # Errors
    /// The disk's, or damage, naming the file.
    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError>;

    /// Opens a file that was written or read before, to be read in place: what was looked at does not stay in memory, as mapped pages would.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn open(&self, file: &FileRef) -> Result<Arc<dyn ReadAt>, StorageError> {
        Ok(Arc::new(self.read(file)?))
    }

    /// Whether [`Self::map`] gives a map of this file, and not a copy.
    fn is_mapped(&self, _file: &FileRef) -> bool {
        false
    }

    /// Parts (offset and length) of a file that was written or read before. Where files are mapped they take no memory until they are used, which is why
    /// nothing but the length is checked, and none any more when they are dropped.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn map(&self, file: &FileRef, parts: &[(u64, u64)]) -> Result<Vec<Bytes>, StorageError> {
        let whole = self.read(file)?;
        let ranges = parts_within(whole.len(), file.bytes, parts).map_err(|e| StorageError::io("map", &file.name, e))?;
        Ok(ranges.map(|range| whole.slice(range)).collect())
    }
}
