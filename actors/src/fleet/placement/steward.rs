//! Brings groups to where they are placed. Each node does so for the shards that it leads; the leader of the metadata group decides where shards go.
//!
//! A new replica comes in as a learner, becomes a voter when it has what the leader has, and only then the one whose place it takes goes. A leader that is not
//! to lead hands over; nothing that was acked waits for more than that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::ChangeMembers;
use tallymesh_protocol::hash::ShardId;
use tokio::sync::watch as channel;

use super::super::meta::group::{META, MetaGroup};
use super::super::meta::{MetaCommand, MetaState, Placement};
use super::super::{ASK_TIME_MAX, Fleet};
use super::plan::{self, Census};
use crate::founding::{Founder, Membership};
use crate::raft::{Group, Peer, RaftReplica};
use crate::replicator::{ReplicaStatus, Replicator};

const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A learner this near to its leader's log may vote, in entries.
const LEARNER_LAG_MAX: u64 = 64;
/// One change of a group has this long to be committed.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(10);
/// The one that is to lead must have been there for so long before it is handed the lead, so that a node that restarts again and again is left in peace.
const HAND_OVER_AFTER: Duration = Duration::from_secs(3);
/// Followers this near to the leader's log are handed the lead, in entries.
const HEIR_LAG_MAX: u64 = 256;

/// What is to be done about a group. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    Nothing,
    /// A change was begun and not finished: these are the voters to be.
    Finish(BTreeSet<u64>),
    AddLearner(u64),
    /// A learner is on its way.
    Wait,
    Voters(BTreeSet<u64>),
    RemoveLearner(u64),
    HandOver(u64),
}

/// The next step of the group that `me` leads to where it is placed. `ready` are members that may be handed the lead.
pub fn next_step(group: &Group, placement: &Placement, me: u64, ready: &BTreeSet<u64>) -> Todo {
    let wanted: BTreeSet<u64> = placement.replicas.iter().copied().collect();
    if group.is_joint {
        // Whoever was to be added is among the voters already; who is to go and leads goes last.
        return Todo::Finish(wanted.iter().copied().filter(|member| group.voters.contains(member)).chain([me]).collect());
    }
    let near = |member: &u64, lag: u64| group.matched.get(member).is_some_and(|matched| matched + lag >= group.last_log_index);
    let may_lead = |member: &u64| *member != me && group.voters.contains(member) && ready.contains(member) && near(member, HEIR_LAG_MAX);
    // One that is not placed here hands over before the group grows: an heir needs its vote and a majority.
    if !wanted.contains(&me)
        && let Some(heir) = placement.replicas.iter().copied().find(|member| may_lead(member))
    {
        return Todo::HandOver(heir);
    }
    let caught_up = |member: &u64| near(member, LEARNER_LAG_MAX);
    let missing: Vec<u64> = wanted.iter().copied().filter(|member| !group.voters.contains(member)).collect();
    if let Some(new) = missing.iter().find(|member| !group.learners.contains(member)) {
        return Todo::AddLearner(*new);
    }
    let (come, waited_for): (Vec<u64>, Vec<u64>) = missing.into_iter().partition(caught_up);
    if let Some(new) = come.first() {
        // With it comes in whose place it takes, unless that one leads.
        let goes = group.voters.iter().copied().find(|member| !wanted.contains(member) && *member != me);
        return Todo::Voters(group.voters.iter().copied().chain([*new]).filter(|member| Some(*member) != goes).collect());
    }
    if !waited_for.is_empty() {
        return Todo::Wait;
    }
    if let Some(left) = group.voters.iter().copied().find(|member| !wanted.contains(member) && *member != me) {
        return Todo::Voters(group.voters.iter().copied().filter(|member| *member != left).collect());
    }
    if let Some(left) = group.learners.iter().find(|member| !wanted.contains(member)) {
        return Todo::RemoveLearner(*left);
    }
    // One that is placed here hands over to the first only; one that is not waits until somebody can take over.
    match placement.replicas.first().copied() {
        Some(first) if first != me && wanted.contains(&me) && may_lead(&first) => Todo::HandOver(first),
        _ => Todo::Nothing,
    }
}

/// Since when members have been there without a break.
#[derive(Default)]
struct Attendance(BTreeMap<u64, Duration>);

impl Attendance {
    fn look(&mut self, here: &BTreeSet<u64>, now: Duration) {
        self.0.retain(|member, _| here.contains(member));
        for member in here {
            self.0.entry(*member).or_insert(now);
        }
    }

    fn there_for(&self, member: u64, time: Duration, now: Duration) -> bool {
        self.0.get(&member).is_some_and(|since| now.saturating_sub(*since) >= time)
    }
}

/// Term and log index up to which settings may wait for a majority, by shard: proposed once more they would only make its log longer.
#[derive(Default)]
struct Unsettled(BTreeMap<ShardId, (u64, u64)>);

impl Unsettled {
    fn waits(&self, shard: ShardId, status: &ReplicaStatus) -> bool {
        self.0.get(&shard).is_some_and(|(term, index)| status.term == *term && status.applied_index < *index)
    }

    /// Has the shards that this node leads follow what the cluster agreed on, all at once: where there is no majority, that takes its time.
    async fn bring(&mut self, fleet: &Fleet, state: &MetaState) {
        let (Some(settings), Ok(mesh), false) = (&state.settings, fleet.mesh_here(), fleet.is_leaving()) else { return };
        let replicas = fleet.replicas();
        let led = replicas.iter().filter(|(shard, _)| state.placement.get(usize::from(shard.0)).is_some());
        let led = led
            .map(|(shard, replica)| (*shard, replica.status()))
            .filter(|(shard, status)| status.is_leader && !self.waits(*shard, status));
        let brought = join_all(led.map(async |(shard, status)| (shard, status.term, mesh.bring_settings(shard, settings).await))).await;
        for (shard, term, waiting) in brought {
            match waiting {
                Some(index) => self.0.insert(shard, (term, index)),
                None => self.0.remove(&shard),
            };
        }
    }
}

pub async fn tend(fleet: Fleet, mut end: channel::Receiver<bool>) {
    let mut attendance = Attendance::default();
    let mut absent = BTreeMap::new();
    let mut unsettled = Unsettled::default();
    loop {
        tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let state = fleet.state();
        let (connected, now) = (fleet.connected(), fleet.now());
        let stays: BTreeSet<u64> = connected.iter().copied().filter(|member| fleet.inner.leaders.stays(*member, now)).collect();
        attendance.look(&stays, now);
        let ready = stays.iter().copied().filter(|m| state.is_active(*m) && attendance.there_for(*m, HAND_OVER_AFTER, now)).collect();
        for (shard, replica) in fleet.replicas() {
            if let Some(placement) = state.placement.get(usize::from(shard.0)) {
                step(&fleet, &state, shard, &replica, placement, &ready).await;
            }
        }
        unsettled.bring(&fleet, &state).await;
        if let Some(meta) = fleet.meta() {
            if let Some(why) = meta.ended_by_itself() {
                begin_again(&fleet, meta, &why).await;
            }
            meta.save();
            if meta.leads() {
                if let Some(heir) = fleet.metadata_heir().filter(|heir| gives_up_metadata(&fleet, &state) && ready.contains(heir)) {
                    fleet.hand_over_metadata(heir).await;
                }
                // Whoever still leads governs, an heir that would not have it or not: a drain is done by what is decided here. On the way out a node begins nothing
                // that somebody else would have to finish.
                if meta.leads() && !fleet.is_leaving() {
                    govern(&fleet, meta, &mut absent).await;
                }
            }
        }
    }
}

/// Whether another node should lead the metadata group: this one is drained, so that it may go. One that is going already hands over by itself.
fn gives_up_metadata(fleet: &Fleet, state: &MetaState) -> bool {
    state.is_founded() && !state.is_active(fleet.inner.me) && !fleet.is_leaving() && fleet.led_for(META) >= HAND_OVER_AFTER
}

/// As of a shard's replica that openraft has ended; see [`super::settle`].
async fn begin_again(fleet: &Fleet, meta: &MetaGroup, why: &str) {
    tracing::warn!(why, "the metadata group's replica here has ended and begins again");
    fleet.inner.server.remove(META);
    match meta.begin_again(fleet.networks(META)).await {
        Ok(()) => fleet.inner.server.add(META, meta.raft()),
        Err(error) => tracing::error!(%error, "the metadata group's replica here does not begin again; it is tried again"),
    }
}

async fn step(fleet: &Fleet, state: &MetaState, shard: ShardId, replica: &Arc<RaftReplica>, placement: &Placement, ready: &BTreeSet<u64>) {
    let group = replica.group();
    if !group.leads || fleet.is_leaving() {
        return;
    }
    if fleet.clock_offset().is_far_off() {
        if let (Some(heir), Ok(mesh)) = (fleet.heir(shard), fleet.mesh_here()) {
            mesh.hand_over(shard, heir).await;
        }
        return;
    }
    let change = match next_step(&group, placement, fleet.inner.me, ready) {
        Todo::Nothing | Todo::Wait => None,
        Todo::Finish(voters) | Todo::Voters(voters) => Some((ChangeMembers::ReplaceAllVoters(voters), false)),
        Todo::AddLearner(member) => {
            let address = state.members.get(&member).map(|member| member.address.clone()).unwrap_or_default();
            Some((ChangeMembers::AddNodes(BTreeMap::from([(member, Peer { address })])), true))
        }
        Todo::RemoveLearner(member) => Some((ChangeMembers::RemoveNodes(BTreeSet::from([member])), true)),
        Todo::HandOver(heir) => {
            if fleet.led_for(shard) >= HAND_OVER_AFTER
                && let Ok(mesh) = fleet.mesh_here()
            {
                mesh.hand_over(shard, heir).await;
            }
            None
        }
    };
    let Some((change, retain)) = change else { return };
    tracing::info!(%shard, ?change, "the shard's group changes");
    match tokio::time::timeout(CHANGE_TIME_MAX, replica.change(change, retain)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%shard, error, "a change of the shard's group did not come about; it is tried again"),
        Err(_) => tracing::warn!(%shard, "a change of the shard's group takes long"),
    }
}

/// On the leader of the metadata group: founds the cluster, tends the group itself, moves one shard at a time.
async fn govern(fleet: &Fleet, meta: &MetaGroup, absent: &mut BTreeMap<u64, Duration>) {
    let state = meta.state();
    if !state.is_founded() {
        found(fleet, meta).await;
        return;
    }
    let alive = fleet.alive();
    if meta.tend(&alive).await {
        return;
    }
    let now = fleet.now();
    let connected = fleet.connected();
    let is_here = |member: u64| alive.contains(&member) || connected.contains(&member);
    for (member, _) in state.present() {
        if is_here(member) {
            absent.remove(&member);
        } else {
            absent.entry(member).or_insert(now);
        }
    }
    if !is_settled(fleet, &state) {
        return;
    }
    let lost = absent.iter().filter(|(_, since)| now.saturating_sub(**since) >= fleet.inner.options.lost_after).map(|(member, _)| *member);
    let census =
        Census { alive: state.present().map(|(member, _)| member).filter(|member| is_here(*member)).collect(), lost: lost.collect() };
    if let Some(step) = plan::next(&state, &census) {
        tracing::info!(shard = step.shard, from = ?step.from, to = ?step.to, why = step.reason.as_str(), "a shard moves");
        if let Ok(Err(reason)) = meta.propose(step.command(), ASK_TIME_MAX).await {
            tracing::warn!(reason, "a move was refused");
        }
    }
}

/// Whether every group that can be asked is where it is placed: no other move is begun before.
fn is_settled(fleet: &Fleet, state: &MetaState) -> bool {
    let now = fleet.now();
    state.placement.iter().enumerate().all(|(shard, placement)| {
        let wanted: BTreeSet<u64> = placement.replicas.iter().copied().collect();
        let local = fleet.replica(ShardId(shard as u16)).map(|replica| replica.group()).filter(|group| group.leads);
        let voters = match local {
            Some(group) => Some(group.voters),
            None => fleet.inner.leaders.of(shard as u16, now).map(|heard| heard.lead.voters.into_iter().collect()),
        };
        voters.is_some_and(|voters: BTreeSet<u64>| voters == wanted)
    })
}

async fn found(fleet: &Fleet, meta: &MetaGroup) {
    let membership = fleet.inner.founding.watch().borrow().membership.clone();
    let Some(membership) = membership else { return };
    let members: Vec<Founder> = match &membership {
        Membership::Founded(accepted) => accepted.seed.founders.clone(),
        // A node that was alone before.
        Membership::Joined { .. } => vec![fleet.founder()],
    };
    let replication = fleet.inner.options.replication.unwrap_or(if members.len() >= 3 { 3 } else { 1 });
    let found = MetaCommand::Found {
        cluster_id: membership.cluster_id().to_owned(),
        shards: fleet.inner.shards,
        replication,
        settings: fleet.inner.settings.clone(),
        members,
    };
    if let Err(error) = meta.propose(found, ASK_TIME_MAX).await {
        tracing::warn!(%error, "the cluster could not be founded yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_wait_for_a_majority_are_proposed_again_once_they_are_decided_or_the_term_is_over() {
        let unsettled = Unsettled(BTreeMap::from([(ShardId(4), (7, 120))]));
        let at = |term, applied_index| ReplicaStatus { term, applied_index, ..ReplicaStatus::default() };
        assert!(unsettled.waits(ShardId(4), &at(7, 119)));
        assert!(!unsettled.waits(ShardId(4), &at(7, 120)), "decided");
        assert!(!unsettled.waits(ShardId(4), &at(8, 119)), "another leader may have dropped them");
        assert!(!unsettled.waits(ShardId(5), &at(7, 119)), "another shard");
    }

    fn group(voters: &[u64], learners: &[u64], matched: &[(u64, u64)]) -> Group {
        Group {
            leader: Some(1),
            leads: true,
            term: 3,
            last_log_index: 1_000,
            voters: voters.iter().copied().collect(),
            learners: learners.iter().copied().collect(),
            is_joint: false,
            is_settled: true,
            matched: matched.iter().copied().collect(),
        }
    }

    fn placed(replicas: &[u64]) -> Placement {
        Placement { replicas: replicas.to_vec(), generation: 1 }
    }

    fn set(members: &[u64]) -> BTreeSet<u64> {
        members.iter().copied().collect()
    }

    #[test]
    fn replica_comes_in_as_learner_and_its_predecessor_goes_when_it_has_caught_up() {
        let (placement, ready) = (placed(&[1, 2, 4]), set(&[2, 3, 4]));
        let next = |group: &Group| next_step(group, &placement, 1, &ready);
        assert_eq!(next(&group(&[1, 2, 3], &[], &[])), Todo::AddLearner(4));
        assert_eq!(next(&group(&[1, 2, 3], &[4], &[(4, 10)])), Todo::Wait);
        assert_eq!(next(&group(&[1, 2, 3], &[4], &[(4, 990)])), Todo::Voters(set(&[1, 2, 4])));
        assert_eq!(next(&group(&[1, 2, 4], &[3], &[])), Todo::RemoveLearner(3));
        assert_eq!(next(&group(&[1, 2, 4], &[], &[])), Todo::Nothing);
    }

    #[test]
    fn leader_that_goes_hands_over_before_the_group_grows() {
        let (placement, ready) = (placed(&[4, 2, 3]), set(&[2, 3, 4]));
        let near = [(2, 1_000), (3, 1_000)];
        assert_eq!(next_step(&group(&[1, 2, 3], &[], &near), &placement, 1, &ready), Todo::HandOver(2));
        let successor = |voters: &[u64], learners: &[u64]| Group { leader: Some(2), ..group(voters, learners, &[(3, 1_000), (4, 1_000)]) };
        assert_eq!(next_step(&successor(&[1, 2, 3], &[]), &placement, 2, &ready), Todo::AddLearner(4));
        assert_eq!(next_step(&successor(&[1, 2, 3], &[4]), &placement, 2, &ready), Todo::Voters(set(&[2, 3, 4])));
        assert_eq!(next_step(&successor(&[2, 3, 4], &[]), &placement, 2, &ready), Todo::HandOver(4));
    }

    #[test]
    fn only_copy_moves_by_way_of_two() {
        let (placement, ready) = (placed(&[2]), set(&[2]));
        assert_eq!(next_step(&group(&[1], &[], &[]), &placement, 1, &ready), Todo::AddLearner(2));
        assert_eq!(
            next_step(&group(&[1], &[2], &[(2, 1_000)]), &placement, 1, &ready),
            Todo::Voters(set(&[1, 2])),
            "it does not remove itself"
        );
        assert_eq!(next_step(&group(&[1, 2], &[], &[(2, 1_000)]), &placement, 1, &ready), Todo::HandOver(2));
        assert_eq!(next_step(&group(&[1, 2], &[], &[(2, 10)]), &placement, 1, &ready), Todo::Nothing, "it lags");
        let successor = Group { leader: Some(2), ..group(&[1, 2], &[], &[]) };
        assert_eq!(next_step(&successor, &placement, 2, &ready), Todo::Voters(set(&[2])));
    }

    #[test]
    fn lead_goes_to_the_first_placed_once_it_is_ready() {
        let placement = placed(&[2, 1, 3]);
        let near = group(&[1, 2, 3], &[], &[(2, 1_000), (3, 1_000)]);
        assert_eq!(next_step(&near, &placement, 1, &set(&[3])), Todo::Nothing, "it is not there");
        assert_eq!(next_step(&near, &placement, 1, &set(&[2, 3])), Todo::HandOver(2));
        assert_eq!(next_step(&group(&[1, 2, 3], &[], &[(2, 1)]), &placement, 1, &set(&[2])), Todo::Nothing, "it lags");
    }

    #[test]
    fn change_that_was_broken_off_is_finished_first() {
        let joint = Group { is_joint: true, ..group(&[1, 2, 3, 4], &[], &[]) };
        assert_eq!(next_step(&joint, &placed(&[1, 2, 4]), 1, &set(&[])), Todo::Finish(set(&[1, 2, 4])));
        assert_eq!(next_step(&joint, &placed(&[2, 3, 4]), 1, &set(&[])), Todo::Finish(set(&[1, 2, 3, 4])));
    }

    #[test]
    fn extra_copies_go_and_missing_ones_come() {
        assert_eq!(next_step(&group(&[1], &[], &[]), &placed(&[1, 2]), 1, &set(&[])), Todo::AddLearner(2));
        assert_eq!(next_step(&group(&[1], &[2], &[(2, 1_000)]), &placed(&[1, 2]), 1, &set(&[])), Todo::Voters(set(&[1, 2])));
        assert_eq!(next_step(&group(&[1, 2], &[], &[(2, 1_000)]), &placed(&[1]), 1, &set(&[])), Todo::Voters(set(&[1])));
    }
}
