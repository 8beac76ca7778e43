//! A disk in memory that does at a power cut what real ones do: it loses, tears or zeroes what was not synced, and forgets names whose directory
//! was not. Deterministic: everything that could go either way is decided by a seed.

mod fault;
mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Disk, DiskFile, ReadAt, Space, aligned_copy};
use fault::Faults;
use inode::{Inode, NameChange};

/// What a power cut does to bytes that were written but not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// They are gone.
    Drop,
    /// A prefix of them, of seeded length, is there.
    Tear,
    /// They are there, but some 512-byte sectors, by seed, are zeroes.
    Zero,
}

/// How the power goes. Names that were not synced (created, renamed, removed) are lost or kept one by one, by the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    pub unsynced: Unsynced,
    pub seed: u64,
}

/// Operations so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    pub reads: u64,
    pub creates: u64,
    pub appends: u64,
    pub syncs: u64,
    pub truncates: u64,
    pub renames: u64,
    pub removes: u64,
    pub dir_creates: u64,
    pub dir_syncs: u64,
}

impl OpCounts {
    /// Operations that change something: the points at which a power cut can make a difference.
    pub fn changes(&self) -> u64 {
        self.creates + self.appends + self.syncs + self.truncates + self.renames + self.removes + self.dir_creates + self.dir_syncs
    }
}

/// Cheap to clone; all clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Names as a running process sees them, and as they are on the medium.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// What separates the two, in order.
    name_changes: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    counts: OpCounts,
    faults: Faults,
    /// Files opened before the last restart are closed.
    boot: u64,
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    boot: u64,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// An independent copy of the disk as it is, to try several futures.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().clone())) }
    }

    pub fn counts(&self) -> OpCounts {
        self.state.lock().counts
    }

    /// The power goes at the `changes`-th changing operation from now (1 is the next one): it and everything after it fails, until
    /// [`SimDisk::crash`]. What that operation wrote is there as unsynced bytes, so that the cut may tear it too.
    pub fn fail_after(&self, changes: u64) {
        let mut state = self.state.lock();
        state.faults.cut_at = Some(state.counts.changes() + changes);
    }

    /// Whether the point given to [`SimDisk::fail_after`] has been reached.
    pub fn is_cut(&self) -> bool {
        self.state.lock().faults.is_cut
    }

    /// Power cut and restart: what was not synced is treated as `cut` says, open files are closed, injected faults (but not the capacity) are gone.
    pub fn crash(&self, cut: PowerCut) {
        self.state.lock().crash(cut);
    }

    /// The process dies and starts again, the machine goes on: nothing is lost, but nothing more is synced either.
    pub fn kill(&self) {
        self.state.lock().restart();
    }

    /// The next sync of a file fails with an I/O error. As on Linux the bytes are then dropped (zeroes stand in their place on the medium) though
    /// they can still be read until a restart with a power cut, and later syncs succeed.
    pub fn fail_next_sync(&self) {
        self.state.lock().faults.fail_next_sync = true;
    }

    /// Room for all files together, in bytes; an append that does not fit writes what does and fails. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().faults.capacity_bytes = bytes;
    }

    /// Damage at rest: turns one bit, on the medium and in the cache.
    ///
    /// # Errors
    /// No such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.file(path)?;
        inode.flip(offset as usize, bit).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Puts a file there, durable at once: to set up a test, or to damage a file at will.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.new_inode();
        state.inodes.insert(id, Inode::durable(bytes));
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
        let dirs: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        state.dirs.extend(dirs);
    }

    /// Names and bytes of all files as a running process sees them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.lock();
        state.names.iter().filter_map(|(path, id)| Some((path.clone(), state.inodes.get(id)?.cached().to_vec()))).collect()
    }
}

impl State {
    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let id = *self.names.get(path).ok_or_else(not_found)?;
        self.inodes.get_mut(&id).ok_or_else(not_found)
    }

    fn directory_of(&self, path: &Path) -> io::Result<()> {
        let known = path.parent().is_none_or(|dir| dir.as_os_str().is_empty() || self.dirs.contains(dir));
        if known { Ok(()) } else { Err(not_found()) }
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|id| self.inodes.get(id)).map(|inode| inode.cached().len() as u64).sum()
    }

    /// Bytes that still fit.
    fn room(&self) -> usize {
        let room = self.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()));
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn crash(&mut self, cut: PowerCut) {
        let mut random = fault::SplitMix::new(cut.seed);
        for change in std::mem::take(&mut self.name_changes) {
            if random.coin() {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let live: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|id, _| live.contains(id));
        for inode in self.inodes.values_mut() {
            inode.crash(cut.unsynced, &mut random);
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.faults = Faults { capacity_bytes: self.faults.capacity_bytes, ..Faults::default() };
    }

    /// Counts a changing operation. `Err` once the power is gone; `Ok(true)` when it goes with this one.
    fn begin(&mut self, count: fn(&mut OpCounts) -> &mut u64) -> io::Result<bool> {
        self.faults.check()?;
        *count(&mut self.counts) += 1;
        Ok(self.faults.reach(self.counts.changes()))
    }

    fn begin_read(&mut self) -> io::Result<()> {
        self.faults.check()?;
        self.counts.reads += 1;
        Ok(())
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn done(is_cut: bool) -> io::Result<()> {
    if is_cut { Err(fault::power_cut()) } else { Ok(()) }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.dirs.contains(dir) {
            return state.faults.check();
        }
        done(state.begin(|c| &mut c.dir_creates)?)?;
        let dirs: Vec<PathBuf> = dir.ancestors().map(Path::to_owned).collect();
        state.dirs.extend(dirs);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.faults.check()?;
        state.directory_of(path)?;
        if state.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let is_cut = state.begin(|c| &mut c.creates)?;
        let inode = state.new_inode();
        state.inodes.insert(inode, Inode::default());
        state.change_name(NameChange::Create { path: path.to_owned(), inode });
        done(is_cut)?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, boot: state.boot }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.begin_read()?;
        let inode = *state.names.get(path).ok_or_else(not_found)?;
        state.file(path)?.open_at_end();
        Ok(Box::new(SimFile { disk: self.clone(), inode, boot: state.boot }))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let mut state = self.state.lock();
        state.begin_read()?;
        Ok(aligned_copy(state.file(path)?.cached()))
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.state.lock();
        state.begin_read()?;
        let bytes = state.file(path)?.cached();
        let end = (offset as usize).checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(aligned_copy(bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let mut state = self.state.lock();
        state.begin_read()?;
        let inode = *state.names.get(path).ok_or_else(not_found)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: state.boot }))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check()?;
        if len > state.file(path)?.cached().len() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file is only ever cut shorter"));
        }
        let is_cut = state.begin(|c| &mut c.truncates)?;
        let inode = state.file(path)?;
        inode.cut(len as usize);
        if !is_cut {
            inode.sync();
        }
        done(is_cut)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check()?;
        state.directory_of(to)?;
        let inode = *state.names.get(from).ok_or_else(not_found)?;
        let is_cut = state.begin(|c| &mut c.renames)?;
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        done(is_cut)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check()?;
        state.file(path)?;
        let is_cut = state.begin(|c| &mut c.removes)?;
        state.change_name(NameChange::Remove { path: path.to_owned() });
        done(is_cut)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.begin_read()?;
        if !state.dirs.contains(dir) {
            return Err(not_found());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin_read()?;
        Ok(state.file(path)?.cached().len() as u64)
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state.lock();
        state.names.contains_key(path) || state.dirs.contains(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        done(state.begin(|c| &mut c.dir_syncs)?)?;
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes {
            if change.is_in(dir) {
                change.apply(&mut state.durable_names);
            } else {
                state.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let mut state = self.state.lock();
        state.begin_read()?;
        let total_bytes = state.faults.capacity_bytes.unwrap_or(u64::MAX);
        Ok(Space { free_bytes: total_bytes.saturating_sub(state.used_bytes()), total_bytes })
    }
}

impl SimFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.boot == self.boot { Ok(state) } else { Err(io::Error::other("the process that opened this file is gone")) }
    }
}

impl ReadAt for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.begin_read()?;
        let bytes = state.inodes.get(&self.inode).ok_or_else(not_found)?.cached();
        let end = (offset as usize).checked_add(buffer.len()).ok_or(io::ErrorKind::InvalidInput)?;
        buffer.copy_from_slice(bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let is_cut = state.begin(|c| &mut c.appends)?;
        let room = state.room();
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(not_found)?;
        let fits = bytes.len().min(room.saturating_add(inode.ahead()));
        inode.append(&bytes[..fits]);
        done(is_cut)?;
        if fits < bytes.len() { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn write_ahead(&mut self, zeroes: usize) -> io::Result<()> {
        let mut state = self.state()?;
        let is_cut = state.begin(|c| &mut c.appends)?;
        let room = state.room();
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(not_found)?;
        let fits = zeroes.min(room.saturating_add(inode.ahead()));
        inode.write_ahead(fits);
        done(is_cut)?;
        if fits < zeroes { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn cut_ahead(&mut self) -> io::Result<()> {
        let mut state = self.state()?;
        let is_cut = state.begin(|c| &mut c.truncates)?;
        state.inodes.get_mut(&self.inode).ok_or_else(not_found)?.cut_ahead();
        done(is_cut)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state()?;
        done(state.begin(|c| &mut c.syncs)?)?;
        let fails = std::mem::take(&mut state.faults.fail_next_sync);
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(not_found)?;
        if fails {
            inode.lose_unsynced();
            return Err(io::Error::other("injected sync error"));
        }
        inode.sync();
        Ok(())
    }
}
