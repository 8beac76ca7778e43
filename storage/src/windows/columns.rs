//! The columns of a block as they lie in its archive, and their checks.
//!
//! Widths are chosen per block from the largest entry, so nothing overflows and small blocks stay small. A window costs its key and its count;
//! identities, values and what only several values need (min, max, last, bins) lie in columns of those windows alone, found by rank.

use datasketches::hll::HllSketch;
use rkyv::{Archive, Serialize};
use tallymesh_protocol::aggregate::Distinct;
use tallymesh_protocol::limits::HLL_LG_K;
use tallymesh_protocol::time::Grain;

/// Unsigned integers in the narrowest width that holds the largest.
#[derive(Archive, Serialize, Debug)]
pub(super) enum Packed {
    W1(Vec<u8>),
    W2(Vec<u16>),
    W4(Vec<u32>),
    W8(Vec<u64>),
}

impl Packed {
    pub fn of<T: Copy + Into<u64>>(values: &[T]) -> Self {
        // The widest is found by OR: only its highest bit matters.
        let bits = values.iter().fold(0u64, |bits, &v| bits | v.into());
        let wide = values.iter().map(|&v| v.into());
        if bits <= u64::from(u8::MAX) {
            Self::W1(wide.map(|v| v as u8).collect())
        } else if bits <= u64::from(u16::MAX) {
            Self::W2(wide.map(|v| v as u16).collect())
        } else if bits <= u64::from(u32::MAX) {
            Self::W4(wide.map(|v| v as u32).collect())
        } else {
            Self::W8(wide.collect())
        }
    }
}

impl ArchivedPacked {
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        match self {
            Self::W1(v) => u64::from(v[index]),
            Self::W2(v) => u64::from(v[index].to_native()),
            Self::W4(v) => u64::from(v[index].to_native()),
            Self::W8(v) => v[index].to_native(),
        }
    }

    /// Calls `each` with the entries of `range` in order.
    #[inline]
    pub fn for_range(&self, range: std::ops::Range<usize>, mut each: impl FnMut(u64)) {
        match self {
            Self::W1(v) => v[range].iter().for_each(|&v| each(u64::from(v))),
            Self::W2(v) => v[range].iter().for_each(|v| each(u64::from(v.to_native()))),
            Self::W4(v) => v[range].iter().for_each(|v| each(u64::from(v.to_native()))),
            Self::W8(v) => v[range].iter().for_each(|v| each(v.to_native())),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::W1(v) => v.len(),
            Self::W2(v) => v.len(),
            Self::W4(v) => v.len(),
            Self::W8(v) => v.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// `[start, end)` of list `index` in a column of ends.
    #[inline]
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.get(index - 1) as usize };
        start..self.get(index) as usize
    }

    /// Whether this is a column of ends of `lists` lists over `entries` entries.
    fn ends(&self, lists: usize, entries: usize) -> bool {
        if self.len() != lists {
            return false;
        }
        let mut last = 0;
        self.iter().all(|end| std::mem::replace(&mut last, end) <= end) && last == entries as u64
    }
}

/// A set of indices with their rank. Empty vectors when no index is in it.
#[derive(Archive, Serialize, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// Members before each word.
    ranks: Vec<u32>,
}

impl Bits {
    pub fn of(len: usize, members: &[u32]) -> Self {
        if members.is_empty() {
            return Self::default();
        }
        let mut words = vec![0u64; len.div_ceil(64)];
        for &m in members {
            words[m as usize / 64] |= 1 << (m % 64);
        }
        let mut ranks = Vec::with_capacity(words.len());
        let mut before = 0;
        for word in &words {
            ranks.push(before);
            before += word.count_ones();
        }
        Self { words, ranks }
    }
}

impl ArchivedBits {
    /// Position of `index` among the members, if it is one.
    #[inline]
    pub fn rank(&self, index: usize) -> Option<usize> {
        let word = self.words.get(index / 64)?.to_native();
        let bit = 1u64 << (index % 64);
        (word & bit != 0).then(|| self.ranks[index / 64].to_native() as usize + (word & (bit - 1)).count_ones() as usize)
    }

    /// Number of members, if this is a well-formed set over `len` indices.
    fn checked_members(&self, len: usize) -> Option<usize> {
        if self.words.len() != self.ranks.len() || !(self.words.is_empty() || self.words.len() == len.div_ceil(64)) {
            return None;
        }
        let mut members = 0u32;
        for (word, rank) in self.words.iter().zip(self.ranks.iter()) {
            if rank.to_native() != members {
                return None;
            }
            members += word.to_native().count_ones();
        }
        let beyond = match (self.words.last(), len % 64) {
            (Some(word), used) if used > 0 => word.to_native() >> used != 0,
            _ => false,
        };
        (!beyond).then_some(members as usize)
    }
}

/// Distinct identities of each window: a sorted list of hashes, or a sketch once the list was too long.
#[derive(Archive, Serialize, Debug)]
pub(super) struct Lists {
    /// End of each window's list in `hashes`; no column at all when there are no hashes.
    pub ends: Packed,
    pub hashes: Vec<u64>,
    /// Windows (ascending) that have a sketch; their lists are empty.
    pub sketched: Vec<u32>,
    pub sketch_ends: Vec<u32>,
    pub sketches: Vec<u8>,
}

/// What a window knows of its users or sessions.
#[derive(Clone, Copy)]
pub(super) enum Identities<'a> {
    List(&'a [rkyv::rend::u64_le]),
    Sketch(&'a [u8]),
}

impl Identities<'_> {
    #[inline]
    pub fn add_to(self, set: &mut Distinct) {
        match self {
            Self::List(hashes) => hashes.iter().for_each(|h| set.insert(h.to_native())),
            Self::Sketch(bytes) => set.merge_sketch(bytes),
        }
    }
}

impl ArchivedLists {
    #[inline]
    pub fn get(&self, window: usize) -> Identities<'_> {
        if !self.sketched.is_empty()
            && let Ok(at) = self.sketched.binary_search_by_key(&(window as u32), |w| w.to_native())
        {
            return Identities::Sketch(self.sketch(at));
        }
        if self.hashes.is_empty() {
            return Identities::List(&[]);
        }
        Identities::List(&self.hashes[self.ends.range(window)])
    }

    fn sketch(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.sketch_ends[at - 1].to_native() as usize };
        &self.sketches[start..self.sketch_ends[at].to_native() as usize]
    }

    fn check(&self, windows: usize) -> Result<(), &'static str> {
        let lists = if self.hashes.is_empty() { 0 } else { windows };
        if !self.ends.ends(lists, self.hashes.len()) {
            return Err("identity lists do not fit their hashes");
        }
        if self.sketched.len() != self.sketch_ends.len() || self.sketched.last().is_some_and(|w| w.to_native() as usize >= windows) {
            return Err("sketches do not fit the windows");
        }
        if !self.sketched.windows(2).all(|w| w[0].to_native() < w[1].to_native()) {
            return Err("sketched windows are not ascending");
        }
        let mut last = 0;
        if !self.sketch_ends.iter().all(|e| std::mem::replace(&mut last, e.to_native()) <= e.to_native())
            || last as usize != self.sketches.len()
        {
            return Err("sketch ends are not in order");
        }
        for at in 0..self.sketched.len() {
            check_sketch(self.sketch(at))?;
            if lists > 0 && !self.ends.range(self.sketched[at].to_native() as usize).is_empty() {
                return Err("a window has a list and a sketch");
            }
        }
        Ok(())
    }
}

/// Highest common register value that leaves room for a 4-bit offset below the 64 that a register can hold.
const SKETCH_REGISTER_MIN_MAX: u8 = 48;

/// The sketch library trusts its preamble further than hostile bytes allow.
fn check_sketch(bytes: &[u8]) -> Result<(), &'static str> {
    let sketch = HllSketch::deserialize(bytes).map_err(|_| "a sketch does not parse")?;
    if sketch.lg_config_k() != HLL_LG_K {
        return Err("a sketch has another size");
    }
    // Preamble byte 6 is the least register of array mode (mode 2 in the low bits of byte 7).
    if bytes[7] & 3 == 2 && bytes[6] > SKETCH_REGISTER_MIN_MAX {
        return Err("a sketch has impossible registers");
    }
    Ok(())
}

/// The windows of one block, sorted by (start, key).
#[derive(Archive, Serialize, Debug)]
pub(super) struct Columns {
    pub grain: Grain,
    /// Start of the partition, UTC milliseconds.
    pub partition_ms: i64,
    /// Sum of `counts`.
    pub events: u64,
    /// Distinct window starts, in grains since the partition's start, ascending.
    pub starts: Vec<u8>,
    /// End of the windows of each start.
    pub start_ends: Vec<u32>,
    pub keys: Vec<u32>,
    pub counts: Packed,
    pub users: Lists,
    pub sessions: Lists,
    /// Windows that have values.
    pub valued: Bits,
    pub sums: Vec<f64>,
    /// Time of the last value, in milliseconds since the window's start.
    pub last_offsets: Packed,
    pub last_ids: Vec<u64>,
    /// Valued windows (by rank) with several values; of the others the sum is also min, max and last.
    pub several: Bits,
    pub value_counts: Packed,
    pub mins: Vec<f64>,
    pub maxs: Vec<f64>,
    pub lasts: Vec<f64>,
    pub bin_ends: Packed,
    /// Subtracted from every bin.
    pub bin_base: i32,
    pub bins: Packed,
    pub bin_counts: Packed,
}

impl ArchivedColumns {
    pub fn grain(&self) -> Grain {
        match self.grain {
            tallymesh_protocol::time::ArchivedGrain::Minute => Grain::Minute,
            tallymesh_protocol::time::ArchivedGrain::Hour => Grain::Hour,
            tallymesh_protocol::time::ArchivedGrain::Day => Grain::Day,
        }
    }

    /// Start of directory entry `at`, UTC milliseconds.
    #[inline]
    pub fn start_ms(&self, at: usize) -> i64 {
        self.partition_ms.to_native() + i64::from(self.starts[at]) * self.grain().ms()
    }

    /// Windows of directory entry `at`.
    #[inline]
    pub fn windows_of(&self, at: usize) -> std::ops::Range<usize> {
        let start = if at == 0 { 0 } else { self.start_ends[at - 1].to_native() as usize };
        start..self.start_ends[at].to_native() as usize
    }

    /// Everything that reading relies on beyond the archive's own validity.
    pub fn check(&self) -> Result<(), &'static str> {
        let windows = self.check_directory()?;
        let total = self.counts.iter().try_fold(0u64, u64::checked_add);
        if self.counts.len() != windows || total != Some(self.events.to_native()) {
            return Err("counts do not add up");
        }
        self.users.check(windows)?;
        self.sessions.check(windows)?;
        self.check_values(windows)
    }

    fn check_directory(&self) -> Result<usize, &'static str> {
        let windows = self.keys.len();
        let per_partition = super::partition_span_ms(self.grain()) / self.grain().ms();
        let partition_ms = self.partition_ms.to_native();
        let in_range = partition_ms.unsigned_abs() <= 2 * super::TIME_MS_MAX as u64;
        if !in_range || partition_ms != super::partition_start_ms(self.grain(), partition_ms) {
            return Err("the partition has an impossible start");
        }
        if self.starts.is_empty() || self.starts.len() != self.start_ends.len() || windows > u32::MAX as usize {
            return Err("the directory does not fit the windows");
        }
        if !self.starts.windows(2).all(|w| w[0] < w[1]) || self.starts.last().is_none_or(|&s| i64::from(s) >= per_partition) {
            return Err("window starts are out of order or range");
        }
        let mut begin = 0;
        for end in self.start_ends.iter() {
            let end = end.to_native() as usize;
            let keys = self.keys.get(begin..end).ok_or("the directory is out of order")?;
            if keys.is_empty() || !keys.windows(2).all(|k| k[0].to_native() < k[1].to_native()) {
                return Err("keys are not ascending");
            }
            begin = end;
        }
        if begin == windows { Ok(windows) } else { Err("windows after the directory's last") }
    }

    fn check_values(&self, windows: usize) -> Result<(), &'static str> {
        let valued = self.valued.checked_members(windows).ok_or("the set of valued windows is malformed")?;
        let several = self.several.checked_members(valued).ok_or("the set of windows with several values is malformed")?;
        if [self.sums.len(), self.last_offsets.len(), self.last_ids.len()] != [valued; 3] {
            return Err("value columns differ in length");
        }
        let grain_ms = self.grain().ms() as u64;
        if self.last_offsets.iter().any(|o| o >= grain_ms) {
            return Err("a last value lies outside its window");
        }
        if [self.value_counts.len(), self.mins.len(), self.maxs.len(), self.lasts.len()] != [several; 4] {
            return Err("columns of several values differ in length");
        }
        if self.bins.len() != self.bin_counts.len() || !self.bin_ends.ends(several, self.bins.len()) {
            return Err("bins do not fit their windows");
        }
        let base = i64::from(self.bin_base.to_native());
        if self.bins.iter().any(|b| i64::try_from(b).map_or(true, |b| i32::try_from(base.saturating_add(b)).is_err())) {
            return Err("a bin is out of range");
        }
        Ok(())
    }
}
