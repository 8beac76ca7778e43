//! Blocks written by every released version stay readable. The file is never edited; a new format version adds a file.

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/window-block-v1.bin");

fn golden_rows() -> Vec<OpenRow> {
    let row = |key, offset_ms, id, user, session, value| OpenRow { key, offset_ms, id, user, session, value };
    let mut rows = vec![
        row(7, 61_000, 1, 11, 21, 2.5),
        row(7, 62_000, 2, 12, 21, -4.0),
        row(7, 62_000, 3, 11, 22, 0.0),
        row(70_000, 5, 4, 0, 0, f64::NAN),
        row(9, 3_599_999, 5, 13, 0, 1e12),
    ];
    rows.extend((0..2_000).map(|i| row(8, 120_000, 100 + i, mix(i) | 1, 0, f64::NAN)));
    rows
}

#[test]
fn a_block_of_version_1_reads_as_it_was_written() {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(GOLDEN);
    let block = Block::open(Bytes::from_owner(aligned)).expect("golden");
    assert_eq!((block.grain, block.partition_ms, block.windows()), (Grain::Minute, T0, 4));
    let mut store = WindowStore::new(settings());
    let mut oracle = Vec::new();
    for r in golden_rows() {
        oracle.push(Row { key: r.key, time_ms: T0 + i64::from(r.offset_ms), id: r.id, user: r.user, session: r.session, value: r.value });
    }
    let stored = store.store(block, false);
    store.levels[0].insert(T0, Partition { blocks: vec![stored], last_write_ms: T0 });
    let plan = plan(Grain::Minute, T0, T0 + HOUR_MS, MINUTE_MS);
    let mut groups = vec![u32::MAX; 70_001];
    [7, 8, 9, 70_000].into_iter().enumerate().for_each(|(group, key)| groups[key] = group as u32);
    assert_same(&ask(&store, &plan, &groups), &expect(&oracle, &plan, &groups));
}

#[test]
fn the_writer_still_writes_version_1() {
    let bytes = make::seal(T0, &golden_rows(), 60).bytes().clone();
    if std::env::var_os("TALLYMESH_WRITE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/window-block-v1.bin"), &bytes).expect("write");
    }
    assert!(bytes == GOLDEN, "the layout changed: raise BLOCK_VERSION, keep reading version 1, add a file");
}
