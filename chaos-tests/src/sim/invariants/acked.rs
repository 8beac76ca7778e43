//! What was acked survives: an ack names an entry of the log that has the part, with these figures; and in the end, when all that was ever sent has been
//! acked, everything is there.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_actors::PartOutcome;
use tallymesh_protocol::hash::ShardId;

use super::super::client::Write;
use super::history::{History, PartCounted, hash_of};

#[derive(Default)]
pub struct Acked {
    newest: BTreeMap<ShardId, u64>,
    /// Hashes by shard and event name: what was acked, in plain sets.
    events: BTreeMap<(ShardId, usize), BTreeSet<u128>>,
}

impl Acked {
    pub fn newest(&self, shard: ShardId) -> Option<u64> {
        self.newest.get(&shard).copied()
    }

    pub fn check(&mut self, write: &Write, outcome: &PartOutcome, history: &History) -> Result<(), String> {
        let shard = write.shard;
        let newest = self.newest.entry(shard).or_default();
        *newest = outcome.index.max(*newest);
        for event in write.events.iter() {
            self.events.entry((shard, event.name)).or_default().insert(event.hash);
        }
        let part = PartCounted { part: hash_of(&write.bytes), counted: outcome.counted, duplicates: outcome.duplicates };
        let entry = history.entry(outcome.index).ok_or_else(|| format!("s{shard}: {outcome:?} was acked, and nobody has applied it"))?;
        if !entry.parts.contains(&part) {
            return Err(format!("s{shard}: {outcome:?} was acked, entry {} has {:?}, not {part:?}", entry.log_id, entry.parts));
        }
        let late = |hash: u128| history.counted_at(hash).is_none_or(|at| at > outcome.index);
        match write.events.iter().find(|event| late(event.hash)) {
            None => Ok(()),
            Some(event) => Err(format!("s{shard}: {outcome:?} was acked, and {event:?} does not count")),
        }
    }

    /// `totals` are counts that were read, by shard and event name.
    pub fn settled(&self, totals: &BTreeMap<(ShardId, usize), u64>) -> Vec<Result<(), String>> {
        let compare = |(key, found): (&(ShardId, usize), &u64)| {
            let acked = self.events.get(key).map_or(0, |events| events.len() as u64);
            if acked == *found { Ok(()) } else { Err(format!("s{} name {}: {acked} events were acked, {found} count", key.0, key.1)) }
        };
        totals.iter().map(compare).collect()
    }
}
