//! A group as the requests taken so far leave it, written or not: where each entry is. And the recent entries, kept in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::format::Place;
use super::super::{Damage, LogEntry};
use crate::StorageError;

#[derive(Clone, Debug)]
pub(in crate::wal) struct Slot {
    /// Number of its record within the group: tells it from a truncated entry with the same index.
    pub sequence: u32,
    /// Bytes of its record.
    pub len: u32,
    /// `None` until it is written.
    pub place: Option<Place>,
    /// Meta and body while they are in memory.
    pub kept: Option<(Bytes, Bytes)>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::wal) struct GroupIndex {
    /// Number of the last record.
    pub sequence: u32,
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub meta: Option<Bytes>,
    first: u64,
    slots: VecDeque<Slot>,
    /// Bytes of the live entries' records.
    pub live_bytes: u64,
    /// Why the group was stopped.
    pub damage: Option<Arc<Damage>>,
}

impl GroupIndex {
    pub fn entries(&self) -> Option<(u64, u64)> {
        let count = self.slots.len() as u64;
        (count > 0).then(|| (self.first, self.first + count - 1))
    }

    /// The index that an appended entry must have; `None` if any will do.
    pub fn next_index(&self) -> Option<u64> {
        let last = self.entries().map(|(_, last)| last).or(self.purged.as_ref().map(|(upto, _)| *upto));
        last.map(|last| last.wrapping_add(1))
    }

    pub fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub fn slot_of(&mut self, index: u64, sequence: u32) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at).filter(|slot| slot.sequence == sequence)
    }

    pub fn oldest_slot(&self) -> Option<&Slot> {
        self.slots.front()
    }

    /// Adds the entry behind the last; the caller has checked [`GroupIndex::next_index`].
    pub fn append(&mut self, index: u64, slot: Slot) {
        if self.slots.is_empty() {
            self.first = index;
        }
        self.live_bytes += u64::from(slot.len);
        self.slots.push_back(slot);
    }

    pub fn truncate(&mut self, from: u64) {
        while self.entries().is_some_and(|(_, last)| last >= from) {
            let gone = self.slots.pop_back();
            self.live_bytes -= gone.map_or(0, |slot| u64::from(slot.len));
        }
    }

    pub fn purge(&mut self, upto: u64, meta: Bytes) {
        while !self.slots.is_empty() && self.first <= upto {
            let gone = self.slots.pop_front();
            self.live_bytes -= gone.map_or(0, |slot| u64::from(slot.len));
            self.first += 1;
        }
        self.purged = Some((upto, meta));
    }

    pub fn forget(&mut self) {
        self.slots.clear();
        (self.live_bytes, self.purged) = (0, None);
    }

    pub fn check(&self) -> Result<(), StorageError> {
        self.damage.as_ref().map_or(Ok(()), |damage| Err(damage.error()))
    }
}

/// Which written entries are in memory, oldest first. An entry that was purged meanwhile counts until its turn comes, so that this list is bounded.
#[derive(Debug, Default)]
pub(super) struct Cache {
    order: VecDeque<(u16, u64, u32, usize)>,
    bytes: usize,
}

/// What an entry costs in memory beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

impl Cache {
    pub fn add(&mut self, group: u16, entry: &LogEntry, sequence: u32) {
        let cost = entry.meta.len() + entry.body.len() + ENTRY_OVERHEAD_BYTES;
        self.order.push_back((group, entry.index, sequence, cost));
        self.bytes += cost;
    }

    pub fn evict(&mut self, bytes_max: usize, groups: &mut BTreeMap<u16, GroupIndex>) {
        while self.bytes > bytes_max {
            let Some((group, index, sequence, cost)) = self.order.pop_front() else { break };
            self.bytes -= cost;
            if let Some(slot) = groups.get_mut(&group).and_then(|g| g.slot_of(index, sequence)) {
                slot.kept = None;
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
