//! What a batch adds up to, from its plain columns.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::event::batch::{NO_IDENTITY, ShardBatch};
use tallymesh_protocol::hash::DEFAULT_TENANT;
use tallymesh_protocol::key::{KeyView, MetricKind};
use tallymesh_protocol::question::query::{DimensionRef, MetricSelector, ScanPlan, ShardQuery, Slice};
use tallymesh_protocol::time::{DAY_MS, Grain};
use tallymesh_storage::shard::{PartApplied, ShardState};

/// Event times beyond this are refused, in milliseconds either side of 1970.
const TIME_MS_MAX: i64 = 4_000_000 * DAY_MS;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Totals {
    count: u64,
    value_count: u64,
    min: Option<f64>,
    max: Option<f64>,
    users: BTreeSet<u64>,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.value_count += other.value_count;
        let both = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| a.map_or(b, |a| Some(b.map_or(a, |b| pick(a, b))));
        self.min = both(self.min, other.min, f64::min);
        self.max = both(self.max, other.max, f64::max);
        self.users.extend(&other.users);
    }
}

#[derive(Debug, Default)]
pub(super) struct Expected {
    events: u64,
    duplicates: u64,
    derived: u64,
    id_sum: u64,
    /// Of default metrics by event name.
    by_event: BTreeMap<String, Totals>,
}

/// `None` when some event has a time that no event can have: then nothing is counted.
pub(super) fn count(batch: &ShardBatch) -> Option<Expected> {
    if batch.times.iter().any(|t| !(-TIME_MS_MAX..=TIME_MS_MAX).contains(t)) {
        return None;
    }
    let mut expected = Expected::default();
    let mut seen = BTreeSet::new();
    let key = |index: u32| {
        let end = |i: usize| batch.key_ends[i] as usize;
        let index = index as usize;
        KeyView::parse(&batch.key_bytes[if index == 0 { 0 } else { end(index - 1) }..end(index)])
    };
    for event in 0..batch.len() {
        if !seen.insert(batch.ids[event]) {
            expected.duplicates += 1;
            continue;
        }
        expected.events += 1;
        expected.id_sum = expected.id_sum.wrapping_add(batch.ids[event] as u64);
        let derived = (0..batch.derived_events.len()).filter(|&d| batch.derived_events[d] as usize == event);
        expected.derived += derived.clone().count() as u64;
        let rows = derived.map(|d| (batch.derived_keys[d], batch.derived_values[d]));
        for (row_key, value) in [(batch.keys[event], batch.values[event])].into_iter().chain(rows) {
            let Some(view) = key(row_key).filter(|k| k.kind == MetricKind::Default && k.tenant == DEFAULT_TENANT) else { continue };
            let totals = expected.by_event.entry(view.metric.to_owned()).or_default();
            totals.count += 1;
            if !value.is_nan() {
                totals.value_count += 1;
                totals.min = Some(totals.min.map_or(value, |m| m.min(value)));
                totals.max = Some(totals.max.map_or(value, |m| m.max(value)));
            }
            if batch.users[event] != NO_IDENTITY {
                totals.users.insert(batch.users[event]);
            }
        }
    }
    Some(expected)
}

pub(super) fn check(expected: &Expected, applied: &PartApplied, state: &ShardState) {
    let counters = state.counters();
    assert_eq!((u64::from(applied.counted), u64::from(applied.duplicates)), (expected.events, expected.duplicates));
    assert_eq!((counters.events, counters.duplicates, counters.derived_rows), (expected.events, expected.duplicates, expected.derived));
    assert_eq!(counters.id_sum, expected.id_sum);
}

/// Every default metric over all of time: by event name, or together where names beyond a budget are told apart no more.
pub(super) fn check_answers(expected: &Expected, state: &ShardState, by_name: bool) {
    let (from_ms, to_ms) = (-TIME_MS_MAX - DAY_MS, TIME_MS_MAX + DAY_MS);
    let query = ShardQuery {
        tenant: DEFAULT_TENANT.to_owned(),
        metric: MetricSelector::All,
        group_by: if by_name { vec![DimensionRef::EventName] } else { Vec::new() },
        filters: Vec::new(),
        plan: ScanPlan { slices: vec![Slice { from_ms, to_ms, grain: Grain::Day, bucket: 0 }], buckets: 1 },
        wants: Wants { values: true, last: true, users: true, sessions: true, quantiles: true },
        cells_max: 1 << 20,
    };
    let answer = state.query(&query).unwrap_or_else(|e| panic!("{e}"));
    let mut found = BTreeMap::new();
    for cell in answer.cells {
        let name = answer.groups[cell.group as usize].first().cloned().flatten().unwrap_or_default();
        let values = cell.values;
        let bound = |v: f64| v.is_finite().then_some(v);
        let row = (values.count, values.value_count, bound(values.min), bound(values.max), values.users.estimate());
        assert!(found.insert(name, row).is_none());
    }
    let mut totals: BTreeMap<&str, Totals> = BTreeMap::new();
    for (name, of_name) in &expected.by_event {
        totals.entry(if by_name { name } else { "" }).or_default().add(of_name);
    }
    let wanted: BTreeMap<String, _> =
        totals.into_iter().map(|(name, t)| (name.to_owned(), (t.count, t.value_count, t.min, t.max, t.users.len() as f64))).collect();
    assert_eq!(found, wanted);
}
