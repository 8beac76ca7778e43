//! The file layer: all that the log and the snapshots ask of a disk, as a trait, so that the same code runs on the machine's file system
//! ([`RealDisk`]) and on one that loses, tears or zeroes what was not synced ([`SimDisk`]).

mod real;
mod sim;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rkyv::util::AlignedVec;

pub use real::RealDisk;
pub use sim::{OpCounts, PowerCut, SimDisk, Unsynced};

/// Alignment of what [`Disk::read`] and [`Disk::read_at`] return, in bytes: what encoded batches are read in place at.
pub const READ_ALIGN: usize = 16;

/// Files longer than this are mapped by [`Disk::read`], shorter ones copied, in bytes: below it a copy costs less than the page faults.
pub(crate) const MAPPED_BYTES_ABOVE: u64 = 1 << 20;

/// A file system. Contract, held by one conformance suite for every implementation:
///
/// - What was appended but not synced may be lost, torn or zeroed by a power cut; what was synced may not.
/// - A created, renamed or removed name survives a power cut only after [`Disk::sync_dir`] of its directory.
/// - After a failed sync nothing may be assumed of the unsynced bytes, and a later successful sync does not mend that.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its missing parents; they survive a power cut.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a file for appending; an existing one is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for appending after its current end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The whole file. Large files are mapped, so this is cheap; they must be immutable as long as the bytes live. At least 16-aligned.
    fn read(&self, path: &Path) -> io::Result<Bytes>;
    /// Parts (offset and length) of a file of `len` bytes as [`Disk::read`] gives them. What reading a part brought into memory may go when the part is dropped.
    fn read_parts(&self, path: &Path, len: u64, parts: &[(u64, u64)]) -> io::Result<Vec<Bytes>> {
        let whole = self.read(path)?;
        Ok(parts_within(whole.len(), len, parts)?.map(|range| whole.slice(range)).collect())
    }
    /// `len` bytes from `offset`, copied, 16-aligned.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Opens an existing file for reads in place. They go on after its name is gone.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>>;
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

/// An open immutable file that is read in place, without a mapping: what is read does not stay in this process.
pub trait ReadAt: Send + Sync {
    /// Fills all of `buffer` from `offset` on, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for Bytes {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.get(from..).and_then(|rest| rest.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// An open file, written behind what was appended to it only.
pub trait DiskFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file so many zeroes longer than what was appended, which later appends write over: where a file does not grow, a sync has only its bytes to
    /// write, and not the file's length and place as well.
    fn write_ahead(&mut self, zeroes: usize) -> io::Result<()>;
    /// Cuts off the zeroes that nothing was written over; durable with the next sync.
    fn cut_ahead(&mut self) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&mut self) -> io::Result<()>;
}

/// Where parts of a file lie that has `found` bytes and should have `len`.
pub(crate) fn parts_within(found: usize, len: u64, parts: &[(u64, u64)]) -> io::Result<impl Iterator<Item = Range<usize>>> {
    if found as u64 != len {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{found} bytes long, not {len}")));
    }
    if parts.iter().any(|(offset, part)| offset.checked_add(*part).is_none_or(|end| end > len)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a part reaches beyond the file"));
    }
    Ok(parts.iter().map(|(offset, part)| *offset as usize..(offset + part) as usize))
}

/// Replaces (or makes) a small file so that a power cut leaves the old content or the new one, never a mixture.
///
/// # Errors
/// The disk's; the old content is then still there, or the new one is, complete.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    if disk.exists(&temporary) {
        disk.remove(&temporary)?;
    }
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The name that [`replace_file`] writes to before it renames.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

fn aligned_copy(bytes: &[u8]) -> Bytes {
    let mut copy = AlignedVec::<READ_ALIGN>::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    Bytes::from_owner(copy)
}
