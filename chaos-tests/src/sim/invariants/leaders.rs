//! A term has one leader.

use std::collections::BTreeMap;

use tallymesh_protocol::hash::ShardId;

#[derive(Default)]
pub struct Leaders(BTreeMap<(ShardId, u64), u64>);

impl Leaders {
    pub fn check(&mut self, node: u64, shard: ShardId, term: u64) -> Result<(), String> {
        let known = *self.0.entry((shard, term)).or_insert(node);
        if known == node { Ok(()) } else { Err(format!("n{known} and n{node} lead s{shard} in term {term}")) }
    }

    pub fn terms(&self) -> u64 {
        self.0.len() as u64
    }
}
