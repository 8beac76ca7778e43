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
}

impl Inode {
    pub fn durable(bytes: &[u8]) -> Self {
        Self { cached: bytes.to_vec(), durable: bytes.to_vec() }
    }

    pub fn cached(&self) -> &[u8] {
        &self.cached
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.cached.extend_from_slice(bytes);
    }

    pub fn cut(&mut self, len: usize) {
        self.cached.truncate(len);
    }

    /// What is durable already stays as it is on the medium, even where an earlier sync failed and the cache says otherwise.
    pub fn sync(&mut self) {
        self.durable.truncate(self.cached.len());
        let from = self.durable.len();
        self.durable.extend_from_slice(&self.cached[from..]);
    }

    pub fn lose_unsynced(&mut self) {
        self.durable.resize(self.cached.len(), 0);
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
        let synced = self.durable.len();
        if self.cached.len() < synced {
            // A cut that was not synced: done or not.
            if random.coin() {
                self.durable.truncate(self.cached.len());
            }
        } else {
            match unsynced {
                Unsynced::Drop => {}
                Unsynced::Tear => {
                    let kept = random.up_to(self.cached.len() - synced);
                    self.durable.extend_from_slice(&self.cached[synced..synced + kept]);
                }
                Unsynced::Zero => {
                    self.durable.extend_from_slice(&self.cached[synced..]);
                    zero_sectors(&mut self.durable, synced, random);
                }
            }
        }
        self.cached.clone_from(&self.durable);
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
