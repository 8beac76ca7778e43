//! One window while it is gathered from several rows or blocks.

use datasketches::hll::{HllSketch, HllType, HllUnion};
use tallymesh_protocol::aggregate::{Last, bin_of, sketch_of};
use tallymesh_protocol::limits::{HLL_LG_K, WINDOW_EXACT_ENTRIES_MAX};

use super::OpenRow;
use super::block::WindowRef;
use super::builder::ListsBuilder;
use super::columns::Identities;

/// A list this long is made distinct before it grows further, in entries.
const GATHERED_ENTRIES_MAX: usize = 64 * WINDOW_EXACT_ENTRIES_MAX;

#[derive(Default)]
pub(super) struct Gathered {
    hashes: Vec<u64>,
    union: Option<HllUnion>,
}

impl Gathered {
    fn add(&mut self, hash: u64) {
        if hash != 0 {
            self.hashes.push(hash);
        }
    }

    fn merge(&mut self, identities: Identities<'_>) {
        match identities {
            Identities::List(list) => self.hashes.extend(list.iter().map(|h| h.to_native())),
            Identities::Sketch(bytes) => self.union().update(&read_sketch(bytes)),
        }
        if self.hashes.len() > GATHERED_ENTRIES_MAX {
            let hashes = std::mem::take(&mut self.hashes);
            let union = self.union();
            hashes.into_iter().for_each(|h| union.update_value(h));
        }
    }

    fn union(&mut self) -> &mut HllUnion {
        self.union.get_or_insert_with(|| HllUnion::new(HLL_LG_K).unwrap_or_else(|e| unreachable!("lgK {HLL_LG_K} is in range: {e}")))
    }

    /// Writes what was gathered as a sorted list or a sketch, and forgets it.
    pub fn flush(&mut self, out: &mut ListsBuilder) {
        if self.hashes.len() > 1 {
            // Merged lists are sorted runs, which the stable sort merges.
            self.hashes.sort();
            self.hashes.dedup();
        }
        if let Some(mut union) = self.union.take() {
            self.hashes.drain(..).for_each(|h| union.update_value(h));
            out.sketch(&union.to_sketch(HllType::Hll4).serialize());
        } else if self.hashes.len() > WINDOW_EXACT_ENTRIES_MAX {
            out.sketch(&sketch_of(self.hashes.drain(..)).serialize());
        } else {
            out.list(&self.hashes);
            self.hashes.clear();
        }
    }
}

/// A sketch out of a checked block.
fn read_sketch(bytes: &[u8]) -> HllSketch {
    HllSketch::deserialize(bytes).unwrap_or_else(|e| unreachable!("the block was checked: {e}"))
}

pub(super) struct Merged {
    pub count: u64,
    pub value_count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub last: Last,
    pub users: Gathered,
    pub sessions: Gathered,
    bins: Vec<(i32, u64)>,
}

const NO_LAST: Last = Last { time_ms: i64::MIN, id: 0, value: f64::NAN };

impl Default for Merged {
    fn default() -> Self {
        let (users, sessions) = Default::default();
        let mut merged = Self { count: 0, value_count: 0, sum: 0.0, min: 0.0, max: 0.0, last: NO_LAST, users, sessions, bins: Vec::new() };
        merged.reset();
        merged
    }
}

impl Merged {
    /// Forgets counts and values; identities were forgotten when they were written.
    pub fn reset(&mut self) {
        (self.count, self.value_count, self.sum) = (0, 0, 0.0);
        (self.min, self.max, self.last) = (f64::INFINITY, f64::NEG_INFINITY, NO_LAST);
        self.bins.clear();
    }

    #[inline]
    pub fn add_row(&mut self, row: &OpenRow, time_ms: i64) {
        self.count += 1;
        self.users.add(row.user);
        self.sessions.add(row.session);
        if !row.value.is_nan() {
            self.add_values(1, row.value, row.value, row.value, Last { time_ms, id: row.id, value: row.value });
            self.bins.push((bin_of(row.value), 1));
        }
    }

    pub fn add_window(&mut self, window: WindowRef<'_>) {
        self.count += window.count();
        self.users.merge(window.users());
        self.sessions.merge(window.sessions());
        if let Some(v) = window.values() {
            self.add_values(v.count, v.sum, v.min, v.max, v.last);
            window.bins(&v, |bin, count| self.bins.push((bin, count)));
        }
    }

    fn add_values(&mut self, count: u64, sum: f64, min: f64, max: f64, last: Last) {
        self.value_count += count;
        self.sum += sum;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        if (last.time_ms, last.id) > (self.last.time_ms, self.last.id) || self.last.value.is_nan() {
            self.last = last;
        }
    }

    /// Gives each bin once, ascending.
    pub fn flush_bins(&mut self, mut each: impl FnMut(i32, u64)) {
        self.bins.sort_unstable();
        let mut bins = self.bins.drain(..);
        let Some((mut bin, mut count)) = bins.next() else { return };
        for (next, n) in bins {
            if next == bin {
                count += n;
            } else {
                each(std::mem::replace(&mut bin, next), std::mem::replace(&mut count, n));
            }
        }
        each(bin, count);
    }
}
