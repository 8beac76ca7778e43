//! What a seed is about: how large the fleet is, how rough its world, and which faults are likely. Drawn once, from the seed alone.

use std::time::Duration;

use super::random::Random;

/// Weights of the faults; 0 is never.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    pub power_cut: u64,
    pub power_cut_of_all: u64,
    pub kill: u64,
    pub stop: u64,
    pub isolate: u64,
    pub one_way: u64,
    pub disk_full: u64,
    pub failed_sync: u64,
    pub slow_disk: u64,
    pub flip: u64,
    pub clock: u64,
    pub snapshot: u64,
    pub elect: u64,
    pub replace: u64,
    pub wipe: u64,
    pub rough: u64,
}

impl Weights {
    pub fn sum(&self) -> u64 {
        let of_nodes = self.power_cut + self.power_cut_of_all + self.kill + self.stop + self.elect + self.replace + self.wipe;
        let of_disks = self.disk_full + self.failed_sync + self.slow_disk + self.flip + self.snapshot;
        of_nodes + of_disks + self.isolate + self.one_way + self.clock + self.rough
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: u64,
    /// Groups on each node's one log.
    pub shards: u16,
    pub writers: u64,
    pub readers: u64,
    /// Time in which faults happen.
    pub faults_for: Duration,
    /// Between two faults, in milliseconds.
    pub fault_gap_ms: (u64, u64),
    pub weights: Weights,
    /// Of 1 000 messages, in quiet times.
    pub dropped: u64,
    pub doubled: u64,
    /// Of a message, in microseconds; sometimes far longer.
    pub delay_us: (u64, u64),
    /// Of a sync, in microseconds.
    pub sync_us: (u64, u64),
    /// Of blocking work (a snapshot), in microseconds.
    pub blocking_us: (u64, u64),
    pub log_segment_bytes: u64,
    pub log_cache_bytes: usize,
    pub dedup_memory_bytes: usize,
    /// Keys that a metric of a shard keeps apart.
    pub keys_max: Option<u64>,
    pub lateness_ms: u64,
    /// Of 1 000: the power goes right after an answer to a vote, to an append, or within 400 ms after a snapshot was announced.
    pub cut_after_vote: u64,
    pub cut_after_append: u64,
    pub cut_at_install: u64,
    /// Power goes for all at the end, when everything has been acked.
    pub cut_at_end: bool,
    /// A little of the log stays behind a snapshot.
    pub keeps_entries: bool,
    /// A new member votes before it has caught up.
    pub hasty: bool,
    /// Of 1 000: who was sent a snapshot never says what became of it, and its connection lasts.
    pub mute_install: u64,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, "plan");
        let r = &mut random;
        // Some faults are frequent in a seed, others do not happen: together they hide each other.
        let mut weight = |often: u64, usual: u64| if r.per_mille(often) { usual * r.range(1, 4) } else { 0 };
        let weights = Weights {
            power_cut: weight(700, 6),
            power_cut_of_all: weight(400, 2),
            kill: weight(500, 4),
            stop: weight(500, 4),
            isolate: weight(700, 6),
            one_way: weight(500, 5),
            disk_full: weight(250, 2),
            failed_sync: weight(300, 2),
            slow_disk: weight(300, 2),
            flip: weight(200, 1),
            clock: weight(300, 3),
            snapshot: weight(850, 14),
            elect: weight(500, 4),
            replace: weight(350, 2),
            wipe: weight(250, 1),
            rough: weight(400, 2),
        };
        let fast = r.per_mille(500);
        Self {
            nodes: if r.per_mille(150) { 5 } else { 3 },
            shards: r.range(1, 4) as u16,
            writers: r.range(2, 5),
            readers: r.range(1, 3),
            faults_for: r.millis(8_000, 16_000),
            fault_gap_ms: if fast { (30, 500) } else { (200, 1_500) },
            weights,
            dropped: if r.per_mille(400) { r.range(1, 60) } else { 0 },
            doubled: if r.per_mille(400) { r.range(1, 60) } else { 0 },
            delay_us: (100, if r.per_mille(300) { 30_000 } else { 3_000 }),
            sync_us: (100, if r.per_mille(300) { 40_000 } else { 3_000 }),
            blocking_us: (0, if r.per_mille(500) { 300_000 } else { 5_000 }),
            log_segment_bytes: r.range(2, 40) << 10,
            log_cache_bytes: if r.per_mille(500) { 0 } else { 1 << 20 },
            dedup_memory_bytes: if r.per_mille(300) { 0 } else { 1 << 20 },
            keys_max: r.per_mille(300).then(|| r.range(2, 8)),
            lateness_ms: r.range(0, 4) * 1_000,
            cut_after_vote: if r.per_mille(300) { 200 } else { 0 },
            cut_after_append: if r.per_mille(200) { 5 } else { 0 },
            cut_at_install: if r.per_mille(300) { 300 } else { 0 },
            cut_at_end: r.per_mille(300),
            keeps_entries: r.per_mille(400),
            hasty: r.per_mille(200),
            mute_install: if r.per_mille(250) { 400 } else { 0 },
        }
    }
}
