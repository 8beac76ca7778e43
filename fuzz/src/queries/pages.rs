//! Pages, one after the other by their cursors, are the rows of one large page.

use std::collections::BTreeSet;

use tallymesh_protocol::aggregate::{Accumulator, Wants};
use tallymesh_protocol::error::Problem;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::{Answer, Cell, PartialAnswer, Row};
use tallymesh_protocol::question::query::{Leg, MetricQuery, PreparedQuery, QueryParams};
use xxhash_rust::xxh3::xxh3_64;

use super::{DEFINITIONS, Setting};
use crate::mutate::Random;

const SHARDS: u32 = 2;
/// Steps and rows beyond which paging is not tried: each page is a query of its own.
const STEPS_MAX: usize = 40;
const ROWS_MAX: usize = 60;

pub(super) fn check(setting: Setting, params: &QueryParams, prepared: &PreparedQuery) {
    if params.get("cursor").is_some() || prepared.current.plan.starts.len() > STEPS_MAX {
        return;
    }
    let seed = xxh3_64(params.canonical().as_bytes());
    let Ok((_, whole)) = page(setting, params, None, ROWS_MAX, seed) else { return };
    check_rows(&whole.data, prepared);
    if whole.cursor.is_some() {
        return;
    }
    let limit = 1 + seed as usize % 4;
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let (query, answer) = match page(setting, params, cursor.as_deref(), limit, seed) {
            Ok(page) => page,
            Err(problem) => panic!("the first page was answered, this one was not: {problem:?}"),
        };
        assert_eq!(query.range, prepared.query.range, "pages are of one range");
        assert!(answer.data.len() <= limit);
        rows.extend(answer.data.iter().cloned());
        cursor = answer.cursor;
        if cursor.is_none() {
            break;
        }
        assert!(rows.len() < whole.data.len(), "a cursor behind the last row");
    }
    // As text: a sum that is no number is equal to itself there.
    assert_eq!(format!("{rows:?}"), format!("{:?}", &*whole.data), "by {limit}");
}

fn check_rows(rows: &[Row], prepared: &PreparedQuery) {
    let mut seen = BTreeSet::new();
    for row in rows {
        assert!(seen.insert((row.time.clone(), row.group.clone())), "{row:?} is there twice");
        assert_eq!(row.values.len(), prepared.query.aggregates.len());
        assert_eq!(row.time.is_some(), prepared.current.plan.step.is_some());
        assert!(row.values.values().flatten().all(|v| v.is_finite()), "{row:?}");
    }
}

fn page(setting: Setting, params: &QueryParams, cursor: Option<&str>, limit: usize, seed: u64) -> Result<(MetricQuery, Answer), Problem> {
    const NAMES: [&str; 15] = [
        "metric",
        "agg",
        "range",
        "from",
        "to",
        "step",
        "group_by",
        "order",
        "tz",
        "compare",
        "partial",
        "token",
        "cache",
        "fill",
        "timeout_ms",
    ];
    let named = NAMES.iter().filter_map(|name| Some((*name, params.get(name)?.to_owned())));
    let filters = params.filters().iter().map(|f| ("filter", f.clone()));
    let paging = [("limit", limit.to_string())].into_iter().chain(cursor.map(|c| ("cursor", c.to_owned())));
    let query = MetricQuery::parse(&QueryParams::from_pairs(named.chain(filters).chain(paging))?, setting.now_ms)?;
    let prepared = PreparedQuery::new(query.clone(), "default", &DEFINITIONS, setting.retention, setting.now_ms)?;
    let gather = |leg: &Leg, seed: u64| {
        prepared.gather(SHARDS, (0..SHARDS).map(|shard| (ShardId(shard as u16), Ok(cells(leg, seed + u64::from(shard))))).collect())
    };
    let current = gather(&prepared.current, seed)?;
    let earlier = prepared.earlier.as_ref().map(|leg| gather(leg, seed ^ 0xffff)).transpose()?;
    let answer = prepared.answer(current, earlier, 0, 0)?;
    Ok((query, answer))
}

/// What a shard might answer: few groups, so that they meet those of the other, and few values, so that rows tie.
fn cells(leg: &Leg, seed: u64) -> PartialAnswer {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let dimensions = leg.shard_query.group_by.len();
    let mut groups: Vec<Vec<Option<String>>> = Vec::new();
    for _ in 0..1 + random.below(5) {
        let values = [None, Some(""), Some("a"), Some("é\"\\,"), Some("b")];
        let group: Vec<_> = (0..dimensions).map(|_| values[random.below(values.len())].map(str::to_owned)).collect();
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let wants = Wants { values: true, last: true, users: true, sessions: true, quantiles: true };
    let mut cells = Vec::new();
    for group in 0..groups.len() as u32 {
        for bucket in 0..leg.plan.scan.buckets {
            if random.below(3) == 0 {
                continue;
            }
            let mut values = Accumulator::default();
            for _ in 0..=random.below(2) {
                let value = [None, Some(0.0), Some(-1.5), Some(f64::MAX), Some(2.0)][random.below(5)];
                values.add(wants, leg.plan.range.from_ms, random.below(9) as u64, random.below(3) as u64, random.below(3) as u64, value);
            }
            cells.push(Cell { group, bucket, values });
        }
    }
    PartialAnswer { groups, cells, metric_known: true, watermark_ms: leg.plan.range.to_ms, applied_index: 1, ..PartialAnswer::default() }
}
