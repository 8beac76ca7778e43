//! The node's write-ahead log, shared by all its groups (a group is one shard's replicated log).
//!
//! All groups append to one sequence of segment files, written by one thread: everything queued is written, one `fdatasync` makes it durable for all
//! groups, then the callers are told, in order. What is appended can be read at once, from memory; whether it is durable is what `done` says.
//!
//! **Every segment starts with a checkpoint**: the small state (vote, purge mark, last index) of every group as it was there. So a segment is needed
//! only as long as one at or before it holds a live entry, and an idle group pins nothing with its vote.
//!
//! **Behind the last record there may be zeroes**, which small batches are written over: a sync need not record a new length then. A segment is cut to its records
//! when it is closed; where a process ended before, the next open does that, and zeroes up to the end of the last segment are no tail and no damage.
//!
//! **Damage or a torn tail?** Every record says up to where its segment was synced when it was written. A bad record is a torn write, never acked, if
//! it is in the last segment and no record behind it says that its place had been synced; the tail is cut off there. Otherwise it is damage. After a
//! second without work, and at a clean close, a checkpoint is written to say so of the last batch too; until then (and only if the machine also lost
//! power or a bit at rest within that second) a flipped bit in the last batch cannot be told from a torn write.
//!
//! **Damage stops the groups it touched, not the others.** Records of a group are numbered, and checkpoints restate the numbers, so that after a
//! damaged stretch it is known which groups lost something; those answer [`StorageError::Damaged`] from then on. A group of which nothing shows that
//! it lost nothing is stopped too. A group that had no live entry at a later checkpoint is restored from there.
//!
//! **A failed write or sync is final**: every waiting and later request fails, nothing is retried into success, and the next open writes the last
//! segment anew unless a checkpoint covers it, since what can be read after a failed sync need not be on the disk.

mod format;
mod recover;
mod segment;
mod shared;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::StorageError;
use crate::clock::Clock;
use crate::disk::Disk;
use shared::Shared;
use shared::request::Op;

pub use recover::{Damage, Recovered, TornTail};
pub use stats::{GroupStats, Pin, WalStats};
pub use writer::WalWriter;
pub use writer::runner::WalThread;

/// Longest record, in bytes: an entry with its header.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Longest vote, purge mark and meta, in bytes: every segment restates them for every group.
pub const SMALL_BYTES_MAX: usize = 4 << 10;
/// Segments are no larger than this, but for one oversized entry, in bytes: offsets are 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// After so long without work the last batch is marked as synced.
pub const MARK_AFTER_IDLE: Duration = Duration::from_secs(1);

const _: () = assert!(SEGMENT_BYTES_MAX as usize + RECORD_BYTES_MAX < u32::MAX as usize);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// A segment is closed when the next record would make it longer, in bytes.
    pub segment_bytes: u64,
    /// Written with one sync at most (but always one request), in bytes.
    pub batch_bytes_max: usize,
    /// Waiting to be written at most, in bytes; more is refused. Callers hold permits for what they append, so this is a backstop.
    pub queue_bytes_max: usize,
    /// Recent entries kept in memory for reading, in bytes.
    pub cache_bytes_max: usize,
    /// Zeroes written ahead of batches of up to an eighth of it, in bytes; 0 for none. Syncing bytes that do not make the file longer costs half as much, which
    /// is most of what a small batch costs.
    pub ahead_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            batch_bytes_max: 8 << 20,
            queue_bytes_max: 256 << 20,
            cache_bytes_max: 64 << 20,
            ahead_bytes: 512 << 10,
        }
    }
}

/// One entry of a group's log. The body read back is 16-aligned; the meta is for the caller's few bytes beside it (log id, kind).
#[derive(Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub meta: Bytes,
    pub body: Bytes,
}

impl std::fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogEntry({}: {} + {} bytes)", self.index, self.meta.len(), self.body.len())
    }
}

/// What a group has, durable or about to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// First and last index of the entries there are.
    pub entries: Option<(u64, u64)>,
    /// Entries up to this index were purged; with the meta given then.
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub meta: Option<Bytes>,
}

/// Told once: `Ok`, on the writer's thread, after the sync that made the request and all of its group before it durable; a request that is refused is
/// told before the call returns. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// What [`Wal::open`] gives: the handle, the writer that has to be driven ([`WalThread::spawn`], or [`WalWriter::step`] by hand), and what was found.
pub struct Opened {
    pub wal: Wal,
    pub writer: WalWriter,
    pub recovered: Recovered,
}

/// Cheap to clone; all clones are the same log. Requests of one group take effect, in memory, in the order of the calls.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
}

impl Wal {
    /// Recovers what is in `dir`, which is made if it is missing. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// The disk's, or a format version that this build does not know. Damage is no error here: it is in [`Recovered`], and the groups it touched
    /// answer with it.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: WalOptions) -> Result<Opened, StorageError> {
        if options.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(StorageError::Invalid(format!("segment_bytes is {}, at most {SEGMENT_BYTES_MAX}", options.segment_bytes)));
        }
        recover::open(disk, clock, dir, options)
    }

    /// Appends entries, which must continue the group's log without a gap (the first ever may have any index). They can be read when this returns.
    ///
    /// `done` gets, besides the disk's errors: `Damaged` if the group was stopped at recovery, `Overloaded`, `Poisoned` after any earlier failure,
    /// `Invalid` for a gap or an oversized entry. The same holds for the requests below.
    pub fn append(&self, group: u16, entries: Vec<LogEntry>, done: Done) {
        self.shared.submit(group, Op::Append(entries), done);
    }

    /// Removes the entries from `from_index` on.
    pub fn truncate(&self, group: u16, from_index: u64, done: Done) {
        self.shared.submit(group, Op::Truncate { from: from_index }, done);
    }

    /// Removes the entries up to `upto_index`, which may be beyond the last: the log then goes on after it. The caller has a durable snapshot that
    /// covers them.
    pub fn purge(&self, group: u16, upto_index: u64, meta: Bytes, done: Done) {
        self.shared.submit(group, Op::Purge { upto: upto_index, meta }, done);
    }

    /// Removes all entries and the purge mark, as if there had never been any: the log then begins at any index. Vote and meta stay.
    pub fn forget(&self, group: u16, done: Done) {
        self.shared.submit(group, Op::Forget, done);
    }

    pub fn vote(&self, group: u16, vote: Bytes, done: Done) {
        self.shared.submit(group, Op::Vote(vote), done);
    }

    /// Anything else small that the group wants back after a restart; the last one counts.
    pub fn meta(&self, group: u16, meta: Bytes, done: Done) {
        self.shared.submit(group, Op::Meta(meta), done);
    }

    /// The entries of the range that there are.
    ///
    /// # Errors
    /// The disk's; `Damaged`, also if an entry read back is not what was written.
    pub fn read(&self, group: u16, range: Range<u64>) -> Result<Vec<LogEntry>, StorageError> {
        self.read_up_to(group, range, usize::MAX)
    }

    /// As [`Wal::read`], but stops before `bytes_max` bytes are exceeded; one entry at least.
    ///
    /// # Errors
    /// As [`Wal::read`].
    pub fn read_up_to(&self, group: u16, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        self.shared.read(group, range, bytes_max)
    }

    /// # Errors
    /// `Damaged` if the group was stopped at recovery.
    pub fn state(&self, group: u16) -> Result<GroupState, StorageError> {
        self.shared.group_state(group)
    }

    /// Log on disk from the oldest entry on that a group still needs, in bytes; as cheap as it can be. What only groups that were
    /// [set aside](Wal::set_aside) keep does not count: nothing that the others do makes it go.
    pub fn held_bytes(&self) -> u64 {
        self.shared.held_bytes()
    }

    /// The group has stopped and writes no more snapshots. Its entries stay, for whoever repairs it.
    pub fn set_aside(&self, group: u16) {
        self.shared.set_aside(group);
    }

    /// The group goes on.
    pub fn take_up(&self, group: u16) {
        self.shared.take_up(group);
    }

    pub fn stats(&self) -> WalStats {
        self.shared.stats()
    }

    /// The groups whose entries keep the oldest segment from being removed, of those that were not set aside; empty if there is only one segment.
    pub fn pinned_by(&self) -> Vec<Pin> {
        self.shared.pinned_by()
    }

    /// Called after every request that was queued: how a simulated runner learns that [`WalWriter::step`] has something to do.
    pub fn on_work(&self, hook: Box<dyn Fn() + Send + Sync>) {
        self.shared.on_work(hook);
    }
}
