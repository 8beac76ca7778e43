//! What a tick does: seal, fold, compact, expire; bounded work, and only ever because of what the log said.

use tallymesh_protocol::time::Grain;

use super::block::Block;
use super::partition::{Picked, Stored, Why};
use super::{OPEN_HOURS_MAX, OPEN_ROWS_MAX, SEAL_ROWS, TICK_MERGE_BYTES_MAX, WindowStore, make, partition_span_ms, partition_start_ms};

/// Empty row buffers kept for the next tail.
const SPARE_BUFFERS_MAX: usize = 8;
/// What compaction makes is cut where it has so many bytes: a block that spans a whole partition overlaps all that comes later, and is soon too large to be
/// joined with it.
const COMPACTED_BLOCK_BYTES: usize = 1 << 20;
const fn cut_bytes(grain: Grain) -> usize {
    match grain {
        Grain::Minute | Grain::Hour => COMPACTED_BLOCK_BYTES,
        // Blocks of days are joined by their size up to more than that.
        Grain::Day => usize::MAX,
    }
}

/// Minutes of an hour: sealing before it seals everything.
const WHOLE_HOUR: u64 = 60;

/// Bytes that one tick may still merge. The first merge is always allowed, whatever its size; blocks are bounded by merges being so.
struct Budget {
    left: usize,
    touched: bool,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> bool {
        if self.touched && bytes > self.left {
            return false;
        }
        self.touched = true;
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

impl WindowStore {
    /// Time passes: to be called after the rows of each entry and when nothing comes. Stamps do not go backwards; an earlier one counts as the latest.
    pub fn tick(&mut self, stamp_ms: i64) {
        self.stamp_ms = self.stamp_ms.max(stamp_ms);
        self.seal_full();
        self.seal_idle();
        if self.open_rows >= OPEN_ROWS_MAX || self.tails.len() > OPEN_HOURS_MAX {
            self.seal_longest_idle();
        }
        let mut budget = Budget { left: TICK_MERGE_BYTES_MAX, touched: false };
        self.fold_due(&mut budget);
        self.compact(&mut budget);
        self.expire();
    }

    fn seal_full(&mut self) {
        if !std::mem::take(&mut self.some_full) {
            return;
        }
        let hours: Vec<i64> = self.tail_of_hour.keys().copied().collect();
        for hour_ms in hours {
            let tail = self.tail_of_hour[&hour_ms];
            if self.tails[tail].rows.len() >= SEAL_ROWS {
                self.seal_closed_minutes(tail);
            }
        }
        // Which it is depends on the rows alone, as after a load.
        self.some_full = self.tails.iter().any(|t| t.rows.len() >= SEAL_ROWS);
    }

    fn seal_idle(&mut self) {
        if self.stamp_ms < self.idle_check_ms {
            return;
        }
        let (stamp_ms, lateness_ms) = (self.stamp_ms, self.settings.lateness_ms);
        let closed = |(&hour_ms, &tail): (&i64, &usize)| (self.tails[tail].closes_ms(lateness_ms) <= stamp_ms).then_some(hour_ms);
        let hours: Vec<i64> = self.tail_of_hour.iter().filter_map(closed).collect();
        for hour_ms in hours {
            self.seal(self.tail_of_hour[&hour_ms], WHOLE_HOUR);
        }
        self.idle_check_ms = self.tails.iter().map(|t| t.closes_ms(lateness_ms)).min().unwrap_or(i64::MAX);
    }

    pub(super) fn seal_longest_idle(&mut self) {
        let mut hours: Vec<(i64, i64)> = self.tails.iter().map(|t| (t.last_write_ms, t.hour_ms)).collect();
        hours.sort_unstable();
        for (_, hour_ms) in hours {
            if self.open_rows <= OPEN_ROWS_MAX / 4 * 3 && self.tails.len() <= OPEN_HOURS_MAX / 4 * 3 {
                break;
            }
            self.seal(self.tail_of_hour[&hour_ms], WHOLE_HOUR);
        }
    }

    /// Seals what lies before the newest minute but one; everything if that is less than half, for then the minute itself is hot.
    pub(super) fn seal_closed_minutes(&mut self, tail: usize) {
        let t = &self.tails[tail];
        let before = t.newest_minute().saturating_sub(1);
        let closed = t.rows.iter().filter(|r| r.minute() < before).count();
        self.seal(tail, if 2 * closed < t.rows.len() { WHOLE_HOUR } else { u64::from(before) });
    }

    /// Seals the rows of a tail that lie before minute `minutes` of its hour; there are some.
    fn seal(&mut self, tail: usize, minutes: u64) {
        let t = &mut self.tails[tail];
        let (hour_ms, last_write_ms) = (t.hour_ms, t.last_write_ms);
        let block = make::seal(hour_ms, &t.rows, minutes);
        let rows = t.rows.len();
        t.rows.retain(|r| u64::from(r.minute()) >= minutes);
        t.measure();
        self.open_rows -= rows - t.rows.len();
        if t.rows.is_empty() {
            self.remove_tail(tail);
        }
        self.put(block, last_write_ms);
    }

    fn remove_tail(&mut self, tail: usize) {
        let removed = self.tails.swap_remove(tail);
        self.tail_of_hour.remove(&removed.hour_ms);
        if let Some(moved) = self.tails.get(tail) {
            self.tail_of_hour.insert(moved.hour_ms, tail);
        }
        if self.spare_rows.len() < SPARE_BUFFERS_MAX {
            self.spare_rows.push(removed.rows);
        }
    }

    /// Adds a new block to its partition, which is written to at `write_ms`.
    fn put(&mut self, block: Block, write_ms: i64) {
        let (grain, start_ms) = (block.grain, block.partition_ms);
        // Nothing is coarser than a day.
        let stored = self.store(block, grain == Grain::Day);
        let lateness_ms = self.settings.lateness_ms;
        let partition = self.levels[grain as usize].entry(start_ms).or_default();
        self.due.remove(&(partition.closes_ms(grain, start_ms, lateness_ms), grain, start_ms));
        partition.last_write_ms = if partition.blocks.is_empty() { write_ms } else { partition.last_write_ms.max(write_ms) };
        partition.blocks.push(stored);
        if grain != Grain::Day {
            self.due.insert((partition.closes_ms(grain, start_ms, lateness_ms), grain, start_ms));
        }
        self.crowded.insert((grain, start_ms));
    }

    /// Finds anew what may have to be folded or compacted.
    pub(super) fn find_due(&mut self) {
        self.due.clear();
        for grain in Grain::ALL {
            for (&start_ms, partition) in &self.levels[grain as usize] {
                if !partition.is_folded() {
                    self.due.insert((partition.closes_ms(grain, start_ms, self.settings.lateness_ms), grain, start_ms));
                }
                self.crowded.insert((grain, start_ms));
            }
        }
    }

    fn fold_due(&mut self, budget: &mut Budget) {
        while let Some(&due @ (due_ms, grain, start_ms)) = self.due.first() {
            if due_ms > self.stamp_ms {
                break;
            }
            // An hour with open rows is due again when they are sealed.
            let open = grain == Grain::Minute && self.tail_of_hour.contains_key(&start_ms);
            let partition = self.levels[grain as usize].get(&start_ms).filter(|p| !open && !p.is_folded());
            let Some(partition) = partition else {
                self.due.remove(&due);
                continue;
            };
            let mut inputs = Vec::new();
            for (at, stored) in partition.blocks.iter().enumerate().filter(|(_, s)| !s.folded) {
                if !budget.take(stored.block.bytes().len()) {
                    break;
                }
                inputs.push(at);
            }
            if inputs.is_empty() {
                break;
            }
            self.fold(grain, start_ms, &inputs);
        }
    }

    fn fold(&mut self, grain: Grain, start_ms: i64, inputs: &[usize]) {
        let coarser = if grain == Grain::Minute { Grain::Hour } else { Grain::Day };
        let Some(partition) = self.levels[grain as usize].get_mut(&start_ms) else { return };
        let blocks: Vec<&Block> = inputs.iter().map(|&at| &*partition.blocks[at].block).collect();
        let block = make::merge(&blocks, coarser, partition_start_ms(coarser, start_ms));
        inputs.iter().for_each(|&at| partition.blocks[at].folded = true);
        self.crowded.insert((grain, start_ms));
        self.put(block, self.stamp_ms);
    }

    fn compact(&mut self, budget: &mut Budget) {
        while let Some(&(grain, start_ms)) = self.crowded.first() {
            let picked = self.levels[grain as usize].get(&start_ms).and_then(|p| Some((p, p.pick_compaction(grain)?)));
            let Some((partition, Picked { positions, why })) = picked else {
                self.crowded.pop_first();
                continue;
            };
            let inputs: Vec<&Stored> = positions.iter().map(|&at| &partition.blocks[at]).collect();
            if !budget.take(inputs.iter().map(|s| s.block.bytes().len()).sum()) {
                break;
            }
            let blocks: Vec<&Block> = inputs.iter().map(|s| &*s.block).collect();
            let folded = inputs[0].folded;
            let mut made = make::merge_cut(&blocks, grain, start_ms, cut_bytes(grain));
            if why == Why::Small && made.len() >= blocks.len() {
                // Else the same ones would be merged again and again.
                made = vec![make::merge(&blocks, grain, start_ms)];
            }
            let stored: Vec<Stored> = made.into_iter().map(|block| self.store(block, folded)).collect();
            if let Some(partition) = self.levels[grain as usize].get_mut(&start_ms) {
                positions.iter().rev().for_each(|&at| drop(partition.blocks.remove(at)));
                partition.blocks.splice(positions[0]..positions[0], stored);
            }
        }
    }

    /// Drops what is past its retention, a partition later than it could: a query that was planned just before the border has passed a partition
    /// still finds it.
    fn expire(&mut self) {
        for grain in Grain::ALL {
            let Some(kept_ms) = self.settings.retention_ms(grain) else { continue };
            let before_ms = self.stamp_ms.saturating_sub(kept_ms).saturating_sub(2 * partition_span_ms(grain));
            // What is not folded yet is not lost; it goes at a later tick.
            let expired = |(&start_ms, p): (&i64, &super::Partition)| p.is_folded().then_some(start_ms);
            let starts: Vec<i64> = self.levels[grain as usize].range(..=before_ms).filter_map(expired).collect();
            starts.iter().for_each(|start_ms| drop(self.levels[grain as usize].remove(start_ms)));
        }
    }
}
