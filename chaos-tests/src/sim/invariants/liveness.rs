//! It heals: when faults have stopped, everything that was sent is acked and all members have the same state, within a time.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_actors::replicator::Replicator;

use super::super::world::World;

/// After the last fault. An append that was lost without a word holds a follower up for 15 s.
pub const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Whether all members of all shards have applied the same log, and who they are is settled.
pub fn is_level(world: &Arc<World>, members: &[u64]) -> bool {
    (0..world.plan.shards).map(tallymesh_protocol::hash::ShardId).all(|shard| {
        let of = |id: &u64| {
            let running = world.node(*id)?.running()?;
            let status = running.replicas.get(&shard)?.raft.status();
            (status.stopped.is_none() && status.applied_index == status.last_log_index && status.leader.is_some()).then_some((
                status.applied_index,
                status.leader,
                status.term,
            ))
        };
        let all: Option<Vec<_>> = members.iter().map(of).collect();
        all.is_some_and(|all| all.windows(2).all(|pair| pair[0] == pair[1]))
    })
}

/// For the message of a failure.
pub fn describe(world: &Arc<World>) -> String {
    let mut out = Vec::new();
    for node in world.all_nodes() {
        let Some(running) = node.running() else {
            out.push(format!("n{} is down", node.id));
            continue;
        };
        for (shard, replica) in running.replicas.iter() {
            let metrics = replica.raft.raft().metrics();
            let metrics = metrics.borrow().clone();
            out.push(format!("n{} s{shard} {metrics} {:?}", node.id, replica.raft.status().stopped));
        }
    }
    out.join("\n    ")
}
