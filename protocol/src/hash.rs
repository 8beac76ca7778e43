//! Hashes that routing, deduplication and distinct counts rely on. They are written to disk and compared between nodes:
//! XXH3 is specified and stable, and the golden test below pins it.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// The tenant until keys exist.
pub const DEFAULT_TENANT: &str = "default";

/// Number of a shard, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// 128-bit hash of an encoded metric key (see [`crate::key`]). For the default metric it is the home key's hash, which routes.
pub fn key_hash(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// The shard that owns a home key: a function of the event's own content alone (I5).
pub fn shard_of(home: u128, shards: u16) -> ShardId {
    ShardId(((home >> 64) as u64 % u64::from(shards.max(1))) as u16)
}

/// Deduplication hash of an event: its id within its home key as received.
pub fn event_hash(home: u128, event_id: &[u8]) -> u128 {
    const USUAL: usize = 48;
    if event_id.len() <= USUAL {
        // A UUID fits, and there is less to clear.
        let mut buffer = [0u8; 16 + USUAL];
        buffer[..16].copy_from_slice(&home.to_le_bytes());
        buffer[16..16 + event_id.len()].copy_from_slice(event_id);
        return xxh3_128(&buffer[..16 + event_id.len()]);
    }
    let mut buffer = [0u8; 16 + crate::limits::EVENT_ID_BYTES_MAX];
    if event_id.len() <= crate::limits::EVENT_ID_BYTES_MAX {
        buffer[..16].copy_from_slice(&home.to_le_bytes());
        buffer[16..16 + event_id.len()].copy_from_slice(event_id);
        return xxh3_128(&buffer[..16 + event_id.len()]);
    }
    let mut hasher = Xxh3::new();
    hasher.update(&home.to_le_bytes());
    hasher.update(event_id);
    hasher.digest128()
}

/// Hash of a user or session id for distinct counts; never 0, which stands for "none" in columns.
pub fn identity_hash(id: &[u8]) -> u64 {
    xxh3_64(id).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_on_disk_never_change() {
        // Made with the reference implementation (`xxhsum`-compatible Python package `xxhash`).
        assert_eq!(key_hash(b"tallymesh"), 0xc7ef_be31_58be_4e5c_88e4_1854_45bb_cde9);
        assert_eq!(identity_hash(b"u_1"), 0xa48b_6d99_5478_1803);
    }

    #[test]
    fn a_long_id_hashes_like_a_short_one_would() {
        let home = key_hash(b"home");
        let id = [b'x'; 300];
        let mut whole = home.to_le_bytes().to_vec();
        whole.extend_from_slice(&id);
        assert_eq!(event_hash(home, &id), xxh3_128(&whole));
        for length in [0, 1, 36, 47, 48, 49, 199, 200, 201] {
            assert_eq!(event_hash(home, &id[..length]), xxh3_128(&[&home.to_le_bytes()[..], &id[..length]].concat()), "{length}");
        }
    }
}
