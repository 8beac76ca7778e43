//! What the log says of itself.

use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    pub segments: u64,
    pub disk_bytes: u64,
    /// See [`super::Wal::held_bytes`].
    pub held_bytes: u64,
    /// Waiting to be written or being written.
    pub queued_bytes: u64,
    /// Recent entries in memory.
    pub cached_bytes: u64,
    pub batches: u64,
    /// Requests in all batches.
    pub requests: u64,
    pub last_batch_requests: u64,
    pub last_batch_bytes: u64,
    pub largest_batch_bytes: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    pub sync_time: Duration,
    pub slowest_sync: Duration,
    pub segments_removed: u64,
    pub groups: Vec<GroupStats>,
    /// Why nothing is accepted any more.
    pub poisoned: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    pub group: u16,
    /// First and last live index.
    pub entries: Option<(u64, u64)>,
    /// Log bytes of the live entries.
    pub live_bytes: u64,
    /// Why it was stopped at recovery.
    pub damage: Option<String>,
}

/// A group that keeps the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub group: u16,
    /// A snapshot and purge beyond this begins to let go.
    pub oldest_index: u64,
    /// Log bytes of all the group's live entries.
    pub live_bytes: u64,
}
