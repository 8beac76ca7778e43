//! Which replicas are open here: those that the placement gives this node. A replica is closed when its group has let it go, not before, and what is left of it
//! goes a while later ([`super::leftovers`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_protocol::hash::ShardId;
use tokio::sync::watch as channel;

use super::super::Fleet;
use super::super::meta::MetaState;
use super::leftovers::{Leftovers, is_let_go};
use crate::mesh::Mesh;
use crate::raft::Peer;

/// How often it is looked at, beside every change of the placement.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two such attempts for one replica.
const OPEN_AGAIN_PAUSE: Duration = Duration::from_secs(30);
/// A founding replica that is not the first of its shard waits so long for those before it to make the group.
const FOUND_APART: Duration = Duration::from_millis(1_000);

pub async fn settle(fleet: Fleet, mut end: channel::Receiver<bool>) {
    let Some(mut changes) = fleet.meta().map(|meta| meta.watch()) else { return };
    let began = fleet.now();
    let (mut opened_again, mut leftovers) = (BTreeMap::new(), Leftovers::default());
    loop {
        let state = changes.borrow_and_update().clone();
        if let Ok(mesh) = fleet.mesh_here() {
            close_ended(&fleet, &mesh, &mut opened_again).await;
            open_missing(&fleet, &mesh, &state).await;
            found(&fleet, &state, fleet.now().saturating_sub(began)).await;
            close_left(&fleet, &mesh, &state).await;
            remove_left(&fleet, &mesh, &state, &mut leftovers).await;
        }
        tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Opens every replica that is to be here and is not.
pub(in crate::fleet) async fn open_missing(fleet: &Fleet, mesh: &Mesh, state: &MetaState) {
    let mine: Vec<u16> = state.shards_of(fleet.inner.me).collect();
    for shard in mine {
        if fleet.replica(ShardId(shard)).is_none() {
            mesh.open_replica(ShardId(shard)).await;
        }
    }
}

/// Closes, so that it is opened again, what has ended though nothing is wrong with what is on the disk: openraft takes a channel of its own that closes at the
/// wrong moment for a fault of the storage (of 1 000 simulated seeds about one shows it).
async fn close_ended(fleet: &Fleet, mesh: &Mesh, opened_again: &mut BTreeMap<ShardId, Duration>) {
    for (shard, replica) in fleet.replicas() {
        let Some(why) = replica.ended_by_itself() else { continue };
        let now = fleet.now();
        if opened_again.get(&shard).is_some_and(|last| now < *last + OPEN_AGAIN_PAUSE) {
            continue;
        }
        opened_again.insert(shard, now);
        tracing::warn!(%shard, why, "the replica here has ended and is opened again");
        mesh.close_replica(shard).await;
    }
}

/// Makes the groups of a new cluster. Only one that was placed here by the founding may be made: any other exists elsewhere, and a replica without a log waits for it.
async fn found(fleet: &Fleet, state: &MetaState, waited: Duration) {
    for (shard, placement) in state.placement.iter().enumerate().filter(|(_, placement)| placement.generation == 0) {
        let Some(rank) = placement.replicas.iter().position(|member| *member == fleet.inner.me) else { continue };
        let Some(replica) = fleet.replica(ShardId(shard as u16)) else { continue };
        if waited < FOUND_APART * rank as u32 || replica.is_founded().await {
            continue;
        }
        let peer = |member: &u64| (*member, Peer { address: state.members.get(member).map(|m| m.address.clone()).unwrap_or_default() });
        let members: BTreeMap<u64, Peer> = placement.replicas.iter().map(peer).collect();
        if let Err(error) = replica.found(members).await {
            tracing::error!(shard, %error, "a shard's group could not be made");
        }
    }
}

async fn close_left(fleet: &Fleet, mesh: &Mesh, state: &MetaState) {
    for (shard, replica) in fleet.replicas() {
        let placed = state.placement.get(usize::from(shard.0)).is_some_and(|placement| placement.replicas.contains(&fleet.inner.me));
        if placed || state.placement.is_empty() {
            continue;
        }
        let group = replica.group();
        // Its leader, in a term that this replica cannot be behind of, does not count it in.
        let heard = fleet.inner.leaders.of(shard.0, fleet.now());
        let let_go = heard.is_some_and(|heard| {
            let counted_in = heard.lead.voters.contains(&fleet.inner.me) || heard.lead.learners.contains(&fleet.inner.me);
            heard.leader != fleet.inner.me && heard.lead.term >= group.term && !counted_in
        });
        if let_go {
            tracing::info!(%shard, "the replica here is given up: its group has others");
            mesh.close_replica(shard).await;
        }
    }
}

/// Removes, one after the other, what is left of replicas that were closed, in this run or an earlier one.
async fn remove_left(fleet: &Fleet, mesh: &Mesh, state: &MetaState, leftovers: &mut Leftovers) {
    let (me, now) = (fleet.inner.me, fleet.now());
    let (mut let_go, mut going) = (BTreeSet::new(), Vec::new());
    for (shard, placement) in state.placement.iter().enumerate() {
        let shard = ShardId(shard as u16);
        let Some(remains) = mesh.remains(shard).filter(|_| !placement.replicas.contains(&me)) else { continue };
        let heard = fleet.inner.leaders.of(shard.0, now);
        if heard.is_some_and(|heard| is_let_go(&remains, heard.leader, &heard.lead, me)) {
            let_go.insert(shard);
        }
        if remains.is_going() {
            going.push(shard);
        }
    }
    let due = leftovers.due(&let_go, now, fleet.inner.options.leftover_grace);
    for shard in going.into_iter().chain(due).collect::<BTreeSet<_>>() {
        match mesh.remove_left(shard).await {
            Ok(()) => leftovers.is_gone(shard),
            Err(error) => {
                fleet.removals().failed();
                tracing::warn!(%shard, error, "what is left of a replica here cannot be removed yet; it is tried again");
            }
        }
    }
}
