//! Merged cells into the rows of an answer: order, page, fill, comparison.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::{Merged, compare_groups, too_many_cells};
use crate::aggregate::{Accumulator, QUANTILE_RELATIVE_ERROR};
use crate::error::Problem;
use crate::limits::ANSWER_CELLS_MAX;
use crate::question::answer::{Compared, GroupKey, Row};
use crate::question::query::{Aggregate, Fill, Order};
use crate::time::rfc3339;

/// How cells become rows.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    pub aggregates: &'a [Aggregate],
    /// Names of the dimensions of a group; empty for no groups.
    pub group_names: &'a [String],
    /// Start of each step; `None` when no step was asked.
    pub starts: Option<&'a [i64]>,
    /// Usual width of a step, in milliseconds.
    pub step_ms: i64,
    pub order: Order,
    pub limit: usize,
    /// Only rows after this one.
    pub after: Option<&'a PagePosition>,
    pub fill: Fill,
    /// Nothing is missing: what has no cell is truly without events.
    pub complete: bool,
    /// Steps from here on are not over: not seeing events there does not mean there are none.
    pub now_ms: i64,
    /// Start of each step of the range that it is compared with; the two need not have equally many.
    pub earlier_starts: &'a [i64],
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PagePosition {
    pub time_ms: i64,
    pub group: GroupKey,
    /// The first aggregate, where rows are ordered by it.
    pub value: Option<f64>,
}

/// Rows of one page, where the next one goes on, and the relative error by aggregate over the whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub rows: Vec<Row>,
    pub next: Option<PagePosition>,
    pub error: BTreeMap<String, f64>,
}

/// A row that may be printed: its place and its cells, by index.
#[derive(Clone, Copy)]
struct Line {
    bucket: u32,
    group: u32,
    current: Option<u32>,
    earlier: Option<u32>,
    /// Set only where rows are ordered by value.
    value: Option<f64>,
}

const BLANK: Line = Line { bucket: 0, group: 0, current: None, earlier: None, value: None };

/// # Errors
/// 422 when filled steps make the answer too large.
pub fn lay_out(layout: &Layout<'_>, current: &Merged, earlier: Option<&Merged>) -> Result<Page, Problem> {
    let groups = all_groups(current, earlier);
    let mut lines = lines(layout, &groups, current, earlier)?;
    if lines.is_empty() && layout.starts.is_none() && layout.group_names.is_empty() && layout.complete && layout.after.is_none() {
        // No match is an answer too: 0. Where something is missing it would be a guess.
        lines.push(BLANK);
    }
    let by_value = matches!(layout.order, Order::Value | Order::ValueDescending);
    if let (true, Some(first)) = (by_value, layout.aggregates.first()) {
        for line in &mut lines {
            line.value = layout.value(first, line.current.map(|i| &current.cells[i as usize].values), layout.time_ms(line.bucket));
        }
    }
    if let Some(after) = layout.after {
        let (bucket, rank) = layout.place_of(after, &groups);
        lines.retain(|line| layout.is_after(line, after, bucket, rank));
    }
    let more = lines.len() > layout.limit;
    if more {
        lines.select_nth_unstable_by(layout.limit, |a, b| layout.compare(a, b));
        lines.truncate(layout.limit);
    }
    lines.sort_unstable_by(|a, b| layout.compare(a, b));
    let next = lines.last().filter(|_| more).map(|line| PagePosition {
        time_ms: layout.time_ms(line.bucket),
        group: groups[line.group as usize].clone(),
        value: line.value,
    });
    let rows = lines.iter().map(|line| row(layout, line, &groups, current, earlier)).collect();
    let error = layout.aggregates.iter().filter_map(|a| relative_error(a, current, earlier).map(|e| (a.label().to_owned(), e))).collect();
    Ok(Page { rows, next, error })
}

fn all_groups<'a>(current: &'a Merged, earlier: Option<&'a Merged>) -> Vec<&'a GroupKey> {
    let mut groups: Vec<&GroupKey> = current.groups.iter().chain(earlier.iter().flat_map(|e| &e.groups)).collect();
    if earlier.is_some() {
        groups.sort_unstable_by(|a, b| compare_groups(a, b));
        groups.dedup();
    }
    groups
}

fn lines(layout: &Layout<'_>, groups: &[&GroupKey], current: &Merged, earlier: Option<&Merged>) -> Result<Vec<Line>, Problem> {
    let rank_of = |merged: &Merged| -> Vec<u32> {
        let rank = |g: &GroupKey| groups.partition_point(|other| compare_groups(other, g).is_lt()) as u32;
        if earlier.is_none() { (0..groups.len() as u32).collect() } else { merged.groups.iter().map(rank).collect() }
    };
    let ranks = rank_of(current);
    let mut lines: Vec<Line> = Vec::with_capacity(current.cells.len());
    for (i, cell) in current.cells.iter().enumerate() {
        lines.push(Line { bucket: cell.bucket, group: ranks[cell.group as usize], current: Some(i as u32), ..BLANK });
    }
    let fills = layout.fill != Fill::None && layout.starts.is_some();
    if earlier.is_none() && !fills {
        return Ok(lines);
    }
    let mut at: HashMap<(u32, u32), usize> = lines.iter().enumerate().map(|(i, l)| ((l.bucket, l.group), i)).collect();
    let mut line_at = |lines: &mut Vec<Line>, bucket: u32, group: u32| {
        *at.entry((bucket, group)).or_insert_with(|| {
            lines.push(Line { bucket, group, ..BLANK });
            lines.len() - 1
        })
    };
    if let Some(earlier) = earlier {
        let ranks = rank_of(earlier);
        for (i, cell) in earlier.cells.iter().enumerate() {
            let line = line_at(&mut lines, cell.bucket, ranks[cell.group as usize]);
            lines[line].earlier = Some(i as u32);
        }
    }
    if fills {
        let buckets = layout.starts.map_or(0, <[i64]>::len);
        if buckets.saturating_mul(groups.len()) > ANSWER_CELLS_MAX {
            return Err(too_many_cells(ANSWER_CELLS_MAX));
        }
        for bucket in 0..buckets as u32 {
            for group in 0..groups.len() as u32 {
                line_at(&mut lines, bucket, group);
            }
        }
    }
    Ok(lines)
}

impl Layout<'_> {
    fn compare(&self, a: &Line, b: &Line) -> Ordering {
        let place = |l: &Line| (l.bucket, l.group);
        match self.order {
            Order::Time => place(a).cmp(&place(b)),
            Order::TimeDescending => (Reverse(a.bucket), a.group).cmp(&(Reverse(b.bucket), b.group)),
            Order::Value | Order::ValueDescending => self.compare_values(a.value, b.value).then(place(a).cmp(&place(b))),
        }
    }

    /// Null last in both directions.
    fn compare_values(&self, a: Option<f64>, b: Option<f64>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.order == Order::ValueDescending => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }

    /// Start of a step; of one that only the other of two compared ranges has, where it would be.
    fn start_of(&self, starts: &[i64], bucket: u32) -> i64 {
        match (starts.get(bucket as usize), starts.last()) {
            (Some(start), _) => *start,
            (None, Some(last)) => last + (i64::from(bucket) + 1 - starts.len() as i64) * self.step_ms,
            (None, None) => 0,
        }
    }

    fn time_ms(&self, bucket: u32) -> i64 {
        self.start_of(self.starts.unwrap_or_default(), bucket)
    }

    /// The step of a position, and how many groups come up to and with its group.
    fn place_of(&self, after: &PagePosition, groups: &[&GroupKey]) -> (u32, u32) {
        let starts = self.starts.unwrap_or_default();
        let beyond = starts.last().map_or(0, |last| (after.time_ms.saturating_sub(*last).max(1) - 1) / self.step_ms.max(1));
        let bucket = starts.partition_point(|s| *s < after.time_ms) + beyond as usize;
        (bucket as u32, groups.partition_point(|g| compare_groups(g, &after.group).is_le()) as u32)
    }

    fn is_after(&self, line: &Line, after: &PagePosition, bucket: u32, rank: u32) -> bool {
        let later = match self.order {
            Order::TimeDescending => bucket.cmp(&line.bucket),
            _ => line.bucket.cmp(&bucket),
        };
        let later = later.then(if line.group >= rank { Ordering::Greater } else { Ordering::Less });
        match self.order {
            Order::Time | Order::TimeDescending => later.is_gt(),
            Order::Value | Order::ValueDescending => self.compare_values(line.value, after.value).then(later).is_gt(),
        }
    }

    /// A cell's value, or what stands where there is no cell.
    fn value(&self, aggregate: &Aggregate, cell: Option<&Accumulator>, start_ms: i64) -> Option<f64> {
        match cell {
            Some(cell) => value_of(aggregate, cell),
            None if self.fill == Fill::Null || !self.complete || start_ms > self.now_ms => None,
            None if self.fill == Fill::Zero && *aggregate == Aggregate::Sum => Some(0.0),
            None => value_of(aggregate, &Accumulator::default()),
        }
    }

    fn values(&self, cell: Option<&Accumulator>, start_ms: i64) -> BTreeMap<String, Option<f64>> {
        self.aggregates.iter().map(|a| (a.label().to_owned(), self.value(a, cell, start_ms))).collect()
    }
}

fn row(layout: &Layout<'_>, line: &Line, groups: &[&GroupKey], current: &Merged, earlier: Option<&Merged>) -> Row {
    let time_ms = layout.time_ms(line.bucket);
    let group = groups.get(line.group as usize).filter(|_| !layout.group_names.is_empty());
    Row {
        time: layout.starts.map(|_| rfc3339(time_ms)),
        group: group.map(|g| layout.group_names.iter().cloned().zip(g.iter().cloned()).collect()),
        values: layout.values(line.current.map(|i| &current.cells[i as usize].values), time_ms),
        compare: earlier.map(|earlier| {
            let time_ms = layout.start_of(layout.earlier_starts, line.bucket);
            Compared {
                time: layout.starts.map(|_| rfc3339(time_ms)),
                values: layout.values(line.earlier.map(|i| &earlier.cells[i as usize].values), time_ms),
            }
        }),
    }
}

/// `None` without a value.
pub fn value_of(aggregate: &Aggregate, cell: &Accumulator) -> Option<f64> {
    let valued = cell.value_count > 0;
    // A sum that a double cannot hold is not known.
    let known = |v: f64| Some(v).filter(|v| valued && v.is_finite());
    match aggregate {
        Aggregate::Count => Some(cell.count as f64),
        Aggregate::Sum => known(cell.sum),
        Aggregate::Min => valued.then_some(cell.min),
        Aggregate::Max => valued.then_some(cell.max),
        Aggregate::Avg => cell.avg().and_then(known),
        Aggregate::Last => cell.last.map(|l| l.value),
        Aggregate::Users => Some(cell.users.estimate()),
        Aggregate::Sessions => Some(cell.sessions.estimate()),
        Aggregate::Quantile { q, .. } => cell.quantiles.quantile(*q),
    }
}

/// The largest of any cell; `None` for what is always exact.
fn relative_error(aggregate: &Aggregate, current: &Merged, earlier: Option<&Merged>) -> Option<f64> {
    let cells = || current.cells.iter().chain(earlier.iter().flat_map(|e| &e.cells)).map(|c| &c.values);
    match aggregate {
        Aggregate::Users => Some(cells().map(|c| c.users.relative_error()).fold(0.0, f64::max)),
        Aggregate::Sessions => Some(cells().map(|c| c.sessions.relative_error()).fold(0.0, f64::max)),
        Aggregate::Quantile { .. } => Some(QUANTILE_RELATIVE_ERROR),
        Aggregate::Count | Aggregate::Sum | Aggregate::Min | Aggregate::Max | Aggregate::Avg | Aggregate::Last => None,
    }
}
