//! What the shards answered, put together: cells of one group and step are merged, groups get one numbering in their sorted order.

mod rows;

pub use rows::{Layout, PagePosition, lay_out, value_of};

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use crate::aggregate::{Accumulator, Distinct};
use crate::error::{ErrorCode, Problem};
use crate::limits::POINTS_PER_GROUP_MAX;
use crate::question::answer::{Cell, GroupKey, OtherEvents, PartialAnswer};

/// Takes one shard's answer after the other.
#[derive(Debug)]
pub struct Merger {
    groups: HashMap<GroupKey, u32>,
    /// In order of first appearance; groups by their number here.
    cells: Vec<Cell>,
    index: CellIndex,
    /// Events by group and step, of shards that were asked for nothing else.
    counts: Vec<Vec<u64>>,
    cells_max: usize,
    metric_known: bool,
    watermark_ms: Option<i64>,
    other: OtherEvents,
}

/// All shards' cells by (step, group), in that order. Groups are sorted, so their numbers compare as they do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    pub groups: Vec<GroupKey>,
    pub cells: Vec<Cell>,
    pub metric_known: bool,
    /// Event time before which no shard has an open window; `None` when none ever wrote.
    pub watermark_ms: Option<i64>,
    pub other: OtherEvents,
}

/// Groups whose cells are found through a table.
const TABLED_GROUPS_MAX: usize = 16;

/// Where the cell of a group and step is.
#[derive(Debug, Default)]
struct CellIndex {
    /// Position + 1 by step, for each of the first groups.
    tables: Vec<Vec<u32>>,
    others: HashMap<(u32, u32), u32>,
}

impl CellIndex {
    /// Position of the cell: the one given before, else `next`.
    #[inline]
    fn place(&mut self, group: u32, bucket: u32, next: usize) -> usize {
        let (at, step) = (group as usize, bucket as usize);
        if at >= TABLED_GROUPS_MAX || step >= POINTS_PER_GROUP_MAX {
            return *self.others.entry((group, bucket)).or_insert(next as u32) as usize;
        }
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, Vec::new);
        }
        let table = &mut self.tables[at];
        if table.len() <= step {
            table.resize(step + 1, 0);
        }
        if table[step] == 0 {
            table[step] = next as u32 + 1;
        }
        table[step] as usize - 1
    }
}

impl Merger {
    pub fn new(cells_max: usize) -> Self {
        let other = OtherEvents::default();
        Self {
            groups: HashMap::new(),
            cells: Vec::new(),
            index: CellIndex::default(),
            counts: Vec::new(),
            cells_max,
            metric_known: false,
            watermark_ms: None,
            other,
        }
    }

    /// # Errors
    /// 422 when there are more cells than one answer may have.
    pub fn push(&mut self, answer: PartialAnswer) -> Result<(), Problem> {
        self.metric_known |= answer.metric_known;
        self.other.add(answer.other);
        // A shard whose log is empty has no time yet; it holds nothing open and nothing back.
        let has_time = answer.applied_index > 0 && jiff::Timestamp::from_millisecond(answer.watermark_ms).is_ok();
        if has_time {
            self.watermark_ms = Some(self.watermark_ms.map_or(answer.watermark_ms, |w| w.min(answer.watermark_ms)));
        }
        // A shard names the groups of all keys that it looked at; those without events in the range are none of the answer.
        let mut names = GroupNames { numbers: vec![None; answer.groups.len()], names: answer.groups };
        for cell in answer.cells.into_iter().filter(|c| c.values.count > 0) {
            let group = names.number(cell.group, &mut self.groups)?;
            let next = self.cells.len();
            let at = self.index.place(group, cell.bucket, next);
            if at == next {
                self.cells.push(Cell { group, ..cell });
            } else {
                self.cells[at].values.merge(&cell.values);
            }
        }
        for (group, counts) in answer.counts.by_group().filter(|(_, counts)| counts.iter().any(|count| *count > 0)) {
            let group = names.number(group, &mut self.groups)? as usize;
            if self.counts.len() <= group {
                self.counts.resize_with(group + 1, Vec::new);
            }
            let sums = &mut self.counts[group];
            if sums.len() < counts.len() {
                sums.resize(counts.len(), 0);
            }
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        if self.cells.len() > self.cells_max { Err(too_many_cells(self.cells_max)) } else { Ok(()) }
    }

    /// Makes cells of what was only counted.
    fn take_counts(&mut self) -> Result<(), Problem> {
        for (group, sums) in (0..).zip(std::mem::take(&mut self.counts)) {
            for (bucket, count) in (0..).zip(sums).filter(|(_, count)| *count > 0) {
                let next = self.cells.len();
                let at = self.index.place(group, bucket, next);
                if at == next {
                    self.cells.push(Cell { group, bucket, values: Accumulator::default() });
                }
                self.cells[at].values.count += count;
            }
        }
        if self.cells.len() > self.cells_max { Err(too_many_cells(self.cells_max)) } else { Ok(()) }
    }

    /// With `leading`, only what leads has its sets; see there.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self, leading: Option<Leading>) -> Result<Merged, Problem> {
        self.take_counts()?;
        match leading {
            Some(leading) => leading.settle(&mut self.cells),
            None => self.cells.iter_mut().for_each(|cell| cell.values.settle()),
        }
        let mut groups: Vec<(GroupKey, u32)> = self.groups.into_iter().collect();
        groups.sort_unstable_by(|a, b| compare_groups(&a.0, &b.0));
        let mut ranks = vec![0; groups.len()];
        for (rank, (_, number)) in groups.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        let mut cells = self.cells;
        for cell in &mut cells {
            cell.group = ranks[cell.group as usize];
        }
        cells.sort_unstable_by_key(|c| (c.bucket, c.group));
        Ok(Merged {
            groups: groups.into_iter().map(|(group, _)| group).collect(),
            cells,
            metric_known: self.metric_known,
            watermark_ms: self.watermark_ms,
            other: self.other,
        })
    }
}

/// Only the cells whose sets have the most members will be read. Telling how many a set has, exactly, is most of the work of such an answer, so it is not done for sets
/// that are surely smaller than so many others: they become empty. Sets that need no work stay as they are, so the largest relative error is that of all cells: a set
/// that might yet have one is only left out where those that lead have it.
#[derive(Clone, Copy, Debug)]
pub struct Leading {
    /// The only sets there are.
    pub sets: fn(&mut Accumulator) -> &mut Distinct,
    /// How many cells lead.
    pub cells: usize,
}

impl Leading {
    fn settle(self, cells: &mut [Cell]) {
        let mut by_bound: Vec<(f64, usize)> =
            cells.iter_mut().enumerate().map(|(at, cell)| ((self.sets)(&mut cell.values).bound(), at)).collect();
        by_bound.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        // Estimates are whole numbers.
        let mut most: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
        for (bound, at) in by_bound {
            let set = (self.sets)(&mut cells[at].values);
            let may_lead = most.len() < self.cells || most.peek().is_some_and(|Reverse(least)| bound >= *least as f64);
            if !may_lead && !set.is_settled() {
                *set = Distinct::default();
                continue;
            }
            set.settle();
            most.push(Reverse(set.estimate() as u64));
            if most.len() > self.cells {
                most.pop();
            }
        }
    }
}

/// The groups of one shard's answer and their numbers among those of all.
struct GroupNames {
    numbers: Vec<Option<u32>>,
    names: Vec<GroupKey>,
}

impl GroupNames {
    #[inline]
    fn number(&mut self, group: u32, groups: &mut HashMap<GroupKey, u32>) -> Result<u32, Problem> {
        let at = group as usize;
        let (Some(number), Some(name)) = (self.numbers.get_mut(at), self.names.get_mut(at)) else {
            return Err(Problem::new(ErrorCode::Internal, "a shard answered with a group that it did not name"));
        };
        Ok(match *number {
            Some(number) => number,
            None => {
                let next = groups.len() as u32;
                *number.insert(*groups.entry(std::mem::take(name)).or_insert(next))
            }
        })
    }
}

impl Merged {
    /// See [`crate::question::answer::Receipt::other_share`].
    pub fn other_share(&self) -> f64 {
        let counted: u64 = self.cells.iter().map(|c| c.values.count).sum();
        let in_question = counted + self.other.unjudged;
        if in_question == 0 { 0.0 } else { (self.other.counted + self.other.unjudged) as f64 / in_question as f64 }
    }
}

/// 422: the answer would be too large.
pub fn too_many_cells(cells_max: usize) -> Problem {
    let detail =
        format!("the answer has more than {cells_max} values (groups x steps); group by less, filter more, or take a coarser step");
    Problem::new(ErrorCode::TooManyCells, detail).limit(cells_max as u64)
}

/// By value, dimension after dimension; null after everything.
pub(crate) fn compare_groups(a: &GroupKey, b: &GroupKey) -> Ordering {
    let value = |(a, b): (&Option<String>, &Option<String>)| match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    };
    a.iter().zip(b).map(value).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests;
