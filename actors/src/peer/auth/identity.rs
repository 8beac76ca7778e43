//! Who a node is. The id lives in the data directory and is the node's identity: its name and its addresses may change at a restart. A new directory makes a
//! new node.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::{Disk, replace_file};
use uuid::Uuid;

const NAME: &str = "node.json";
const VERSION: u32 = 1;

/// Identity of a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Uuid);

impl NodeId {
    pub fn random(random: &mut impl Rng) -> Self {
        Self(uuid::Builder::from_random_bytes(random.random()).into_uuid())
    }

    /// The node that has this number as its member of replica groups.
    pub fn from_member(member: u64, rest: u64) -> Self {
        Self(Uuid::from_u64_pair(member, rest))
    }

    pub const fn from_u128(id: u128) -> Self {
        Self(Uuid::from_u128(id))
    }

    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// Number of this node in replica groups: the first half of its id. Two nodes that share it (one in 2^60) must not be members together.
    pub fn member(self) -> u64 {
        self.0.as_u64_pair().0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One run of a node's process. Later runs have higher numbers as long as the wall clock does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u64);

impl BootId {
    /// `wall_ms` orders the runs, the rest tells apart two that began in one millisecond.
    pub fn new(wall_ms: i64, random: &mut impl Rng) -> Self {
        Self(((wall_ms.max(0) as u64) << 16) | u64::from(random.random::<u16>()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct NodeFile {
    format_version: u32,
    node_id: NodeId,
}

/// The id of a data directory; a directory that has none gets one. `legacy_member` is the number that the directory's replica groups know this node by, if they
/// were made before there were ids.
///
/// # Errors
/// The disk's, or a file that is not of this format.
pub fn load_or_make(disk: &dyn Disk, dir: &Path, legacy_member: Option<u64>, random: &mut impl Rng) -> Result<NodeId, StorageError> {
    let path = dir.join(NAME);
    if disk.exists(&path) {
        let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
        let file: NodeFile = serde_json::from_slice(&bytes).map_err(|e| StorageError::damaged(&path, e.column() as u64, e.to_string()))?;
        if file.format_version != VERSION {
            return Err(StorageError::Version { path, found: file.format_version, known: VERSION });
        }
        return Ok(file.node_id);
    }
    let node_id = match legacy_member {
        Some(member) => NodeId::from_member(member, random.random()),
        None => NodeId::random(random),
    };
    let file = NodeFile { format_version: VERSION, node_id };
    let json = serde_json::to_vec(&file).map_err(|e| StorageError::Invalid(e.to_string()))?;
    replace_file(disk, &path, &json).map_err(|e| StorageError::io("write", &path, e))?;
    Ok(node_id)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tallymesh_storage::disk::SimDisk;

    use super::*;

    #[test]
    fn directory_keeps_its_id_and_another_has_another() {
        let (disk, mut random) = (SimDisk::new(), StdRng::seed_from_u64(1));
        let mut make = |dir: &str, legacy| {
            disk.create_dir_all(Path::new(dir)).expect("directory");
            load_or_make(&disk, Path::new(dir), legacy, &mut random).expect("id")
        };
        let first = make("/a", None);
        assert_eq!(make("/a", None), first);
        assert_ne!(make("/b", None).member(), first.member());
        assert_eq!(make("/old", Some(1)).member(), 1);
        assert_eq!(first.to_string().parse::<NodeId>().expect("own text"), first);
    }

    #[test]
    fn later_run_of_a_node_has_a_higher_number() {
        let mut random = StdRng::seed_from_u64(1);
        let first = BootId::new(1_700_000_000_000, &mut random);
        assert!(BootId::new(1_700_000_000_001, &mut random) > first);
        assert_ne!(BootId::new(1_700_000_000_000, &mut random), first);
    }
}
