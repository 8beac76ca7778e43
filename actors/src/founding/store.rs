//! `founding.json`: what a node accepted before there was a cluster, and to which one it belongs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::{Disk, replace_file};

use super::Durable;

const NAME: &str = "founding.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format_version: u32,
    #[serde(flatten)]
    durable: Durable,
}

/// # Errors
/// The disk's, or a file that is not of this format.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Durable, StorageError> {
    let path = dir.join(NAME);
    if !disk.exists(&path) {
        return Ok(Durable::default());
    }
    let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|e| StorageError::damaged(&path, e.column() as u64, e.to_string()))?;
    if file.format_version != VERSION {
        return Err(StorageError::Version { path, found: file.format_version, known: VERSION });
    }
    Ok(file.durable)
}

/// Durable when it returns.
///
/// # Errors
/// The disk's.
pub fn write(disk: &dyn Disk, dir: &Path, durable: &Durable) -> Result<(), StorageError> {
    let path = dir.join(NAME);
    let file = File { format_version: VERSION, durable: durable.clone() };
    let json = serde_json::to_vec(&file).map_err(|e| StorageError::Invalid(e.to_string()))?;
    replace_file(disk, &path, &json).map_err(|e| StorageError::io("write", &path, e))
}

#[cfg(test)]
mod tests {
    use tallymesh_storage::disk::{PowerCut, SimDisk, Unsynced};

    use super::super::{Accepted, Ballot, Founder, Membership, Seed};
    use super::*;
    use crate::peer::NodeId;

    #[test]
    fn power_cut_leaves_what_was_before_or_what_was_written() {
        let dir = Path::new("/data");
        let node = NodeId::from_u128(7);
        let founder = Founder { node, name: "n1".to_owned(), address: "127.0.0.1:7071".to_owned(), reads: 0 };
        let seed = Seed { cluster_id: "x".to_owned(), founders: vec![founder] };
        let accepted = Accepted { ballot: Ballot { round: 3, proposer: node }, seed };
        let before = Durable { accepted: Some(accepted.clone()), membership: None };
        let after = Durable { accepted: Some(accepted.clone()), membership: Some(Membership::Founded(accepted)) };
        let (mut old, mut new) = (0, 0);
        for changes in 0..10 {
            let disk = SimDisk::new();
            disk.create_dir_all(dir).expect("directory");
            assert_eq!(read(&disk, dir).expect("nothing"), Durable::default());
            write(&disk, dir, &before).expect("written");
            disk.fail_after(changes);
            let written = write(&disk, dir, &after);
            disk.crash(PowerCut { unsynced: Unsynced::Tear, seed: changes });
            let found = read(&disk, dir).expect("whole");
            assert!(found == after || (found == before && written.is_err()));
            old += usize::from(found == before);
            new += usize::from(found == after);
        }
        assert!(old > 0 && new > 0);
    }
}
