mod hostile;
mod samples;

use std::sync::Arc;

use proptest::prelude::*;
use samples::{answers, queries, sample_answers, sample_query};

use super::*;
use crate::aggregate::{Accumulator, Distinct, IdentitySet, Wants, sketch_of};
use crate::hash::identity_hash;
use crate::limits::{ANSWER_CELLS_MAX, ANSWER_EXACT_ENTRIES_MAX, FILTERS_MAX, WIRE_CELL_BYTES};
use crate::question::answer::{Cell, StepCounts};
use crate::question::merge::Merger;

const GOLDEN_QUERY: &[u8] = include_bytes!("../../../testdata/wire_query_v1.bin");
const GOLDEN_ANSWERS: &[u8] = include_bytes!("../../../testdata/wire_answers_v1.bin");

/// Everything that a set holds, in one order.
fn content(set: &Distinct) -> (Vec<u64>, Vec<u8>) {
    let (mut hashes, mut registers) = (Vec::new(), Vec::new());
    set.put(&mut hashes, &mut registers);
    hashes.sort_unstable();
    hashes.dedup();
    (hashes, registers)
}

/// Floats by their bits, sets by what they hold.
fn assert_same_cells(read: &[Cell], sent: &[Cell]) {
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(sent) {
        let plain = |c: &Cell| {
            let v = &c.values;
            let last = v.last.map(|l| (l.time_ms, l.id, l.value.to_bits()));
            (c.group, c.bucket, v.count, v.value_count, v.sum.to_bits(), v.min.to_bits(), v.max.to_bits(), last)
        };
        assert_eq!(plain(read), plain(sent));
        assert_eq!(read.values.quantiles, sent.values.quantiles);
        for set in [|v: &Accumulator| &v.users, |v: &Accumulator| &v.sessions] as [fn(&Accumulator) -> &Distinct; 2] {
            let (read, sent) = (set(&read.values), set(&sent.values));
            assert_eq!(content(read), content(sent));
            assert_eq!((read.is_exact(), read.estimate()), (sent.is_exact(), sent.estimate()));
        }
    }
}

fn assert_same(read: &[(ShardId, ShardResult)], sent: &[(ShardId, ShardResult)]) {
    assert_eq!(read.len(), sent.len());
    for ((shard, read), (sent_by, sent)) in read.iter().zip(sent) {
        assert_eq!(shard, sent_by);
        match (read, sent) {
            (Ok(read), Ok(sent)) => {
                assert_same_cells(&read.cells, &sent.cells);
                let plain = |a: &PartialAnswer| PartialAnswer { cells: Vec::new(), ..a.clone() };
                assert_eq!(plain(read), plain(sent));
            }
            (read, sent) => assert_eq!(read, sent),
        }
    }
}

fn there_and_back(sent: &[(ShardId, ShardResult)]) -> Vec<(ShardId, ShardResult)> {
    decode_answers(&encode_answers(sent).expect("within limits")).expect("own bytes")
}

fn merged<'a>(answers: impl IntoIterator<Item = &'a PartialAnswer>) -> crate::question::merge::Merged {
    let mut merger = Merger::new(ANSWER_CELLS_MAX);
    answers.into_iter().for_each(|a| merger.push(a.clone()).expect("few cells"));
    merger.finish(None).expect("few cells")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn queries_read_back(query in queries()) {
        let bytes = encode_query(&query).expect("within limits");
        prop_assert_eq!(decode_query(&bytes), Ok(query.clone()));
        // Wherever the transport put it.
        for moved in [1, 8] {
            let shifted = [&vec![0; moved][..], &bytes].concat();
            prop_assert_eq!(decode_query(&shifted[moved..]), Ok(query.clone()));
        }
    }

    #[test]
    fn answers_read_back_and_merge_as_before(sent in answers(), local in any::<[bool; 6]>()) {
        let read = there_and_back(&sent);
        assert_same(&read, &sent);
        // Some shards are here and some elsewhere.
        let mixed = sent.iter().zip(&read).zip(local).filter_map(|((here, there), is_local)| if is_local { here } else { there }.1.as_ref().ok());
        let (before, after) = (merged(sent.iter().filter_map(|s| s.1.as_ref().ok())), merged(mixed));
        assert_same_cells(&after.cells, &before.cells);
        prop_assert_eq!((after.groups, after.watermark_ms, after.other), (before.groups, before.watermark_ms, before.other));
        // What was read is sent on as it was.
        assert_same(&there_and_back(&read), &sent);
    }
}

fn hashes(range: std::ops::Range<u32>) -> impl Iterator<Item = u64> {
    range.map(|i| identity_hash(&i.to_le_bytes()))
}

fn set_of(range: std::ops::Range<u32>) -> Distinct {
    let mut set = Distinct::default();
    hashes(range).for_each(|h| set.insert(h));
    set
}

fn shared(ranges: &[std::ops::Range<u32>]) -> Distinct {
    let mut all = Distinct::default();
    ranges.iter().for_each(|range| all.merge(&Distinct::shared(std::sync::Arc::new(IdentitySet::of(set_of(range.clone()))))));
    all
}

/// Every kind of set there is, around every size at which it changes; then any two of them merged, one or both from elsewhere.
#[test]
fn sets_stay_what_they_are_and_merge_alike() {
    let most = ANSWER_EXACT_ENTRIES_MAX as u32;
    let mut of_windows = Distinct::default();
    of_windows.merge_sketch(&sketch_of(hashes(0..1_500)).serialize());
    let mut joined = shared(&[0..9_000, 4_000..12_000]);
    joined.join_shared(|sets| Arc::new(IdentitySet::union(sets)));
    let sets = [
        Distinct::default(),
        set_of(0..1),
        set_of(500..1_523),
        set_of(500..1_524),
        set_of(0..most),
        set_of(0..most + 1),
        set_of(0..120_000),
        of_windows,
        shared(&[3..3, 3..3]),
        shared(std::slice::from_ref(&(0..10))),
        shared(std::slice::from_ref(&(0..9_000))),
        shared(&[0..9_000, 5_000..15_000]),
        shared(&[0..9_000, 9_000..19_000]),
        shared(&[0..40_000, 3..5]),
        joined,
    ];
    let cell = |(i, set): (usize, &Distinct)| {
        let values = Accumulator { count: 1, users: set.clone(), sessions: sets[sets.len() - 1 - i].clone(), ..Accumulator::default() };
        Cell { group: 0, bucket: i as u32, values }
    };
    let answer = PartialAnswer { groups: vec![Vec::new()], cells: sets.iter().enumerate().map(cell).collect(), ..PartialAnswer::default() };
    let sent = [(ShardId(3), Ok(answer))];
    let read = there_and_back(&sent);
    assert_same(&read, &sent);
    let read = read[0].1.as_ref().expect("an answer");
    for (i, left) in sets.iter().enumerate() {
        for (j, right) in sets.iter().enumerate() {
            let mut want = left.clone();
            want.merge(right);
            for (left, right) in [(left, &read.cells[j].values.users), (&read.cells[i].values.users, &read.cells[j].values.users)] {
                let mut got = left.clone();
                got.merge(right);
                assert_eq!(content(&got), content(&want), "{i} and {j}");
            }
        }
    }
}

/// Bytes of these files may be on their way between nodes of different builds: they are never edited.
#[test]
fn version_1_is_read_and_written_as_ever() {
    assert_eq!(decode_query(GOLDEN_QUERY), Ok(sample_query()));
    assert_same(&decode_answers(GOLDEN_ANSWERS).expect("version 1"), &sample_answers());
    assert_eq!(encode_query(&sample_query()).expect("small"), GOLDEN_QUERY);
    assert_eq!(encode_answers(&sample_answers()).expect("small"), GOLDEN_ANSWERS);
}

#[test]
fn cells_take_little_more_than_they_must() {
    let size = |wants: Wants, users: u32| {
        let cell = |i: u32| {
            let mut values = Accumulator::default();
            for n in 0..users {
                let hash = identity_hash(&(i * 31 + n).to_le_bytes());
                values.add(wants, i64::from(i), hash, hash, hash, Some(f64::from(i + 1) * 1.03f64.powi(n as i32)));
            }
            if wants == Wants::default() {
                values = Accumulator { count: values.count, ..Accumulator::default() };
            }
            Cell { group: i / 1_000, bucket: i % 1_000, values }
        };
        let groups = (0..100).map(|g| vec![Some(format!("group {g}"))]).collect();
        let answer = PartialAnswer { groups, cells: (0..100_000).map(cell).collect(), ..PartialAnswer::default() };
        let bytes = encode_answers(&[(ShardId(0), Ok(answer))]).expect("within limits").len();
        println!("{wants:?}, {users} events a cell: {:.2} bytes a cell", bytes as f64 / 1e5);
        bytes as f64 / 1e5
    };
    let only = |f: fn(&mut Wants)| {
        let mut wants = Wants::default();
        f(&mut wants);
        wants
    };
    assert!(size(Wants::default(), 3) < WIRE_CELL_BYTES as f64 + 0.1);
    assert!(size(only(|w| w.values = true), 3) < 40.1);
    assert!(size(only(|w| w.last = true), 3) < 68.1);
    assert!(size(only(|w| w.users = true), 3) < 72.1);
    assert!(size(only(|w| w.quantiles = true), 3) < 56.1);
    assert!(size(only(|w| w.quantiles = true), 60) < 170.0);
}

#[test]
fn what_is_too_large_is_not_sent() {
    let mut query = sample_query();
    query.filters = vec![query.filters[0].clone(); FILTERS_MAX + 1];
    let refused = encode_query(&query).expect_err("too many");
    assert_eq!(refused, WireError::TooLarge { what: "filters", size: FILTERS_MAX + 1, limit: FILTERS_MAX });
    assert_eq!(refused.to_string(), "too large to go between nodes: 33 filters, at most 32");
    query.filters.truncate(1);
    query.tenant = "x".repeat(WIRE_QUERY_BYTES_MAX + 1);
    assert!(matches!(encode_query(&query), Err(WireError::TooLarge { what: "bytes", .. })));

    let cell = |i: u64| Cell { group: 0, bucket: i as u32 % 1_000, values: Accumulator { count: i, ..Accumulator::default() } };
    let answer = |cells: usize| {
        let cells = (0..cells as u64).map(cell).collect();
        (ShardId(7), Ok(PartialAnswer { groups: vec![Vec::new()], cells, ..PartialAnswer::default() }))
    };
    let most = [answer(ANSWER_CELLS_MAX)];
    let bytes = encode_answers(&most).expect("the largest answer of counts");
    assert_eq!(decode_answers(&bytes).expect("own bytes")[0].1.as_ref().expect("an answer").cells.len(), ANSWER_CELLS_MAX);
    let two = [most[0].clone(), most[0].clone()];
    assert!(matches!(encode_answers(&two), Err(WireError::TooLarge { what: "bytes", .. })));
    assert!(matches!(encode_answers(&[answer(ANSWER_CELLS_MAX + 1)]), Err(WireError::TooLarge { what: "cells", .. })));
}

#[test]
fn an_answer_to_another_query_does_not_fit() {
    let query = sample_query();
    let (_, Ok(answer)) = &sample_answers()[0] else { panic!("an answer") };
    assert!(answer.fits(&query));
    assert!(!answer.fits(&ShardQuery { group_by: query.group_by[..1].to_vec(), ..query.clone() }));
    let plan = crate::question::query::ScanPlan { buckets: 1, ..query.plan.clone() };
    assert!(!answer.fits(&ShardQuery { plan, ..query }));
}

#[test]
fn counts_travel_as_cells() {
    let counts = StepCounts { buckets: 3, counts: vec![0, 2, 0, 5, 0, 1] };
    let sent = PartialAnswer { groups: vec![vec![Some("a".to_owned())], vec![None]], counts, applied_index: 4, ..PartialAnswer::default() };
    let got = there_and_back(&[(ShardId(1), Ok(sent.clone()))]);
    assert_eq!(got, [(ShardId(1), Ok(sent.with_cells_only()))]);
    assert_eq!(got[0].1.as_ref().map(|answer| answer.cells.len()), Ok(3));
}
