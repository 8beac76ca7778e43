//! Which events were counted already: exact over a horizon of arrival time, by 128-bit event hash (I5).
//!
//! An event counts as seen when the same hash arrived less than the horizon before, in seconds, both ends rounded so that nothing is
//! forgotten early: remembered for the horizon at least, forgotten within a second after it. Duplicates do not renew an arrival.
//! The answers depend only on the inserts and stamps, not on what happens to be in memory, so replicas agree.
//!
//! Recent entries are in one table in memory, within a budget; a save writes what is new as an immutable sorted run, and when the budget
//! is nearly used the oldest saved entries leave memory, a part of them at a time: from then on their runs are searched on disk, behind a filter.

mod recent;
mod run;
mod save;
mod tail;
#[cfg(test)]
mod tests;

use recent::{Entry, Place, Recent};
use run::{ColdRun, Run};
pub(crate) use save::merge_from;
pub use save::{DedupManifest, DedupSave, RUN_ENTRIES_MAX, RunRef, SavedDedup};
use save::{KnownRun, cold_memory_bytes, hot_entries_max, load_cold, table_slots};
use tail::Tail;

use crate::StorageError;
use crate::files::ImmutableFiles;

/// Hashes that one [`Dedup::insert`] takes at most: their memory accesses overlap.
pub const INSERT_CHUNK: usize = 16;

#[derive(Clone, Debug)]
pub struct Dedup {
    recent: Recent,
    tail: Tail,
    /// Oldest first; cold ones before those in memory.
    runs: Vec<KnownRun>,
    now_second: u32,
    floor_second: u32,
    memory_bytes_max: usize,
}

/// What [`Dedup::look_up_cold`] found, a bit a hash.
#[derive(Clone, Debug, Default)]
pub struct SeenCold {
    /// Empty where there is no run to look into.
    chunks: Vec<u32>,
}

impl SeenCold {
    /// Of the hashes of one [`INSERT_CHUNK`].
    #[inline]
    pub fn chunk(&self, index: usize) -> u32 {
        self.chunks.get(index).copied().unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupStats {
    /// Entries in memory and on disk; one that is in both is counted once, one of a shared boundary second perhaps twice.
    pub entries: u64,
    /// Table, unsaved tail, filters and the first hashes of blocks.
    pub memory_bytes: u64,
    /// Part of `memory_bytes`.
    pub filter_bytes: u64,
    pub disk_bytes: u64,
    pub runs: u64,
    /// Runs that are not in memory.
    pub cold_runs: u64,
    /// Entries that only the log holds, were the process to end now.
    pub unsaved_entries: u64,
}

impl Dedup {
    /// `memory_bytes_max` bounds what is saved and kept in memory; what is not saved yet comes on top (the log bounds it).
    pub fn new(memory_bytes_max: usize) -> Self {
        let recent = Recent::with_capacity(0, table_slots(memory_bytes_max, 0));
        Self { recent, tail: Tail::default(), runs: Vec::new(), now_second: 1, floor_second: 0, memory_bytes_max }
    }

    /// Sets the time of the inserts that follow. Neither time nor what has been forgotten ever goes back, also when the horizon grows.
    pub fn advance(&mut self, stamp_ms: i64, horizon_ms: u64) {
        let second = u32::try_from((stamp_ms.max(0) as u64) / 1_000).unwrap_or(u32::MAX).max(1);
        self.now_second = self.now_second.max(second);
        let horizon = u32::try_from(horizon_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
        self.floor_second = self.floor_second.max(self.now_second.saturating_sub(horizon));
    }

    /// Which of the hashes were counted so long ago that only a run on disk knows. Looked up before anything is changed, so that a disk that fails
    /// changes nothing.
    ///
    /// # Errors
    /// The disk's.
    pub fn look_up_cold(&self, hashes: impl ExactSizeIterator<Item = u128>) -> Result<SeenCold, StorageError> {
        let is_live = |run: &&KnownRun| run.stored.newest_second >= self.floor_second;
        // Cold runs come before those in memory.
        let cold: Vec<&ColdRun> =
            self.runs.iter().take_while(|r| r.cold.is_some()).filter(is_live).filter_map(|r| r.cold.as_deref()).collect();
        if cold.is_empty() {
            return Ok(SeenCold::default());
        }
        let mut seen = SeenCold { chunks: vec![0; hashes.len().div_ceil(INSERT_CHUNK)] };
        for (i, hash) in hashes.enumerate() {
            for run in &cold {
                if run.find(hash)?.is_some_and(|second| second >= self.floor_second) {
                    seen.chunks[i / INSERT_CHUNK] |= 1 << (i % INSERT_CHUNK);
                    break;
                }
            }
        }
        Ok(seen)
    }

    /// Remembers up to [`INSERT_CHUNK`] hashes, in order; bit `i` of the answer is set when `hashes[i]` had not been seen. `cold` has the bits of those
    /// that [`Self::look_up_cold`] found.
    #[inline]
    pub fn insert(&mut self, hashes: &[u128], cold: u32) -> u32 {
        debug_assert!(hashes.len() <= INSERT_CHUNK);
        // Independent reads, so that the misses of the whole chunk overlap.
        let touched = hashes.iter().fold(0, |seen, &h| seen ^ self.recent.touch(h));
        std::hint::black_box(touched);
        let mut new = 0;
        for (i, &hash) in hashes.iter().enumerate() {
            let place = self.recent.find(hash);
            let seen = match place {
                Place::Found { second, .. } => second >= self.floor_second,
                Place::Vacant { .. } => false,
            };
            if seen || cold & (1 << i) != 0 {
                continue;
            }
            self.recent.put(place, Entry { hash, second: self.now_second }, self.floor_second);
            self.tail.push(hash, self.now_second);
            new |= 1 << i;
        }
        new
    }

    /// What a save writes, cheap to take.
    pub fn save_plan(&self) -> DedupSave {
        DedupSave {
            tail: self.tail.view(),
            runs: self.runs.clone(),
            now_second: self.now_second,
            floor_second: self.floor_second,
            entries_in_memory: self.recent.len(),
            memory_bytes_max: self.memory_bytes_max,
        }
    }

    /// Takes over a save that is durable. Saves must be marked in the order of their plans.
    pub fn mark_saved(&mut self, saved: &SavedDedup) {
        self.tail.mark_saved(saved.through);
        self.runs.clone_from(&saved.runs);
        self.recent.set_slots_max(table_slots(self.memory_bytes_max, cold_memory_bytes(&self.runs)));
        if let Some(before) = saved.evict_before {
            let before = self.tail.oldest_second().map_or(before, |s| s.min(before));
            self.recent.evict(before.max(self.floor_second));
        }
    }

    /// Reads back what a snapshot names: the newest runs into memory as far as the budget reaches, the others to be searched on disk.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub fn load(manifest: &DedupManifest, memory_bytes_max: usize, files: &dyn ImmutableFiles) -> Result<Self, StorageError> {
        let mut room = hot_entries_max(table_slots(memory_bytes_max, 0));
        let mut cold_count = manifest.runs.len();
        while cold_count > 0 && manifest.runs[cold_count - 1].entries <= room {
            cold_count -= 1;
            room -= manifest.runs[cold_count].entries;
        }
        let (cold, hot) = manifest.runs.split_at(cold_count);
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for stored in cold {
            runs.push(KnownRun { stored: stored.clone(), cold: Some(load_cold(stored, files)?) });
        }
        let slots = table_slots(memory_bytes_max, cold_memory_bytes(&runs));
        let mut recent = Recent::with_capacity(hot.iter().map(|r| r.entries as usize).sum(), slots);
        for stored in hot {
            let run = Run::open(&stored.file, files.read(&stored.file)?)?;
            for entry in run.iter().filter(|e| e.second >= manifest.floor_second.max(1)) {
                recent.put(recent.find(entry.hash), entry, 0);
            }
            runs.push(KnownRun { stored: RunRef { filter: None, ..stored.clone() }, cold: None });
        }
        Ok(Self {
            recent,
            tail: Tail::default(),
            runs,
            now_second: manifest.now_second,
            floor_second: manifest.floor_second,
            memory_bytes_max,
        })
    }

    pub fn stats(&self) -> DedupStats {
        let cold = self.runs.iter().filter(|r| r.cold.is_some());
        let of_cold = |bytes: fn(&ColdRun) -> usize| cold.clone().filter_map(|r| r.cold.as_deref()).map(bytes).sum::<usize>() as u64;
        DedupStats {
            entries: self.recent.len() as u64 + cold.clone().map(|r| r.stored.entries).sum::<u64>(),
            memory_bytes: (self.recent.memory_bytes() + self.tail.memory_bytes()) as u64 + of_cold(ColdRun::memory_bytes),
            filter_bytes: of_cold(ColdRun::filter_bytes),
            disk_bytes: self.runs.iter().map(|r| r.stored.file.bytes + r.stored.filter.as_ref().map_or(0, |f| f.bytes)).sum(),
            runs: self.runs.len() as u64,
            cold_runs: cold.count() as u64,
            unsaved_entries: self.tail.unsaved(),
        }
    }

    /// What decides later answers, but for the entries themselves.
    pub fn clock(&self) -> (u32, u32) {
        (self.now_second, self.floor_second)
    }
}
