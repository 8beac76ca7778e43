//! `cluster.json`: what shape the data directory has. Written once, when the cluster is made.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::Disk;

const NAME: &str = "cluster.json";
const TEMPORARY: &str = "cluster.json.tmp";
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    pub format_version: u32,
    /// Fixed for ever: where an event goes is its key modulo this.
    pub shards: u16,
    pub cluster_id: String,
}

impl ClusterFile {
    pub fn new(shards: u16) -> Self {
        // Only has to differ from other clusters' ids; two independently keyed hashers give 128 random bits.
        let random = || RandomState::new().hash_one(NAME);
        Self { format_version: VERSION, shards, cluster_id: format!("{:016x}{:016x}", random(), random()) }
    }

    /// # Errors
    /// The disk's, or a file that is not of this format.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, StorageError> {
        let path = dir.join(NAME);
        if !disk.exists(&path) {
            return Ok(None);
        }
        let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|e| StorageError::damaged(&path, e.column() as u64, e.to_string()))?;
        if file.format_version != VERSION {
            return Err(StorageError::Version { path, found: file.format_version, known: VERSION });
        }
        Ok(Some(file))
    }

    /// Written beside and renamed, so that there is a whole file or none.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        let (path, temporary) = (dir.join(NAME), dir.join(TEMPORARY));
        let json = serde_json::to_vec(self).map_err(|e| StorageError::Invalid(e.to_string()))?;
        if disk.exists(&temporary) {
            disk.remove(&temporary).map_err(|e| StorageError::io("remove", &temporary, e))?;
        }
        let mut file = disk.create(&temporary).map_err(|e| StorageError::io("create", &temporary, e))?;
        file.append(&json).map_err(|e| StorageError::io("write", &temporary, e))?;
        file.sync().map_err(|e| StorageError::io("sync", &temporary, e))?;
        disk.rename(&temporary, &path).map_err(|e| StorageError::io("rename", &temporary, e))?;
        disk.sync_dir(dir).map_err(|e| StorageError::io("sync", dir, e))
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_storage::disk::{PowerCut, SimDisk, Unsynced};

    use super::*;

    #[test]
    fn power_cut_while_it_is_written_leaves_a_whole_file_or_none() {
        let dir = Path::new("/data");
        let file = ClusterFile::new(16);
        assert_ne!(file.cluster_id, ClusterFile::new(16).cluster_id);
        let mut whole = 0;
        for changes in 0..12 {
            for unsynced in [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero] {
                let disk = SimDisk::new();
                disk.create_dir_all(dir).expect("directory");
                disk.fail_after(disk.counts().changes() + changes);
                let written = file.write(&disk, dir);
                disk.crash(PowerCut { unsynced, seed: changes });
                let read = ClusterFile::read(&disk, dir).expect("whole or none");
                assert!(read.is_none() || read.as_ref() == Some(&file));
                assert!(written.is_err() || read.is_some(), "cut after {changes}: reported as written, and gone");
                whole += usize::from(read.is_some());
                file.write(&disk, dir).expect("again");
                assert_eq!(ClusterFile::read(&disk, dir).expect("reads"), Some(file.clone()));
            }
        }
        assert!((1..36).contains(&whole), "the cuts must fall on both sides");
    }
}
