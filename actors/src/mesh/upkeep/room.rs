//! Keeps the log small: which shards write a snapshot now, so that the log which they hold back can go, and whether it takes more meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::wal::Wal;

use super::super::AppendError;

/// Snapshots written at the same time; more would only compete for the disk.
const SNAPSHOTS_AT_ONCE: usize = 2;
/// A snapshot that was asked for and has not shown itself for so long is asked for again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A shard holds back at most this share of the log that all may hold: one busy shard is not cut short by the idle ones, and still restarts fast.
const ONE_SHARD_SHARE: u64 = 4;

/// Together they hold back at most so many eighths of it before some write a snapshot, those that hold most. So they write one after the other, and what
/// is not in a snapshot yet, memory that is, stays about the same; all at once it would go up and down. Shards that begin alike get out of step by it, and none of them
/// needs more log meanwhile than there may be.
const ALL_SHARDS_EIGHTHS: u64 = 3;

/// How a shard stands to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub shard: ShardId,
    /// Log above its last snapshot, in bytes.
    pub live_bytes: u64,
    /// Whether any entry came after its last snapshot.
    pub is_behind: bool,
    pub snapshot_index: u64,
    /// Whether it keeps the oldest log file from going.
    pub pins_oldest: bool,
}

/// Whether the log takes more. What is on its way counts like what is there, so that the log stays below twice its limit however much is let in at
/// once.
#[derive(Clone)]
pub struct LogDoor {
    wal: Wal,
    full_bytes: u64,
    on_the_way: Arc<AtomicU64>,
}

/// Bytes on their way into the log; no more when it is dropped.
pub struct LogShare {
    bytes: u64,
    on_the_way: Arc<AtomicU64>,
}

impl LogDoor {
    pub fn new(wal: Wal, log_bytes_max: u64) -> Self {
        // The last eighth is for heads of records and segments, ticks, and the one batch that is let in below the limit and reaches over it.
        Self { wal, full_bytes: log_bytes_max.saturating_add(log_bytes_max / 4 * 3), on_the_way: Arc::default() }
    }

    pub fn is_full(&self) -> bool {
        self.wal.held_bytes().saturating_add(self.on_the_way.load(Ordering::Relaxed)) >= self.full_bytes
    }

    /// # Errors
    /// [`AppendError::LogFull`]: snapshots have to catch up.
    pub fn enter(&self, bytes: usize) -> Result<LogShare, AppendError> {
        let share = LogShare { bytes: bytes as u64, on_the_way: self.on_the_way.clone() };
        let before = self.on_the_way.fetch_add(share.bytes, Ordering::Relaxed);
        // A share that is refused gives back what it took as it is dropped.
        if self.wal.held_bytes().saturating_add(before) >= self.full_bytes {
            return Err(AppendError::LogFull { limit_bytes: self.full_bytes });
        }
        Ok(share)
    }
}

impl Drop for LogShare {
    fn drop(&mut self) {
        self.on_the_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub struct LogRoom {
    log_bytes_max: u64,
    /// Since when a snapshot is awaited, and the one that was there when it was asked for.
    asked: BTreeMap<ShardId, (Duration, u64)>,
}

impl LogRoom {
    pub fn new(log_bytes_max: u64) -> Self {
        Self { log_bytes_max, asked: BTreeMap::new() }
    }

    /// Shards that are to write a snapshot now. `held_bytes` is the log on disk that goes when all have.
    pub fn plan(&mut self, now: Duration, held_bytes: u64, holdings: &[Holding]) -> Vec<ShardId> {
        self.asked.retain(|shard, (since, index)| {
            let holding = holdings.iter().find(|h| h.shard == *shard);
            holding.is_some_and(|h| h.snapshot_index == *index) && now.saturating_sub(*since) < PATIENCE
        });
        let over = held_bytes > self.log_bytes_max;
        let mut wanted: Vec<&Holding> = holdings.iter().filter(|h| h.is_behind && !self.asked.contains_key(&h.shard)).collect();
        // What those that write now hold back is as good as gone.
        let mut unsaved: u64 = wanted.iter().map(|h| h.live_bytes).sum();
        wanted.sort_by_key(|h| (u64::MAX - h.live_bytes, h.shard));
        wanted.retain(|h| {
            let too_much = unsaved > self.log_bytes_max / 8 * ALL_SHARDS_EIGHTHS;
            unsaved -= if too_much { h.live_bytes } else { 0 };
            over || too_much || h.live_bytes > self.log_bytes_max / ONE_SHARD_SHARE
        });
        // Files go from the oldest on, so whoever needs the oldest is first; among those, whoever holds most.
        wanted.sort_by_key(|h| (!h.pins_oldest, u64::MAX - h.live_bytes, h.shard));
        wanted.truncate(SNAPSHOTS_AT_ONCE.saturating_sub(self.asked.len()));
        for holding in &wanted {
            self.asked.insert(holding.shard, (now, holding.snapshot_index));
        }
        wanted.into_iter().map(|h| h.shard).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tallymesh_storage::clock::SystemClock;
    use tallymesh_storage::disk::SimDisk;
    use tallymesh_storage::wal::WalOptions;

    use super::*;

    const MAX: u64 = 1_000;

    fn holding(shard: u16, live_bytes: u64, pins_oldest: bool) -> Holding {
        Holding { shard: ShardId(shard), live_bytes, is_behind: live_bytes > 0, snapshot_index: 0, pins_oldest }
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn nothing_is_written_while_the_log_is_small() {
        assert!(LogRoom::new(MAX).plan(at(0), MAX, &[holding(0, 175, true), holding(1, 200, true)]).is_empty());
    }

    #[test]
    fn whoever_needs_the_oldest_file_goes_first_and_few_at_a_time() {
        let mut room = LogRoom::new(MAX);
        let mut holdings = [holding(0, 10, false), holding(1, 20, true), holding(2, 200, false), holding(3, 90, true), holding(4, 0, true)];
        assert_eq!(room.plan(at(0), MAX + 1, &holdings), [ShardId(3), ShardId(1)]);
        assert!(room.plan(at(1), MAX + 1, &holdings).is_empty(), "two are at it");
        holdings[3].snapshot_index = 7;
        holdings[3].live_bytes = 0;
        holdings[3].is_behind = false;
        assert_eq!(room.plan(at(2), MAX + 1, &holdings), [ShardId(2)], "shard 4 has nothing to save");
        assert_eq!(room.plan(at(40), MAX + 1, &holdings), [ShardId(1), ShardId(2)], "lost ones are asked for again");
    }

    #[test]
    fn one_busy_shard_is_cut_at_its_share() {
        assert_eq!(LogRoom::new(MAX).plan(at(0), 300, &[holding(0, 251, false), holding(1, 5, true)]), [ShardId(0)]);
    }

    #[test]
    fn shards_alike_write_one_after_the_other_and_what_is_unsaved_stays_about_the_same() {
        const SHARDS: u16 = 16;
        const STEP_BYTES: u64 = 100;
        let max = 1_000 * u64::from(SHARDS) * STEP_BYTES;
        let mut room = LogRoom::new(max);
        let mut holdings: Vec<Holding> = (0..SHARDS).map(|shard| Holding { is_behind: true, ..holding(shard, 0, false) }).collect();
        let (mut unsaved, mut saves) = (Vec::new(), [0u64; SHARDS as usize]);
        for step in 0..5_000 {
            // What was asked for a moment ago is written.
            for shard in room.asked.keys().copied().collect::<Vec<_>>() {
                let written = &mut holdings[usize::from(shard.0)];
                (written.live_bytes, written.snapshot_index) = (0, written.snapshot_index + 1);
            }
            holdings.iter_mut().for_each(|h| h.live_bytes += STEP_BYTES);
            for shard in room.plan(at(step), holdings.iter().map(|h| h.live_bytes).max().unwrap_or(0) * u64::from(SHARDS), &holdings) {
                saves[usize::from(shard.0)] += u64::from(step >= 1_000);
            }
            if step >= 1_000 {
                unsaved.push(holdings.iter().map(|h| h.live_bytes).sum::<u64>());
            }
        }
        let (least, most) = (unsaved.iter().min().expect("steps"), unsaved.iter().max().expect("steps"));
        assert!(*most - *least <= max / 16 && *most <= max / 8 * 4, "{least} to {most} of {max}");
        // The log grew by its limit four times.
        assert!(saves.iter().all(|saves| (5..=6).contains(saves)), "{saves:?}");
    }

    #[test]
    fn what_is_on_its_way_counts_until_it_has_arrived() {
        let disk = Arc::new(SimDisk::new());
        let opened = Wal::open(disk, Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
        let door = LogDoor::new(opened.wal.clone(), 1 << 20);
        let limit_bytes = door.full_bytes;
        let there = opened.wal.held_bytes() as usize;
        let first = door.enter(limit_bytes as usize - there - 1).expect("room");
        let over = door.enter(500).expect("one reaches over the limit");
        assert!(door.is_full());
        assert_eq!(door.enter(1).map(drop), Err(AppendError::LogFull { limit_bytes }));
        drop(over);
        assert!(!door.is_full());
        drop(first);
        drop(door.enter(1).expect("room"));
        assert_eq!(door.on_the_way.load(Ordering::Relaxed), 0);
    }
}
