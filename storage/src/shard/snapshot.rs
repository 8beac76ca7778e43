//! Saving a shard and opening it again. A snapshot writes what is new as immutable files and then one manifest that names all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::answers::{Answers, SavedAnswers};
use super::keys::{KeyId, KeyTable, KeysManifest, KeysSave};
use super::manifest::Manifest;
use super::{Counters, ShardOptions, ShardState, window_settings};
use crate::StorageError;
use crate::dedup::{Dedup, DedupSave, SavedDedup};
use crate::files::{Commit, FileRef, ShardFiles};
use crate::planted::{self, Bug};
use crate::windows::{Replaced, SavedWindows, WindowStore, WindowsSave};
use tallymesh_protocol::event::command::ShardSettings;

/// A shard at one moment, ready to be written.
pub struct ShardSave {
    applied_index: u64,
    stamp_ms: i64,
    settings: ShardSettings,
    counters: Counters,
    keys: KeysSave,
    other_rows: BTreeMap<KeyId, u64>,
    dedup: DedupSave,
    answers: SavedAnswers,
    windows: WindowsSave,
}

/// A written snapshot; [`ShardState::mark_saved`] takes it over.
pub struct SavedShard {
    applied_index: u64,
    commit: Commit,
    manifest: Bytes,
    written_bytes: u64,
    keys: KeysManifest,
    dedup: SavedDedup,
    windows: SavedWindows,
}

impl SavedShard {
    /// Log index that the durable snapshot covers: its own, or that of the newer one that superseded it.
    pub fn durable_index(&self) -> u64 {
        match self.commit {
            Commit::Durable => self.applied_index,
            Commit::Superseded { by } => by,
        }
    }

    /// Log index of this snapshot.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Whether a newer snapshot was durable before this one was done; then nothing of this one was kept.
    pub fn is_superseded(&self) -> bool {
        self.commit != Commit::Durable
    }

    /// The manifest as it is on disk; [`ShardState::install`] reads it.
    pub fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    /// Bytes of immutable files and manifest that this snapshot wrote.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

impl ShardSave {
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Writes and syncs it all. `last_log_meta` (last log id, membership) comes back as it is from [`ShardState::open`].
    ///
    /// Of two saves that race, the one with the higher applied index is kept.
    ///
    /// # Errors
    /// The disk's; what was durable before stays so. Damage of a file that is merged into a larger one.
    pub fn write(self, files: &ShardFiles, last_log_meta: &[u8]) -> Result<SavedShard, StorageError> {
        let mut writer = files.writer();
        let keys = self.keys.write(&mut writer)?;
        let dedup = self.dedup.write(&mut writer)?;
        let windows = self.windows.write(&mut writer)?;
        let mut manifest = Manifest {
            applied_index: self.applied_index,
            stamp_ms: self.stamp_ms,
            settings: self.settings,
            counters: self.counters,
            keys,
            other_rows: self.other_rows,
            dedup: dedup.manifest.clone(),
            answers: self.answers,
            windows: windows.manifest.clone(),
        };
        if planted::has(Bug::DedupMissingFromSnapshot) {
            manifest.dedup.runs.clear();
        }
        if planted::has(Bug::AnswersMissingFromSnapshot) {
            manifest.answers = SavedAnswers::default();
        }
        let bytes = manifest.encode(last_log_meta)?;
        let written_bytes = writer.written_bytes() + bytes.len() as u64;
        let commit = writer.commit(self.applied_index, &bytes, manifest.live())?;
        Ok(SavedShard {
            applied_index: self.applied_index,
            commit,
            manifest: bytes.into(),
            written_bytes,
            keys: manifest.keys,
            dedup,
            windows,
        })
    }
}

impl ShardState {
    /// Takes what a snapshot needs; no I/O, and what is large is shared, not copied.
    pub fn save_plan(&self) -> ShardSave {
        ShardSave {
            applied_index: self.applied_index,
            stamp_ms: self.stamp_ms,
            settings: self.settings.clone(),
            counters: self.counters,
            keys: self.keys.save_plan(),
            other_rows: self.other_rows.clone(),
            dedup: self.dedup.save_plan(),
            answers: self.answers.save(),
            windows: self.windows.save_plan(),
        }
    }

    /// Takes over a snapshot, so that the next one writes only what is new since. Superseded ones, and ones older than the last that was
    /// marked, change nothing. What is handed back is best dropped without a lock.
    pub fn mark_saved(&mut self, saved: &SavedShard) -> Replaced {
        if saved.is_superseded() || self.saved_index.is_some_and(|marked| marked > saved.applied_index) {
            return Replaced::default();
        }
        self.keys.mark_saved(&saved.keys);
        self.dedup.mark_saved(&saved.dedup);
        self.saved_index = Some(saved.applied_index);
        self.windows.mark_saved(&saved.windows)
    }

    /// Opens the snapshot of a directory with the log's own bytes, and removes files that it does not name; `None` when there is no snapshot.
    ///
    /// # Errors
    /// The disk's, damage, or a version that this build does not know.
    pub fn open(files: &ShardFiles, options: ShardOptions) -> Result<Option<(Self, Vec<u8>)>, StorageError> {
        let Some(bytes) = files.read_manifest()? else {
            files.adopt(None, Default::default())?;
            return Ok(None);
        };
        let (manifest, meta) = Manifest::decode(&files.manifest_path(), &bytes)?;
        let state = Self::load(&manifest, files, options)?;
        files.adopt(Some(manifest.applied_index), manifest.live())?;
        Ok(Some((state, meta.to_vec())))
    }

    /// The files that another replica's snapshot needs.
    ///
    /// # Errors
    /// Damage, or a version that this build does not know.
    pub fn files_of(files: &ShardFiles, manifest: &[u8]) -> Result<Vec<FileRef>, StorageError> {
        let (manifest, _) = Manifest::decode(&files.manifest_path(), manifest)?;
        let needed: BTreeSet<FileRef> = manifest.files().cloned().collect();
        Ok(needed.into_iter().collect())
    }

    /// Makes a manifest whose files are all here the durable one, and opens it.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StorageError::Invalid`] when a newer snapshot is durable already.
    pub fn install(files: &ShardFiles, manifest: &[u8], options: ShardOptions) -> Result<(Self, Vec<u8>), StorageError> {
        let (decoded, meta) = Manifest::decode(&files.manifest_path(), manifest)?;
        let state = Self::load(&decoded, files, options)?;
        match files.writer().commit(decoded.applied_index, manifest, decoded.live())? {
            Commit::Durable => Ok((state, meta.to_vec())),
            Commit::Superseded { by } => {
                Err(StorageError::Invalid(format!("snapshot {} comes after {by} was installed", decoded.applied_index)))
            }
        }
    }

    fn load(manifest: &Manifest, files: &ShardFiles, options: ShardOptions) -> Result<Self, StorageError> {
        let settings = manifest.settings.clone();
        Ok(Self {
            applied_index: manifest.applied_index,
            stamp_ms: manifest.stamp_ms,
            counters: manifest.counters,
            keys: KeyTable::load(&manifest.keys, files)?,
            other_rows: manifest.other_rows.clone(),
            dedup: Dedup::load(&manifest.dedup, options.dedup_memory_bytes_max, files)?,
            answers: Answers::load(&manifest.answers),
            windows: WindowStore::load(&manifest.windows, window_settings(&settings), files)?,
            settings,
            saved_index: Some(manifest.applied_index),
            late: Arc::default(),
        })
    }
}
