//! The file layer: all that the log and the snapshots ask of a disk, as a trait, so that the same code runs on the machine's file system
//! ([`RealDisk`]) and on one that loses, tears or zeroes what was not synced ([`SimDisk`]).

use std::io;
use std::path::Path;

use bytes::Bytes;

/// A file system. Contract, held by one conformance suite for every implementation:
///
/// - What was appended but not synced may be lost, torn or zeroed by a power cut; what was synced may not.
/// - A created, renamed or removed name survives a power cut only after [`Disk::sync_dir`] of its directory.
/// - After a failed sync nothing may be assumed of the unsynced bytes, and a later successful sync does not mend that.
pub trait Disk: Send + Sync + 'static {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a file for appending; an existing one is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for appending after its current end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The whole file. Large files are mapped, so this is cheap; they must be immutable as long as the bytes live. At least 16-aligned.
    fn read(&self, path: &Path) -> io::Result<Bytes>;
    /// `len` bytes from `offset`, copied, 16-aligned.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Cuts a file to `len` bytes and syncs it.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names (not paths) of the files in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn len(&self, path: &Path) -> io::Result<u64>;
    fn exists(&self, path: &Path) -> bool;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free for this process, and in all, on the file system of `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// An open file, written at its end only.
pub trait DiskFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&mut self) -> io::Result<()>;
}
