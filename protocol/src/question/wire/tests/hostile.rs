//! Bytes that no node of this build would send.

use proptest::prelude::*;

use super::*;
use crate::limits::POINTS_PER_GROUP_MAX;

#[test]
fn foreign_bytes_are_told_apart() {
    for (golden, kind) in [(GOLDEN_QUERY, Kind::Query), (GOLDEN_ANSWERS, Kind::Answers)] {
        let decode = |bytes: &[u8]| match kind {
            Kind::Query => decode_query(bytes).map(drop),
            Kind::Answers => decode_answers(bytes).map(drop),
        };
        let changed = |at: usize| {
            let mut bytes = golden.to_vec();
            bytes[at] ^= 0x40;
            decode(&bytes)
        };
        assert_eq!(decode(&[]), Err(WireError::Magic));
        assert_eq!(changed(0), Err(WireError::Magic));
        assert_eq!(changed(4), Err(WireError::Version(0x41)));
        assert_eq!(changed(6), Err(WireError::Damaged("of another kind")));
        for at in 8..16 {
            assert_eq!(changed(at), Err(WireError::Damaged("of another length than stated")));
        }
        for cut in 0..golden.len() {
            assert!(decode(&golden[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&[golden, &[0]].concat()).is_err());
    }
    assert_eq!(decode_query(GOLDEN_ANSWERS).err(), Some(WireError::Damaged("of another kind")));
    let mut long = GOLDEN_QUERY[..HEADER_BYTES].to_vec();
    long.resize(HEADER_BYTES + WIRE_QUERY_BYTES_MAX + 1, 0);
    assert!(matches!(decode_query(&long), Err(WireError::TooLarge { what: "bytes", .. })));
}

/// What is done with whatever passed: merged, read and sent on.
fn use_answers(answers: &[(ShardId, ShardResult)]) {
    let mut merger = Merger::new(ANSWER_CELLS_MAX);
    for answer in answers.iter().filter_map(|a| a.1.as_ref().ok()) {
        merger.push(answer.clone()).expect("groups are there");
        merger.push(answer.clone()).expect("groups are there");
    }
    for cell in merger.finish(None).expect("few cells").cells {
        let values = cell.values;
        let _ = (values.avg(), values.users.estimate(), values.sessions.estimate(), values.quantiles.quantile(0.5));
    }
    assert_same(&there_and_back(answers), answers);
}

fn mutated(golden: &[u8], edits: Vec<(usize, u8)>) -> Vec<u8> {
    let mut bytes = golden.to_vec();
    let body = golden.len() - HEADER_BYTES;
    for (at, byte) in edits {
        // Lengths and offsets of columns are at the end: half of the edits go there.
        let at = if byte % 2 == 0 { HEADER_BYTES + at % body } else { golden.len() - 1 - at % body.min(500) };
        bytes[at] = byte;
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mutated_answers_are_refused_or_of_use(edits in edits()) {
        if let Ok(answers) = decode_answers(&mutated(GOLDEN_ANSWERS, edits)) {
            use_answers(&answers);
        }
    }

    #[test]
    fn mutated_queries_are_refused_or_of_use(edits in edits()) {
        if let Ok(query) = decode_query(&mutated(GOLDEN_QUERY, edits)) {
            prop_assert_eq!(decode_query(&encode_query(&query).expect("within limits")), Ok(query));
        }
    }

    #[test]
    fn any_body_is_read_without_harm(body in proptest::collection::vec(any::<u8>(), 0..700)) {
        for golden in [GOLDEN_QUERY, GOLDEN_ANSWERS] {
            let mut bytes = golden[..HEADER_BYTES].to_vec();
            bytes[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&body);
            let _ = (decode_query(&bytes), decode_answers(&bytes));
        }
    }
}

/// Why an answer that was changed on its way is refused.
fn refused(change: impl FnOnce(&mut PartialAnswer)) -> &'static str {
    let mut sent = sample_answers();
    sent[0].1.as_mut().map(change).expect("an answer");
    let bytes = encode_answers(&sent).expect("small");
    match decode_answers(&bytes) {
        Err(WireError::Damaged(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn answers_that_cannot_be_are_refused() {
    let most = crate::limits::ANSWER_EVENTS_MAX;
    assert_eq!(refused(|a| a.cells[1].group = 2), "a cell names no group");
    assert_eq!(refused(|a| a.groups[1].push(None)), "groups differ in the number of their values");
    assert_eq!(refused(|a| a.cells[1].bucket = POINTS_PER_GROUP_MAX as u32), "a cell's step is out of range");
    assert_eq!(refused(|a| a.cells[1].values.count = most), "more events than there can be");
    assert_eq!(refused(|a| a.cells[1].values.value_count = u64::MAX), "more events than there can be");
    assert_eq!(refused(|a| a.other.unjudged = most + 1), "more events than there can be");
    assert_eq!(refused(|a| a.cells[0].values.quantiles.add(3, most)), "more events than there can be");
    assert_eq!(refused(|a| a.cells[0].values.quantiles.add(i32::MIN, 1)), "quantiles do not read");
    assert_eq!(refused(|a| a.cells[0].values.quantiles.add(i32::MAX, 1)), "quantiles do not read");
    let twice = encode_answers(&[sample_answers()[1].clone(), sample_answers()[1].clone()]).expect("small");
    assert_eq!(decode_answers(&twice).err(), Some(WireError::Damaged("a shard is there twice or cannot be")));
    let beyond = encode_answers(&[(ShardId(1_024), Ok(PartialAnswer::default()))]).expect("small");
    assert_eq!(decode_answers(&beyond).err(), Some(WireError::Damaged("a shard is there twice or cannot be")));
}

#[test]
fn queries_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut ShardQuery)| {
        let mut query = sample_query();
        change(&mut query);
        match decode_query(&encode_query(&query).expect("small")) {
            Err(WireError::Damaged(why)) => why,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let order = "slices are not disjoint and in the order of time";
    assert_eq!(refused(|q| q.plan.slices.swap(0, 1)), order);
    assert_eq!(refused(|q| q.plan.slices[1].from_ms -= 1), order);
    assert_eq!(refused(|q| q.plan.slices[2].to_ms = q.plan.slices[2].from_ms), order);
    assert_eq!(refused(|q| q.plan.slices[0].from_ms = i64::MIN), order);
    assert_eq!(refused(|q| q.plan.slices[2].to_ms = i64::MAX), order);
    assert_eq!(refused(|q| q.plan.buckets = 1), "a slice names no step");
}
