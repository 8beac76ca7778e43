//! What the handles and the writer share, under one lock: the queue, and the groups as the queued requests will leave them. One lock, so that the
//! order of the queue is the order in which the requests took effect.

pub(super) mod index;
pub(super) mod request;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::format::{NO_GROUP, Place};
use super::stats::{GroupStats, Pin, WalStats};
use super::{Done, GroupState, LogEntry, WalOptions, segment};
use crate::StorageError;
use crate::disk::Disk;
use index::{Cache, GroupIndex, Slot};
use request::{Op, Request, check, take_effect};

/// A read that meets a segment which was removed meanwhile looks again this often; each time the log's start has moved on.
const READ_ATTEMPTS_MAX: usize = 8;

/// So much is worth a sync of its own, in bytes.
const GATHER_BYTES_MAX: usize = 256 << 10;

/// An entry that was written.
pub(super) struct Placed {
    pub group: u16,
    pub sequence: u32,
    pub entry: LogEntry,
    pub place: Place,
}

/// What one step of the writer did.
#[derive(Default)]
pub(super) struct Written {
    pub placed: Vec<Placed>,
    pub bytes: u64,
    pub queue_bytes: usize,
    pub requests: u64,
}

pub(super) enum Work {
    Queued,
    Idle,
    Closed,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// As in the statistics, for whoever asks at every request.
    held_bytes: AtomicU64,
    work: Condvar,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: WalOptions,
}

/// A request that was queued.
struct Taken {
    hook: Option<Arc<dyn Fn() + Send + Sync>>,
    wakes: bool,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<u16, GroupIndex>,
    queue: VecDeque<Request>,
    queued_bytes: usize,
    cache: Cache,
    poisoned: Option<String>,
    is_closing: bool,
    /// Requests of the last batch, and what came while it was written.
    expected: usize,
    /// The writer waits for what is expected: it need not be woken for less.
    is_gathering: bool,
    stats: WalStats,
    /// The first that a group needs which goes on.
    oldest_segment: u64,
    /// Groups that have stopped.
    aside: BTreeSet<u16>,
    hook: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl State {
    fn accepts(&self) -> Result<(), StorageError> {
        match &self.poisoned {
            Some(reason) => Err(StorageError::Poisoned(reason.clone())),
            None if self.is_closing => Err(StorageError::Poisoned("the log is closed".to_owned())),
            None => Ok(()),
        }
    }

    fn has_gathered(&self) -> bool {
        self.queue.len() >= self.expected || self.queued_bytes >= GATHER_BYTES_MAX
    }

    /// Whether the group goes on. One of which nothing is known does not, if damage may have taken all there was.
    fn check_group(&self, group: u16) -> Result<(), StorageError> {
        if group == NO_GROUP {
            return Err(StorageError::Invalid(format!("{group} is no group")));
        }
        self.groups.get(&group).or_else(|| self.groups.get(&NO_GROUP)).map_or(Ok(()), GroupIndex::check)
    }

    fn poison(&mut self, reason: &str) -> VecDeque<Request> {
        self.poisoned.get_or_insert_with(|| reason.to_owned());
        self.queued_bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: WalOptions, groups: BTreeMap<u16, GroupIndex>) -> Self {
        let state = State { groups, ..State::default() };
        Self { state: Mutex::new(state), held_bytes: AtomicU64::new(0), work: Condvar::new(), disk, dir, options }
    }

    pub fn on_work(&self, hook: Box<dyn Fn() + Send + Sync>) {
        self.state.lock().hook = Some(hook.into());
    }

    pub fn submit(&self, group: u16, op: Op, done: Done) {
        match self.enqueue(group, op, done) {
            Ok(taken) => {
                if taken.wakes {
                    self.work.notify_one();
                }
                if let Some(hook) = taken.hook {
                    hook();
                }
            }
            Err((error, done)) => done(Err(error)),
        }
    }

    /// The callback comes back to be told.
    fn enqueue(&self, group: u16, op: Op, done: Done) -> Result<Taken, (StorageError, Done)> {
        let bytes = op.bytes();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Err(error) = state.accepts().and_then(|()| state.check_group(group)) {
            return Err((error, done));
        }
        let index = state.groups.entry(group).or_default();
        let op = match check(index, group, op) {
            Ok(op) => op,
            Err(error) => return Err((error, done)),
        };
        let limit_bytes = self.options.queue_bytes_max;
        if state.queued_bytes > 0 && state.queued_bytes.saturating_add(bytes) > limit_bytes {
            return Err((StorageError::Overloaded { queued_bytes: state.queued_bytes, limit_bytes }, done));
        }
        let Some(index) = state.groups.get_mut(&group) else { return Ok(Taken { hook: None, wakes: false }) };
        let sequence = index.sequence.wrapping_add(1);
        index.sequence = index.sequence.wrapping_add(op.records() as u32);
        take_effect(index, sequence, &op);
        state.queued_bytes += bytes;
        state.queue.push_back(Request { group, sequence, op, bytes, done });
        Ok(Taken { hook: state.hook.clone(), wakes: !state.is_gathering || state.has_gathered() })
    }

    /// Takes what is queued, one request at least if there is any.
    pub fn take(&self, bytes_max: usize) -> Vec<Request> {
        let mut state = self.state.lock();
        let (mut count, mut bytes) = (0, 0);
        while let Some(request) = state.queue.get(count) {
            if count > 0 && bytes + request.bytes > bytes_max {
                break;
            }
            bytes += request.bytes;
            count += 1;
        }
        state.queue.drain(..count).collect()
    }

    /// Waits for work, the end, or `idle_after` without either.
    pub fn wait(&self, idle_after: Duration) -> Work {
        let mut state = self.state.lock();
        loop {
            if !state.queue.is_empty() {
                return Work::Queued;
            }
            if state.is_closing || state.poisoned.is_some() {
                return Work::Closed;
            }
            if self.work.wait_for(&mut state, idle_after).timed_out() && state.queue.is_empty() {
                return Work::Idle;
            }
        }
    }

    /// Waits a little for more, if more is likely to come. A caller that comes alone, one request after the other, never waits.
    pub fn gather(&self, longest: Duration) {
        let mut state = self.state.lock();
        if state.has_gathered() || state.is_closing || state.poisoned.is_some() {
            return;
        }
        state.is_gathering = true;
        self.work.wait_for(&mut state, longest);
        state.is_gathering = false;
    }

    pub fn close(&self) {
        self.state.lock().is_closing = true;
        self.work.notify_all();
    }

    /// What was written is durable.
    pub fn publish(&self, written: Written) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for Placed { group, sequence, entry, place } in written.placed {
            if let Some(slot) = state.groups.get_mut(&group).and_then(|g| g.slot_of(entry.index, sequence)) {
                slot.place = Some(place);
                state.cache.add(group, &entry, sequence);
            }
        }
        state.cache.evict(self.options.cache_bytes_max, &mut state.groups);
        state.queued_bytes = state.queued_bytes.saturating_sub(written.queue_bytes);
        state.expected = usize::try_from(written.requests).unwrap_or(usize::MAX).saturating_add(state.queue.len());
        let stats = &mut state.stats;
        stats.batches += 1;
        stats.requests += written.requests;
        stats.last_batch_requests = written.requests;
        stats.last_batch_bytes = written.bytes;
        stats.largest_batch_bytes = stats.largest_batch_bytes.max(written.bytes);
        stats.written_bytes += written.bytes;
    }

    pub fn record_sync(&self, took: Duration) {
        let stats = &mut self.state.lock().stats;
        stats.syncs += 1;
        stats.sync_time += took;
        stats.slowest_sync = stats.slowest_sync.max(took);
    }

    /// `held` gives, from the groups that have stopped, the first segment that another one needs and the bytes from there on.
    pub fn record_segments(&self, segments: u64, disk_bytes: u64, removed: u64, held: impl FnOnce(&BTreeSet<u16>) -> (u64, u64)) {
        let mut state = self.state.lock();
        let (oldest, held_bytes) = held(&state.aside);
        self.held_bytes.store(held_bytes, Ordering::Relaxed);
        state.oldest_segment = oldest;
        state.stats.segments = segments;
        state.stats.disk_bytes = disk_bytes;
        state.stats.held_bytes = held_bytes;
        state.stats.segments_removed += removed;
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub fn set_aside(&self, group: u16) {
        self.state.lock().aside.insert(group);
    }

    pub fn take_up(&self, group: u16) {
        self.state.lock().aside.remove(&group);
    }

    /// From now on nothing is accepted. Returns what waited, to be told.
    pub fn poison(&self, reason: &str) -> VecDeque<Request> {
        let waiting = self.state.lock().poison(reason);
        self.work.notify_all();
        waiting
    }

    pub fn group_state(&self, group: u16) -> Result<GroupState, StorageError> {
        let state = self.state.lock();
        state.check_group(group)?;
        let Some(index) = state.groups.get(&group) else { return Ok(GroupState::default()) };
        let (purged, vote, meta) = (index.purged.clone(), index.vote.clone(), index.meta.clone());
        Ok(GroupState { entries: index.entries(), purged, vote, meta })
    }

    pub fn read(&self, group: u16, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut attempt = 1;
        loop {
            let found = self.find(group, range.clone(), bytes_max)?;
            let sequences: Vec<(u64, u32)> = found.iter().map(|(index, slot)| (*index, slot.sequence)).collect();
            let entries: Result<Vec<LogEntry>, StorageError> = found.into_iter().map(|(index, slot)| self.load(index, slot)).collect();
            if entries.is_ok() || attempt == READ_ATTEMPTS_MAX || self.are_live(group, &sequences) {
                return entries;
            }
            attempt += 1;
        }
    }

    fn find(&self, group: u16, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Slot)>, StorageError> {
        let state = self.state.lock();
        state.check_group(group)?;
        let Some(index) = state.groups.get(&group) else { return Ok(Vec::new()) };
        let Some((first, last)) = index.entries() else { return Ok(Vec::new()) };
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        for at in range.start.max(first)..range.end.min(last.saturating_add(1)) {
            let Some(slot) = index.slot(at) else { break };
            bytes = bytes.saturating_add(slot.len as usize);
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push((at, slot.clone()));
        }
        Ok(found)
    }

    fn load(&self, index: u64, slot: Slot) -> Result<LogEntry, StorageError> {
        match (slot.kept, slot.place) {
            (Some((meta, body)), _) => Ok(LogEntry { index, meta, body }),
            (None, Some(place)) => segment::read_entry(self.disk.as_ref(), &self.dir, place, slot.len, index),
            (None, None) => Err(StorageError::Invalid(format!("entry {index} is neither in memory nor written"))),
        }
    }

    fn are_live(&self, group: u16, sequences: &[(u64, u32)]) -> bool {
        let mut state = self.state.lock();
        let Some(group) = state.groups.get_mut(&group) else { return false };
        sequences.iter().all(|&(index, sequence)| group.slot_of(index, sequence).is_some())
    }

    pub fn stats(&self) -> WalStats {
        let state = self.state.lock();
        let group = |(&group, index): (&u16, &GroupIndex)| GroupStats {
            group,
            entries: index.entries(),
            live_bytes: index.live_bytes,
            damage: index.damage.as_ref().map(|damage| damage.error().to_string()),
        };
        WalStats {
            queued_bytes: state.queued_bytes as u64,
            cached_bytes: state.cache.bytes() as u64,
            groups: state.groups.iter().filter(|(number, _)| **number != NO_GROUP).map(group).collect(),
            poisoned: state.poisoned.clone(),
            ..state.stats.clone()
        }
    }

    pub fn pinned_by(&self) -> Vec<Pin> {
        let state = self.state.lock();
        if state.stats.segments < 2 {
            return Vec::new();
        }
        let pin = |(&group, index): (&u16, &GroupIndex)| {
            let oldest = index.oldest_slot()?.place?;
            let (oldest_index, _) = index.entries()?;
            (oldest.segment <= state.oldest_segment).then_some(Pin { group, oldest_index, live_bytes: index.live_bytes })
        };
        state.groups.iter().filter(|(group, _)| !state.aside.contains(group)).filter_map(pin).collect()
    }
}
