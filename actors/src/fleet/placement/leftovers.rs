//! What is left on this node's disk of replicas that were given up, and when it goes.
//!
//! A shard's leader that says of its own group that others make it up, and that this is committed, is believed when it has said so without a break for the grace
//! ([`crate::fleet::FleetOptions::leftover_grace`]); till then a replica that is placed here again finds what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallymesh_protocol::hash::ShardId;

use super::super::messages::Lead;
use crate::raft::Remains;

/// Since when groups have been known to do without what is left here. Pure.
#[derive(Default)]
pub struct Leftovers {
    let_go: BTreeMap<ShardId, Duration>,
    /// Looked after and gone, as long as the shard is not placed here again.
    gone: BTreeSet<ShardId>,
}

impl Leftovers {
    /// `let_go` are the shards that do without this node at this moment; those whose leftovers go now.
    pub fn due(&mut self, let_go: &BTreeSet<ShardId>, now: Duration, grace: Duration) -> Vec<ShardId> {
        self.let_go.retain(|shard, _| let_go.contains(shard));
        self.gone.retain(|shard| let_go.contains(shard));
        for shard in let_go {
            self.let_go.entry(*shard).or_insert(now);
        }
        let is_due = |(shard, since): (&ShardId, &Duration)| (now >= *since + grace && !self.gone.contains(shard)).then_some(*shard);
        self.let_go.iter().filter_map(is_due).collect()
    }

    pub fn is_gone(&mut self, shard: ShardId) {
        self.gone.insert(shard);
    }
}

/// What was removed since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedLeftovers {
    pub replicas: u64,
    /// Of their files; what the log had of them goes with its segments.
    pub bytes: u64,
    /// Attempts that failed; each is made again.
    pub failures: u64,
}

#[derive(Default)]
pub struct Removals {
    replicas: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl Removals {
    pub fn removed(&self, bytes: u64) {
        self.replicas.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub fn so_far(&self) -> RemovedLeftovers {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RemovedLeftovers { replicas: get(&self.replicas), bytes: get(&self.bytes), failures: get(&self.failures) }
    }
}

/// Whether a group does without a replica here, by what its leader says. Pure.
pub fn is_let_go(remains: &Remains, leader: u64, lead: &Lead, me: u64) -> bool {
    let counted_in = lead.voters.contains(&me) || lead.learners.contains(&me);
    leader != me && !counted_in && lead.settled && lead.term >= remains.term
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn set(shards: &[u16]) -> BTreeSet<ShardId> {
        shards.iter().copied().map(ShardId).collect()
    }

    #[test]
    fn leftovers_go_once_after_a_grace_without_a_break() {
        let (mut leftovers, grace) = (Leftovers::default(), at(10));
        let mut due = |let_go: &[u16], second| leftovers.due(&set(let_go), at(second), grace);
        assert_eq!(due(&[1, 2], 0), []);
        assert_eq!(due(&[1], 5), [], "the leader of 2 is not heard of, or counts this node in again");
        assert_eq!(due(&[1, 2], 9), []);
        assert_eq!(due(&[1, 2], 10), [ShardId(1)]);
        assert_eq!(due(&[1, 2], 11), [ShardId(1)], "it could not be removed: again");
        leftovers.is_gone(ShardId(1));
        let mut due = |let_go: &[u16], second| leftovers.due(&set(let_go), at(second), grace);
        assert_eq!(due(&[1, 2], 19), [ShardId(2)]);
        assert_eq!(due(&[2], 20), [ShardId(2)], "1 is placed here");
        assert_eq!(due(&[1, 2], 21), [ShardId(2)], "and given up again");
        assert_eq!(due(&[1, 2], 31), [ShardId(1), ShardId(2)]);
    }

    #[test]
    fn only_a_committed_group_of_others_in_a_term_no_earlier_lets_go() {
        let remains = Remains { term: 5, ..Remains::default() };
        let lead = Lead { shard: 1, term: 5, voters: vec![2, 3], learners: vec![4], settled: true };
        assert!(is_let_go(&remains, 2, &lead, 1));
        assert!(!is_let_go(&remains, 1, &lead, 1), "this node's own word from earlier");
        assert!(!is_let_go(&remains, 2, &lead, 3) && !is_let_go(&remains, 2, &lead, 4), "they are counted in");
        assert!(!is_let_go(&remains, 2, &Lead { term: 4, ..lead.clone() }, 1), "a leader that is deposed and does not know it");
        assert!(!is_let_go(&remains, 2, &Lead { settled: false, ..lead }, 1), "the next leader may count this node in");
    }
}
