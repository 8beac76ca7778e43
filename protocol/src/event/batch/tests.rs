use proptest::prelude::*;

use super::*;
use crate::key::{MetricKind, encode_key};

const GOLDEN: &[u8] = include_bytes!("../../../testdata/shard_batch_v1.bin");

/// Two keys, three events of which one has no value and nobody, two derived rows of the last event.
fn sample() -> ShardBatch {
    let mut key_bytes = Vec::new();
    encode_key(&mut key_bytes, MetricKind::Default, "default", "page_view", [Some("web"), None, Some("DÉ")]);
    let first_end = key_bytes.len() as u32;
    encode_key(&mut key_bytes, MetricKind::Defined, "default", "départs", [Some(""), Some("UA")]);
    ShardBatch {
        definitions_version: 3,
        routing_version: 9,
        key_hashes: vec![u128::MAX - 1, 0x0123_4567_89ab_cdef],
        key_ends: vec![first_end, key_bytes.len() as u32],
        key_bytes,
        keys: vec![0, 0, 0],
        times: vec![1_767_268_800_123, -1, i64::MIN],
        ids: vec![1, u128::MAX, 1 << 100],
        users: vec![42, u64::MAX, NO_IDENTITY],
        sessions: vec![NO_IDENTITY, 7, 8],
        values: vec![12.5, -1e300, NO_VALUE],
        derived_events: vec![2, 2],
        derived_keys: vec![1, 1],
        derived_values: vec![NO_VALUE, 0.1],
    }
}

/// Values by their bits, as "no value" equals nothing.
fn assert_same(read: &ShardBatch, written: &ShardBatch) {
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.values), bits(&written.values));
    assert_eq!(bits(&read.derived_values), bits(&written.derived_values));
    let without_values = |batch: &ShardBatch| ShardBatch { values: Vec::new(), derived_values: Vec::new(), ..batch.clone() };
    assert_eq!(without_values(read), without_values(written));
}

fn read(bytes: &[u8]) -> ShardBatch {
    let batch = check(bytes).expect("valid");
    rkyv::deserialize::<ShardBatch, rkyv::rancor::Error>(batch).expect("plain columns")
}

fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut out = AlignedVec::new();
    out.extend_from_slice(bytes);
    out
}

#[test]
fn a_batch_reads_back_as_it_was_written() {
    for batch in [sample(), ShardBatch::default()] {
        assert_same(&read(&batch.encode()), &batch);
    }
    let bytes = sample().encode();
    let view = check(&bytes).expect("valid");
    assert_eq!([view.key(0), view.key(1)].concat(), sample().key_bytes);
}

/// The bytes are in logs on disk: this file is never edited.
#[test]
fn version_1_is_read_and_written_as_ever() {
    assert_same(&read(&aligned(GOLDEN)), &sample());
    assert_eq!(sample().encode().as_slice(), GOLDEN);
}

#[test]
fn foreign_bytes_are_told_apart() {
    let bytes = sample().encode();
    assert_eq!(check(&[]).err(), Some(BatchError::Magic));
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    assert_eq!(check(&changed(0)).err(), Some(BatchError::Magic));
    assert_eq!(check(&changed(4)).err(), Some(BatchError::Version(0x41)));
    let mut shifted = AlignedVec::<16>::new();
    shifted.extend_from_slice(&[0; 8]);
    shifted.extend_from_slice(&bytes);
    assert_eq!(check(&shifted[8..]).err(), Some(BatchError::Alignment));
    for cut in 0..bytes.len() {
        // An archive is read from its end, so a prefix may be one by chance, but never one that reaches outside.
        if let Ok(batch) = check(&bytes[..cut]) {
            assert_consistent(batch);
        }
    }
}

#[test]
fn columns_that_disagree_are_refused() {
    let refused = |change: fn(&mut ShardBatch)| {
        let mut batch = sample();
        change(&mut batch);
        let bytes = batch.encode();
        match check(&bytes) {
            Err(BatchError::Columns(what)) => what,
            other => panic!("expected disagreeing columns, got {:?}", other.err()),
        }
    };
    let columns: [fn(&mut ShardBatch); 6] = [
        |b| b.keys.truncate(2),
        |b| b.times.truncate(2),
        |b| b.ids.push(5),
        |b| b.users.truncate(0),
        |b| b.sessions.push(1),
        |b| b.values.truncate(1),
    ];
    for change in columns {
        assert_eq!(refused(change), "event columns differ in length");
    }
    assert_eq!(refused(|b| b.derived_keys.truncate(1)), "derived columns differ in length");
    assert_eq!(refused(|b| b.derived_values.push(1.0)), "derived columns differ in length");
    assert_eq!(refused(|b| b.key_hashes.truncate(1)), "dictionary columns differ in length");
    assert_eq!(refused(|b| b.keys[1] = 2), "a key index is out of range");
    assert_eq!(refused(|b| b.derived_keys[1] = u32::MAX), "a key index is out of range");
    assert_eq!(refused(|b| b.derived_events[1] = 3), "a derived row names no event");
    assert_eq!(refused(|b| b.derived_events[1] = 1), "derived rows are not in event order");
    assert_eq!(refused(|b| b.values[0] = f64::NEG_INFINITY), "a value is infinite");
    assert_eq!(refused(|b| b.derived_values[0] = f64::INFINITY), "a value is infinite");
    assert_eq!(refused(|b| b.key_ends[1] = b.key_ends[0] - 1), "dictionary ends are not in order");
    assert_eq!(refused(|b| b.key_ends[1] += 1), "dictionary ends are not in order");
    assert_eq!(refused(|b| b.key_bytes[0] = 2), "a key does not parse");
    assert_eq!(refused(|b| b.key_bytes.push(0)), "bytes after the last key");
}

/// Everything that an apply does with a batch that was checked.
fn assert_consistent(batch: &ArchivedShardBatch) {
    for row in 0..batch.keys.len() {
        let key = KeyView::parse(batch.key(batch.keys[row].to_native() as usize)).expect("checked keys parse");
        assert!(key.dimensions().count() < usize::MAX);
        let _ = (batch.times[row], batch.ids[row], batch.users[row], batch.sessions[row]);
        assert!(!batch.values[row].to_native().is_infinite());
    }
    let mut last = 0;
    for row in 0..batch.derived_keys.len() {
        let event = batch.derived_events[row].to_native() as usize;
        assert!(event < batch.keys.len() && event >= last);
        last = event;
        let _ = (batch.key(batch.derived_keys[row].to_native() as usize), batch.derived_values[row]);
    }
    for index in 0..batch.key_hashes.len() {
        assert!(KeyView::parse(batch.key(index)).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn mutated_bytes_never_panic_and_never_pass_with_columns_that_disagree(edits in proptest::collection::vec((16usize..GOLDEN.len(), any::<u8>()), 1..6), tail in 0usize..40) {
        let mut bytes = aligned(GOLDEN);
        for (at, byte) in edits {
            // Lengths and offsets of columns are at the end: half of the edits go there.
            let at = if byte % 2 == 0 { at } else { GOLDEN.len() - 1 - at % 120 };
            bytes[at] = byte;
        }
        if tail % 4 == 0 {
            bytes.resize(bytes.len() - tail / 4 * 4, 0);
        }
        if let Ok(batch) = check(&bytes) {
            assert_consistent(batch);
        }
    }

    #[test]
    fn any_bytes_behind_the_header_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = aligned(&GOLDEN[..HEADER_BYTES]);
        bytes.extend_from_slice(&body);
        if let Ok(batch) = check(&bytes) {
            assert_consistent(batch);
        }
    }
}
