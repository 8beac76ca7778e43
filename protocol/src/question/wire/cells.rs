//! Cells as columns.

use rkyv::{Archive, Serialize};

use super::pieces::{WireQuantiles, WireSets};
use super::{WireError, at_most};
use crate::aggregate::{Accumulator, Last};
use crate::limits::{ANSWER_CELLS_MAX, ANSWER_EVENTS_MAX, POINTS_PER_GROUP_MAX, WIRE_CELL_BYTES};
use crate::question::answer::Cell;

/// Counts, nearly all of which are below 2^32.
#[derive(Archive, Serialize, Default)]
struct WireCounts {
    low: Vec<u32>,
    /// Empty when all are 0.
    high: Vec<u32>,
}

impl WireCounts {
    fn of(counts: impl Iterator<Item = u64> + Clone) -> Self {
        let is_wide = counts.clone().any(|c| c >> 32 > 0);
        let high = if is_wide { counts.clone().map(|c| (c >> 32) as u32).collect() } else { Vec::new() };
        Self { low: counts.map(|c| c as u32).collect(), high }
    }

    fn bytes(&self) -> usize {
        4 * (self.low.len() + self.high.len())
    }
}

impl ArchivedWireCounts {
    fn check(&self, cells: usize) -> Result<(), WireError> {
        let is_long = |length: usize| length == 0 || length == cells;
        if self.low.len() != cells || !is_long(self.high.len()) {
            return Err(WireError::Damaged("columns of counts differ in length"));
        }
        within((0..cells).fold(0u64, |sum, i| sum.saturating_add(self.get(i))))
    }

    fn get(&self, i: usize) -> u64 {
        u64::from(self.low[i].to_native()) | self.high.get(i).map_or(0, |high| u64::from(high.to_native()) << 32)
    }
}

/// So much may be added up by whoever reads it.
fn within(total: u64) -> Result<(), WireError> {
    if total <= ANSWER_EVENTS_MAX { Ok(()) } else { Err(WireError::Damaged("more events than there can be")) }
}

/// Empty when no cell has a value.
#[derive(Archive, Serialize, Default)]
struct WireValues {
    counts: WireCounts,
    sums: Vec<f64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
}

/// Of the cells that have one.
#[derive(Archive, Serialize, Default)]
struct WireLast {
    /// Ascending.
    cells: Vec<u32>,
    times: Vec<i64>,
    ids: Vec<u64>,
    values: Vec<f64>,
}

#[derive(Archive, Serialize, Default)]
pub(super) struct WireCells {
    groups: Vec<u32>,
    buckets: Vec<u32>,
    counts: WireCounts,
    values: WireValues,
    last: WireLast,
    users: WireSets,
    sessions: WireSets,
    quantiles: WireQuantiles,
}

/// By its bits: everything but what a cell without values has.
fn has_values(values: &Accumulator) -> bool {
    let bits = |a: &Accumulator| (a.value_count, a.sum.to_bits(), a.min.to_bits(), a.max.to_bits());
    bits(values) != (0, 0, f64::INFINITY.to_bits(), f64::NEG_INFINITY.to_bits())
}

impl WireCells {
    pub(super) fn of(cells: &[Cell]) -> Result<Self, WireError> {
        at_most("cells", cells.len(), ANSWER_CELLS_MAX)?;
        let mut out = Self {
            groups: cells.iter().map(|c| c.group).collect(),
            buckets: cells.iter().map(|c| c.bucket).collect(),
            counts: WireCounts::of(cells.iter().map(|c| c.values.count)),
            ..Self::default()
        };
        if cells.iter().any(|c| has_values(&c.values)) {
            out.values = WireValues {
                counts: WireCounts::of(cells.iter().map(|c| c.values.value_count)),
                sums: cells.iter().map(|c| c.values.sum).collect(),
                mins: cells.iter().map(|c| c.values.min).collect(),
                maxs: cells.iter().map(|c| c.values.max).collect(),
            };
        }
        for (i, Accumulator { last, users, sessions, quantiles, .. }) in cells.iter().map(|c| &c.values).enumerate() {
            if let Some(Last { time_ms, id, value }) = *last {
                out.last.cells.push(i as u32);
                out.last.times.push(time_ms);
                out.last.ids.push(id);
                out.last.values.push(value);
            }
            out.users.put(i, users);
            out.sessions.put(i, sessions);
            out.quantiles.put(i, quantiles);
        }
        Ok(out)
    }

    pub(super) fn bytes(&self) -> usize {
        const { assert!(WIRE_CELL_BYTES == 3 * size_of::<u32>(), "group, bucket, low half of the count") };
        let values = self.values.counts.bytes() + 24 * self.values.sums.len();
        let sets = self.users.bytes() + self.sessions.bytes() + self.quantiles.bytes();
        8 * self.groups.len() + self.counts.bytes() + values + 28 * self.last.cells.len() + sets
    }
}

impl ArchivedWireCells {
    pub(super) fn read(&self, groups: usize) -> Result<Vec<Cell>, WireError> {
        let n = self.groups.len();
        if n > ANSWER_CELLS_MAX {
            return Err(WireError::Damaged("too many cells"));
        }
        if self.buckets.len() != n {
            return Err(WireError::Damaged("columns of cells differ in length"));
        }
        self.counts.check(n)?;
        if !self.groups.iter().all(|g| (g.to_native() as usize) < groups) {
            return Err(WireError::Damaged("a cell names no group"));
        }
        if !self.buckets.iter().all(|b| (b.to_native() as usize) < POINTS_PER_GROUP_MAX) {
            return Err(WireError::Damaged("a cell's step is out of range"));
        }
        let cell = |i: usize| {
            let values = Accumulator { count: self.counts.get(i), ..Accumulator::default() };
            Cell { group: self.groups[i].to_native(), bucket: self.buckets[i].to_native(), values }
        };
        let mut cells: Vec<Cell> = (0..n).map(cell).collect();
        self.read_values(&mut cells)?;
        self.read_last(&mut cells)?;
        self.users.read(&mut cells, |values| &mut values.users)?;
        self.sessions.read(&mut cells, |values| &mut values.sessions)?;
        within(self.quantiles.read(&mut cells)?)?;
        Ok(cells)
    }

    fn read_values(&self, cells: &mut [Cell]) -> Result<(), WireError> {
        let ArchivedWireValues { counts, sums, mins, maxs } = &self.values;
        let n = sums.len();
        if (n != 0 && n != cells.len()) || mins.len() != n || maxs.len() != n {
            return Err(WireError::Damaged("columns of values differ in length"));
        }
        counts.check(n)?;
        for (i, cell) in cells.iter_mut().enumerate().take(n) {
            let values = &mut cell.values;
            values.value_count = counts.get(i);
            (values.sum, values.min, values.max) = (sums[i].to_native(), mins[i].to_native(), maxs[i].to_native());
        }
        Ok(())
    }

    fn read_last(&self, cells: &mut [Cell]) -> Result<(), WireError> {
        let ArchivedWireLast { cells: named, times, ids, values } = &self.last;
        if [times.len(), ids.len(), values.len()] != [named.len(); 3] {
            return Err(WireError::Damaged("columns of last values differ in length"));
        }
        if !named.as_slice().is_sorted_by(|a, b| a.to_native() < b.to_native()) {
            return Err(WireError::Damaged("last values are not in the order of cells"));
        }
        for (i, cell) in named.iter().enumerate() {
            let cell = cells.get_mut(cell.to_native() as usize).ok_or(WireError::Damaged("a last value names no cell"))?;
            cell.values.last = Some(Last { time_ms: times[i].to_native(), id: ids[i].to_native(), value: values[i].to_native() });
        }
        Ok(())
    }
}
