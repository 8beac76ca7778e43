//! Totals beside a block: its windows added up over all keys of a metric, or over all metrics of a tenant. They are derived from the block when a query
//! first needs them, belong to no state, and are forgotten when memory for them runs out or the block goes; a block never changes, so they need
//! not be invalidated.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tallymesh_protocol::aggregate::{Accumulator, Distinct, IdentitySet, Last, Quantiles, Wants};
use tallymesh_protocol::time::Grain;

use super::block::{Block, WindowRef};
use super::scan::add_window;

/// Totals of one shard at most, in bytes. What does not fit is made anew for each query.
pub const TOTALS_BYTES_MAX: usize = 8 << 20;

/// What the totals of one shard take.
pub(super) struct Budget {
    max_bytes: usize,
    used_bytes: AtomicUsize,
    /// Something did not fit since the last look.
    short: AtomicBool,
}

impl Budget {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, used_bytes: AtomicUsize::new(0), short: AtomicBool::new(false) }
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether room should be made.
    pub fn take_short(&self) -> bool {
        self.short.swap(false, Ordering::Relaxed)
    }
}

/// Unions of one shard that are kept at most.
const UNIONS_MAX: usize = 1_024;

/// Unions of sets that stay as they are: of the hours of a day, say, which the next query about that day needs again. Kept within the same budget.
pub(super) struct Unions {
    budget: Arc<Budget>,
    made: Mutex<HashMap<Vec<usize>, Union>>,
}

struct Union {
    /// What it is of. As long as they are held, if only so, no other set has the same address, which is what unions are found by.
    _of: Vec<Weak<IdentitySet>>,
    union: Arc<IdentitySet>,
    bytes: usize,
    used: bool,
}

impl Unions {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, made: Mutex::default() }
    }

    pub fn of(&self, sets: &[Arc<IdentitySet>]) -> Arc<IdentitySet> {
        let key: Vec<usize> = sets.iter().map(|set| Arc::as_ptr(set) as usize).collect();
        if let Some(union) = self.made.lock().get_mut(&key) {
            union.used = true;
            return union.union.clone();
        }
        // Outside the lock, as totals are made.
        let union = Arc::new(IdentitySet::union(sets));
        let bytes = union.bytes() + size_of::<Union>() + sets.len() * 2 * size_of::<usize>();
        let mut made = self.made.lock();
        if made.len() >= UNIONS_MAX {
            self.forget_unused_of(&mut made);
        }
        let used = self.budget.used_bytes.load(Ordering::Relaxed) + bytes;
        if made.len() < UNIONS_MAX && used <= self.budget.max_bytes {
            self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
            let kept = Union { _of: sets.iter().map(Arc::downgrade).collect(), union: union.clone(), bytes, used: true };
            if let Some(other) = made.insert(key, kept) {
                self.budget.used_bytes.fetch_sub(other.bytes, Ordering::Relaxed);
            }
        } else {
            self.budget.short.store(true, Ordering::Relaxed);
        }
        union
    }

    /// Forgets what no query has used since the last time.
    pub fn forget_unused(&self) {
        self.forget_unused_of(&mut self.made.lock());
    }

    fn forget_unused_of(&self, made: &mut HashMap<Vec<usize>, Union>) {
        made.retain(|_, union| {
            let stays = std::mem::take(&mut union.used);
            if !stays {
                self.budget.used_bytes.fetch_sub(union.bytes, Ordering::Relaxed);
            }
            stays
        });
    }
}

/// Over what keys are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyClass {
    /// One metric.
    Metric,
    /// All metrics of one kind and tenant.
    Family,
}

/// The class of each key, as totals are made by.
pub(super) struct Classes {
    pub by: KeyClass,
    pub metric_of: Arc<Vec<u32>>,
    /// For families: that of each metric.
    pub family_of: Vec<u32>,
}

impl Classes {
    #[inline]
    pub fn of(&self, key: u32) -> Option<u32> {
        let metric = *self.metric_of.get(key as usize)?;
        match self.by {
            KeyClass::Metric => Some(metric),
            KeyClass::Family => self.family_of.get(metric as usize).copied(),
        }
    }
}

/// (class, total) for each stretch of time, in the order of the classes' first windows.
pub(super) struct Totals<T> {
    ends: Vec<u32>,
    entries: Vec<(u32, T)>,
}

impl<T> Totals<T> {
    #[inline]
    pub fn of(&self, stretch: usize) -> &[(u32, T)] {
        let start = if stretch == 0 { 0 } else { self.ends[stretch - 1] as usize };
        &self.entries[start..self.ends[stretch] as usize]
    }
}

/// Values of several windows.
pub(super) struct ValueTotal {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub last: Option<Last>,
}

/// Totals that are kept, and what they take.
pub(super) struct Kept<T> {
    totals: Totals<T>,
    bytes: usize,
    budget: Arc<Budget>,
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<T> std::ops::Deref for Kept<T> {
    type Target = Totals<T>;

    fn deref(&self) -> &Totals<T> {
        &self.totals
    }
}

type Slot<T> = Mutex<Option<Arc<Kept<T>>>>;

/// Totals by one class.
#[derive(Default)]
struct Level {
    counts: Slot<u64>,
    values: Slot<ValueTotal>,
    users: Slot<Arc<IdentitySet>>,
    sessions: Slot<Arc<IdentitySet>>,
    quantiles: Slot<Arc<Quantiles>>,
}

/// All totals of a block.
#[derive(Default)]
pub(super) struct Derived {
    metrics: Level,
    families: Level,
    used: AtomicBool,
}

impl Derived {
    fn level(&self, by: KeyClass) -> &Level {
        match by {
            KeyClass::Metric => &self.metrics,
            KeyClass::Family => &self.families,
        }
    }

    /// Forgets what no query has used since the last time.
    pub fn forget_unused(&self) {
        if self.used.swap(false, Ordering::Relaxed) {
            return;
        }
        for level in [&self.metrics, &self.families] {
            *level.counts.lock() = None;
            *level.values.lock() = None;
            *level.users.lock() = None;
            *level.sessions.lock() = None;
            *level.quantiles.lock() = None;
        }
    }
}

/// Whether sets and bins of a block are added up over all of it: by minute and metric there would be hardly less than there are windows.
pub(super) fn sketches_are_whole(grain: Grain) -> bool {
    grain == Grain::Minute
}

/// Makes and keeps totals of one block.
pub(super) struct Totaller<'a> {
    pub block: &'a Block,
    pub classes: &'a Classes,
    pub budget: &'a Arc<Budget>,
}

impl Totaller<'_> {
    /// Events by window start.
    pub fn counts(&self) -> Arc<Kept<u64>> {
        self.find(|l| &l.counts, || self.add_up(false, |total: &mut u64, window| *total += window.count(), |n| n), |_| 0)
    }

    /// Values by window start.
    pub fn values(&self) -> Arc<Kept<ValueTotal>> {
        let wants = Wants { values: true, last: true, ..Wants::default() };
        let finish = |a: Accumulator| ValueTotal { count: a.value_count, sum: a.sum, min: a.min, max: a.max, last: a.last };
        self.find(|l| &l.values, || self.add_up(false, |a: &mut Accumulator, window| add_window(a, window, wants), finish), |_| 0)
    }

    /// Users by window start, or of the whole block.
    pub fn users(&self) -> Arc<Kept<Arc<IdentitySet>>> {
        let add = |set: &mut Distinct, window: WindowRef<'_>| window.users().add_to(set);
        self.find(|l| &l.users, || self.add_up(self.is_whole(), add, |s| self.set(s)), |s| s.bytes())
    }

    /// The same of sessions.
    pub fn sessions(&self) -> Arc<Kept<Arc<IdentitySet>>> {
        let add = |set: &mut Distinct, window: WindowRef<'_>| window.sessions().add_to(set);
        self.find(|l| &l.sessions, || self.add_up(self.is_whole(), add, |s| self.set(s)), |s| s.bytes())
    }

    /// The same of bins.
    pub fn quantiles(&self) -> Arc<Kept<Arc<Quantiles>>> {
        let add = |bins: &mut Quantiles, window: WindowRef<'_>| {
            if let Some(values) = window.values() {
                window.bins(&values, |bin, count| bins.add(bin, count));
            }
        };
        let bytes = |bins: &Arc<Quantiles>| size_of::<Quantiles>() + bins.heap_bytes();
        self.find(|l| &l.quantiles, || self.add_up(self.is_whole(), add, Arc::new), bytes)
    }

    fn set(&self, set: Distinct) -> Arc<IdentitySet> {
        let set = IdentitySet::of(set);
        Arc::new(if self.block.grain == Grain::Minute { set } else { set.lasting() })
    }

    fn is_whole(&self) -> bool {
        sketches_are_whole(self.block.grain)
    }

    fn find<T>(
        &self,
        slot: impl Fn(&Level) -> &Slot<T>,
        make: impl FnOnce() -> Totals<T>,
        bytes_behind: impl Fn(&T) -> usize,
    ) -> Arc<Kept<T>> {
        let derived = self.block.derived();
        derived.used.store(true, Ordering::Relaxed);
        let slot = slot(derived.level(self.classes.by));
        if let Some(kept) = &*slot.lock() {
            return kept.clone();
        }
        // Made outside the lock: two queries at once may both make them, and nobody waits.
        let totals = make();
        let behind: usize = totals.entries.iter().map(|(_, total)| bytes_behind(total)).sum();
        let bytes = behind + totals.entries.capacity() * size_of::<(u32, T)>() + totals.ends.capacity() * size_of::<u32>();
        let used = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let kept = Arc::new(Kept { totals, bytes, budget: self.budget.clone() });
        if used <= self.budget.max_bytes {
            *slot.lock() = Some(kept.clone());
        } else {
            self.budget.short.store(true, Ordering::Relaxed);
        }
        kept
    }

    fn add_up<A: Default, T>(&self, whole: bool, add: impl Fn(&mut A, WindowRef<'_>), finish: impl Fn(A) -> T) -> Totals<T> {
        let columns = self.block.columns();
        let mut totals = Totals { ends: Vec::new(), entries: Vec::new() };
        // Position + 1 of each class among those of this stretch.
        let mut position_of: Vec<u32> = Vec::new();
        let mut stretch: Vec<(u32, A)> = Vec::new();
        let starts = columns.starts.len();
        for at in 0..starts {
            for window in columns.windows_of(at) {
                // Keys of a block are keys of its shard.
                let Some(class) = self.classes.of(columns.keys[window].to_native()) else { continue };
                if position_of.len() <= class as usize {
                    position_of.resize(class as usize + 1, 0);
                }
                let position = &mut position_of[class as usize];
                if *position == 0 {
                    stretch.push((class, A::default()));
                    *position = stretch.len() as u32;
                }
                add(&mut stretch[*position as usize - 1].1, columns.window(window, columns.start_ms(at)));
            }
            if !whole || at + 1 == starts {
                stretch.iter().for_each(|(class, _)| position_of[*class as usize] = 0);
                totals.entries.extend(stretch.drain(..).map(|(class, total)| (class, finish(total))));
                totals.ends.push(totals.entries.len() as u32);
            }
        }
        totals.entries.shrink_to_fit();
        totals
    }
}
