//! The manifest of a snapshot: which immutable files make up the state, and what is small enough to be in it.
//!
//! Layout, little-endian: magic `TMSS`, version `u32`, CRC-32 of all that follows it `u32`, zero `u32`, length of the log's bytes `u64`, length of the
//! JSON `u64`, both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tallymesh_protocol::event::command::ShardSettings;

use super::Counters;
use super::answers::SavedAnswers;
use super::keys::{KeyId, KeysManifest};
use crate::StorageError;
use crate::dedup::DedupManifest;
use crate::files::FileRef;
use crate::windows::WindowsManifest;

const MAGIC: [u8; 4] = *b"TMSS";
/// 2: budgets of keys, and the rows beyond them.
const VERSION_PLAIN: u32 = 2;
/// 3: answers of requests that may be asked again; written where there are any.
const VERSION: u32 = 3;
const VERSION_MIN: u32 = 1;
const HEADER_BYTES: usize = 32;
/// What the CRC covers begins here.
const CHECKED_FROM: usize = 12;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub applied_index: u64,
    pub stamp_ms: i64,
    pub settings: ShardSettings,
    pub counters: Counters,
    pub keys: KeysManifest,
    /// By other key.
    #[serde(default)]
    pub other_rows: BTreeMap<KeyId, u64>,
    pub dedup: DedupManifest,
    #[serde(default, skip_serializing_if = "SavedAnswers::is_empty")]
    pub answers: SavedAnswers,
    pub windows: WindowsManifest,
}

impl Manifest {
    /// All files that it needs.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.keys.files().chain(self.dedup.files()).chain(self.windows.files())
    }

    /// Their names.
    pub fn live(&self) -> BTreeSet<String> {
        self.files().map(|f| f.name.clone()).collect()
    }

    /// # Errors
    /// [`StorageError::Invalid`] when it cannot be written as JSON.
    pub fn encode(&self, last_log_meta: &[u8]) -> Result<Vec<u8>, StorageError> {
        let json = serde_json::to_vec(self).map_err(|e| StorageError::Invalid(format!("writing a snapshot's manifest: {e}")))?;
        let mut out = Vec::with_capacity(HEADER_BYTES + last_log_meta.len() + json.len());
        out.extend_from_slice(&MAGIC);
        let version = if self.answers.is_empty() { VERSION_PLAIN } else { VERSION };
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(last_log_meta.len() as u64).to_le_bytes());
        out.extend_from_slice(&(json.len() as u64).to_le_bytes());
        out.extend_from_slice(last_log_meta);
        out.extend_from_slice(&json);
        let crc = crc32fast::hash(&out[CHECKED_FROM..]);
        out[8..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// The manifest and the log's own bytes.
    ///
    /// # Errors
    /// Damage or another version; `path` is for the message.
    pub fn decode<'a>(path: &Path, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), StorageError> {
        let damaged = |offset: usize, detail: &str| StorageError::damaged(path, offset as u64, detail);
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged(0, "too short for a snapshot's manifest"))?;
        if header[..4] != MAGIC {
            return Err(damaged(0, "not a snapshot's manifest"));
        }
        let [version, crc] = [4, 8].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(StorageError::Version { path: path.into(), found: version, known: VERSION });
        }
        if crc32fast::hash(&bytes[CHECKED_FROM..]) != crc {
            return Err(damaged(CHECKED_FROM, "the checksum does not match"));
        }
        let length = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            usize::try_from(u64::from_le_bytes(word)).unwrap_or(usize::MAX)
        };
        let (meta, json) = rest.split_at_checked(length(16)).ok_or_else(|| damaged(16, "shorter than it says"))?;
        if json.len() != length(24) {
            return Err(damaged(24, "its parts do not make its length"));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|e| damaged(HEADER_BYTES + meta.len() + e.column(), &format!("{e}")))?;
        // The checksum does not cover the version; what it promises has to be there, and nothing else.
        if (version == VERSION) == manifest.answers.is_empty() {
            return Err(damaged(4, "its version is not that of what it holds"));
        }
        Ok((manifest, meta))
    }
}
