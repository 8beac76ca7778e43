//! Bugs on purpose. The simulation in `chaos-tests` is worth what it catches, so its tests switch one of these on at a time and must turn red. They are compiled
//! in with the feature `planted-bugs` only, which nothing but those tests has; without it every question is a constant no.

/// What may be wrong. Each is named for what the code then does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log answers before it has synced.
    AckBeforeFsync,
    /// The log tries a failed sync again and believes the second answer.
    FailedSyncTriedAgain,
    /// A truncation of the log is not written.
    TruncationNotDurable,
    /// Files of snapshots are not synced.
    SnapshotFilesNotSynced,
    /// A snapshot replaces the durable one also if that is newer, and does not wait for its turn.
    OlderSnapshotOverwrites,
    /// A snapshot has nothing of the deduplication.
    DedupMissingFromSnapshot,
    /// A snapshot forgets what requests were answered.
    AnswersMissingFromSnapshot,
    /// New keys get their numbers in the order of a hash map.
    HashMapOrder,
    /// A vote is answered and not written.
    VoteNotPersisted,
    /// A vote is written, and answered before that is durable.
    VoteNotAwaited,
    /// The log is purged without waiting for the snapshot that covers it.
    PurgeBeforeDurable,
    /// A snapshot forgets who is in the group.
    MembershipMissingFromSnapshot,
    /// Entries take effect at the time of the replica's own clock.
    LocalClock,
    /// A replica takes entries of any leader, whatever its term.
    NoTermCheck,
    /// Whoever leads, or thinks so, reads without asking the others.
    ReadWithoutBarrier,
    /// A leader that was deposed meanwhile answers as if the entry were in.
    DeposedLeaderAcks,
    /// A leader that goes on after a restart reads before it has applied its old log.
    ResumedLeaderReadsStale,
    /// Outcomes of an entry's parts are answered in the wrong order.
    OutcomesMixedUp,
    /// A retry goes to another shard.
    RetryToAnotherShard,
}

/// Whether the bugs are in this build.
pub const COMPILED_IN: bool = cfg!(feature = "planted-bugs");

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on, or all off, in this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{has, plant};

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn has(_bug: Bug) -> bool {
    false
}
