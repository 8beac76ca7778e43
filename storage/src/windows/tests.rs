//! The store against an oracle that keeps every event and counts by plain loops.

mod damage;
mod golden;
mod life;
mod property;
mod totals;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rkyv::util::AlignedVec;
use tallymesh_protocol::aggregate::{Accumulator, Wants};
use tallymesh_protocol::question::query::{ScanPlan, Slice};
use tallymesh_protocol::time::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};

use super::*;
use crate::StorageError;
use crate::files::{FileRef, ImmutableFiles};

const LATENESS_MS: i64 = 2 * MINUTE_MS;
/// 2026-01-01T00:00:00Z.
const T0: i64 = 1_767_225_600_000;
const ALL: Wants = Wants { values: true, last: true, users: true, sessions: true, quantiles: true };

fn settings() -> WindowSettings {
    WindowSettings { lateness_ms: LATENESS_MS, retention_minute_ms: None, retention_hour_ms: None, retention_day_ms: None }
}

fn row(key: u32, time_ms: i64, id: u64) -> Row {
    Row { key, time_ms, id, user: mix(id % 7) | 1, session: 0, value: f64::NAN }
}

/// What mapping a file again gives.
#[derive(Default, PartialEq)]
enum Maps {
    /// The same bytes.
    #[default]
    Shared,
    /// Bytes that lie elsewhere.
    Anew,
    /// An error.
    Lost,
}

/// Files in memory; nothing checks their contents, so that damage reaches the reader.
#[derive(Default)]
struct MemoryFiles {
    files: BTreeMap<String, Bytes>,
    written: usize,
    reads: RefCell<usize>,
    maps: Maps,
}

impl ImmutableFiles for MemoryFiles {
    fn write(&mut self, kind: &str, bytes: &[u8]) -> Result<FileRef, StorageError> {
        self.written += bytes.len();
        let name = format!("{kind}-{}", self.files.len());
        self.put(&name, bytes);
        Ok(FileRef { name, bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
    }

    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError> {
        *self.reads.borrow_mut() += 1;
        self.files.get(&file.name).cloned().ok_or_else(|| StorageError::Invalid(format!("no file {}", file.name)))
    }

    fn is_mapped(&self, _: &FileRef) -> bool {
        self.maps != Maps::Shared
    }

    fn map(&self, file: &FileRef, parts: &[(u64, u64)]) -> Result<Vec<Bytes>, StorageError> {
        let bytes = self.files.get(&file.name).filter(|_| self.maps != Maps::Lost);
        let bytes = bytes.ok_or_else(|| StorageError::Invalid(format!("no file {}", file.name)))?;
        let bytes = if self.maps == Maps::Anew { aligned(bytes) } else { bytes.clone() };
        Ok(parts.iter().map(|(offset, len)| bytes.slice(*offset as usize..(offset + len) as usize)).collect())
    }
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    Bytes::from_owner(aligned)
}

impl MemoryFiles {
    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), aligned(bytes));
    }

    fn keep_only(&mut self, saved: &SavedWindows) {
        let named: BTreeSet<&String> = saved.files().map(|f| &f.name).collect();
        // Emptied rather than removed, so that names stay unique.
        self.files.iter_mut().filter(|(name, _)| !named.contains(name)).for_each(|(_, bytes)| *bytes = Bytes::new());
    }
}

fn save(store: &mut WindowStore, files: &mut MemoryFiles) -> SavedWindows {
    let saved = store.save_plan().write(files).expect("memory does not fail");
    store.mark_saved(&saved);
    saved
}

/// All that further behaviour and answers depend on.
fn shape(store: &WindowStore) -> impl PartialEq + std::fmt::Debug {
    let blocks = |p: &Partition| p.blocks.iter().map(|b| (b.folded, crc32fast::hash(b.block.bytes()))).collect::<Vec<_>>();
    let levels: Vec<_> =
        store.levels.iter().map(|level| level.iter().map(|(s, p)| (*s, p.last_write_ms, blocks(p))).collect::<Vec<_>>()).collect();
    let tails = store.tail_of_hour.values().map(|&t| &store.tails[t]);
    let tails: Vec<_> = tails.map(|t| (t.hour_ms, t.last_write_ms, t.rows.len())).collect();
    (levels, tails, store.stamp_ms, store.digest())
}

/// One slice of `[from_ms, to_ms)` for each step.
fn plan(grain: Grain, from_ms: i64, to_ms: i64, step_ms: i64) -> ScanPlan {
    let steps = (to_ms - from_ms) / step_ms;
    let slice = |i: i64| Slice { from_ms: from_ms + i * step_ms, to_ms: from_ms + (i + 1) * step_ms, grain, bucket: i as u32 };
    ScanPlan { slices: (0..steps).map(slice).collect(), buckets: steps as u32 }
}

fn ask(store: &WindowStore, plan: &ScanPlan, groups: &[u32]) -> BTreeMap<(u32, u32), Accumulator> {
    let mut cells = CellMap::new(1 + groups.iter().filter(|&&g| g != u32::MAX).max().unwrap_or(&0), plan.buckets, 1 << 20);
    store.scan(plan, ALL, KeyGroups::dense(groups.to_vec()), &mut cells).expect("few cells");
    cells.into_cells().into_iter().map(|c| ((c.group, c.bucket), c.values)).collect()
}

fn total(store: &WindowStore, grain: Grain, from_ms: i64, to_ms: i64, keys: usize) -> u64 {
    ask(store, &plan(grain, from_ms, to_ms, to_ms - from_ms), &vec![0; keys]).values().map(|c| c.count).sum()
}

#[derive(Default)]
struct Expected {
    count: u64,
    values: Vec<f64>,
    last: Option<(i64, u64, f64)>,
    users: BTreeSet<u64>,
    sessions: BTreeSet<u64>,
}

fn expect(events: &[Row], plan: &ScanPlan, groups: &[u32]) -> BTreeMap<(u32, u32), Expected> {
    let mut cells: BTreeMap<(u32, u32), Expected> = BTreeMap::new();
    for event in events {
        let Some(slice) = plan.slices.iter().find(|s| s.from_ms <= event.time_ms && event.time_ms < s.to_ms) else { continue };
        let Some(&group) = groups.get(event.key as usize).filter(|&&g| g != u32::MAX) else { continue };
        let cell = cells.entry((group, slice.bucket)).or_default();
        cell.count += 1;
        cell.users.extend((event.user != 0).then_some(event.user));
        cell.sessions.extend((event.session != 0).then_some(event.session));
        if !event.value.is_nan() {
            cell.values.push(event.value);
            let newer = cell.last.is_none_or(|l| (event.time_ms, event.id) > (l.0, l.1));
            cell.last = if newer { Some((event.time_ms, event.id, event.value)) } else { cell.last };
        }
    }
    cells
}

fn assert_same(got: &BTreeMap<(u32, u32), Accumulator>, want: &BTreeMap<(u32, u32), Expected>) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "cells");
    for (cell, want) in want {
        let got = &got[cell];
        assert_eq!((got.count, got.value_count), (want.count, want.values.len() as u64), "counts of {cell:?}");
        let (sum, size) = want.values.iter().fold((0.0, 1.0), |(sum, size), v| (sum + v, size + v.abs()));
        assert!((got.sum - sum).abs() <= 1e-9 * size, "sum of {cell:?}: {} not {sum}", got.sum);
        let (min, max) = want.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)));
        assert_eq!((got.min, got.max), (min, max), "min and max of {cell:?}");
        assert_eq!(got.last.map(|l| (l.time_ms, l.id, l.value)), want.last, "last of {cell:?}");
        for (set, exact) in [(&got.users, want.users.len()), (&got.sessions, want.sessions.len())] {
            // Three standard errors: many cells are compared.
            let tolerance = 1.5 * set.relative_error() * exact as f64;
            assert!((set.estimate() - exact as f64).abs() <= tolerance, "distinct in {cell:?}: {set:?}, not {exact}");
            assert!(exact > 1_024 || set.is_exact(), "{exact} entries are kept exactly");
        }
        let mut sorted = want.values.clone();
        sorted.sort_by(f64::total_cmp);
        for q in [0.0, 0.5, 0.9, 1.0] {
            let rank = (q * sorted.len().saturating_sub(1) as f64).floor() as usize;
            let (got, want) = (got.quantiles.quantile(q), sorted.get(rank));
            assert_eq!(got.is_some(), want.is_some());
            if let (Some(got), Some(want)) = (got, want) {
                assert!((got - want).abs() <= 0.0101 * want.abs() + 1e-8, "q {q} of {cell:?}: {got}, not {want}");
            }
        }
    }
}
