//! Writes what is queued: all of it, then one sync, then the callbacks. Synchronous and without a thread of its own, so that a simulation can step it.

pub(super) mod on_disk;
pub(super) mod runner;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::format::{self, Kind, NO_INDEX, Place, RecordHead, record_bytes};
use super::segment::{self, OpenSegment, checkpoint};
use super::shared::request::{Op, Request};
use super::shared::{Placed, Shared, Work, Written};
use super::{MARK_AFTER_IDLE, WalOptions};
use crate::StorageError;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::planted::{self, Bug};
use on_disk::GroupOnDisk;

/// Least room on the disk for a mark, which nobody waits for.
const MARK_FREE_BYTES_MIN: u64 = 1 << 20;

/// A batch up to this share of what is written ahead is a small one.
const AHEAD_BATCHES_MIN: usize = 8;
/// Least room on the disk for writing ahead, which nobody needs, in bytes.
const AHEAD_FREE_BYTES_MIN: u64 = 64 << 20;

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClosedSegment {
    pub number: u64,
    pub bytes: u64,
    /// The checkpoint that it should begin with is damaged. What comes before it is then all that tells where its groups stand.
    pub is_bare: bool,
}

/// There is one for each log; whoever owns it drives it.
pub struct WalWriter {
    pub(super) shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    options: WalOptions,
    groups: BTreeMap<u16, GroupOnDisk>,
    /// Oldest first.
    closed: VecDeque<ClosedSegment>,
    number: u64,
    open: OpenSegment,
    /// Where the open segment ends when the buffer has been written.
    end: u32,
    synced: u32,
    /// Up to where zeroes were written ahead in the open segment.
    ahead: u32,
    /// Where the open segment's first record after its checkpoint is.
    start: u32,
    buffer: Vec<u8>,
    /// A checkpoint is the last record.
    is_marked: bool,
    /// A segment may have become removable.
    may_remove: bool,
    /// A write or sync failed: nothing more is written, so that nothing later says that it had been synced.
    has_failed: bool,
}

/// What recovery hands over.
pub(super) struct WriterParts {
    pub shared: Arc<Shared>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub dir: PathBuf,
    pub options: WalOptions,
    pub groups: BTreeMap<u16, GroupOnDisk>,
    pub closed: VecDeque<ClosedSegment>,
    pub number: u64,
}

impl WalWriter {
    /// Starts a new segment.
    pub(super) fn new(parts: WriterParts) -> Result<Self, StorageError> {
        let WriterParts { shared, disk, clock, dir, options, groups, closed, number } = parts;
        let open = segment::create(disk.as_ref(), &dir, number, &checkpoint::encode(groups.iter()))?;
        let end = open.len;
        let mut writer = Self {
            shared,
            disk,
            clock,
            dir,
            options,
            groups,
            closed,
            number,
            open,
            end,
            synced: end,
            ahead: end,
            start: end,
            buffer: Vec::new(),
            is_marked: true,
            may_remove: true,
            has_failed: false,
        };
        writer.remove_dead()?;
        writer.report_segments(0);
        Ok(writer)
    }

    /// Makes one batch of what is queued durable and tells the callers. Returns how many requests there were; 0 if nothing was queued.
    pub fn step(&mut self) -> usize {
        let batch = self.shared.take(self.options.batch_bytes_max);
        let count = batch.len();
        if count == 0 {
            return 0;
        }
        match self.write(&batch) {
            Ok(written) => {
                self.shared.publish(written);
                for request in batch {
                    (request.done)(Ok(()));
                }
                if let Err(error) = self.remove_dead() {
                    self.fail(&error, Vec::new());
                }
            }
            Err(error) => self.fail(&error, batch),
        }
        count
    }

    /// Says on disk that everything so far is synced, unless that is said already or hardly any room is left: a mark can wait, and one that does not fit
    /// would end the log for good.
    pub fn mark(&mut self) {
        if !self.is_marked && self.disk.space(&self.dir).is_ok_and(|space| space.free_bytes < MARK_FREE_BYTES_MIN) {
            return;
        }
        if let Err(error) = self.write_mark() {
            self.fail(&error, Vec::new());
        }
    }

    /// The last mark; nothing is written after it.
    pub fn close(&mut self) {
        if self.has_failed {
            return;
        }
        if self.ahead > self.end
            && let Err(error) = self.cut_ahead()
        {
            return self.fail(&error, Vec::new());
        }
        self.ahead = u32::MAX;
        self.mark();
    }

    pub(super) fn wait(&self) -> Work {
        self.shared.wait(MARK_AFTER_IDLE)
    }

    pub(super) fn gather(&self, longest: Duration) {
        self.shared.gather(longest);
    }

    fn fail(&mut self, error: &StorageError, batch: Vec<Request>) {
        let reason = error.to_string();
        self.has_failed = true;
        tracing::error!(error = reason, "the log stops: nothing more is accepted until a restart");
        let waiting = self.shared.poison(&reason);
        for request in batch.into_iter().chain(waiting) {
            (request.done)(Err(StorageError::Poisoned(reason.clone())));
        }
    }

    fn write(&mut self, batch: &[Request]) -> Result<Written, StorageError> {
        let mut written = Written { requests: batch.len() as u64, ..Written::default() };
        for request in batch {
            written.queue_bytes += request.bytes;
            self.encode(request, &mut written)?;
        }
        self.flush()?;
        if self.synced < self.end && !planted::has(Bug::AckBeforeFsync) {
            self.sync()?;
        }
        if self.buffer.capacity() > 2 * self.options.batch_bytes_max {
            self.buffer = Vec::new();
        }
        Ok(written)
    }

    fn encode(&mut self, request: &Request, written: &mut Written) -> Result<(), StorageError> {
        let (group, mut sequence) = (request.group, request.sequence);
        match &request.op {
            Op::Append(entries) => {
                for entry in entries {
                    let place = self.record(Kind::Append, group, sequence, entry.index, &entry.meta, &entry.body, written)?;
                    self.group(group, sequence).append(entry.index, place.segment);
                    written.placed.push(Placed { group, sequence, entry: entry.clone(), place });
                    sequence = sequence.wrapping_add(1);
                }
            }
            Op::Truncate { .. } if planted::has(Bug::TruncationNotDurable) => {}
            Op::Truncate { from } => {
                self.record(Kind::Truncate, group, sequence, *from, &[], &[], written)?;
                self.group(group, sequence).truncate(*from);
                self.may_remove = true;
            }
            Op::Purge { upto, meta } => {
                self.record(Kind::Purge, group, sequence, *upto, meta, &[], written)?;
                self.group(group, sequence).purge(*upto, meta.clone());
                self.may_remove = true;
            }
            Op::Forget => {
                self.record(Kind::Purge, group, sequence, NO_INDEX, &[], &[], written)?;
                self.group(group, sequence).forget();
                self.may_remove = true;
            }
            Op::Vote(vote) => {
                self.record(Kind::Vote, group, sequence, 0, vote, &[], written)?;
                self.group(group, sequence).vote = Some(vote.clone());
            }
            Op::Meta(meta) => {
                self.record(Kind::Meta, group, sequence, 0, meta, &[], written)?;
                self.group(group, sequence).meta = Some(meta.clone());
            }
            Op::Nothing => {}
        }
        Ok(())
    }

    fn group(&mut self, group: u16, sequence: u32) -> &mut GroupOnDisk {
        let group = self.groups.entry(group).or_default();
        group.sequence = sequence;
        group
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one record, at its only call sites above")]
    fn record(
        &mut self,
        kind: Kind,
        group: u16,
        sequence: u32,
        index: u64,
        meta: &[u8],
        body: &[u8],
        written: &mut Written,
    ) -> Result<Place, StorageError> {
        let len = record_bytes(meta.len(), body.len()) as u32;
        if self.end > self.start && u64::from(self.end) + u64::from(len) > self.options.segment_bytes {
            self.roll()?;
        }
        let place = Place { segment: self.number, offset: self.end };
        format::encode(&mut self.buffer, place, &RecordHead { kind, group, index, synced: self.synced, sequence }, meta, body);
        self.end += len;
        self.is_marked = false;
        written.bytes += u64::from(len);
        Ok(place)
    }

    /// Closes the segment, synced to its end, and starts the next.
    fn roll(&mut self) -> Result<(), StorageError> {
        let ahead = std::mem::replace(&mut self.ahead, u32::MAX);
        self.flush()?;
        if ahead > self.end {
            self.cut_ahead()?;
        }
        self.sync()?;
        let open = segment::create(self.disk.as_ref(), &self.dir, self.number + 1, &checkpoint::encode(self.groups.iter()))?;
        self.closed.push_back(ClosedSegment { number: self.number, bytes: u64::from(self.end), is_bare: false });
        self.number += 1;
        (self.end, self.synced, self.ahead, self.start) = (open.len, open.len, open.len, open.len);
        self.open = open;
        self.is_marked = true;
        self.may_remove = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if !self.buffer.is_empty() {
            self.open.file.append(&self.buffer).map_err(|e| StorageError::io("append to", segment::path(&self.dir, self.number), e))?;
            self.open.len = self.end;
            let is_small = self.buffer.len() <= self.options.ahead_bytes / AHEAD_BATCHES_MIN;
            self.buffer.clear();
            if is_small && self.end > self.ahead {
                self.write_ahead();
            }
        }
        Ok(())
    }

    /// For batches like the last one. It may as well not be done: what fails here is not tried again in this segment.
    fn write_ahead(&mut self) {
        self.ahead = u32::MAX;
        let left = self.options.segment_bytes.saturating_sub(u64::from(self.end));
        let zeroes = self.options.ahead_bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        let has_room = || self.disk.space(&self.dir).is_ok_and(|space| space.free_bytes >= AHEAD_FREE_BYTES_MIN);
        if zeroes == 0 || !has_room() {
            return;
        }
        match self.open.file.write_ahead(zeroes) {
            Ok(()) => self.ahead = self.end + zeroes as u32,
            Err(error) => tracing::warn!(%error, "the log could not be written ahead: syncs cost more"),
        }
    }

    fn cut_ahead(&mut self) -> Result<(), StorageError> {
        self.open.file.cut_ahead().map_err(|e| StorageError::io("cut", segment::path(&self.dir, self.number), e))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let before = self.clock.monotonic();
        let mut synced = self.open.file.sync();
        if synced.is_err() && planted::has(Bug::FailedSyncTriedAgain) {
            synced = self.open.file.sync();
        }
        synced.map_err(|e| StorageError::io("sync", segment::path(&self.dir, self.number), e))?;
        self.shared.record_sync(self.clock.monotonic().saturating_sub(before));
        self.synced = self.end;
        Ok(())
    }

    fn write_mark(&mut self) -> Result<(), StorageError> {
        if self.is_marked || self.has_failed {
            return Ok(());
        }
        let place = Place { segment: self.number, offset: self.end };
        let groups = checkpoint::encode(self.groups.iter());
        format::encode(&mut self.buffer, place, &segment::checkpoint_head(self.end), &[], &groups);
        self.end += self.buffer.len() as u32;
        self.is_marked = true;
        self.flush()?;
        self.sync()?;
        self.report_segments(0);
        Ok(())
    }

    /// Removes the segments before the first that is needed, oldest first, each for good before the next: the sequence never has a hole. A needed one
    /// without a checkpoint keeps those before it, back to the last that has one.
    fn remove_dead(&mut self) -> Result<(), StorageError> {
        let mut removed = 0;
        if std::mem::take(&mut self.may_remove) {
            let needed = self.groups.values().filter_map(GroupOnDisk::oldest_segment).min().unwrap_or(self.number);
            let mut dead = self.closed.iter().take_while(|segment| segment.number < needed).count();
            while dead > 0 && self.closed.get(dead).is_some_and(|follower| follower.is_bare) {
                dead -= 1;
            }
            for segment in self.closed.drain(..dead) {
                let path = segment::path(&self.dir, segment.number);
                self.disk.remove(&path).map_err(|e| StorageError::io("remove", &path, e))?;
                self.disk.sync_dir(&self.dir).map_err(|e| StorageError::io("sync", &self.dir, e))?;
                removed += 1;
            }
        }
        self.report_segments(removed);
        Ok(())
    }

    fn report_segments(&self, removed: u64) {
        let from = |oldest: u64| self.closed.iter().filter(|s| s.number >= oldest).map(|s| s.bytes).sum::<u64>() + u64::from(self.end);
        self.shared.record_segments(self.closed.len() as u64 + 1, from(0), removed, |aside| {
            let going_on = self.groups.iter().filter(|(group, _)| !aside.contains(group));
            let oldest = going_on.filter_map(|(_, group)| group.oldest_segment()).min().unwrap_or(self.number);
            (oldest, from(oldest))
        });
    }
}
