//! Leaders that are lost: members beat, and when a leader's session ends its followers elect another one, long before openraft's own time-out. Before one stands it
//! asks the others: who alone has lost the leader stays quiet, for its votes would only depose a leader that works. A node that reaches no majority never stands.
//! openraft itself never does: a process that was stopped for a while finds all its time-outs over when it goes on, and would depose everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tallymesh_protocol::hash::ShardId;
use tokio::sync::watch as channel;

use super::messages::{self, Ask, Beat};
use super::meta::group::META;
use super::{Fleet, Inner};
use crate::raft::{Group, RaftReplica};

/// How often each member is asked for a sign of life.
const BEAT_INTERVAL: Duration = Duration::from_millis(250);
const BEAT_TIME_MAX: Duration = Duration::from_millis(500);
/// How often groups are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);
/// A lost leader's first heir waits so long: the session may be back at once.
const STAND_AFTER: Duration = Duration::from_millis(20);
/// Between the heirs' attempts. The first one meets a voter that still believes in the old leader; the next one's does not.
const STAND_APART: Duration = Duration::from_millis(60);
/// A leader that is connected must say that it leads within this time.
const MUTE_TIME_MAX: Duration = Duration::from_millis(1_500);
const LOST_TIME_MAX: Duration = Duration::from_millis(200);

/// How a group's leader stands, as a follower sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there and says that it leads.
    Leads,
    /// There is none, or no connection to it.
    Gone,
    /// It is connected, and does not say that it leads: it has not heard yet, or its replica has stopped.
    Mute,
}

/// One lost leader.
#[derive(Clone, Copy, Debug)]
struct Loss {
    seen: Seen,
    since: Duration,
    attempts: u32,
}

/// When a follower is to stand. Pure.
#[derive(Default)]
pub struct Losses(BTreeMap<ShardId, Loss>);

impl Losses {
    /// Whether this member is to stand now. `order` is who inherits in which order.
    #[expect(clippy::too_many_arguments, reason = "what is seen at one moment")]
    pub fn look(
        &mut self,
        shard: ShardId,
        group: &Group,
        seen: Seen,
        me: u64,
        connected: &BTreeSet<u64>,
        order: &[u64],
        now: Duration,
    ) -> bool {
        if seen == Seen::Leads || group.leads || !group.voters.contains(&me) || !has_majority(group, connected) {
            self.0.remove(&shard);
            return false;
        }
        let heirs: Vec<u64> = order.iter().copied().filter(|member| connected.contains(member) && Some(*member) != group.leader).collect();
        let rank = heirs.iter().position(|member| *member == me).unwrap_or(heirs.len()) as u32;
        let loss = self.0.entry(shard).or_insert(Loss { seen, since: now, attempts: 0 });
        if seen == Seen::Gone && loss.seen == Seen::Mute {
            *loss = Loss { seen, since: now, attempts: 0 };
        }
        let patience = if loss.seen == Seen::Mute { MUTE_TIME_MAX } else { STAND_AFTER };
        let round = (heirs.len() as u32).max(1);
        let due = loss.since + patience + STAND_APART * (rank + loss.attempts * round);
        if now < due {
            return false;
        }
        loss.attempts += 1;
        true
    }
}

pub fn has_majority(group: &Group, connected: &BTreeSet<u64>) -> bool {
    2 * group.voters.intersection(connected).count() > group.voters.len()
}

impl Fleet {
    fn seen(&self, group: ShardId, leader: Option<u64>, connected: &BTreeSet<u64>, now: Duration) -> Seen {
        match leader {
            None => Seen::Gone,
            Some(leader) if leader == self.inner.me => Seen::Leads,
            Some(leader) if !connected.contains(&leader) => Seen::Gone,
            Some(leader) if self.inner.leaders.claims(leader, group, now) => Seen::Leads,
            Some(_) => Seen::Mute,
        }
    }

    /// Whether this node, too, does without a leader.
    pub(super) fn has_lost(&self, shard: ShardId) -> bool {
        let known = if shard == META { self.meta().map(|meta| meta.leader()) } else { self.replica(shard).map(|r| r.leadership().leader) };
        // Who has no replica has no leader to lose.
        known.is_none_or(|leader| self.seen(shard, leader, &self.connected(), self.now()) != Seen::Leads)
    }
}

/// Asks every member for a sign of life until the node ends.
pub async fn beats(fleet: Fleet, mut end: channel::Receiver<bool>) {
    let mut tick = tokio::time::interval(BEAT_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return,
            _ = tick.tick() => {}
        }
        let members = fleet.connected().into_iter().filter(|member| *member != fleet.inner.me);
        join_all(members.map(|member| hear(&fleet, member))).await;
    }
}

async fn hear(fleet: &Fleet, member: u64) {
    let asked_at = fleet.now();
    let Ok(answer) = fleet.ask(member, Ask::Beat, BEAT_TIME_MAX).await else { return };
    match messages::from_bytes::<Beat>(&answer) {
        Ok(beat) => fleet.inner.leaders.heard(member, beat, asked_at),
        Err(error) => tracing::warn!(member, %error, "a member's beat does not read"),
    }
}

/// Looks after the groups that this node has a replica of, until it ends.
pub async fn guard(fleet: Fleet, mut end: channel::Receiver<bool>) {
    let mut losses = Losses::default();
    let mut peers = fleet.inner.peers.watch();
    loop {
        tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return,
            _ = peers.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        look(&fleet, &mut losses);
    }
}

fn look(fleet: &Fleet, losses: &mut Losses) {
    let (connected, now, state) = (fleet.connected(), fleet.now(), fleet.state());
    let me = fleet.inner.me;
    for (shard, replica) in fleet.replicas() {
        let group = replica.group();
        let order = state.placement.get(usize::from(shard.0)).map(|placement| placement.replicas.clone()).unwrap_or_default();
        let seen = fleet.seen(shard, group.leader, &connected, now);
        if losses.look(shard, &group, seen, me, &connected, &order, now) {
            stand(fleet.inner.clone(), shard, group, Stander::Shard(replica));
        }
    }
    if let Some(meta) = fleet.meta() {
        let group = RaftReplica::group_of(meta.raft());
        let seen = fleet.seen(META, group.leader, &connected, now);
        let order: Vec<u64> = group.voters.iter().copied().collect();
        if losses.look(META, &group, seen, me, &connected, &order, now) {
            stand(fleet.inner.clone(), META, group, Stander::Meta);
        }
    }
}

enum Stander {
    Shard(Arc<RaftReplica>),
    Meta,
}

/// Asks the other voters whether they, too, have lost the leader, and stands if so.
fn stand(inner: Arc<Inner>, shard: ShardId, group: Group, stander: Stander) {
    let fleet = Fleet { inner };
    tokio::spawn(async move {
        let others = group.voters.iter().copied().filter(|member| *member != fleet.inner.me && Some(*member) != group.leader);
        let ask = Ask::Lost { shard: shard.0 };
        let answers = join_all(others.map(|member| fleet.ask(member, ask.clone(), LOST_TIME_MAX))).await;
        let agreed = answers.into_iter().filter_map(|answer| messages::from_bytes::<bool>(&answer.ok()?).ok()).filter(|lost| *lost).count();
        if 2 * (agreed + 1) <= group.voters.len() {
            return;
        }
        tracing::info!(%shard, lost = ?group.leader, term = group.term, "standing for election");
        match stander {
            Stander::Shard(replica) => replica.stand().await,
            Stander::Meta => {
                if let Some(meta) = fleet.meta() {
                    let _ = meta.raft().trigger().elect().await;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn group(leader: Option<u64>) -> Group {
        Group { leader, voters: [1, 2, 3].into(), ..Group::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn heirs_stand_one_after_the_other_until_somebody_leads() {
        let (mut second, mut third) = (Losses::default(), Losses::default());
        let (connected, order) = (BTreeSet::from([2, 3]), [1, 2, 3]);
        let mut stood = Vec::new();
        for ms in 0..400 {
            if second.look(SHARD, &group(Some(1)), Seen::Gone, 2, &connected, &order, at(ms)) {
                stood.push((2, ms));
            }
            if third.look(SHARD, &group(Some(1)), Seen::Gone, 3, &connected, &order, at(ms)) {
                stood.push((3, ms));
            }
        }
        assert_eq!(stood, [(2, 20), (3, 80), (2, 140), (3, 200), (2, 260), (3, 320), (2, 380)]);
        assert!(!second.look(SHARD, &group(Some(3)), Seen::Leads, 2, &connected, &order, at(400)), "there is a leader");
        assert!(!second.look(SHARD, &group(Some(1)), Seen::Gone, 2, &connected, &order, at(401)), "a new loss");
    }

    #[test]
    fn leader_that_is_there_has_time_to_say_so() {
        let mut losses = Losses::default();
        let (all, order) = (BTreeSet::from([1, 2, 3]), [1, 2, 3]);
        let mut first = |ms, seen| losses.look(SHARD, &group(Some(1)), seen, 2, &all, &order, at(ms));
        assert!((0..1_500).all(|ms| !first(ms, Seen::Mute)));
        assert!(first(1_500, Seen::Mute), "its replica has stopped");
        assert!(!first(1_501, Seen::Gone));
        assert!(first(1_521, Seen::Gone), "and then its session ended: no longer wait than for any other");
    }

    #[test]
    fn without_a_majority_or_a_vote_nobody_stands() {
        let mut losses = Losses::default();
        for ms in 0..1_000 {
            assert!(!losses.look(SHARD, &group(Some(1)), Seen::Gone, 2, &BTreeSet::from([2]), &[1, 2, 3], at(ms)), "alone");
            assert!(!losses.look(SHARD, &group(Some(1)), Seen::Gone, 4, &BTreeSet::from([2, 3, 4]), &[1, 2, 3], at(ms)), "no voter");
        }
    }
}
