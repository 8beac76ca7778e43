//! From a leaf to what is asked of the shards, and from their cells to series.

mod resolve;

use std::collections::BTreeMap;

use tallymesh_protocol::aggregate::Accumulator;
use tallymesh_protocol::question::answer::Cell;
use tallymesh_protocol::question::merge::{Merged, value_of};
use tallymesh_protocol::question::query::{Aggregate, TimeRange};
use tallymesh_protocol::time::MINUTE_MS;

pub use self::resolve::{Asked, Fetch, dimensions, resolve};
use super::envelope::Failure;
use super::evaluate::Series;
use super::expression::Leaf;
use super::request::{Grid, whole_minutes};
use crate::limits::{PROMQL_LOOKBACK_MS, PROMQL_MERGES_MAX, PROMQL_SAMPLES_MAX, PROMQL_SERIES_MAX};

/// The whole minutes that each point of a leaf looks at. A range ends with the last minute that is over at its moment: the running minute is never part of
/// it. `None` for points whose range is not over at `now_ms`.
pub fn windows(leaf: &Leaf, grid: &Grid, now_ms: i64) -> Vec<Option<TimeRange>> {
    let range_ms = whole_minutes(leaf.range_ms.or(grid.step_ms).unwrap_or(PROMQL_LOOKBACK_MS));
    let window = |time_ms: &i64| {
        let moment = time_ms - leaf.offset_ms;
        let to_ms = moment - moment.rem_euclid(MINUTE_MS);
        (to_ms <= now_ms).then(|| TimeRange { from_ms: to_ms - range_ms, to_ms })
    };
    grid.times_ms.iter().map(window).collect()
}

/// What is read for one series: cells of one or several groups, by bucket.
type Cells<'a> = Vec<(u32, &'a Accumulator)>;

/// The series of a leaf. `starts` are those of the plan's buckets, `samples_left` what the expression may still have.
///
/// # Errors
/// 422: more series, values or merges than there may be.
pub fn series(
    leaf: &Leaf,
    fetch: &Fetch,
    merged: &Merged,
    starts: &[i64],
    windows: &[Option<TimeRange>],
    samples_left: &mut usize,
) -> Result<Vec<Series>, Failure> {
    let rows = by_labels(leaf, fetch, merged)?;
    let samples = rows.len() * windows.len();
    *samples_left = samples_left.checked_sub(samples).ok_or_else(|| {
        Failure::execution(format!(
            "the expression has more than {PROMQL_SAMPLES_MAX} values (series x points); take a longer step or fewer labels, in `{}`",
            leaf.text
        ))
    })?;
    // The buckets of each window, and what a rate divides by.
    let bucket = |ms: i64| starts.partition_point(|start| *start < ms) as u32;
    let runs: Vec<Option<(u32, u32, f64)>> =
        windows.iter().map(|w| w.map(|w| (bucket(w.from_ms), bucket(w.to_ms), w.length_ms() as f64 / 1e3))).collect();
    let mut merges_left = PROMQL_MERGES_MAX;
    let mut out = Vec::with_capacity(rows.len());
    for (labels, cells) in rows {
        let mut values = match leaf.aggregate {
            Aggregate::Count => counts(&cells, &runs),
            _ => merged_values(&leaf.aggregate, &cells, &runs, &mut merges_left).ok_or_else(|| {
                let label = leaf.aggregate.label();
                Failure::execution(format!(
                    "overlapping ranges of {label} need more than {PROMQL_MERGES_MAX} merges; take a longer step or a shorter range, in `{}`",
                    leaf.text
                ))
            })?,
        };
        if leaf.is_rate {
            for (value, run) in values.iter_mut().zip(&runs) {
                *value = value.zip(*run).map(|(value, (.., seconds))| value / seconds);
            }
        }
        out.push(Series { labels, values });
    }
    Ok(out)
}

/// Groups under the labels that are wanted, as far as the conditions that the shards cannot judge hold.
fn by_labels<'a>(leaf: &Leaf, fetch: &Fetch, merged: &'a Merged) -> Result<BTreeMap<BTreeMap<String, String>, Cells<'a>>, Failure> {
    if merged.groups.len() > PROMQL_SERIES_MAX {
        return Err(Failure::execution(format!(
            "`{}` has more than {PROMQL_SERIES_MAX} series; put sum by (...) around it, filter more, or name the labels in __by__",
            leaf.text
        )));
    }
    let labels: Vec<Option<BTreeMap<String, String>>> = merged.groups.iter().map(|group| fetch.labels(group)).collect();
    let mut rows: BTreeMap<BTreeMap<String, String>, Cells<'a>> = BTreeMap::new();
    // Without groups there is one series, also without events.
    if fetch.group_by.is_empty() {
        rows.extend(fetch.labels(&[]).map(|labels| (labels, Vec::new())));
    }
    for Cell { group, bucket, values } in &merged.cells {
        if let Some(labels) = labels.get(*group as usize).and_then(Option::as_ref) {
            match rows.get_mut(labels) {
                Some(cells) => cells.push((*bucket, values)),
                None => {
                    rows.insert(labels.clone(), vec![(*bucket, values)]);
                }
            }
        }
    }
    Ok(rows)
}

/// The cells of a run of buckets.
fn run_of(cells: &Cells<'_>, from: u32, to: u32) -> std::ops::Range<usize> {
    cells.partition_point(|(bucket, _)| *bucket < from)..cells.partition_point(|(bucket, _)| *bucket < to)
}

fn counts(cells: &Cells<'_>, runs: &[Option<(u32, u32, f64)>]) -> Vec<Option<f64>> {
    let mut total = 0_u64;
    let before: Vec<u64> = std::iter::once(0)
        .chain(cells.iter().map(|(_, cell)| {
            total += cell.count;
            total
        }))
        .collect();
    let count = |(from, to, _): (u32, u32, f64)| {
        let run = run_of(cells, from, to);
        (before[run.end] - before[run.start]) as f64
    };
    runs.iter().map(|run| run.map(count)).collect()
}

/// `None` when there is more to merge than may be.
fn merged_values(
    aggregate: &Aggregate,
    cells: &Cells<'_>,
    runs: &[Option<(u32, u32, f64)>],
    merges_left: &mut usize,
) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::with_capacity(runs.len());
    for run in runs {
        let value = match run {
            None => None,
            Some((from, to, _)) => {
                let run = &cells[run_of(cells, *from, *to)];
                *merges_left = merges_left.checked_sub(run.len())?;
                value(aggregate, run)
            }
        };
        values.push(value);
    }
    Some(values)
}

fn value(aggregate: &Aggregate, run: &[(u32, &Accumulator)]) -> Option<f64> {
    let of = |cell: &Accumulator| match value_of(aggregate, cell) {
        // The sum of no values is known; one that a double cannot hold is not.
        None if *aggregate == Aggregate::Sum && cell.value_count == 0 => Some(0.0),
        value => value,
    };
    match run {
        [(_, only)] => of(only),
        run => {
            let mut all = Accumulator::default();
            run.iter().for_each(|(_, cell)| all.merge(cell));
            all.settle();
            of(&all)
        }
    }
}

#[cfg(test)]
mod tests;
