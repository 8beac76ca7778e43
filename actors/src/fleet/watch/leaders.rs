//! Who leads what, as far as this node heard: from its own replicas at once, of other shards from the beats of those who lead them. A hint, never a proof: who is
//! asked answers for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;

use tallymesh_protocol::hash::ShardId;

use super::super::messages::{Beat, Lead};
use super::super::meta::group::META;

/// A leader that was not heard for so long is not known any more.
pub const HEARD_AGE_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub leader: u64,
    pub lead: Lead,
    /// When the answer came to the question that it answered was asked, on this process's monotonic clock.
    pub at: Duration,
}

#[derive(Default)]
struct Known {
    shards: BTreeMap<u16, Heard>,
    beats: BTreeMap<u64, (Beat, Duration)>,
}

#[derive(Default)]
pub struct Leaders(RwLock<Known>);

impl Leaders {
    /// A member answered at `asked_at`, the time of the question.
    pub fn heard(&self, member: u64, beat: Beat, asked_at: Duration) {
        let mut known = self.0.write();
        // What it does not say any more it does not lead any more.
        known.shards.retain(|shard, heard| heard.leader != member || beat.leads.iter().any(|lead| lead.shard == *shard));
        for lead in &beat.leads {
            let newer = known.shards.get(&lead.shard).is_none_or(|heard| (lead.term, asked_at) >= (heard.lead.term, heard.at));
            if newer {
                known.shards.insert(lead.shard, Heard { leader: member, lead: lead.clone(), at: asked_at });
            }
        }
        known.beats.insert(member, (beat, asked_at));
    }

    /// The leader that was last heard of, if that was not long ago.
    pub fn of(&self, shard: u16, now: Duration) -> Option<Heard> {
        let known = self.0.read();
        known.shards.get(&shard).filter(|heard| now.saturating_sub(heard.at) <= HEARD_AGE_MAX).cloned()
    }

    /// When this member last answered.
    pub fn last_beat(&self, member: u64) -> Option<Duration> {
        self.0.read().beats.get(&member).map(|(_, at)| *at)
    }

    /// Whether this member said not long ago that it leads the group.
    pub fn claims(&self, member: u64, group: ShardId, now: Duration) -> bool {
        let known = self.0.read();
        let Some((beat, at)) = known.beats.get(&member) else { return false };
        let leads = if group == META { beat.leads_metadata } else { beat.leads.iter().any(|lead| lead.shard == group.0) };
        leads && now.saturating_sub(*at) <= HEARD_AGE_MAX
    }

    /// Whether it is alive and stays.
    pub fn stays(&self, member: u64, now: Duration) -> bool {
        let known = self.0.read();
        known.beats.get(&member).is_some_and(|(beat, at)| !beat.leaving && now.saturating_sub(*at) <= HEARD_AGE_MAX)
    }

    /// A member said that it does not lead the shard.
    pub fn forget(&self, shard: u16, member: u64) {
        let mut known = self.0.write();
        if known.shards.get(&shard).is_some_and(|heard| heard.leader == member) {
            known.shards.remove(&shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(leads: &[(u16, u64)]) -> Beat {
        let lead = |&(shard, term): &(u16, u64)| Lead { shard, term, voters: vec![1, 2], learners: Vec::new(), settled: true };
        Beat { leads: leads.iter().map(lead).collect(), ..Beat::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn later_term_wins_and_old_news_end() {
        let leaders = Leaders::default();
        leaders.heard(1, beat(&[(0, 5)]), at(100));
        leaders.heard(2, beat(&[(0, 4)]), at(200));
        assert_eq!(leaders.of(0, at(300)).map(|h| h.leader), Some(1), "a deposed leader that does not know it");
        leaders.heard(2, beat(&[(0, 6)]), at(300));
        assert_eq!(leaders.of(0, at(400)).map(|h| h.leader), Some(2));
        leaders.heard(1, beat(&[(0, 5)]), at(500));
        assert_eq!(leaders.of(0, at(600)).map(|h| h.leader), Some(2));
        assert_eq!(leaders.of(0, at(300) + HEARD_AGE_MAX + at(1)), None);
        leaders.heard(2, beat(&[]), at(700));
        assert_eq!(leaders.of(0, at(700)), None, "it says that it leads it no more");
    }
}
