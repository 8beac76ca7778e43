mod budget;
mod crash;
mod model;
mod replicas;
mod snapshots;

use std::sync::Arc;

use proptest::prelude::*;
use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::event::batch::{BatchError, ShardBatch};
use tallymesh_protocol::event::command::{ShardSettings, encode_batches, encode_configure, encode_requests, encode_tick};
use tallymesh_protocol::hash::key_hash;
use tallymesh_protocol::key::{MetricKind, encode_key};
use tallymesh_protocol::question::query::{DimensionFilter, DimensionRef, MetricSelector, ScanPlan, ShardQuery, Slice};
use tallymesh_protocol::time::{DAY_MS, Grain};

use super::*;
use crate::disk::SimDisk;
use crate::files::ShardFiles;
use model::{BASE_MS, Event, Model, encode};

const OPTIONS: ShardOptions = ShardOptions { dedup_memory_bytes_max: 1 << 20 };

fn simulated() -> (SimDisk, ShardFiles) {
    let disk = SimDisk::new();
    let files = ShardFiles::open(Arc::new(disk.clone()), "/shard-0").expect("opens");
    assert!(ShardState::open(&files, OPTIONS).expect("opens").is_none());
    (disk, files)
}

fn event(id: u64) -> Event {
    Event { id, name: 0, dimensions: [0, 0, 0], time_ms: BASE_MS, user: 1, value: Some(1.0), derived: None }
}

fn count_of(state: &ShardState, name: u8) -> u64 {
    let plan = ScanPlan {
        slices: vec![Slice { from_ms: BASE_MS - DAY_MS, to_ms: BASE_MS + 10 * DAY_MS, grain: Grain::Day, bucket: 0 }],
        buckets: 1,
    };
    let query = ShardQuery {
        tenant: "default".into(),
        metric: MetricSelector::Event(format!("event{name}")),
        group_by: Vec::new(),
        filters: Vec::new(),
        plan,
        wants: Wants::default(),
        cells_max: 10,
    };
    state.query(&query).expect("answers").cells.iter().map(|c| c.values.count).sum()
}

#[test]
fn a_malformed_part_is_refused_and_poisons_nothing() {
    let mut state = ShardState::new(OPTIONS);
    let good = encode(&[event(1), event(2)], 0);
    let mut cut = good.to_vec();
    cut.truncate(good.len() - 16);
    let ancient = encode(&[Event { time_ms: i64::MIN, ..event(9) }], 0);
    let parts: [&[u8]; 5] = [&good, b"not a batch", &cut, &ancient, &encode(&[event(2), event(3)], 0)];
    let applied = state.apply(1, &encode_batches(BASE_MS, &parts)).expect("applies");
    let counted: Vec<_> = applied.parts.iter().map(|p| (p.counted, p.duplicates, p.error.is_some())).collect();
    assert_eq!(counted, [(2, 0, false), (0, 0, true), (0, 0, true), (0, 0, true), (1, 1, false)]);
    assert_eq!(applied.parts[1].error, Some(PartError::Malformed(BatchError::Magic)));
    assert_eq!(applied.parts[3].error, Some(PartError::Time { event: 0 }));
    let counters = state.stats().counters;
    assert_eq!((counters.events, counters.duplicates, counters.refused_parts), (3, 1, 3));
    assert_eq!(count_of(&state, 0), 3);
}

#[test]
fn a_part_with_one_bad_key_adds_none_of_its_keys() {
    let mut state = ShardState::new(OPTIONS);
    let key = |name: &str| {
        let mut key = Vec::new();
        encode_key(&mut key, MetricKind::Default, "default", name, [None, None, None]);
        key
    };
    let (good, mut bad) = (key("good"), key("bad"));
    bad[0] = 9;
    let part = |keys: &[&Vec<u8>]| {
        let mut end = 0;
        let mut ends = Vec::new();
        for key in keys {
            end += key.len() as u32;
            ends.push(end);
        }
        let n = keys.len();
        ShardBatch {
            key_hashes: keys.iter().map(|key| key_hash(key)).collect(),
            key_ends: ends,
            key_bytes: keys.iter().flat_map(|key| key.iter().copied()).collect(),
            keys: (0..n as u32).collect(),
            times: vec![BASE_MS; n],
            ids: (0..n as u128).collect(),
            users: vec![0; n],
            sessions: vec![0; n],
            values: vec![1.0; n],
            ..ShardBatch::default()
        }
        .encode()
    };
    let command = |parts: &[&Vec<u8>]| encode_batches(BASE_MS, &[part(parts)]);
    let refused = state.apply(1, &command(&[&good, &bad])).expect("applies");
    assert_eq!(refused.parts[0].error, Some(PartError::Malformed(BatchError::Columns("a key does not parse"))));
    assert_eq!((state.stats().keys, refused.parts[0].counted), (0, 0));
    // Known or new, in any mixture, a key is counted under its own number.
    for (index, (keys, counted)) in [(vec![&good], 1), (vec![&key("other"), &good, &key("third")], 2)].into_iter().enumerate() {
        let applied = state.apply(2 + index as u64, &command(&keys)).expect("applies");
        assert_eq!((applied.parts[0].error.clone(), applied.parts[0].counted), (None, counted));
    }
    assert_eq!(state.stats().keys, 3);
}

#[test]
fn another_attempt_of_a_request_is_told_what_the_first_one_did() {
    let (_, files) = simulated();
    let (mut state, mut replica) = (ShardState::new(OPTIONS), ShardState::new(OPTIONS));
    let some = encode(&[event(1), event(2)], 0);
    let others = encode(&[event(2), event(3)], 0);
    let told = |applied: Applied| applied.parts.iter().map(|p| (p.counted, p.duplicates)).collect::<Vec<_>>();
    let mut apply = |state: &mut ShardState, index, after_ms, requests: &[(u64, &[u8])]| {
        let command = encode_requests(BASE_MS + after_ms, requests);
        let outcome = told(state.apply(index, &command).expect("applies"));
        assert_eq!(told(replica.apply(index, &command).expect("applies")), outcome);
        assert_eq!(state.checksum(), replica.checksum());
        outcome
    };
    assert_eq!(apply(&mut state, 1, 0, &[(7, &some), (8, &others), (7, &some)]), [(2, 0), (1, 1), (2, 0)]);
    let saved = state.save_plan().write(&files, b"").expect("saves");
    state.mark_saved(&saved);
    let (mut state, _) = ShardState::open(&files, OPTIONS).expect("opens").expect("a snapshot was written");
    // The first attempt, another client's, one that drew a number of another, and one whose number nobody has.
    assert_eq!(apply(&mut state, 2, 100, &[(8, &others), (9, &others), (7, &others), (0, &some)]), [(1, 1), (0, 2), (0, 2), (0, 2)]);
    assert_eq!(state.counters().duplicates, 7, "what was answered again is no duplicate");
    assert_eq!(apply(&mut state, 3, answers::ANSWER_LIFE_MS - 1, &[(7, &some)]), [(2, 0)]);
    assert_eq!(apply(&mut state, 4, answers::ANSWER_LIFE_MS, &[(7, &some)]), [(0, 2)]);
    assert_eq!(count_of(&state, 0), 3);
}

#[test]
fn a_command_that_lies_anywhere_in_memory_does_the_same() {
    let command = encode_batches(BASE_MS, &[encode(&[event(1)], 0)]);
    for shift in 0..16 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(&command);
        let mut state = ShardState::new(OPTIONS);
        assert_eq!(state.apply(1, &bytes[shift..]).expect("applies").parts[0].counted, 1);
    }
}

#[test]
fn entries_apply_in_order_and_unreadable_ones_change_nothing() {
    let mut state = ShardState::new(OPTIONS);
    state.skip(0).expect("a log begins with entry 0");
    state.skip(3).expect("later");
    let before = state.checksum();
    assert_eq!(state.apply(3, &encode_tick(1)), Err(ApplyError::OutOfOrder { index: 3, applied: 3 }));
    assert!(matches!(state.apply(4, b"garbage"), Err(ApplyError::Command { index: 4, .. })));
    assert_eq!(state.checksum(), before);
    state.apply(4, &encode_tick(7)).expect("applies");
    state.apply(5, &encode_tick(2)).expect("applies");
    assert_eq!((state.applied_index(), state.stamp_ms()), (5, 7), "a stamp never goes back");
}

#[test]
fn batches_made_with_older_definitions_are_sent_back() {
    let mut state = ShardState::new(OPTIONS);
    let settings = ShardSettings { definitions_version: 4, ..initial_settings() };
    state.apply(1, &encode_configure(1, &settings)).expect("applies");
    assert_eq!(state.settings(), &settings);
    let parts = [encode(&[event(1)], 3), encode(&[event(1)], 4)];
    let applied = state.apply(2, &encode_batches(BASE_MS, &parts)).expect("applies");
    assert_eq!(applied.parts[0].error, Some(PartError::StaleDefinitions { batch: 3, shard: 4 }));
    assert_eq!((applied.parts[0].counted, applied.parts[1].counted), (0, 1));
}

#[test]
fn first_arrivals_older_than_the_horizon_are_on_a_gauge() {
    let mut state = ShardState::new(OPTIONS);
    let old = Event { time_ms: BASE_MS - DAY_MS - 1, ..event(1) };
    let parts = [encode(&[old.clone(), event(2)], 0), encode(&[old], 0)];
    state.apply(1, &encode_batches(BASE_MS, &parts)).expect("applies");
    assert_eq!(state.stats().counters.older_than_horizon, 1);
}

#[test]
fn a_query_says_whether_the_metric_was_ever_seen_and_how_far_it_read() {
    let mut state = ShardState::new(OPTIONS);
    state.apply(8, &encode_batches(BASE_MS, &[encode(&[event(1)], 0)])).expect("applies");
    let mut query = ShardQuery {
        tenant: "default".into(),
        metric: MetricSelector::Event("event0".into()),
        group_by: vec![DimensionRef::Index(0), DimensionRef::EventName, DimensionRef::Index(9)],
        filters: vec![DimensionFilter { dimension: DimensionRef::Index(0), negated: false, values: vec![Some("nowhere".into())] }],
        plan: ScanPlan::default(),
        wants: Wants::default(),
        cells_max: 1,
    };
    let answer = state.query(&query).expect("answers");
    assert_eq!((answer.metric_known, answer.applied_index, answer.groups.len()), (true, 8, 0));
    query.filters.clear();
    let answer = state.query(&query).expect("answers");
    assert_eq!(answer.groups, [[Some("v0".to_owned()), Some("event0".to_owned()), None]], "a dimension that the key lacks is null");
    query.metric = MetricSelector::Defined("event0".into());
    assert!(!state.query(&query).expect("answers").metric_known, "a defined metric is another one");
    query.metric = MetricSelector::Event("event0".into());
    query.tenant = "other".into();
    assert!(!state.query(&query).expect("answers").metric_known, "a tenant sees its own");
}

#[test]
fn too_many_cells_and_a_deadline_end_a_query() {
    let mut state = ShardState::new(OPTIONS);
    let events: Vec<Event> = (0..20_000).map(|n| Event { name: n as u8 % 4, time_ms: BASE_MS + n as i64 * 60, ..event(n) }).collect();
    state.apply(1, &encode_batches(BASE_MS, &[encode(&events, 0)])).expect("applies");
    let query = ShardQuery {
        tenant: "default".into(),
        metric: MetricSelector::All,
        group_by: vec![DimensionRef::EventName],
        filters: Vec::new(),
        plan: ScanPlan { slices: vec![Slice { from_ms: BASE_MS, to_ms: BASE_MS + DAY_MS, grain: Grain::Day, bucket: 0 }], buckets: 1 },
        wants: Wants::default(),
        cells_max: 3,
    };
    assert_eq!(state.query(&query), Err(QueryFailed::TooManyCells { cells_max: 3 }));
    let allowed = ShardQuery { cells_max: 4, ..query };
    assert_eq!(state.query(&allowed).expect("four cells").cells.len(), 4);
    assert_eq!(state.prepare(&allowed).run(&|| true), Err(QueryFailed::Cancelled));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_are_those_of_a_plain_list_of_events(steps in model::steps(), queries in prop::collection::vec(model::query(), 6)) {
        let (_, files) = simulated();
        let mut state = ShardState::new(OPTIONS);
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut state, &files, step);
        }
        for query in &queries {
            model.check_query(&state, query);
        }
        // The same questions to what a restart finds.
        let saved = state.save_plan().write(&files, b"meta").expect("saves");
        state.mark_saved(&saved);
        let (reopened, meta) = ShardState::open(&files, OPTIONS).expect("opens").expect("was saved");
        prop_assert_eq!(meta.as_slice(), b"meta");
        prop_assert_eq!(reopened.checksum(), state.checksum());
        for query in &queries {
            model.check_query(&reopened, query);
        }
    }
}
