//! An event counts once: in one entry of one shard, whatever was sent again.

use std::collections::HashMap;

use tallymesh_protocol::hash::ShardId;

#[derive(Default)]
pub struct Once(HashMap<u128, ShardId>);

impl Once {
    /// `counted` are the events that an entry counts, none twice within the shard's log.
    pub fn check(&mut self, shard: ShardId, counted: &[u128]) -> Result<(), String> {
        for hash in counted {
            if let Some(before) = self.0.insert(*hash, shard) {
                return Err(format!("event {hash:032x} counts in s{before} and in s{shard}"));
            }
        }
        Ok(())
    }
}
