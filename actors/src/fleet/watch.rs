//! Leaders that are lost: members beat, and when a leader's session ends its followers elect another one, long before openraft's own time-out. Before one stands it
//! asks the others: who alone has lost the leader stays quiet, for its votes would only depose a leader that works. A node that reaches no majority never stands.
//! openraft itself never does: a process that was stopped for a while finds all its time-outs over when it goes on, and would depose everybody.

pub mod failovers;
pub mod leaders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::Raft;
use tallymesh_protocol::hash::ShardId;
use tokio::sync::watch as channel;

use super::messages::{self, Ask, Beat};
use super::meta::group::META;
use super::{Fleet, Inner};
use crate::raft::{Group, RaftReplica, ShardRaft};

/// How often each member is asked for a sign of life.
const BEAT_INTERVAL: Duration = Duration::from_millis(250);
const BEAT_TIME_MAX: Duration = Duration::from_millis(1_000);
/// How often groups are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);
/// A lost leader's first heir waits so long: the session may be back at once.
const STAND_AFTER: Duration = Duration::from_millis(20);
/// Between the first attempts of the heirs. The first one meets a voter that still believes in the old leader; the next one's does not.
const STAND_APART: Duration = Duration::from_millis(60);
/// Whoever stood, or saw somebody stand, waits between half and one and a half of this, twice that the next time and so on, up to the longest: an election
/// takes two syncs, and those who stand while it goes on spoil it.
const AGAIN_AFTER: Duration = Duration::from_millis(120);
const AGAIN_DOUBLINGS_MAX: u32 = 4;
/// A leader that is connected must say that it leads within this time.
const MUTE_TIME_MAX: Duration = Duration::from_millis(1_500);
/// Nor is one lost that wrote or beat within this time, whatever it says; a slow machine is no dead one.
const HEARD_TIME_MAX: Duration = Duration::from_millis(1_500);

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

/// Whoever was refused for a shorter log leaves the election to the others for this long.
pub const LEFT_TO_OTHERS: Duration = Duration::from_secs(3);

/// One lost leader.
#[derive(Clone, Copy, Debug)]
struct Loss {
    seen: Seen,
    since: Duration,
    /// When it was last seen that somebody stood.
    stood: Duration,
    term: u64,
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
        let fresh = Loss { seen, since: now, stood: now, term: group.term, attempts: 0 };
        let loss = self.0.entry(shard).or_insert(fresh);
        if seen == Seen::Gone && loss.seen == Seen::Mute {
            *loss = fresh;
        }
        if group.term > loss.term {
            (loss.term, loss.stood) = (group.term, now);
            loss.attempts += 1;
        }
        let patience = if loss.seen == Seen::Mute { MUTE_TIME_MAX } else { STAND_AFTER };
        let due = match loss.attempts {
            0 => loss.since + patience + STAND_APART * rank,
            more => loss.stood + again_after(more, me, shard, loss.term),
        };
        if now < due {
            return false;
        }
        loss.stood = now;
        loss.attempts += 1;
        true
    }
}

/// Differs from member to member and from try to try, without chance.
fn again_after(attempts: u32, me: u64, shard: ShardId, term: u64) -> Duration {
    let longest = AGAIN_AFTER * (1 << (attempts - 1).min(AGAIN_DOUBLINGS_MAX));
    let mixed = (me ^ u64::from(shard.0) ^ term.rotate_left(32) ^ u64::from(attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    longest / 2 + longest * (mixed as u32) / (1 << 16)
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
    pub(super) async fn has_lost(&self, shard: ShardId) -> bool {
        // Who has no replica has no leader to lose.
        let Some(raft) = self.raft_of(shard) else { return true };
        let leader = raft.metrics().borrow().current_leader;
        match self.seen(shard, leader, &self.connected(), self.now()) {
            Seen::Leads => false,
            Seen::Gone => true,
            Seen::Mute => !RaftReplica::hears_leader(&raft, HEARD_TIME_MAX).await,
        }
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
    let (asked_at, own_ms) = (fleet.now(), fleet.inner.clock.wall_ms());
    let Ok(answer) = fleet.ask(member, Ask::Beat, BEAT_TIME_MAX).await else { return };
    match messages::from_bytes::<Beat>(&answer) {
        Ok(beat) => {
            let members = fleet.state().present().count();
            let trip = fleet.now().saturating_sub(asked_at);
            match fleet.inner.clocks.heard(member, beat.wall_ms, own_ms, trip, asked_at, members) {
                Some(true) => {
                    let ms = fleet.clock_offset().ms();
                    tracing::error!(
                        off_ms = -ms,
                        "this node's clock is off: it leads nothing until it agrees with those of the other nodes"
                    );
                }
                Some(false) => tracing::info!("this node's clock agrees with the others' again"),
                None => {}
            }
            fleet.inner.leaders.heard(member, beat, asked_at);
        }
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
        fleet.note_lead(shard, group.leads.then_some(group.term));
        // A leader that is not reached leads nobody, whatever is still believed of it here.
        let reached = group.leader.filter(|leader| *leader == me || connected.contains(leader));
        fleet.inner.failovers.write().look(shard, reached, fleet.inner.clock.wall_ms());
        let order = state.placement.get(usize::from(shard.0)).map(|placement| placement.replicas.clone()).unwrap_or_default();
        let seen = fleet.seen(shard, group.leader, &connected, now);
        if losses.look(shard, &group, seen, me, &connected, &order, now) {
            stand(fleet.inner.clone(), shard, group, replica.raft().clone());
        }
    }
    if let Some(meta) = fleet.meta() {
        let raft = meta.raft();
        let group = RaftReplica::group_of(&raft);
        fleet.note_lead(META, group.leads.then_some(group.term));
        let seen = fleet.seen(META, group.leader, &connected, now);
        let order: Vec<u64> = group.voters.iter().copied().collect();
        if losses.look(META, &group, seen, me, &connected, &order, now) {
            stand(fleet.inner.clone(), META, group, raft);
        }
    }
}

/// Makes sure that the leader is lost, asks the other voters whether they think so too, and stands if they do.
fn stand(inner: Arc<Inner>, shard: ShardId, group: Group, raft: Raft<ShardRaft>) {
    let fleet = Fleet { inner };
    tokio::spawn(async move {
        // One whose log is behind cannot win, and its terms would keep whoever can from winning. It stands once all the same: from then on it is free to vote, where its
        // lease on the old leader would forbid it.
        let is_behind = group.leader.is_none() && fleet.is_behind(shard, LEFT_TO_OTHERS);
        // Nor does one that was removed and has not got back what it had.
        let may_stand = fleet.replica(shard).is_none_or(|replica| replica.may_stand());
        if is_behind
            || !may_stand
            || fleet.is_leaving()
            || fleet.is_handing_over(shard)
            || fleet.clock_offset().is_far_off()
            || !fleet.has_lost(shard).await
        {
            return;
        }
        let others = group.voters.iter().copied().filter(|member| *member != fleet.inner.me && Some(*member) != group.leader);
        let ask = Ask::Lost { shard: shard.0 };
        let answers = join_all(others.map(|member| fleet.ask_for::<bool>(member, ask.clone()))).await;
        let agreed = answers.into_iter().flatten().filter(|lost| *lost).count();
        if 2 * (agreed + 1) <= group.voters.len() {
            return;
        }
        tracing::info!(%shard, lost = ?group.leader, term = group.term, "standing for election");
        // A group that has ended elects nobody.
        let _ = raft.trigger().elect().await;
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
        let (mut stood, mut term) = (Vec::new(), 1);
        for ms in 0..1_000 {
            let group = Group { term, ..group(Some(1)) };
            // Whoever stands has a term more, which the others see.
            for (me, losses) in [(2, &mut second), (3, &mut third)] {
                if losses.look(SHARD, &group, Seen::Gone, me, &connected, &order, at(ms)) {
                    stood.push((me, ms));
                    term += u64::from(stood.len() > 1);
                }
            }
        }
        assert_eq!(stood[..2], [(2, 20), (3, 80)], "the first one is refused, and nobody has its term");
        let apart: Vec<u64> = stood[1..].windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
        assert!(apart.iter().all(|ms| *ms >= 55) && stood.len() < 10, "{stood:?}");
        assert!(!second.look(SHARD, &group(Some(3)), Seen::Leads, 2, &connected, &order, at(1_000)), "there is a leader");
        assert!(!second.look(SHARD, &group(Some(1)), Seen::Gone, 2, &connected, &order, at(1_001)), "a new loss");
    }

    #[test]
    fn who_sees_that_another_stood_waits_for_the_outcome() {
        let mut losses = Losses::default();
        let (connected, order) = (BTreeSet::from([2, 3]), [1, 2, 3]);
        let mut look = |ms, term| losses.look(SHARD, &Group { term, ..group(None) }, Seen::Gone, 3, &connected, &order, at(ms));
        assert!(!look(0, 1) && !look(70, 2), "the other stood");
        assert!((71..130).all(|ms| !look(ms, 2)));
        assert!((130..260).any(|ms| look(ms, 2)));
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
