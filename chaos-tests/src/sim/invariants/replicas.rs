//! Replicas are equal: the same entry at the same index everywhere, each applied once and in order, and the same state after it.

use std::collections::BTreeMap;

use tallymesh_actors::raft::runtime::{ChangedBy, StateChange};
use tallymesh_protocol::hash::ShardId;

use super::history::{History, hash_of};

/// Taking a checksum reads the whole state: one in so many entries.
const CHECKED_EVERY: u64 = 8;

#[derive(Default)]
pub struct Replicas {
    /// How many snapshots and checksums were compared.
    applied: BTreeMap<(u64, ShardId), u64>,
}

impl Replicas {
    pub fn check(&mut self, node: u64, change: &StateChange<'_>, history: &mut History) -> Result<(), String> {
        let (shard, id) = (change.shard, change.log_id);
        self.applied.insert((node, shard), id.index);
        if change.state.applied_index() != id.index {
            return Err(format!("n{node} s{shard}: the state says {} after {id}", change.state.applied_index()));
        }
        match (&change.by, history.entry(id.index)) {
            (ChangedBy::Snapshot, None) => return Err(format!("n{node} s{shard}: a snapshot ends with {id}, which nobody has applied")),
            (ChangedBy::Snapshot, Some(known)) if known.log_id != id => {
                return Err(format!("n{node} s{shard}: a snapshot ends with {id}, others have {} there", known.log_id));
            }
            (ChangedBy::Entry(entry), Some(known)) => {
                let content = entry.map_or(0, |(command, _)| hash_of(command));
                if (known.log_id, known.content) != (id, content) {
                    return Err(format!(
                        "n{node} s{shard}: applies {id} ({content:x}), others had {} ({:x}) there",
                        known.log_id, known.content
                    ));
                }
            }
            (ChangedBy::Entry(_), None) => {
                if id.index > 0 && history.entry(id.index - 1).is_none() {
                    return Err(format!("n{node} s{shard}: applies {id}, and nobody has applied what is before it"));
                }
            }
            (ChangedBy::Snapshot, Some(_)) => {}
        }
        if id.index.is_multiple_of(CHECKED_EVERY) || matches!(change.by, ChangedBy::Snapshot) {
            let checksum = change.state.checksum();
            let known = *history.checksums.entry(id.index).or_insert(checksum);
            if known != checksum {
                let counters = change.state.counters();
                return Err(format!("n{node} s{shard}: state {checksum:x} at {id}, another replica's was {known:x} ({counters:?})"));
            }
        }
        Ok(())
    }
}
