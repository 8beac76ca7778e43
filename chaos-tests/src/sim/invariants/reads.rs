//! Reads see what was acked before they began; reads with a token see the write that the token names.

use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::PartialAnswer;

pub fn check(node: u64, shard: ShardId, floor: Option<u64>, answer: &PartialAnswer) -> Result<(), String> {
    match floor {
        Some(floor) if answer.applied_index < floor => {
            Err(format!("n{node} s{shard}: answers as of entry {}, entry {floor} had been acked before", answer.applied_index))
        }
        _ => Ok(()),
    }
}
