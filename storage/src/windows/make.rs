//! Blocks out of open rows (sealing) and out of other blocks (folding and compacting).

use tallymesh_protocol::time::Grain;

use super::OpenRow;
use super::block::Block;
use super::builder::BlockBuilder;
use super::merged::Merged;

/// Bits of a row's index in the sort key of sealing.
const INDEX_BITS: u32 = 26;
const _: () = assert!(super::TAIL_ROWS_MAX < 1 << INDEX_BITS, "a row's index fits its bits");
const _: () = assert!(INDEX_BITS + u32::BITS + 6 <= u64::BITS, "minute of the hour, key and index fit one word");

/// Seals the rows of the hour at `hour_ms` that lie before minute `minutes` of it. At least one row must.
pub(super) fn seal(hour_ms: i64, rows: &[OpenRow], minutes: u64) -> Block {
    let mut order: Vec<u64> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let minute = u64::from(row.minute());
        if minute < minutes {
            order.push(minute << (INDEX_BITS + u32::BITS) | u64::from(row.key) << INDEX_BITS | index as u64);
        }
    }
    order.sort_unstable();
    let row_of = |word: u64| &rows[(word & ((1 << INDEX_BITS) - 1)) as usize];
    let mut builder = BlockBuilder::new(Grain::Minute, hour_ms, order.len());
    let mut merged = Merged::default();
    let mut minute = u64::MAX;
    for window in order.chunk_by(|a, b| a >> INDEX_BITS == b >> INDEX_BITS) {
        let row = row_of(window[0]);
        if window[0] >> (INDEX_BITS + u32::BITS) != minute {
            minute = window[0] >> (INDEX_BITS + u32::BITS);
            builder.start(minute as u8);
        }
        if let [_] = window {
            builder.push_row(row, hour_ms + i64::from(row.offset_ms));
        } else {
            for row in window.iter().map(|&word| row_of(word)) {
                merged.add_row(row, hour_ms + i64::from(row.offset_ms));
            }
            builder.push_merged(row.key, &mut merged);
        }
    }
    builder.finish()
}

/// Where a merge found windows of one start.
struct Run<'a> {
    block: &'a Block,
    start_ms: i64,
}

/// Merges blocks into one of `grain`, which is theirs or coarser, in the partition at `partition_ms`. Their order decides that of additions.
pub(super) fn merge(blocks: &[&Block], grain: Grain, partition_ms: i64) -> Block {
    let mut whole = merge_cut(blocks, grain, partition_ms, usize::MAX);
    debug_assert_eq!(whole.len(), 1);
    whole.swap_remove(0)
}

/// As [`merge`], into blocks that follow each other: a new one begins with the start after that which took the last to `cut_bytes`.
pub(super) fn merge_cut(blocks: &[&Block], grain: Grain, partition_ms: i64, cut_bytes: usize) -> Vec<Block> {
    let span = super::partition_span_ms(grain) / grain.ms();
    let new_builder = |windows| BlockBuilder::new(grain, partition_ms, windows);
    let mut builder = new_builder(if cut_bytes == usize::MAX { blocks.iter().map(|b| b.windows()).sum() } else { 0 });
    let mut made: Vec<Block> = Vec::new();
    let mut merged = Merged::default();
    let mut cursors = vec![0usize; blocks.len()];
    let mut runs: Vec<Run<'_>> = Vec::new();
    // (key, sequence) sorts windows by key and keeps the order of their blocks; `refs[sequence]` says where each is.
    let mut order: Vec<u64> = Vec::new();
    let mut refs: Vec<(u32, u32)> = Vec::new();
    for index in 0..span {
        let end_ms = partition_ms + (index + 1) * grain.ms();
        runs.clear();
        order.clear();
        refs.clear();
        for (block, cursor) in blocks.iter().zip(&mut cursors) {
            let columns = block.columns();
            while *cursor < columns.starts.len() && columns.start_ms(*cursor) < end_ms {
                for window in columns.windows_of(*cursor) {
                    order.push(u64::from(columns.keys[window].to_native()) << 32 | refs.len() as u64);
                    refs.push((runs.len() as u32, window as u32));
                }
                runs.push(Run { block, start_ms: columns.start_ms(*cursor) });
                *cursor += 1;
            }
        }
        if runs.is_empty() {
            continue;
        }
        if builder.bytes_about() >= cut_bytes {
            made.push(std::mem::replace(&mut builder, new_builder(0)).finish());
        }
        builder.start(index as u8);
        if runs.len() > 1 {
            order.sort_unstable();
        }
        for same_key in order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let key = (same_key[0] >> 32) as u32;
            let window_of = |word: u64| {
                let (run, window) = refs[(word & u64::from(u32::MAX)) as usize];
                let run = &runs[run as usize];
                run.block.columns().window(window as usize, run.start_ms)
            };
            if let [one] = same_key {
                builder.push_copy(key, window_of(*one));
            } else {
                same_key.iter().for_each(|&word| merged.add_window(window_of(word)));
                builder.push_merged(key, &mut merged);
            }
        }
    }
    made.push(builder.finish());
    made
}
