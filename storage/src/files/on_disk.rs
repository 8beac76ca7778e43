//! The directory of one shard: its immutable files, and the one manifest that says which of them count.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{FileRef, ImmutableFiles};
use crate::StorageError;
use crate::disk::{Disk, MAPPED_BYTES_ABOVE, ReadAt};
use crate::planted::{self, Bug};

const MANIFEST: &str = "snapshot";
const MANIFEST_TEMPORARY: &str = "snapshot.tmp";

/// Handle on a shard's directory; clones share it.
#[derive(Clone)]
pub struct ShardFiles {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: Arc<Path>,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// Number of the next file; numbers are never used twice.
    next: AtomicU64,
    pub(super) committed: Mutex<Committed>,
}

#[derive(Default)]
pub(super) struct Committed {
    /// Order of the manifest that is durable, if there is one.
    order: Option<u64>,
    /// Files that it names.
    live: BTreeSet<String>,
    /// Files of another replica's snapshot that is to be installed.
    pub(super) expected: BTreeSet<String>,
    /// Set by a failed sync or rename: which manifest would survive a power cut is not known any more.
    poisoned: Option<String>,
}

impl Committed {
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.live.contains(name) || self.expected.contains(name)
    }
}

/// What became of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It is durable and the files that only older ones named are gone.
    Durable,
    /// A manifest of this higher order was durable already; this one was not written and its new files are gone.
    Superseded { by: u64 },
}

impl ShardFiles {
    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, StorageError> {
        Self::open_numbered(disk, dir, None)
    }

    /// The same for one of several replicas, whose files go from one to another: their names have to differ from those of all others. `run` is another number
    /// for each run of each node.
    ///
    /// # Errors
    /// The disk's.
    pub fn open_for(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>, run: u64) -> Result<Self, StorageError> {
        // Spread over all numbers, so that the stretches that runs use do not meet.
        Self::open_numbered(disk, dir, Some(run.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn open_numbered(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>, first: Option<u64>) -> Result<Self, StorageError> {
        let dir: PathBuf = dir.into();
        disk.create_dir_all(&dir).map_err(|e| StorageError::io("create", &dir, e))?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            disk.sync_dir(parent).map_err(|e| StorageError::io("sync", parent, e))?;
        }
        let names = disk.list(&dir).map_err(|e| StorageError::io("list", &dir, e))?;
        let behind = || names.iter().filter_map(|n| number_of(n)).max().map_or(0, |n| n.wrapping_add(1));
        let next = first.unwrap_or_else(behind);
        let shared = Shared { next: AtomicU64::new(next), committed: Mutex::default() };
        Ok(Self { disk, dir: dir.into(), shared: Arc::new(shared) })
    }

    /// Removes all files of a directory that nobody has open, the manifest first; their bytes. What is no file of a shard's is removed too; the directory stays.
    ///
    /// # Errors
    /// The disk's; what is left is removed the next time.
    pub fn remove_all(disk: &dyn Disk, dir: &Path) -> Result<u64, StorageError> {
        if !disk.exists(dir) {
            return Ok(0);
        }
        let mut bytes = 0;
        let mut names = disk.list(dir).map_err(|e| StorageError::io("list", dir, e))?;
        names.sort_by_key(|name| name != MANIFEST);
        for name in names {
            let path = dir.join(name);
            bytes += disk.len(&path).map_err(|e| StorageError::io("measure", &path, e))?;
            disk.remove(&path).map_err(|e| StorageError::io("remove", &path, e))?;
        }
        disk.sync_dir(dir).map_err(|e| StorageError::io("sync", dir, e))?;
        Ok(bytes)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the manifest is; for error messages.
    pub fn manifest_path(&self) -> PathBuf {
        self.dir.join(MANIFEST)
    }

    /// Bytes of the manifest, as they were committed or as a fault left them.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_manifest(&self) -> Result<Option<Bytes>, StorageError> {
        let path = self.manifest_path();
        if !self.disk.exists(&path) {
            return Ok(None);
        }
        self.disk.read(&path).map(Some).map_err(|e| StorageError::io("read", path, e))
    }

    /// After a start: takes the manifest that was read as the committed one and removes whatever it does not name.
    ///
    /// # Errors
    /// The disk's.
    pub fn adopt(&self, order: Option<u64>, live: BTreeSet<String>) -> Result<(), StorageError> {
        let mut committed = self.shared.committed.lock();
        for name in self.disk.list(&self.dir).map_err(|e| StorageError::io("list", &*self.dir, e))? {
            let is_partial = name == MANIFEST_TEMPORARY || super::incoming::is_arriving(&name);
            if is_partial || (number_of(&name).is_some() && !live.contains(&name)) {
                self.remove(&name)?;
            }
        }
        *committed = Committed { order, live, ..Committed::default() };
        Ok(())
    }

    /// Starts the files of one snapshot.
    pub fn writer(&self) -> ShardWriter {
        ShardWriter { files: self.clone(), written: Vec::new() }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.dir.join(name);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", path, e)),
            _ => Ok(()),
        }
    }

    fn write_synced(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.dir.join(name);
        let mut file = self.disk.create(&path).map_err(|e| StorageError::io("create", &path, e))?;
        file.append(bytes).map_err(|e| StorageError::io("write", &path, e))?;
        if planted::has(Bug::SnapshotFilesNotSynced) {
            return Ok(());
        }
        file.sync().map_err(|e| {
            self.poison(&e);
            StorageError::io("sync", &path, e)
        })
    }

    fn poison(&self, error: &std::io::Error) {
        self.shared.committed.lock().poisoned.get_or_insert_with(|| error.to_string());
    }

    pub(super) fn sync_dir(&self) -> Result<(), StorageError> {
        self.disk.sync_dir(&self.dir).map_err(|e| StorageError::io("sync", &*self.dir, e))
    }
}

impl ImmutableFiles for ShardFiles {
    fn write(&mut self, kind: &str, bytes: &[u8]) -> Result<FileRef, StorageError> {
        if let Some(why) = &self.shared.committed.lock().poisoned {
            return Err(StorageError::Poisoned(why.clone()));
        }
        let name = format!("{kind}-{:016x}", self.shared.next.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = self.write_synced(&name, bytes) {
            // Best effort: the next start removes what stays.
            let _ = self.remove(&name);
            return Err(error);
        }
        Ok(FileRef { name, bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
    }

    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError> {
        let path = self.dir.join(&file.name);
        let bytes = self.disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
        if bytes.len() as u64 != file.bytes {
            let detail = format!("{} bytes long, the snapshot says {}", bytes.len(), file.bytes);
            return Err(StorageError::damaged(path, (bytes.len() as u64).min(file.bytes), detail));
        }
        let crc32 = crc32fast::hash(&bytes);
        if crc32 != file.crc32 {
            return Err(StorageError::damaged(path, 0, format!("checksum {crc32:08x}, the snapshot says {:08x}", file.crc32)));
        }
        Ok(bytes)
    }

    fn open(&self, file: &FileRef) -> Result<Arc<dyn ReadAt>, StorageError> {
        let path = self.dir.join(&file.name);
        self.disk.open(&path).map_err(|e| StorageError::io("open", path, e))
    }

    fn is_mapped(&self, file: &FileRef) -> bool {
        file.bytes > MAPPED_BYTES_ABOVE
    }

    fn map(&self, file: &FileRef, parts: &[(u64, u64)]) -> Result<Vec<Bytes>, StorageError> {
        let path = self.dir.join(&file.name);
        self.disk.read_parts(&path, file.bytes, parts).map_err(|e| StorageError::io("map", path, e))
    }
}

/// Writes the files of one snapshot; what is not committed is removed when it is dropped.
pub struct ShardWriter {
    files: ShardFiles,
    written: Vec<FileRef>,
}

impl ShardWriter {
    /// Bytes of the new files so far.
    pub fn written_bytes(&self) -> u64 {
        self.written.iter().map(|f| f.bytes).sum()
    }

    /// Makes `manifest` the one that counts, unless one of a higher `order` is durable already; then removes what only the previous one named.
    ///
    /// # Errors
    /// The disk's; after a failed sync or rename nothing is accepted any more. [`StorageError::Invalid`] when it names a file that another
    /// snapshot's commit has removed since it was planned: plan again.
    pub fn commit(mut self, order: u64, manifest: &[u8], live: BTreeSet<String>) -> Result<Commit, StorageError> {
        let files = self.files.clone();
        let mut committed = files.shared.committed.lock();
        if let Some(why) = &committed.poisoned {
            return Err(StorageError::Poisoned(why.clone()));
        }
        if let Some(by) = committed.order.filter(|&durable| durable > order && !planted::has(Bug::OlderSnapshotOverwrites)) {
            return Ok(Commit::Superseded { by });
        }
        let is_new = |name: &str| self.written.iter().any(|f| f.name == name);
        if let Some(gone) = live.iter().find(|name| !committed.is_named(name) && !is_new(name)) {
            return Err(StorageError::Invalid(format!("the snapshot names {gone}, which another one has replaced meanwhile")));
        }
        files.replace_manifest(manifest, &mut committed, &mut self)?;
        // What is expected stays until its manifest, which names all of it, is committed, or another one is expected.
        let mut expected = std::mem::take(&mut committed.expected);
        if expected == live {
            expected.clear();
        }
        let unnamed = |name: &String| !live.contains(name) && !expected.contains(name);
        let old = committed.live.iter().chain(self.written.iter().map(|f| &f.name)).filter(|n| unnamed(n)).cloned().collect::<Vec<_>>();
        self.written.clear();
        *committed = Committed { order: Some(order), live, expected, poisoned: None };
        for name in old {
            files.remove(&name)?;
        }
        Ok(Commit::Durable)
    }
}

impl ShardFiles {
    /// New names become durable before the manifest that needs them, and the manifest's own name last.
    fn replace_manifest(&self, manifest: &[u8], committed: &mut Committed, writer: &mut ShardWriter) -> Result<(), StorageError> {
        self.sync_dir().inspect_err(|e| committed.poisoned = Some(e.to_string()))?;
        self.remove(MANIFEST_TEMPORARY)?;
        let temporary = self.dir.join(MANIFEST_TEMPORARY);
        let mut file = self.disk.create(&temporary).map_err(|e| StorageError::io("create", &temporary, e))?;
        file.append(manifest).map_err(|e| StorageError::io("write", &temporary, e))?;
        file.sync().map_err(|e| StorageError::io("sync", &temporary, e)).inspect_err(|e| committed.poisoned = Some(e.to_string()))?;
        drop(file);
        // From here on a power cut may leave either manifest: the files of both have to stay, whatever happens.
        let new_files = std::mem::take(&mut writer.written);
        self.disk
            .rename(&temporary, &self.manifest_path())
            .map_err(|e| StorageError::io("rename", &temporary, e))
            .and_then(|()| self.sync_dir())
            .inspect_err(|e| committed.poisoned = Some(e.to_string()))?;
        writer.written = new_files;
        Ok(())
    }
}

impl ImmutableFiles for ShardWriter {
    fn write(&mut self, kind: &str, bytes: &[u8]) -> Result<FileRef, StorageError> {
        let file = self.files.write(kind, bytes)?;
        self.written.push(file.clone());
        Ok(file)
    }

    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError> {
        self.files.read(file)
    }

    fn open(&self, file: &FileRef) -> Result<Arc<dyn ReadAt>, StorageError> {
        self.files.open(file)
    }

    fn is_mapped(&self, file: &FileRef) -> bool {
        self.files.is_mapped(file)
    }

    fn map(&self, file: &FileRef, parts: &[(u64, u64)]) -> Result<Vec<Bytes>, StorageError> {
        self.files.map(file, parts)
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        for file in &self.written {
            // Best effort: the next start removes what stays.
            let _ = self.files.remove(&file.name);
        }
    }
}

/// The number in the name of an immutable file.
fn number_of(name: &str) -> Option<u64> {
    let (kind, number) = name.rsplit_once('-')?;
    (!kind.is_empty() && number.len() == 16).then(|| u64::from_str_radix(number, 16).ok())?
}
