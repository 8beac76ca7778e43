//! Writes the windows of a block one after the other, in (start, key) order.

use tallymesh_protocol::limits::WINDOW_EXACT_ENTRIES_MAX;
use tallymesh_protocol::time::Grain;

use super::OpenRow;
use super::block::{Block, WindowRef};
use super::columns::{Bits, Columns, Identities, Lists, Packed};
use super::merged::Merged;

#[derive(Default)]
pub(super) struct ListsBuilder {
    ends: Vec<u32>,
    hashes: Vec<u64>,
    sketched: Vec<u32>,
    sketch_ends: Vec<u32>,
    sketches: Vec<u8>,
}

impl ListsBuilder {
    fn one(&mut self, hash: u64) {
        if hash != 0 {
            self.hashes.push(hash);
        }
        self.ends.push(self.hashes.len() as u32);
    }

    fn copy(&mut self, identities: Identities<'_>) {
        match identities {
            Identities::List(hashes) => {
                self.hashes.extend(hashes.iter().map(|h| h.to_native()));
                self.ends.push(self.hashes.len() as u32);
            }
            Identities::Sketch(bytes) => self.sketch(bytes),
        }
    }

    pub fn list(&mut self, sorted: &[u64]) {
        debug_assert!(sorted.len() <= WINDOW_EXACT_ENTRIES_MAX);
        self.hashes.extend_from_slice(sorted);
        self.ends.push(self.hashes.len() as u32);
    }

    pub fn sketch(&mut self, bytes: &[u8]) {
        self.sketched.push(self.ends.len() as u32);
        self.sketches.extend_from_slice(bytes);
        self.sketch_ends.push(self.sketches.len() as u32);
        self.ends.push(self.hashes.len() as u32);
    }

    fn finish(self) -> Lists {
        let ends: &[u32] = if self.hashes.is_empty() { &[] } else { &self.ends };
        Lists {
            ends: Packed::of(ends),
            hashes: self.hashes,
            sketched: self.sketched,
            sketch_ends: self.sketch_ends,
            sketches: self.sketches,
        }
    }

    fn bytes(&self) -> usize {
        4 * self.ends.len() + 8 * self.hashes.len() + self.sketches.len() + 8 * self.sketched.len()
    }
}

pub(super) struct BlockBuilder {
    grain: Grain,
    partition_ms: i64,
    events: u64,
    start_ms: i64,
    starts: Vec<u8>,
    start_ends: Vec<u32>,
    keys: Vec<u32>,
    counts: Vec<u64>,
    pub users: ListsBuilder,
    pub sessions: ListsBuilder,
    valued: Vec<u32>,
    sums: Vec<f64>,
    last_offsets: Vec<u32>,
    last_ids: Vec<u64>,
    several: Vec<u32>,
    value_counts: Vec<u64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
    lasts: Vec<f64>,
    bin_ends: Vec<u32>,
    bins: Vec<i32>,
    bin_counts: Vec<u64>,
}

impl BlockBuilder {
    /// `windows` is the expected number, for the first allocation.
    pub fn new(grain: Grain, partition_ms: i64, windows: usize) -> Self {
        Self {
            grain,
            partition_ms,
            events: 0,
            start_ms: partition_ms,
            starts: Vec::new(),
            start_ends: Vec::new(),
            keys: Vec::with_capacity(windows),
            counts: Vec::with_capacity(windows),
            users: ListsBuilder { ends: Vec::with_capacity(windows), hashes: Vec::with_capacity(windows), ..ListsBuilder::default() },
            sessions: ListsBuilder { ends: Vec::with_capacity(windows), hashes: Vec::with_capacity(windows), ..ListsBuilder::default() },
            valued: Vec::new(),
            sums: Vec::new(),
            last_offsets: Vec::new(),
            last_ids: Vec::new(),
            several: Vec::new(),
            value_counts: Vec::new(),
            mins: Vec::new(),
            maxs: Vec::new(),
            lasts: Vec::new(),
            bin_ends: Vec::new(),
            bins: Vec::new(),
            bin_counts: Vec::new(),
        }
    }

    /// The windows that follow start `index` grains after the partition's start.
    pub fn start(&mut self, index: u8) {
        self.close_start();
        self.starts.push(index);
        self.start_ms = self.partition_ms + i64::from(index) * self.grain.ms();
    }

    fn close_start(&mut self) {
        if self.start_ends.len() < self.starts.len() {
            self.start_ends.push(self.keys.len() as u32);
        }
    }

    fn window(&mut self, key: u32, count: u64) {
        self.keys.push(key);
        self.counts.push(count);
        self.events += count;
    }

    fn one_value(&mut self, value: f64, time_ms: i64, id: u64) {
        if self.sums.is_empty() {
            let windows = self.keys.capacity();
            self.valued.reserve(windows);
            self.sums.reserve(windows);
            self.last_offsets.reserve(windows);
            self.last_ids.reserve(windows);
        }
        self.valued.push(self.keys.len() as u32 - 1);
        self.sums.push(value);
        self.last_offsets.push((time_ms - self.start_ms) as u32);
        self.last_ids.push(id);
    }

    /// A window of one row at `time_ms`.
    pub fn push_row(&mut self, row: &OpenRow, time_ms: i64) {
        self.window(row.key, 1);
        self.users.one(row.user);
        self.sessions.one(row.session);
        if !row.value.is_nan() {
            self.one_value(row.value, time_ms, row.id);
        }
    }

    /// A window that only one block has, as it is.
    pub fn push_copy(&mut self, key: u32, window: WindowRef<'_>) {
        self.window(key, window.count());
        self.users.copy(window.users());
        self.sessions.copy(window.sessions());
        let Some(values) = window.values() else { return };
        self.one_value(values.sum, values.last.time_ms, values.last.id);
        if values.count > 1 {
            self.several_values(values.count, values.min, values.max, values.last.value);
            window.bins(&values, |bin, count| {
                self.bins.push(bin);
                self.bin_counts.push(count);
            });
            self.bin_ends.push(self.bins.len() as u32);
        }
    }

    /// A window gathered from several rows or blocks; leaves `merged` empty.
    pub fn push_merged(&mut self, key: u32, merged: &mut Merged) {
        self.window(key, merged.count);
        merged.users.flush(&mut self.users);
        merged.sessions.flush(&mut self.sessions);
        if merged.value_count > 0 {
            self.one_value(merged.sum, merged.last.time_ms, merged.last.id);
        }
        if merged.value_count > 1 {
            self.several_values(merged.value_count, merged.min, merged.max, merged.last.value);
            merged.flush_bins(|bin, count| {
                self.bins.push(bin);
                self.bin_counts.push(count);
            });
            self.bin_ends.push(self.bins.len() as u32);
        }
        merged.reset();
    }

    fn several_values(&mut self, count: u64, min: f64, max: f64, last: f64) {
        self.several.push(self.sums.len() as u32 - 1);
        self.value_counts.push(count);
        self.mins.push(min);
        self.maxs.push(max);
        self.lasts.push(last);
    }

    /// Bytes of the block so far, up to a few times as many as they will be.
    pub fn bytes_about(&self) -> usize {
        1_024
            + 12 * self.keys.len()
            + self.users.bytes()
            + self.sessions.bytes()
            + 24 * self.sums.len()
            + 40 * self.mins.len()
            + 8 * self.bins.len()
    }

    pub fn finish(mut self) -> Block {
        self.close_start();
        let bin_base = self.bins.iter().copied().min().unwrap_or(0);
        let bins: Vec<u32> = self.bins.iter().map(|&b| b.wrapping_sub(bin_base) as u32).collect();
        let capacity = self.bytes_about();
        let columns = Columns {
            grain: self.grain,
            partition_ms: self.partition_ms,
            events: self.events,
            starts: self.starts,
            start_ends: self.start_ends,
            counts: Packed::of(&self.counts),
            users: self.users.finish(),
            sessions: self.sessions.finish(),
            valued: Bits::of(self.keys.len(), &self.valued),
            keys: self.keys,
            several: Bits::of(self.sums.len(), &self.several),
            sums: self.sums,
            last_offsets: Packed::of(&self.last_offsets),
            last_ids: self.last_ids,
            value_counts: Packed::of(&self.value_counts),
            mins: self.mins,
            maxs: self.maxs,
            lasts: self.lasts,
            bin_ends: Packed::of(&self.bin_ends),
            bin_base,
            bins: Packed::of(&bins),
            bin_counts: Packed::of(&self.bin_counts),
        };
        Block::encode(&columns, capacity)
    }
}
