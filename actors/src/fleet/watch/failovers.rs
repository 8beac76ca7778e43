//! When each shard was last led by another node than before, as this node has seen since it started. Pure.

use std::collections::BTreeMap;

use tallymesh_protocol::hash::ShardId;

/// A shard that went from one leader to another, whether the old one was lost or gave it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    pub from: u64,
    pub to: u64,
    /// When this node knew of the new one, UTC milliseconds.
    pub at_ms: i64,
    /// For how long it knew of none in between.
    pub gap_ms: u64,
}

#[derive(Default)]
struct Watched {
    leader: Option<u64>,
    last_seen_ms: i64,
    failover: Option<Failover>,
}

#[derive(Default)]
pub struct Failovers(BTreeMap<ShardId, Watched>);

impl Failovers {
    pub fn look(&mut self, shard: ShardId, leader: Option<u64>, now_ms: i64) {
        let Some(leader) = leader else { return };
        let watched = self.0.entry(shard).or_default();
        if let Some(from) = watched.leader.filter(|from| *from != leader) {
            let gap_ms = now_ms.saturating_sub(watched.last_seen_ms).max(0) as u64;
            watched.failover = Some(Failover { from, to: leader, at_ms: now_ms, gap_ms });
        }
        watched.leader = Some(leader);
        watched.last_seen_ms = now_ms;
    }

    pub fn last(&self, shard: ShardId) -> Option<Failover> {
        self.0.get(&shard)?.failover
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_first_leader_and_one_that_comes_again_are_no_failover() {
        let mut failovers = Failovers::default();
        for (leader, ms) in [(None, 0), (Some(1), 10), (None, 20), (Some(1), 30)] {
            failovers.look(SHARD, leader, ms);
        }
        assert_eq!(failovers.last(SHARD), None);
    }

    #[test]
    fn the_last_one_is_told_with_the_time_that_nobody_led() {
        let mut failovers = Failovers::default();
        for (leader, ms) in [(Some(1), 0), (Some(1), 100), (None, 140), (Some(2), 250), (Some(2), 900), (Some(3), 940)] {
            failovers.look(SHARD, leader, ms);
            if ms == 900 {
                assert_eq!(failovers.last(SHARD), Some(Failover { from: 1, to: 2, at_ms: 250, gap_ms: 150 }));
            }
        }
        assert_eq!(failovers.last(SHARD), Some(Failover { from: 2, to: 3, at_ms: 940, gap_ms: 40 }));
        assert_eq!(failovers.last(ShardId(4)), None);
    }
}
