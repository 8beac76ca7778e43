//! The hot windows of one shard: rows are appended, sealed into immutable blocks of minute windows, and folded into blocks of hours and days.
//!
//! ```text
//! Row -> tail of its hour -- seal --> minute block -- fold --> hour block -- fold --> day block
//! ```
//!
//! An event enters each grain exactly once. Late rows open a tail again and become small blocks beside the older ones; folding adds only what was
//! not folded before, and compaction joins blocks of one partition, by size, so that the cost per event stays logarithmic. A read at some grain
//! takes the blocks of that grain, the finer ones not folded yet, and the open rows.
//!
//! The state is a function of the calls alone (no clock, no order of hashing), so that replicas agree. A call of [`WindowStore::tick`] does a bounded
//! amount of work and leaves the rest to the next.

mod block;
mod builder;
mod columns;
mod make;
mod merged;
mod partition;
mod save;
mod scan;
mod totals;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use tallymesh_protocol::time::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};

pub use save::{BlockEntry, PartitionEntry, Replaced, SavedWindows, WindowsManifest, WindowsSave};
pub use scan::{CellMap, KeyGroups, ScanStopped, WindowView};
pub use totals::{KeyClass, TOTALS_BYTES_MAX};

use block::Block;
use partition::{Partition, Stored};

/// Rows of one hour that make the next tick seal its closed minutes. A dense stream has so many of several minutes; were it fewer, more minutes would be cut.
pub const SEAL_ROWS: usize = 16_384;
/// Rows of one hour at most; more are sealed at once.
pub const TAIL_ROWS_MAX: usize = 65_536;
/// Open rows of a shard that make the next tick seal the hours longest not written.
pub const OPEN_ROWS_MAX: usize = 65_536;
/// Open rows of a shard at most, also within one entry.
pub const OPEN_ROWS_HARD_MAX: usize = 4 * OPEN_ROWS_MAX;
/// Open hours of a shard before the ones longest not written are sealed.
pub const OPEN_HOURS_MAX: usize = 1_024;
/// Bytes of blocks that one tick merges at most.
pub const TICK_MERGE_BYTES_MAX: usize = 16 << 20;

/// Event times beyond this (285 000 years) are read as this, so that arithmetic on them cannot overflow, in milliseconds.
const TIME_MS_MAX: i64 = 1 << 53;

/// One event in one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Id of the metric key in the shard's key table.
    pub key: u32,
    /// Event time, UTC milliseconds.
    pub time_ms: i64,
    /// Low half of the event's hash: breaks ties of `last`.
    pub id: u64,
    /// Identity hashes, 0 for none.
    pub user: u64,
    pub session: u64,
    /// Finite, or NaN for none.
    pub value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSettings {
    /// A window is closed this long after the later of its end and its last write, in milliseconds.
    pub lateness_ms: i64,
    /// How long windows of each grain are kept, in milliseconds of event time; `None` is for ever.
    pub retention_minute_ms: Option<i64>,
    pub retention_hour_ms: Option<i64>,
    pub retention_day_ms: Option<i64>,
}

impl WindowSettings {
    fn retention_ms(&self, grain: Grain) -> Option<i64> {
        match grain {
            Grain::Minute => self.retention_minute_ms,
            Grain::Hour => self.retention_hour_ms,
            Grain::Day => self.retention_day_ms,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowStats {
    pub open_rows: u64,
    pub blocks: u64,
    /// Stored windows by grain: minute, hour, day. One that lies in several blocks is counted in each.
    pub windows: [u64; 3],
    /// Memory of blocks (mapped ones too) and open rows.
    pub bytes: u64,
    /// Memory of what is kept for queries: totals beside blocks, blocks of open rows.
    pub totals_bytes: u64,
}

/// A row in the tail of its hour.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct OpenRow {
    key: u32,
    offset_ms: u32,
    id: u64,
    user: u64,
    session: u64,
    value: f64,
}

impl OpenRow {
    fn minute(&self) -> u32 {
        self.offset_ms / MINUTE_MS as u32
    }
}

/// Open rows of one hour, in order of arrival.
struct Tail {
    hour_ms: i64,
    last_write_ms: i64,
    rows: Vec<OpenRow>,
    offset_min_ms: u32,
    offset_max_ms: u32,
    /// The first of the rows as queries read them; no part of the state.
    digest: Arc<Mutex<Option<RowsDigest>>>,
}

/// The first rows of a tail as a block, which many queries read faster than rows.
#[derive(Clone)]
struct RowsDigest {
    rows: usize,
    block: Arc<Block>,
}

impl Tail {
    fn new(hour_ms: i64, stamp_ms: i64, rows: Vec<OpenRow>) -> Self {
        let mut tail = Self { hour_ms, last_write_ms: stamp_ms, rows, offset_min_ms: u32::MAX, offset_max_ms: 0, digest: Arc::default() };
        tail.measure();
        tail
    }

    /// After rows were taken out.
    fn measure(&mut self) {
        // Queries that still make one of the old rows put it where nobody looks.
        self.digest = Arc::default();
        self.offset_min_ms = self.rows.iter().map(|r| r.offset_ms).min().unwrap_or(u32::MAX);
        self.offset_max_ms = self.rows.iter().map(|r| r.offset_ms).max().unwrap_or(0);
    }

    fn newest_minute(&self) -> u32 {
        self.offset_max_ms / MINUTE_MS as u32
    }

    /// Stamp from which the whole tail is closed.
    fn closes_ms(&self, lateness_ms: i64) -> i64 {
        let end_ms = self.hour_ms + i64::from(self.newest_minute() + 1) * MINUTE_MS;
        end_ms.max(self.last_write_ms).saturating_add(lateness_ms)
    }
}

/// How much time a partition of a grain's blocks spans.
const fn partition_span_ms(grain: Grain) -> i64 {
    match grain {
        Grain::Minute => HOUR_MS,
        Grain::Hour => DAY_MS,
        Grain::Day => 32 * DAY_MS,
    }
}

const fn partition_start_ms(grain: Grain, time_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(partition_span_ms(grain))
}

/// See the module.
pub struct WindowStore {
    settings: WindowSettings,
    /// Latest stamp seen.
    stamp_ms: i64,
    tails: Vec<Tail>,
    tail_of_hour: BTreeMap<i64, usize>,
    /// Tail of the last append.
    current: usize,
    open_rows: usize,
    /// Whether some tail has reached [`SEAL_ROWS`].
    some_full: bool,
    /// No tail closes before this stamp.
    idle_check_ms: i64,
    spare_rows: Vec<Vec<OpenRow>>,
    /// Partitions by their start, for each grain.
    levels: [BTreeMap<i64, Partition>; 3],
    /// Partitions that may have something to fold: (stamp from which, grain, start).
    due: BTreeSet<(i64, Grain, i64)>,
    /// Partitions that may have blocks to compact.
    crowded: BTreeSet<(Grain, i64)>,
    /// Ids tell blocks apart within this process; they are no part of the state.
    next_block_id: u64,
    /// Totals beside blocks are no part of the state either.
    totals_budget: Arc<totals::Budget>,
    unions: Arc<totals::Unions>,
}

impl WindowStore {
    pub fn new(settings: WindowSettings) -> Self {
        let totals_budget = Arc::new(totals::Budget::new(TOTALS_BYTES_MAX));
        Self {
            settings,
            stamp_ms: i64::MIN,
            tails: Vec::new(),
            tail_of_hour: BTreeMap::new(),
            current: 0,
            open_rows: 0,
            some_full: false,
            idle_check_ms: i64::MAX,
            spare_rows: Vec::new(),
            levels: Default::default(),
            due: BTreeSet::new(),
            crowded: BTreeSet::new(),
            next_block_id: 0,
            unions: Arc::new(totals::Unions::new(totals_budget.clone())),
            totals_budget,
        }
    }

    pub fn set_settings(&mut self, settings: WindowSettings) {
        self.settings = settings;
        self.idle_check_ms = i64::MIN;
        self.find_due();
    }

    /// Adds a row that arrived at `stamp_ms`.
    #[inline]
    pub fn append(&mut self, stamp_ms: i64, row: Row) {
        let time_ms = row.time_ms.clamp(-TIME_MS_MAX, TIME_MS_MAX);
        let hour_ms = Grain::Hour.floor(time_ms);
        if self.tails.get(self.current).is_none_or(|t| t.hour_ms != hour_ms) {
            self.switch_tail(hour_ms, stamp_ms);
        }
        let tail = &mut self.tails[self.current];
        let offset_ms = (time_ms - hour_ms) as u32;
        let Row { key, id, user, session, value, .. } = row;
        tail.rows.push(OpenRow { key, offset_ms, id, user, session, value });
        tail.offset_min_ms = tail.offset_min_ms.min(offset_ms);
        tail.offset_max_ms = tail.offset_max_ms.max(offset_ms);
        tail.last_write_ms = tail.last_write_ms.max(stamp_ms);
        self.open_rows += 1;
        if tail.rows.len() >= SEAL_ROWS {
            self.some_full = true;
            if tail.rows.len() >= TAIL_ROWS_MAX {
                self.seal_closed_minutes(self.current);
            }
        }
        if self.open_rows >= OPEN_ROWS_HARD_MAX {
            self.seal_longest_idle();
        }
    }

    #[cold]
    fn switch_tail(&mut self, hour_ms: i64, stamp_ms: i64) {
        if let Some(&tail) = self.tail_of_hour.get(&hour_ms) {
            self.current = tail;
            return;
        }
        self.current = self.tails.len();
        self.tail_of_hour.insert(hour_ms, self.current);
        let rows = self.spare_rows.pop().unwrap_or_default();
        self.tails.push(Tail::new(hour_ms, stamp_ms, rows));
        self.idle_check_ms = self.idle_check_ms.min(stamp_ms.saturating_add(self.settings.lateness_ms));
    }

    /// Event time before which no open window remains at `stamp_ms`, UTC milliseconds: windows still open for lateness, and rows not sealed yet.
    pub fn watermark_ms(&self, stamp_ms: i64) -> i64 {
        let closed_ms = Grain::Minute.floor(stamp_ms.saturating_sub(self.settings.lateness_ms).max(-TIME_MS_MAX));
        let open_ms = self.tails.iter().map(|t| Grain::Minute.floor(t.hour_ms + i64::from(t.offset_min_ms))).min();
        open_ms.map_or(closed_ms, |open| open.min(closed_ms))
    }

    /// Stamp from which a tick would seal, fold or compact something; `None` when only new rows or retention could make work.
    pub fn due_ms(&self) -> Option<i64> {
        if self.some_full || !self.crowded.is_empty() {
            return Some(self.stamp_ms);
        }
        let fold_ms = self.due.first().map_or(i64::MAX, |&(due_ms, ..)| due_ms);
        Some(self.idle_check_ms.min(fold_ms)).filter(|&due_ms| due_ms < i64::MAX)
    }

    pub fn stats(&self) -> WindowStats {
        let mut stats = WindowStats { open_rows: self.open_rows as u64, ..WindowStats::default() };
        stats.totals_bytes = self.totals_budget.used_bytes() as u64;
        let digests = self.tails.iter().map(|t| t.digest.lock().as_ref().map_or(0, |d| d.block.bytes().len() as u64));
        stats.totals_bytes += digests.sum::<u64>();
        stats.bytes = (self.open_rows * size_of::<OpenRow>()) as u64;
        for stored in self.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks) {
            stats.blocks += 1;
            stats.windows[stored.block.grain as usize] += stored.block.windows() as u64;
            stats.bytes += stored.block.bytes().len() as u64;
        }
        stats
    }

    /// Checksum of what is counted, the same however far rows are sealed, folded, compacted or saved: events and values by key and window of each
    /// grain. Reads everything that is kept.
    pub fn digest(&self) -> u64 {
        // Sums of (hash of the window) x (count) do not depend on how counts are split over blocks.
        let mut digest = 0u64;
        let mut add = |grain: Grain, time_ms: i64, key: u32, count: u64, values: u64| {
            let seed = u64::from(key) << 2 | grain as u64;
            let window = mix(mix(seed).wrapping_add(grain.floor(time_ms) as u64));
            digest = digest.wrapping_add(window.wrapping_mul(count)).wrapping_add(mix(window).wrapping_mul(values));
        };
        for stored in self.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks) {
            let columns = stored.block.columns();
            for (at, window) in (0..columns.starts.len()).flat_map(|at| columns.windows_of(at).map(move |w| (at, w))) {
                let view = columns.window(window, columns.start_ms(at));
                let values = view.values().map_or(0, |v| v.count);
                for grain in Grain::ALL.into_iter().filter(|&g| stored.is_read_at(g)) {
                    add(grain, columns.start_ms(at), columns.keys[window].to_native(), view.count(), values);
                }
            }
        }
        for (tail, row) in self.tails.iter().flat_map(|t| t.rows.iter().map(move |r| (t, r))) {
            let time_ms = tail.hour_ms + i64::from(row.offset_ms);
            Grain::ALL.into_iter().for_each(|grain| add(grain, time_ms, row.key, 1, u64::from(!row.value.is_nan())));
        }
        digest
    }

    fn store(&mut self, block: Block, folded: bool) -> Stored {
        self.next_block_id += 1;
        Stored { block: Arc::new(block), id: self.next_block_id, folded, saved: None }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
