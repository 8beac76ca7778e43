//! The machine's file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use rkyv::util::AlignedVec;

use super::{Disk, DiskFile, MAPPED_BYTES_ABOVE, READ_ALIGN, ReadAt, Space, parts_within};

#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Zeroes written with one call, in bytes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

struct RealFile {
    file: File,
    /// Where the next bytes go.
    end: u64,
    /// Its length.
    len: u64,
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.create_dir_all(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
            _ => self.sync_dir(parent),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile { file, end: 0, len: 0 }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Box::new(RealFile { file, end: len, len }))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        if len > MAPPED_BYTES_ABOVE { map(&file) } else { copy(&file, 0, len as usize) }
    }

    fn read_parts(&self, path: &Path, len: u64, parts: &[(u64, u64)]) -> io::Result<Vec<Bytes>> {
        let file = File::open(path)?;
        let found = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let ranges = parts_within(found, len, parts)?;
        if len <= MAPPED_BYTES_ABOVE {
            let whole = copy(&file, 0, found)?;
            return Ok(ranges.map(|range| whole.slice(range)).collect());
        }
        let map = Arc::new(mapped(&file)?);
        Ok(ranges.map(|range| Bytes::from_owner(Part { map: map.clone(), range })).collect())
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        copy(&File::open(path)?, offset, len)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if len > file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file is only ever cut shorter"));
        }
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize), total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize) })
    }
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.len = self.len.max(self.end);
        Ok(())
    }

    fn write_ahead(&mut self, zeroes: usize) -> io::Result<()> {
        let to = self.end + zeroes as u64;
        while self.len < to {
            let piece = (to - self.len).min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..piece as usize], self.len)?;
            self.len += piece;
        }
        Ok(())
    }

    fn cut_ahead(&mut self) -> io::Result<()> {
        // What an attempt wrote that failed is not in `len`.
        self.file.set_len(self.end)?;
        self.len = self.end;
        // Not every file system takes a shorter length for something that `fdatasync` has to write.
        self.file.sync_all()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn copy(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = AlignedVec::<READ_ALIGN>::with_capacity(len);
    bytes.resize(len, 0);
    FileExt::read_exact_at(file, &mut bytes, offset)?;
    Ok(Bytes::from_owner(bytes))
}

fn map(file: &File) -> io::Result<Bytes> {
    Ok(Bytes::from_owner(mapped(file)?))
}

#[expect(unsafe_code, reason = "memory maps are how large immutable files are read without a copy")]
fn mapped(file: &File) -> io::Result<Mmap> {
    // SAFETY: the contract of `Disk::read` is that a file is immutable as long as its bytes live: files are written once by this process, which
    // holds the lock of the directory, and removed or replaced by name only, which leaves the mapped inode as it is.
    unsafe { Mmap::map(file) }
}

/// A part of a mapped file. The pages that lie in it alone are given back with it, while other parts keep the map.
struct Part {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Drop for Part {
    #[expect(unsafe_code, reason = "there is no safe way to give back pages of a map")]
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        let (start, end) = (self.range.start.next_multiple_of(page), self.range.end / page * page);
        if start < end {
            // SAFETY: the map is of an immutable file, shared and never written: a page that is given back is read from the file again, with the same bytes, should
            // anybody look at it. It is only advice, so that it may fail.
            let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}
