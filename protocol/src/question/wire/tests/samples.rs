//! Queries and answers to send: one of each that never changes, and any.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::ShardResult;
use crate::aggregate::{Accumulator, Distinct, IdentitySet, Last, Wants, sketch_of};
use crate::error::{ErrorCode, Problem};
use crate::hash::{ShardId, identity_hash};
use crate::question::answer::{Cell, OtherEvents, PartialAnswer, StepCounts};
use crate::question::query::{DimensionFilter, DimensionRef, MetricSelector, ScanPlan, ShardQuery, Slice};
use crate::time::Grain;

const DAY_MS: i64 = crate::time::DAY_MS;

pub(super) fn sample_query() -> ShardQuery {
    let slice = |from_ms: i64, to_ms: i64, grain, bucket| Slice { from_ms, to_ms, grain, bucket };
    ShardQuery {
        tenant: "default".to_owned(),
        metric: MetricSelector::Event("départ".to_owned()),
        group_by: vec![DimensionRef::EventName, DimensionRef::Index(2)],
        filters: vec![
            DimensionFilter {
                dimension: DimensionRef::Index(0),
                negated: true,
                values: vec![None, Some(String::new()), Some("wéb".to_owned())],
            },
            DimensionFilter { dimension: DimensionRef::EventName, negated: false, values: vec![Some("a rather longer name".to_owned())] },
        ],
        plan: ScanPlan {
            slices: vec![
                slice(-60_000, 0, Grain::Minute, 0),
                slice(0, 20 * DAY_MS, Grain::Day, 0),
                slice(20 * DAY_MS, 20 * DAY_MS + 3_600_000, Grain::Hour, 1),
            ],
            buckets: 2,
        },
        wants: Wants { values: true, last: false, users: true, sessions: false, quantiles: true },
        cells_max: 2_000_000,
    }
}

/// No set in it is one whose order is left to chance.
pub(super) fn sample_answers() -> Vec<(ShardId, ShardResult)> {
    let hash = |i: u32| identity_hash(&i.to_le_bytes());
    let mut few = Distinct::default();
    few.insert(hash(1));
    let mut many = Distinct::default();
    many.merge_sketch(&sketch_of((0..30_000).map(hash)).serialize());
    let mut fewer = Distinct::default();
    fewer.merge_sketch(&sketch_of((0..1_100).map(hash)).serialize());
    let listed = Distinct::shared(Arc::new(IdentitySet::of(few.clone())));
    let mut cells: Vec<Cell> = Vec::new();
    for (i, (users, sessions)) in [(few, Distinct::Empty), (many, listed), (Distinct::Empty, fewer)].into_iter().enumerate() {
        let mut values = Accumulator { count: 5 << (i * 16), users, sessions, ..Accumulator::default() };
        if i > 0 {
            values.value_count = 3;
            (values.sum, values.min, values.max) = (f64::NEG_INFINITY, -0.0, 1e300);
            values.last = Some(Last { time_ms: -5, id: u64::MAX, value: -0.0 });
            [(-36_000, 1), (-7, 300), (0, 1), (1, u64::from(u32::MAX) + 7)].into_iter().for_each(|(bin, n)| values.quantiles.add(bin, n));
        }
        cells.push(Cell { group: (i as u32 + 1) % 2, bucket: i as u32 / 2, values });
    }
    let groups = vec![vec![None, Some("DÉ".to_owned())], vec![Some(String::new()), Some("web".to_owned())]];
    let other = OtherEvents { counted: 3, unjudged: 1 << 40, names_beyond: true };
    let answer = PartialAnswer {
        groups,
        cells,
        counts: StepCounts::default(),
        metric_known: true,
        watermark_ms: -1,
        applied_index: u64::MAX,
        other,
    };
    let problem = Problem::new(ErrorCode::ShardUnavailable, "no leader is known").retry_after_ms(250);
    vec![(ShardId(5), Ok(answer)), (ShardId(0), Err(problem)), (ShardId(1_023), Ok(PartialAnswer::default()))]
}

fn dimensions() -> impl Strategy<Value = DimensionRef> {
    prop_oneof![Just(DimensionRef::EventName), (0..16usize).prop_map(DimensionRef::Index)]
}

fn wants() -> impl Strategy<Value = Wants> {
    any::<[bool; 5]>().prop_map(|[values, last, users, sessions, quantiles]| Wants { values, last, users, sessions, quantiles })
}

fn plans() -> impl Strategy<Value = ScanPlan> {
    let slice = (0..3i64, 1..90i64, 0..3usize, 0..3u32);
    (-(1i64 << 46)..1 << 46, prop::collection::vec(slice, 0..40)).prop_map(|(mut at, slices)| {
        let mut bucket = 0;
        let slice = |(gap, length, grain, step): (i64, i64, usize, u32)| {
            let from_ms = at + gap * DAY_MS;
            at = from_ms + length * 60_000;
            bucket += step;
            Slice { from_ms, to_ms: at, grain: Grain::ALL[grain], bucket }
        };
        let slices: Vec<Slice> = slices.into_iter().map(slice).collect();
        ScanPlan { slices, buckets: bucket + 1 }
    })
}

pub(super) fn queries() -> impl Strategy<Value = ShardQuery> {
    let metric =
        prop_oneof![Just(MetricSelector::All), ".{0,20}".prop_map(MetricSelector::Event), ".{0,20}".prop_map(MetricSelector::Defined)];
    let filter = (dimensions(), any::<bool>(), prop::collection::vec(prop::option::of(".{0,12}"), 0..9))
        .prop_map(|(dimension, negated, values)| DimensionFilter { dimension, negated, values });
    let lists = (prop::collection::vec(dimensions(), 0..9), prop::collection::vec(filter, 0..6));
    (".{0,12}", metric, lists, plans(), wants(), 0..2_000_001usize).prop_map(
        |(tenant, metric, (group_by, filters), plan, wants, cells_max)| ShardQuery {
            tenant,
            metric,
            group_by,
            filters,
            plan,
            wants,
            cells_max,
        },
    )
}

/// Where an event lands: group, step; then time, user and value.
type Event = ((u8, u32), (i64, u16, Option<f64>));

fn events() -> impl Strategy<Value = Vec<Event>> {
    let value = prop_oneof![
        4 => (-900i32..900).prop_map(|v| Some(f64::from(v) / 8.0)),
        2 => any::<f64>().prop_map(|v| Some(v).filter(|v| v.is_finite())),
        1 => Just(Some(-0.0)),
        1 => Just(None),
    ];
    prop::collection::vec(((0..5u8, 0..4u32), (-50..50i64, 0..40u16, value)), 0..150)
}

fn answer_of(events: Vec<Event>, wants: Wants, dimensions: usize) -> PartialAnswer {
    let text = |group: u8, at: usize| (usize::from(group) != at).then(|| "é".repeat(usize::from(group) * at));
    let groups = (0..5).map(|group| (0..dimensions).map(|at| text(group, at)).collect()).collect();
    let mut answer = PartialAnswer { groups, metric_known: true, applied_index: 9, ..PartialAnswer::default() };
    for (id, ((group, bucket), (time_ms, user, value))) in events.into_iter().enumerate() {
        let group = if dimensions == 0 { 0 } else { u32::from(group) };
        let at = answer.cells.iter().position(|c| c.group == group && c.bucket == bucket).unwrap_or_else(|| {
            answer.cells.push(Cell { group, bucket, values: Accumulator::default() });
            answer.cells.len() - 1
        });
        let identity = if user == 0 { 0 } else { identity_hash(&user.to_le_bytes()) };
        answer.cells[at].values.add(wants, time_ms, id as u64, identity, identity / 2, value);
    }
    // Some cells are put together from what a cache and windows hold.
    for (i, cell) in answer.cells.iter_mut().enumerate() {
        match i % 5 {
            1 => cell.values.users = Distinct::shared(Arc::new(IdentitySet::of(std::mem::take(&mut cell.values.users)))),
            2 if wants.sessions => {
                cell.values.sessions.merge_sketch(&sketch_of((0..1_200u32).map(|i| identity_hash(&i.to_le_bytes()))).serialize())
            }
            3 => cell.values.count += 1 << 40,
            4 => cell.values = Accumulator { count: cell.values.count, ..Accumulator::default() },
            _ => {}
        }
    }
    answer
}

type Shard = (Vec<Event>, (i64, bool), u8);

/// Of up to six shards, some of which could not answer.
pub(super) fn answers() -> impl Strategy<Value = Vec<(ShardId, ShardResult)>> {
    let shard = (events(), any::<(i64, bool)>(), 0..8u8);
    (wants(), 0..4usize, prop::collection::vec(shard, 0..6)).prop_map(|(wants, dimensions, shards)| {
        let result = |(i, (events, (watermark_ms, names_beyond), fate)): (usize, Shard)| {
            let result = if fate == 0 {
                Err(Problem::new(ErrorCode::QueryTimeout, format!("after {watermark_ms} ms")).limit(7).field("timeout_ms"))
            } else {
                let other = OtherEvents { counted: u64::from(fate), unjudged: events.len() as u64, names_beyond };
                Ok(PartialAnswer { watermark_ms, other, ..answer_of(events, wants, dimensions) })
            };
            (ShardId(i as u16 * 99), result)
        };
        shards.into_iter().enumerate().map(result).collect()
    })
}
