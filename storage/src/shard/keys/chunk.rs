//! Keys on disk: immutable chunks of consecutive numbers.
//!
//! Layout of a `keys` file, little-endian: magic `TMKY`, version `u32`, first number `u32`, keys `u32`, bytes of all keys `u64`, zeroes to 32 bytes;
//! then the hashes (`u128`), the end of each key in the chunk's bytes (`u64`), and the bytes.

use serde::{Deserialize, Serialize};

use super::KeyId;
use crate::StorageError;
use crate::dedup::merge_from;
use crate::files::{FileRef, ImmutableFiles};

const MAGIC: [u8; 4] = *b"TMKY";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
/// Keys that a save rewrites at most to join small chunks.
const MERGED_KEYS_MAX: u64 = 65_536;

/// Keys `from..to` and where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChunkRef {
    pub file: FileRef,
    pub from: KeyId,
    pub to: KeyId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysManifest {
    pub chunks: Vec<KeyChunkRef>,
}

impl KeysManifest {
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.chunks.iter().map(|c| &c.file)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub from: KeyId,
    pub hashes: Vec<u128>,
    pub ends: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// Everything a save needs, taken under the lock.
#[derive(Clone, Debug)]
pub struct KeysSave {
    pub(super) keep: Vec<KeyChunkRef>,
    pub(super) chunk: Option<Chunk>,
}

impl KeysSave {
    /// # Errors
    /// The disk's.
    pub fn write(self, files: &mut dyn ImmutableFiles) -> Result<KeysManifest, StorageError> {
        let mut chunks = self.keep;
        if let Some(chunk) = self.chunk {
            let file = files.write("keys", &chunk.encode())?;
            chunks.push(KeyChunkRef { file, from: chunk.from, to: chunk.from + chunk.hashes.len() as KeyId });
        }
        Ok(KeysManifest { chunks })
    }
}

/// How many of the saved chunks stay as they are when `new` keys are added.
pub(super) fn merged_from(chunks: &[KeyChunkRef], new: usize) -> usize {
    let sizes: Vec<u64> = chunks.iter().map(|c| u64::from(c.to - c.from)).chain([new as u64]).collect();
    merge_from(&sizes, MERGED_KEYS_MAX)
}

impl Chunk {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.hashes.len() * 24 + self.bytes.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&(self.hashes.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        out.resize(HEADER_BYTES, 0);
        self.hashes.iter().for_each(|h| out.extend_from_slice(&h.to_le_bytes()));
        self.ends.iter().for_each(|e| out.extend_from_slice(&e.to_le_bytes()));
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// Hands every key of a chunk to `each`: number, hash, bytes.
pub(super) fn decode_chunk(chunk: &KeyChunkRef, bytes: &[u8], mut each: impl FnMut(KeyId, u128, &[u8])) -> Result<(), StorageError> {
    let damaged = |offset: usize, detail: &str| StorageError::damaged(&chunk.file.name, offset as u64, detail);
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged(0, "too short for keys"))?;
    if header[..4] != MAGIC {
        return Err(damaged(0, "not a file of keys"));
    }
    let [version, from, count, low, high] =
        [4, 8, 12, 16, 20].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    if version != VERSION {
        return Err(StorageError::Version { path: (&chunk.file.name).into(), found: version, known: VERSION });
    }
    let key_bytes = u64::from(low) | u64::from(high) << 32;
    let count = count as usize;
    if from != chunk.from || count as u64 != u64::from(chunk.to - chunk.from) {
        return Err(damaged(8, "holds other keys than the snapshot says"));
    }
    if (rest.len() as u64).checked_sub(count as u64 * 24) != Some(key_bytes) {
        return Err(damaged(16, "its parts do not make its length"));
    }
    let (hashes, rest) = rest.split_at(count * 16);
    let (ends, keys) = rest.split_at(count * 8);
    let mut start = 0usize;
    for (index, (hash, end)) in hashes.as_chunks::<16>().0.iter().zip(ends.as_chunks::<8>().0).enumerate() {
        let end = usize::try_from(u64::from_le_bytes(*end)).unwrap_or(usize::MAX);
        let key = keys.get(start..end).ok_or_else(|| damaged(HEADER_BYTES + count * 16 + index * 8, "ends are not in order"))?;
        each(from + index as KeyId, u128::from_le_bytes(*hash), key);
        start = end;
    }
    if start == keys.len() { Ok(()) } else { Err(damaged(HEADER_BYTES + count * 24 + start, "bytes after the last key")) }
}
