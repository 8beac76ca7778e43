//! One file's bytes, cached and durable, and the changes of names between the two views.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Unsynced;
use super::fault::SplitMix;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Where the next bytes go; behind it are zeroes written ahead.
    end: usize,
    /// Up to where a sync was tried: no later one writes what is before.
    clean: usize,
}

impl Inode {
    pub fn durable(bytes: &[u8]) -> Self {
        Self { cached: bytes.to_vec(), durable: bytes.to_vec(), end: bytes.len(), clean: bytes.len() }
    }

    pub fn cached(&self) -> &[u8] {
        &self.cached
    }

    /// As files are opened: what comes next goes behind all that is there.
    pub fn open_at_end(&mut self) {
        self.end = self.cached.len();
    }

    pub fn append(&mut self, bytes: &[u8]) {
        let over = bytes.len().min(self.cached.len() - self.end);
        self.cached[self.end..self.end + over].copy_from_slice(&bytes[..over]);
        self.cached.extend_from_slice(&bytes[over..]);
        self.end += bytes.len();
    }

    /// How much longer the file is than its content.
    pub fn ahead(&self) -> usize {
        self.cached.len() - self.end
    }

    pub fn write_ahead(&mut self, zeroes: usize) {
        self.cached.resize(self.cached.len().max(self.end + zeroes), 0);
    }

    pub fn cut_ahead(&mut self) {
        self.cut(self.end);
    }

    pub fn cut(&mut self, len: usize) {
        self.cached.truncate(len);
        self.end = self.end.min(len);
        self.clean = self.clean.min(len);
    }

    /// What is durable already stays as it is on the medium, even where an earlier sync failed and the cache says otherwise.
    pub fn sync(&mut self) {
        self.durable.truncate(self.clean);
        self.durable.extend_from_slice(&self.cached[self.durable.len()..]);
        self.clean = self.end;
    }

    pub fn lose_unsynced(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        self.clean = self.end;
    }

    pub fn flip(&mut self, offset: usize, bit: u8) -> Option<()> {
        let mask = 1 << (bit & 7);
        *self.cached.get_mut(offset)? ^= mask;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        Some(())
    }

    pub fn crash(&mut self, unsynced: Unsynced, random: &mut SplitMix) {
        let synced = self.clean;
        if self.cached.len() < self.durable.len() {
            // A cut that was not synced: done or not.
            if random.coin() {
                self.durable.truncate(self.cached.len());
            }
        }
        match unsynced {
            Unsynced::Drop => {}
            Unsynced::Tear => {
                self.write_through(synced + random.up_to(self.end - synced));
                // The zeroes ahead of it are there, and so is the length with them, or not.
                if self.ahead() > 0 && random.coin() {
                    self.durable.resize(self.durable.len().max(self.cached.len()), 0);
                }
            }
            Unsynced::Zero => {
                self.write_through(self.cached.len());
                zero_sectors(&mut self.durable[..self.cached.len()], synced, random);
            }
        }
        *self = Self::durable(&self.durable);
    }
}

impl Inode {
    /// Some of what was not synced is on the medium all the same: up to `to`, over zeroes that were written ahead, or as the file grew.
    fn write_through(&mut self, to: usize) {
        let over = to.min(self.durable.len());
        self.durable[self.clean..over].copy_from_slice(&self.cached[self.clean..over]);
        self.durable.extend_from_slice(&self.cached[over..to]);
    }
}

/// Sectors are those of the file; the part of the first one that was synced stays.
fn zero_sectors(bytes: &mut [u8], synced: usize, random: &mut SplitMix) {
    let mut start = synced;
    while start < bytes.len() {
        let end = (start + 1).next_multiple_of(SECTOR_BYTES).min(bytes.len());
        if random.coin() {
            bytes[start..end].fill(0);
        }
        start = end;
    }
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
    Remove { path: PathBuf },
}

impl NameChange {
    pub fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }

    pub fn is_in(&self, dir: &Path) -> bool {
        let path = match self {
            Self::Create { path, .. } | Self::Remove { path } => path,
            Self::Rename { to, .. } => to,
        };
        path.parent() == Some(dir)
    }
}
