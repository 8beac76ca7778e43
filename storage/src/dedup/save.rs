//! Bringing the unsaved tail to disk as a run, merging small runs, and letting old ones leave memory. Runs outside the shard's lock.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::recent::Entry;
use super::run::{ColdRun, Run, build_filter, encode_filter, encode_run, filter_keys, seconds_of};
use super::tail::TailView;
use crate::StorageError;
use crate::files::{FileRef, ImmutableFiles};

/// Entries of one run at most; what a save may rewrite is bounded by it.
pub const RUN_ENTRIES_MAX: u64 = 1 << 20;
/// Neighbouring runs of like size that are merged into one.
const MERGE_FAN_IN: usize = 8;
/// Entries of a run of the smallest tier; each tier is [`MERGE_FAN_IN`] times the one below.
const TIER_ENTRIES: u64 = 1_024;
/// Of the budget the table takes so much, in quarters, together with the filters of what is on disk; the rest is for what is not saved yet.
const TABLE_QUARTERS: usize = 3;
/// Old runs leave memory when this share of the table's slots is used, in sixteenths, until the second share is. The table stays as it is meanwhile.
const EVICT_ABOVE_SIXTEENTHS: usize = 11;
const EVICT_TO_SIXTEENTHS: usize = 8;

/// One run as a snapshot's manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    pub file: FileRef,
    /// Written when the run leaves memory.
    pub filter: Option<FileRef>,
    pub entries: u64,
    pub oldest_second: u32,
    pub newest_second: u32,
}

/// What a snapshot keeps of the deduplication of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupManifest {
    pub now_second: u32,
    /// What arrived before this does not count as seen.
    pub floor_second: u32,
    /// Oldest first.
    pub runs: Vec<RunRef>,
}

impl DedupManifest {
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.runs.iter().flat_map(|r| std::iter::once(&r.file).chain(&r.filter))
    }
}

/// A run that the live state knows: in memory too, or cold.
#[derive(Clone, Debug)]
pub struct KnownRun {
    pub stored: RunRef,
    /// `None` as long as all its entries are in memory.
    pub cold: Option<Arc<ColdRun>>,
}

/// Everything a save needs, taken under the lock.
#[derive(Clone, Debug)]
pub struct DedupSave {
    pub(super) tail: TailView,
    pub(super) runs: Vec<KnownRun>,
    pub(super) now_second: u32,
    pub(super) floor_second: u32,
    pub(super) entries_in_memory: usize,
    pub(super) memory_bytes_max: usize,
}

/// A finished save; [`super::Dedup::mark_saved`] takes it over.
#[derive(Clone, Debug)]
pub struct SavedDedup {
    pub manifest: DedupManifest,
    pub(super) runs: Vec<KnownRun>,
    pub(super) through: u64,
    /// Entries that arrived before this second may leave memory.
    pub(super) evict_before: Option<u32>,
}

/// A run of the next manifest: as it is, or made of these parts.
enum Next {
    Keep(KnownRun),
    Make { parts: Vec<Part>, cold: bool },
}

enum Part {
    Stored(RunRef),
    Fresh(Vec<Entry>),
}

impl Part {
    fn entries(&self) -> u64 {
        match self {
            Self::Stored(run) => run.entries,
            Self::Fresh(entries) => entries.len() as u64,
        }
    }
}

/// Slots of the table in memory: it makes room for filters, down to a quarter of the budget.
pub fn table_slots(memory_bytes_max: usize, filter_bytes: usize) -> usize {
    let quarter = memory_bytes_max / 4;
    (TABLE_QUARTERS * quarter).saturating_sub(filter_bytes).max(quarter) / size_of::<Entry>()
}

/// How many entries may stay in a table of so many slots after an eviction.
pub fn hot_entries_max(slots: usize) -> u64 {
    (slots * EVICT_TO_SIXTEENTHS / 16) as u64
}

/// Memory of the filters of runs that are on disk only, with the first hashes of their blocks.
pub fn cold_memory_bytes(runs: &[KnownRun]) -> usize {
    runs.iter().filter_map(|run| run.cold.as_deref()).map(ColdRun::memory_bytes).sum()
}

impl DedupSave {
    /// Writes what is new and merges what has become many.
    ///
    /// # Errors
    /// The disk's, or damage of a run that is merged.
    pub fn write(self, files: &mut dyn ImmutableFiles) -> Result<SavedDedup, StorageError> {
        let floor = self.floor_second;
        let slots = table_slots(self.memory_bytes_max, cold_memory_bytes(&self.runs));
        let mut fresh: Vec<Entry> = self.tail.entries().filter(|e| e.second >= floor).collect();
        sort_uniform(&mut fresh);
        keep_newest(&mut fresh);

        let known = self.runs.len();
        let kept: Vec<KnownRun> = self.runs.into_iter().filter(|r| r.stored.newest_second >= floor).collect();
        let some_expired = kept.len() < known;
        let (cold, hot): (Vec<_>, Vec<_>) = kept.into_iter().partition(|r| r.cold.is_some());
        let mut hot: Vec<Part> = hot.into_iter().map(|r| Part::Stored(r.stored)).collect();
        if !fresh.is_empty() {
            hot.push(Part::Fresh(fresh));
        }
        let keep_hot = hot_entries_max(slots);
        let is_full = self.entries_in_memory > slots * EVICT_ABOVE_SIXTEENTHS / 16;
        let leaving = if is_full { leaving(&hot, keep_hot) } else { 0 };
        let staying = hot.split_off(leaving);

        let mut next = plan_cold(cold, hot);
        next.extend(plan_hot(staying, RUN_ENTRIES_MAX.min(keep_hot / 4)));
        let runs = next.into_iter().map(|n| n.make(floor, files)).collect::<Result<Vec<_>, _>>()?;
        let runs: Vec<KnownRun> = runs.into_iter().flatten().collect();
        // A second may lie on both sides of the boundary; its entries stay in memory.
        let first_hot = runs.iter().filter(|r| r.cold.is_none()).map(|r| r.stored.oldest_second).min();
        let evict_before = match leaving {
            0 => some_expired.then_some(floor),
            _ => Some(first_hot.unwrap_or(self.now_second).min(self.now_second)),
        };
        let manifest =
            DedupManifest { now_second: self.now_second, floor_second: floor, runs: runs.iter().map(|r| r.stored.clone()).collect() };
        Ok(SavedDedup { manifest, runs, through: self.tail.through, evict_before })
    }
}

/// How many of the oldest parts have to leave so that at most `keep` entries stay.
fn leaving(hot: &[Part], keep: u64) -> usize {
    let mut entries: u64 = hot.iter().map(Part::entries).sum();
    let mut leaving = 0;
    while entries > keep {
        entries -= hot[leaving].entries();
        leaving += 1;
    }
    leaving
}

/// Joins what leaves memory into runs, and those with older ones of like size, so that few have to be searched on every insert and an entry is rewritten
/// once a tier.
fn plan_cold(mut cold: Vec<KnownRun>, leaving: Vec<Part>) -> Vec<Next> {
    let mut groups: Vec<Vec<Part>> = Vec::new();
    let entries_of = |group: &[Part]| group.iter().map(Part::entries).sum::<u64>();
    for part in leaving {
        match groups.last_mut() {
            Some(group) if entries_of(group) + part.entries() <= RUN_ENTRIES_MAX => group.push(part),
            _ => groups.push(vec![part]),
        }
    }
    if let [group] = groups.as_mut_slice() {
        let sizes: Vec<u64> = cold.iter().map(|run| run.stored.entries).chain([entries_of(group)]).collect();
        let older = cold.split_off(merge_from(&sizes, RUN_ENTRIES_MAX).min(cold.len()));
        group.splice(..0, older.into_iter().map(|run| Part::Stored(run.stored)));
    }
    let made = groups.into_iter().map(|parts| Next::Make { parts, cold: true });
    cold.into_iter().map(Next::Keep).chain(made).collect()
}

/// Merges the newest runs of like size, at most `entries_max` together, so that an entry is rewritten once a tier.
fn plan_hot(mut parts: Vec<Part>, entries_max: u64) -> Vec<Next> {
    let sizes: Vec<u64> = parts.iter().map(Part::entries).collect();
    let from = merge_from(&sizes, entries_max);
    let last = parts.split_off(from);
    let keep = |p: Part| match p {
        Part::Stored(stored) => Next::Keep(KnownRun { stored, cold: None }),
        fresh => Next::Make { parts: vec![fresh], cold: false },
    };
    let mut next: Vec<Next> = parts.into_iter().map(keep).collect();
    if last.len() == 1 {
        next.extend(last.into_iter().map(keep));
    } else if !last.is_empty() {
        next.push(Next::Make { parts: last, cold: false });
    }
    next
}

/// Index from which all newer runs are merged into one.
pub(crate) fn merge_from(sizes: &[u64], entries_max: u64) -> usize {
    let tier = |n: u64| (n / TIER_ENTRIES).checked_ilog(MERGE_FAN_IN as u64).map_or(0, |t| t + 1);
    let mut from = sizes.len().saturating_sub(1);
    loop {
        let merged: u64 = sizes[from..].iter().sum();
        let merged_tier = tier(merged);
        let mut start = from;
        while start > 0 && tier(sizes[start - 1]) <= merged_tier {
            start -= 1;
        }
        let together: u64 = sizes[start..].iter().sum();
        if from - start + 1 < MERGE_FAN_IN || together > entries_max {
            return from;
        }
        from = start;
    }
}

impl Next {
    /// Writes the run, if it is a new one and anything of it is left.
    fn make(self, floor: u32, files: &mut dyn ImmutableFiles) -> Result<Option<KnownRun>, StorageError> {
        let (parts, is_cold) = match self {
            Self::Keep(run) => return Ok(Some(run)),
            Self::Make { parts, cold } => (parts, cold),
        };
        let mut entries = Vec::with_capacity(parts.iter().map(|p| p.entries() as usize).sum());
        for part in &parts {
            match part {
                Part::Fresh(fresh) => entries.extend_from_slice(fresh),
                Part::Stored(run) => entries.extend(Run::open(&run.file, files.read(&run.file)?)?.iter().filter(|e| e.second >= floor)),
            }
        }
        if parts.len() > 1 {
            // A stable sort finds the runs and merges them.
            entries.sort_by_key(Entry::key);
            keep_newest(&mut entries);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let (oldest_second, newest_second) = seconds_of(&entries);
        let file = match parts.as_slice() {
            [Part::Stored(run)] => run.file.clone(),
            _ => files.write("dedup", &encode_run(&entries))?,
        };
        let mut stored = RunRef { file, filter: None, entries: entries.len() as u64, oldest_second, newest_second };
        let mut cold = None;
        if is_cold {
            // The entries are gone before the filter is made, which takes more memory than they do.
            let keys = filter_keys(entries.into_iter());
            let filter = build_filter(&keys);
            drop(keys);
            if let Some(filter) = &filter {
                stored.filter = Some(files.write("filter", &encode_filter(filter))?);
            }
            let run = Run::open(&stored.file, files.read(&stored.file)?)?;
            stored.entries = run.len() as u64;
            cold = Some(Arc::new(ColdRun::new(&stored.file, &run, files.open(&stored.file)?, filter)));
        }
        Ok(Some(KnownRun { stored, cold }))
    }
}

/// Of entries in order, keeps the newest of each hash.
fn keep_newest(entries: &mut Vec<Entry>) {
    entries.dedup_by(|later, kept| {
        let same = { later.hash } == { kept.hash };
        if same {
            kept.second = later.second;
        }
        same
    });
}

/// Sorts entries whose hashes are uniform: scattered into small buckets by their leading bits, which are then sorted. Any input is sorted
/// right, a skewed one only slower.
fn sort_uniform(entries: &mut [Entry]) {
    let bits = entries.len().max(2).ilog2().saturating_sub(3).clamp(1, 20);
    let bucket = |e: &Entry| (e.hash >> (128 - bits)) as usize;
    let mut starts = vec![0usize; (1 << bits) + 1];
    entries.iter().for_each(|e| starts[bucket(e) + 1] += 1);
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut ends = starts.clone();
    let mut scattered = vec![Entry::default(); entries.len()];
    for entry in entries.iter() {
        let end = &mut ends[bucket(entry)];
        scattered[*end] = *entry;
        *end += 1;
    }
    entries.copy_from_slice(&scattered);
    for range in starts.windows(2) {
        entries[range[0]..range[1]].sort_unstable_by_key(Entry::key);
    }
}

/// Reads a run and its filter back; a missing filter is made anew.
pub(super) fn load_cold(stored: &RunRef, files: &dyn ImmutableFiles) -> Result<Arc<ColdRun>, StorageError> {
    let bytes: Bytes = files.read(&stored.file)?;
    let run = Run::open(&stored.file, bytes)?;
    let filter = match &stored.filter {
        Some(file) => Some(super::run::decode_filter(file, &files.read(file)?)?),
        None => build_filter(&filter_keys(run.iter())),
    };
    Ok(Arc::new(ColdRun::new(&stored.file, &run, files.open(&stored.file)?, filter)))
}
