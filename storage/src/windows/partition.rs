//! The blocks of one grain and stretch of time, and which of them to compact.

use std::sync::Arc;

use tallymesh_protocol::time::Grain;

use super::block::Block;
use super::save::Saved;

/// Blocks not folded yet that are compacted together at least: merging them early pays only where windows repeat over many blocks.
const COMPACT_OPEN_BLOCKS_MIN: usize = 24;
/// The hours of a day come one after the other and share no windows: joining them before the day is folded gains nothing.
const COMPACT_OPEN_HOURS_MIN: usize = 48;
/// Folded blocks of a partition that are compacted together at least.
const COMPACT_FOLDED_BLOCKS_MIN: usize = 4;
/// Blocks over this are not compacted any more, so that one merge stays short, in bytes.
const COMPACT_BLOCK_BYTES_MAX: usize = super::TICK_MERGE_BYTES_MAX / 4;
/// The same for hours: joining those of one day saves only the cost of a block each, which such blocks can bear.
const COMPACT_HOUR_BYTES_MAX: usize = 128 << 10;
/// The same for minutes: blocks that large hold whole minutes, and share few windows. Joined over a whole hour they would soon be too large to be joined again.
const COMPACT_MINUTE_BYTES_MAX: usize = 256 << 10;
/// So many blocks that hold the same moment are compacted whatever was said above: they are of events that came late, or again and again, and repeat each other's
/// windows. Blocks of a stream that comes once follow each other, and share a minute at most.
const COMPACT_OVERLAPPING_BLOCKS_MIN: usize = 4;
/// Smaller blocks are compacted as if they had this size, in bytes.
const COMPACT_BLOCK_BYTES_FLOOR: usize = 4_096;

/// A block and what became of it.
#[derive(Clone)]
pub(super) struct Stored {
    pub block: Arc<Block>,
    pub id: u64,
    /// Whether its windows are in the next coarser grain too.
    pub folded: bool,
    /// Where it lies on disk.
    pub saved: Option<Saved>,
}

impl Stored {
    /// Whether a read at `grain` takes this block: its own grain does, a coarser one only until it is folded.
    pub fn is_read_at(&self, grain: Grain) -> bool {
        self.block.grain == grain || (self.block.grain < grain && !self.folded)
    }
}

/// What to compact.
pub(super) struct Picked {
    /// Ascending.
    pub positions: Vec<usize>,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There are many of them: fewer have to come of it.
    Small,
    /// They hold the same moment: one has to come of it that does.
    Overlapping,
}

#[derive(Default)]
pub(super) struct Partition {
    pub blocks: Vec<Stored>,
    /// Stamp of the last rows or blocks put in; decides when it is closed.
    pub last_write_ms: i64,
}

impl Partition {
    /// Stamp from which it is closed: lateness after the later of its end and its last write.
    pub fn closes_ms(&self, grain: Grain, start_ms: i64, lateness_ms: i64) -> i64 {
        (start_ms + super::partition_span_ms(grain)).max(self.last_write_ms).saturating_add(lateness_ms)
    }

    pub fn is_folded(&self) -> bool {
        self.blocks.iter().all(|b| b.folded)
    }

    /// Blocks that are worth merging.
    pub fn pick_compaction(&self, grain: Grain) -> Option<Picked> {
        let (open_min, open_max, folded_max) = match grain {
            Grain::Minute => (COMPACT_OPEN_BLOCKS_MIN, COMPACT_MINUTE_BYTES_MAX, COMPACT_MINUTE_BYTES_MAX),
            Grain::Hour => (COMPACT_OPEN_HOURS_MIN, COMPACT_HOUR_BYTES_MAX, COMPACT_HOUR_BYTES_MAX),
            Grain::Day => (COMPACT_OPEN_BLOCKS_MIN, COMPACT_BLOCK_BYTES_MAX, COMPACT_BLOCK_BYTES_MAX),
        };
        let of = [(true, COMPACT_FOLDED_BLOCKS_MIN, folded_max), (false, open_min, open_max)];
        let by_size = of.into_iter().find_map(|(folded, blocks_min, block_max)| {
            let sizes = self.blocks.iter().enumerate().filter(|(_, b)| b.folded == folded);
            pick_tier(sizes.map(|(at, b)| (size(b), at)).collect(), blocks_min, block_max, super::TICK_MERGE_BYTES_MAX)
        });
        let picked = |positions, why| Picked { positions, why };
        let overlapping = || self.pick_overlapping(true).or_else(|| self.pick_overlapping(false));
        by_size.map(|positions| picked(positions, Why::Small)).or_else(|| Some(picked(overlapping()?, Why::Overlapping)))
    }

    /// Of the blocks that hold the moment which most of them do.
    fn pick_overlapping(&self, folded: bool) -> Option<Vec<usize>> {
        let blocks = || self.blocks.iter().enumerate().filter(|(_, b)| b.folded == folded && size(b) <= COMPACT_BLOCK_BYTES_MAX);
        let (mut starts, mut ends): (Vec<i64>, Vec<i64>) = blocks().map(|(_, b)| (b.block.first_ms, b.block.last_ms)).unzip();
        starts.sort_unstable();
        ends.sort_unstable();
        // There are never more of them than where one begins.
        let depth = |ms: i64| starts.partition_point(|start| *start <= ms) - ends.partition_point(|end| *end < ms);
        let deepest = starts.iter().copied().max_by_key(|ms| (depth(*ms), -ms))?;
        let holding = blocks().filter(|(_, b)| b.block.first_ms <= deepest && deepest <= b.block.last_ms);
        let sizes = holding.map(|(at, b)| (size(b), at)).collect();
        pick_tier(sizes, COMPACT_OVERLAPPING_BLOCKS_MIN, COMPACT_BLOCK_BYTES_MAX, super::TICK_MERGE_BYTES_MAX)
    }
}

fn size(stored: &Stored) -> usize {
    stored.block.bytes().len().max(COMPACT_BLOCK_BYTES_FLOOR)
}

/// Size-tiered choice among (bytes, position): the most parts, smallest first, of which the largest is at most twice the others together, so
/// that every byte that is rewritten lands in something at least half as large again. Positions ascending.
pub(super) fn pick_tier(mut parts: Vec<(usize, usize)>, parts_min: usize, part_max: usize, total_max: usize) -> Option<Vec<usize>> {
    parts.retain(|&(bytes, _)| bytes <= part_max);
    if parts.len() < parts_min {
        return None;
    }
    parts.sort_unstable();
    let mut before = 0;
    let mut take = 0;
    for (n, &(bytes, _)) in parts.iter().enumerate() {
        if before + bytes > total_max {
            break;
        }
        if n > 0 && bytes <= 2 * before {
            take = n + 1;
        }
        before += bytes;
    }
    if take < parts_min {
        return None;
    }
    parts.truncate(take);
    let mut positions: Vec<usize> = parts.into_iter().map(|(_, at)| at).collect();
    positions.sort_unstable();
    Some(positions)
}
