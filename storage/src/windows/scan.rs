//! Reading slices of a plan. A [`WindowView`] holds what a query needs, so that the scan itself runs outside any lock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tallymesh_protocol::aggregate::{Accumulator, Distinct, IdentitySet, Wants};
use tallymesh_protocol::question::answer::{Cell, StepCounts};
use tallymesh_protocol::question::query::{ScanPlan, Slice};
use tallymesh_protocol::time::{Grain, MINUTE_MS};

use super::block::{Block, WindowRef};
use super::columns::ArchivedColumns;
use super::totals::{Budget, Classes, KeyClass, Totaller, Unions, sketches_are_whole};
use super::{OpenRow, Partition, RowsDigest, Tail, WindowStore, make, partition_span_ms};

/// "Not selected" among groups by key.
const NO_GROUP: u32 = u32::MAX;
/// Up to this many selected keys are looked for one by one; more go through a table by key.
const SEARCHED_KEYS_MAX: usize = 32;
/// Open rows of an hour that are read one by one: once more of them, and a quarter of all, are not in the digest, it is made again.
const LOOSE_ROWS_MAX: usize = 256;
/// Cells (group x bucket) up to which they are found through a table rather than by hash.
const DENSE_CELLS_MAX: u64 = 1 << 16;

/// The keys that a query reads and the group of each.
#[derive(Clone, Default)]
pub struct KeyGroups {
    /// Group by key; empty when `few` says it all.
    dense: Vec<u32>,
    /// (key, group), ascending by key, when there are few.
    few: Vec<(u32, u32)>,
    /// Set when the group depends on the key's class alone, so that totals can be read; the others are empty then.
    classes: Option<Arc<ClassGroups>>,
}

struct ClassGroups {
    classes: Classes,
    /// Group by class.
    groups: Vec<u32>,
}

impl ClassGroups {
    #[inline]
    fn of(&self, class: u32) -> u32 {
        self.groups.get(class as usize).copied().unwrap_or(NO_GROUP)
    }
}

impl KeyGroups {
    /// Group by key id; `u32::MAX`, and every key past the end, is not selected.
    pub fn dense(groups: Vec<u32>) -> Self {
        let selected = groups.iter().filter(|&&g| g != NO_GROUP).count();
        if selected > SEARCHED_KEYS_MAX {
            return Self { dense: groups, ..Self::default() };
        }
        let few = groups.iter().enumerate().filter(|(_, g)| **g != NO_GROUP).map(|(key, &g)| (key as u32, g)).collect();
        Self { few, ..Self::default() }
    }

    /// (key id, group) of each selected key, each key once.
    pub fn pairs(mut pairs: Vec<(u32, u32)>) -> Self {
        if pairs.len() <= SEARCHED_KEYS_MAX {
            pairs.sort_unstable();
            return Self { few: pairs, ..Self::default() };
        }
        let mut dense = vec![NO_GROUP; pairs.iter().map(|p| p.0 as usize + 1).max().unwrap_or(0)];
        pairs.into_iter().for_each(|(key, group)| dense[key as usize] = group);
        Self { dense, ..Self::default() }
    }

    /// All keys of some classes. `metric_of` is the metric of each key, `family_of` the family of each metric (not needed for
    /// [`KeyClass::Metric`]), `groups` (class, group) of each selected class.
    pub fn classes(by: KeyClass, metric_of: Arc<Vec<u32>>, family_of: Vec<u32>, groups: &[(u32, u32)]) -> Self {
        let mut by_class = vec![NO_GROUP; groups.iter().map(|g| g.0 as usize + 1).max().unwrap_or(0)];
        groups.iter().for_each(|&(class, group)| by_class[class as usize] = group);
        let classes = ClassGroups { classes: Classes { by, metric_of, family_of }, groups: by_class };
        Self { classes: Some(Arc::new(classes)), ..Self::default() }
    }

    fn is_few(&self) -> bool {
        self.dense.is_empty() && self.classes.is_none()
    }

    #[inline]
    fn get(&self, key: u32) -> u32 {
        if let Some(groups) = &self.classes {
            return groups.classes.of(key).map_or(NO_GROUP, |class| groups.of(class));
        }
        if self.dense.is_empty() {
            return self.few.binary_search_by_key(&key, |p| p.0).map_or(NO_GROUP, |at| self.few[at].1);
        }
        self.dense.get(key as usize).copied().unwrap_or(NO_GROUP)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanStopped {
    #[error("more than {cells_max} cells")]
    TooManyCells { cells_max: usize },
    #[error("cancelled")]
    Cancelled,
}

/// Cells (group x bucket) of an answer while they are gathered.
pub struct CellMap {
    cells: Vec<Cell>,
    /// In their place, where nothing but counts is asked: by `group * buckets + bucket`.
    counts: Option<Vec<u64>>,
    cells_max: usize,
    buckets: u64,
    /// Position + 1 by `group * buckets + bucket`, when that is small.
    dense: Vec<u32>,
    sparse: HashMap<(u32, u32), u32>,
    last: (u32, u32, usize),
}

impl CellMap {
    /// For groups `0..groups` and buckets `0..buckets`.
    pub fn new(groups: u32, buckets: u32, cells_max: usize) -> Self {
        let all = u64::from(groups) * u64::from(buckets);
        let dense = if all <= DENSE_CELLS_MAX { vec![0; all as usize] } else { Vec::new() };
        Self {
            cells: Vec::new(),
            counts: None,
            cells_max,
            buckets: u64::from(buckets),
            dense,
            sparse: HashMap::new(),
            last: (NO_GROUP, 0, 0),
        }
    }

    /// For what `wants` says: counts alone are kept as numbers.
    pub fn for_query(groups: u32, buckets: u32, cells_max: usize, wants: Wants) -> Self {
        let all = u64::from(groups) * u64::from(buckets);
        if wants == Wants::default() && all <= DENSE_CELLS_MAX.min(cells_max as u64) {
            return Self { counts: Some(vec![0; all as usize]), ..Self::new(0, buckets, cells_max) };
        }
        Self::new(groups, buckets, cells_max)
    }

    /// Counts events of which nothing else is asked.
    #[inline]
    fn count(&mut self, group: u32, bucket: u32, count: u64) -> Result<(), ScanStopped> {
        match &mut self.counts {
            Some(counts) => {
                if let Some(sum) = counts.get_mut((u64::from(group) * self.buckets + u64::from(bucket)) as usize) {
                    *sum += count;
                }
            }
            None => self.cell(group, bucket)?.count += count,
        }
        Ok(())
    }

    #[inline]
    fn cell(&mut self, group: u32, bucket: u32) -> Result<&mut Accumulator, ScanStopped> {
        debug_assert!(self.counts.is_none(), "only counts are asked for");
        if (self.last.0, self.last.1) != (group, bucket) {
            let next = self.cells.len() as u32;
            let at = match self.dense.get_mut((u64::from(group) * self.buckets + u64::from(bucket)) as usize) {
                Some(slot) if *slot > 0 => *slot - 1,
                Some(slot) => {
                    *slot = next + 1;
                    next
                }
                None => *self.sparse.entry((group, bucket)).or_insert(next),
            };
            if at == next {
                if self.cells.len() >= self.cells_max {
                    return Err(ScanStopped::TooManyCells { cells_max: self.cells_max });
                }
                self.cells.push(Cell { group, bucket, values: Accumulator::default() });
            }
            self.last = (group, bucket, at as usize);
        }
        Ok(&mut self.cells[self.last.2].values)
    }

    /// In the order in which they were first met.
    pub fn into_cells(self) -> Vec<Cell> {
        let (mut cells, counts) = self.finish(|sets| Arc::new(IdentitySet::union(sets)));
        cells.extend(counts.cells());
        cells
    }

    fn finish(mut self, union: impl Fn(&[Arc<IdentitySet>]) -> Arc<IdentitySet>) -> (Vec<Cell>, StepCounts) {
        // Several sets of one cell are joined here, where shards work beside each other; a single one is passed on as it is.
        self.cells.iter_mut().for_each(|cell| cell.values.join_shared(&union));
        (self.cells, StepCounts { buckets: self.buckets as u32, counts: self.counts.unwrap_or_default() })
    }
}

/// An open row that a query reads.
struct ViewRow {
    group: u32,
    bucket: u32,
    time_ms: i64,
    row: OpenRow,
}

/// What a scan of one plan reads: shared blocks and copies of the open rows in question.
pub struct WindowView {
    slices: Vec<Slice>,
    groups: KeyGroups,
    blocks: Vec<(Arc<Block>, bool)>,
    digests: Vec<DigestView>,
    rows: Vec<ViewRow>,
    totals_budget: Arc<Budget>,
    unions: Arc<Unions>,
}

/// Open rows that are read as a block.
enum DigestView {
    Made(Arc<Block>),
    /// To be made of these rows, and left there for the next query.
    ToMake {
        hour_ms: i64,
        rows: Vec<OpenRow>,
        place: Arc<Mutex<Option<RowsDigest>>>,
    },
}

impl DigestView {
    fn block(&self) -> Arc<Block> {
        match self {
            Self::Made(block) => block.clone(),
            Self::ToMake { hour_ms, rows, place } => {
                let block = Arc::new(make::seal(*hour_ms, rows, u64::MAX));
                let mut held = place.lock();
                if held.as_ref().is_none_or(|d| d.rows < rows.len()) {
                    *held = Some(RowsDigest { rows: rows.len(), block: block.clone() });
                }
                block
            }
        }
    }
}

/// How the rows of a tail are read, and how many of them are read so; the others are read one by one.
fn digest_of(tail: &Tail) -> (Option<DigestView>, usize) {
    let held = tail.digest.lock().clone();
    let covered = held.as_ref().map_or(0, |d| d.rows);
    let rows = tail.rows.len();
    if rows - covered > LOOSE_ROWS_MAX.max(rows / 4) {
        let place = tail.digest.clone();
        return (Some(DigestView::ToMake { hour_ms: tail.hour_ms, rows: tail.rows.clone(), place }), rows);
    }
    (held.map(|d| DigestView::Made(d.block)), covered)
}

impl WindowStore {
    /// Gathers what `plan` reads of the selected keys: short, so it may run under a lock.
    pub fn view(&self, plan: &ScanPlan, groups: KeyGroups) -> WindowView {
        if self.totals_budget.take_short() {
            self.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks).for_each(|s| s.block.derived().forget_unused());
            self.unions.forget_unused();
        }
        let slices = &plan.slices;
        debug_assert!(slices.windows(2).all(|s| s[0].to_ms <= s[1].from_ms), "slices are disjoint and in time order");
        let mut blocks = Vec::new();
        if let (Some(first), Some(last)) = (slices.first(), slices.last()) {
            for grain in Grain::ALL {
                let from_ms = first.from_ms.saturating_sub(partition_span_ms(grain)).saturating_add(1);
                if from_ms < last.to_ms {
                    let partitions = self.levels[grain as usize].range(from_ms..last.to_ms);
                    partitions.for_each(|(_, partition)| view_blocks(slices, partition, &mut blocks));
                }
            }
        }
        let (mut rows, mut digests) = (Vec::new(), Vec::new());
        for tail in self.tail_of_hour.values().map(|&t| &self.tails[t]) {
            let bucket_of_minute: [Option<u32>; 60] =
                std::array::from_fn(|m| slice_at(slices, tail.hour_ms + m as i64 * MINUTE_MS).map(|s| s.bucket));
            if bucket_of_minute.iter().all(Option::is_none) {
                continue;
            }
            let (digest, covered) = digest_of(tail);
            digests.extend(digest);
            for &row in &tail.rows[covered..] {
                let Some(bucket) = bucket_of_minute[row.minute() as usize] else { continue };
                let group = groups.get(row.key);
                if group != NO_GROUP {
                    rows.push(ViewRow { group, bucket, time_ms: tail.hour_ms + i64::from(row.offset_ms), row });
                }
            }
        }
        WindowView {
            slices: slices.clone(),
            groups,
            blocks,
            digests,
            rows,
            totals_budget: self.totals_budget.clone(),
            unions: self.unions.clone(),
        }
    }

    /// [`Self::view`] and [`WindowView::scan`] at once.
    ///
    /// # Errors
    /// More cells than `out` takes.
    pub fn scan(&self, plan: &ScanPlan, wants: Wants, groups: KeyGroups, out: &mut CellMap) -> Result<(), ScanStopped> {
        self.view(plan, groups).scan(wants, out, &|| false)
    }
}

/// The slice that holds `time_ms`.
fn slice_at(slices: &[Slice], time_ms: i64) -> Option<&Slice> {
    slices.get(slices.partition_point(|s| s.to_ms <= time_ms)).filter(|s| s.from_ms <= time_ms)
}

fn view_blocks(slices: &[Slice], partition: &Partition, out: &mut Vec<(Arc<Block>, bool)>) {
    for stored in &partition.blocks {
        let first = slices.partition_point(|s| s.to_ms <= stored.block.first_ms);
        let in_reach = slices[first..].iter().take_while(|s| s.from_ms <= stored.block.last_ms);
        if in_reach.into_iter().any(|s| stored.is_read_at(s.grain)) {
            out.push((stored.block.clone(), stored.folded));
        }
    }
}

impl WindowView {
    /// Adds what it holds to `out`. `should_stop` is asked once per block.
    ///
    /// # Errors
    /// More cells than `out` takes, or `should_stop` said so; `out` is then incomplete.
    pub fn scan(&self, wants: Wants, out: &mut CellMap, should_stop: &dyn Fn() -> bool) -> Result<(), ScanStopped> {
        for (block, folded) in &self.blocks {
            if should_stop() {
                return Err(ScanStopped::Cancelled);
            }
            self.scan_block(block, *folded, wants, out)?;
        }
        for digest in &self.digests {
            if should_stop() {
                return Err(ScanStopped::Cancelled);
            }
            self.scan_block(&digest.block(), false, wants, out)?;
        }
        for ViewRow { group, bucket, time_ms, row } in &self.rows {
            if wants == Wants::default() {
                out.count(*group, *bucket, 1)?;
                continue;
            }
            let value = (!row.value.is_nan()).then_some(row.value);
            out.cell(*group, *bucket)?.add(wants, *time_ms, row.id, row.user, row.session, value);
        }
        Ok(())
    }

    /// What was gathered, as an answer has it.
    pub fn finish(&self, cells: CellMap) -> (Vec<Cell>, StepCounts) {
        cells.finish(|sets| self.unions.of(sets))
    }

    fn scan_block(&self, block: &Block, folded: bool, wants: Wants, out: &mut CellMap) -> Result<(), ScanStopped> {
        if let Some(groups) = &self.groups.classes
            && self.add_totals(block, folded, groups, wants, out)?
        {
            return Ok(());
        }
        let columns = block.columns();
        for (at, start_ms, bucket) in self.starts_read(block, folded) {
            self.scan_windows(columns, columns.windows_of(at), start_ms, bucket, wants, out)?;
        }
        Ok(())
    }

    /// (directory entry, its start, bucket) of what is read of a block.
    fn starts_read<'a>(&'a self, block: &'a Block, folded: bool) -> impl Iterator<Item = (usize, i64, u32)> + 'a {
        let columns = block.columns();
        // Starts and slices both ascend.
        let mut next = self.slices.partition_point(|s| s.to_ms <= block.first_ms);
        (0..columns.starts.len()).filter_map(move |at| {
            let start_ms = columns.start_ms(at);
            while self.slices.get(next).is_some_and(|s| s.to_ms <= start_ms) {
                next += 1;
            }
            let slice = self.slices.get(next).filter(|s| s.from_ms <= start_ms)?;
            let is_read = block.grain == slice.grain || (block.grain < slice.grain && !folded);
            is_read.then_some((at, start_ms, slice.bucket))
        })
    }

    /// Adds totals in place of windows. Says no when they would not do; then nothing was added.
    fn add_totals(&self, block: &Block, folded: bool, groups: &ClassGroups, wants: Wants, out: &mut CellMap) -> Result<bool, ScanStopped> {
        // (stretch, bucket) of sets and bins.
        let sketches: Vec<(usize, u32)> = if !(wants.users || wants.sessions || wants.quantiles) {
            Vec::new()
        } else if !sketches_are_whole(block.grain) {
            self.starts_read(block, folded).map(|(at, _, bucket)| (at, bucket)).collect()
        } else {
            let all_in_one = slice_at(&self.slices, block.first_ms).filter(|s| block.last_ms < s.to_ms);
            let Some(slice) = all_in_one.filter(|s| block.grain == s.grain || !folded) else { return Ok(false) };
            vec![(0, slice.bucket)]
        };
        let totaller = Totaller { block, classes: &groups.classes, budget: &self.totals_budget };
        let counts = totaller.counts();
        for (at, _, bucket) in self.starts_read(block, folded) {
            for &(class, count) in counts.of(at) {
                let group = groups.of(class);
                if group != NO_GROUP {
                    out.count(group, bucket, count)?;
                }
            }
        }
        if wants.values || wants.last || wants.quantiles {
            let values = totaller.values();
            for (at, _, bucket) in self.starts_read(block, folded) {
                add_each(groups, values.of(at), bucket, out, |cell, total| {
                    cell.value_count += total.count;
                    cell.sum += total.sum;
                    cell.min = cell.min.min(total.min);
                    cell.max = cell.max.max(total.max);
                    if let (true, Some(last)) = (wants.last, total.last) {
                        cell.offer_last(last);
                    }
                })?;
            }
        }
        if wants.users {
            let users = totaller.users();
            for &(stretch, bucket) in &sketches {
                add_each(groups, users.of(stretch), bucket, out, |cell, set| cell.users.merge(&Distinct::shared(set.clone())))?;
            }
        }
        if wants.sessions {
            let sessions = totaller.sessions();
            for &(stretch, bucket) in &sketches {
                add_each(groups, sessions.of(stretch), bucket, out, |cell, set| cell.sessions.merge(&Distinct::shared(set.clone())))?;
            }
        }
        if wants.quantiles {
            let quantiles = totaller.quantiles();
            for &(stretch, bucket) in &sketches {
                add_each(groups, quantiles.of(stretch), bucket, out, |cell, bins| cell.quantiles.merge(bins))?;
            }
        }
        Ok(true)
    }

    fn scan_windows(
        &self,
        columns: &ArchivedColumns,
        windows: Range<usize>,
        start_ms: i64,
        bucket: u32,
        wants: Wants,
        out: &mut CellMap,
    ) -> Result<(), ScanStopped> {
        let keys = &columns.keys[windows.clone()];
        if self.groups.is_few() {
            let mut from = 0;
            for &(key, group) in &self.groups.few {
                from += keys[from..].partition_point(|k| k.to_native() < key);
                if keys.get(from).is_some_and(|k| k.to_native() == key) {
                    let window = columns.window(windows.start + from, start_ms);
                    if wants == Wants::default() {
                        out.count(group, bucket, window.count())?;
                    } else {
                        add_window(out.cell(group, bucket)?, window, wants);
                    }
                }
            }
            return Ok(());
        }
        if wants == Wants::default() {
            return self.count_windows(columns, windows, bucket, out);
        }
        for (key, window) in keys.iter().zip(windows) {
            let group = self.groups.get(key.to_native());
            if group != NO_GROUP {
                add_window(out.cell(group, bucket)?, columns.window(window, start_ms), wants);
            }
        }
        Ok(())
    }

    /// Most questions: a count is all that is read of a window.
    fn count_windows(&self, columns: &ArchivedColumns, windows: Range<usize>, bucket: u32, out: &mut CellMap) -> Result<(), ScanStopped> {
        let mut keys = columns.keys[windows.clone()].iter();
        let (buckets, bucket_at) = (out.buckets as usize, bucket as usize);
        if let (Some(sums), None) = (&mut out.counts, &self.groups.classes) {
            let dense = self.groups.dense.as_slice();
            columns.counts.for_range(windows, |count| {
                let group = keys.next().and_then(|key| dense.get(key.to_native() as usize)).copied().unwrap_or(NO_GROUP);
                // Beyond the end where it is not selected.
                if let Some(sum) = sums.get_mut((group as usize).saturating_mul(buckets).saturating_add(bucket_at)) {
                    *sum += count;
                }
            });
            return Ok(());
        }
        let mut stopped = Ok(());
        columns.counts.for_range(windows, |count| {
            let group = keys.next().map_or(NO_GROUP, |key| self.groups.get(key.to_native()));
            if group != NO_GROUP && stopped.is_ok() {
                stopped = out.count(group, bucket, count);
            }
        });
        stopped
    }
}

#[inline]
pub(super) fn add_window(cell: &mut Accumulator, window: WindowRef<'_>, wants: Wants) {
    cell.count += window.count();
    if wants == Wants::default() {
        return;
    }
    if (wants.values || wants.last || wants.quantiles)
        && let Some(values) = window.values()
    {
        cell.value_count += values.count;
        cell.sum += values.sum;
        cell.min = cell.min.min(values.min);
        cell.max = cell.max.max(values.max);
        if wants.last {
            cell.offer_last(values.last);
        }
        if wants.quantiles {
            window.bins(&values, |bin, count| cell.quantiles.add(bin, count));
        }
    }
    if wants.users {
        window.users().add_to(&mut cell.users);
    }
    if wants.sessions {
        window.sessions().add_to(&mut cell.sessions);
    }
}

/// Adds the totals of one stretch to the cells of their groups.
fn add_each<T>(
    groups: &ClassGroups,
    totals: &[(u32, T)],
    bucket: u32,
    out: &mut CellMap,
    mut add: impl FnMut(&mut Accumulator, &T),
) -> Result<(), ScanStopped> {
    for (class, total) in totals {
        let group = groups.of(*class);
        if group != NO_GROUP {
            add(out.cell(group, bucket)?, total);
        }
    }
    Ok(())
}
