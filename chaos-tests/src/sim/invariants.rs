//! What must always hold, one file for each promise. The judge hears of everything that happens and keeps what it needs to tell right from wrong.

mod acked;
mod answers;
mod disks;
mod history;
mod leaders;
pub mod liveness;
mod once;
mod reads;
mod replicas;

use std::collections::{BTreeMap, VecDeque};

use tallymesh_actors::PartOutcome;
use tallymesh_actors::raft::runtime::{ChangedBy, StateChange};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::PartialAnswer;
use tallymesh_protocol::question::query::ShardQuery;

use super::client::Write;
use super::events::{Catalogue, Event};
use super::random::Random;
use history::History;

/// More of the same says nothing new.
const VIOLATIONS_MAX: usize = 8;

/// Figures of a run: that it did what it was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub writes: u64,
    pub acks: u64,
    pub reads: u64,
    pub applied: u64,
    pub installed: u64,
    pub terms: u64,
    pub boots: u64,
    pub replaced: u64,
}

pub struct Judge {
    pub stats: Stats,
    pub disks: disks::Disks,
    pub violations: Vec<String>,
    catalogue: Catalogue,
    events: BTreeMap<u128, Event>,
    histories: Vec<History>,
    acked: acked::Acked,
    once: once::Once,
    leaders: leaders::Leaders,
    replicas: replicas::Replicas,
    unknown: VecDeque<Write>,
    /// How many requests have numbers. Counted, not drawn: it would shift what else is drawn.
    requests: u64,
}

impl Judge {
    pub fn new(shards: u16) -> Self {
        Self {
            stats: Stats::default(),
            disks: disks::Disks::default(),
            violations: Vec::new(),
            catalogue: Catalogue::new(shards),
            events: BTreeMap::new(),
            histories: (0..shards).map(|_| History::default()).collect(),
            acked: acked::Acked::default(),
            once: once::Once::default(),
            leaders: leaders::Leaders::default(),
            replicas: replicas::Replicas::default(),
            unknown: VecDeque::new(),
            requests: 0,
        }
    }

    pub fn fail(&mut self, promise: &str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("{promise}: {detail}"));
        }
    }

    fn check(&mut self, promise: &str, result: Result<(), String>) {
        if let Err(detail) = result {
            self.fail(promise, detail);
        }
    }

    pub fn new_write(&mut self, shard: ShardId, now_ms: i64, random: &mut Random) -> Write {
        let events = self.catalogue.draw(shard, now_ms, random);
        self.events.extend(events.iter().map(|event| (event.hash, event.clone())));
        self.stats.writes += 1;
        self.requests += 1;
        Write { shard, request: self.requests, bytes: self.catalogue.encode(shard, &events), events: events.into() }
    }

    pub fn unknown(&mut self, write: Write) {
        self.unknown.push_back(write);
    }

    /// As its client asks again: another request of the same events.
    pub fn next_unknown(&mut self) -> Option<Write> {
        let write = self.unknown.pop_front()?;
        self.requests += 1;
        Some(Write { request: self.requests, ..write })
    }

    /// A replica's state changed.
    pub fn changed(&mut self, node: u64, change: &StateChange<'_>) {
        let history = &mut self.histories[usize::from(change.shard.0)];
        let replicas = self.replicas.check(node, change, history);
        match change.by {
            ChangedBy::Snapshot => self.stats.installed += 1,
            ChangedBy::Entry(entry) => {
                self.stats.applied += 1;
                if history.is_new(change.log_id.index) {
                    let counted = history.push(change.log_id, entry.map(|(command, _)| command), &self.events);
                    let once = self.once.check(change.shard, &counted);
                    self.check("counted once", once);
                }
                if let Some((_, outcome)) = entry {
                    let history = &self.histories[usize::from(change.shard.0)];
                    let told = answers::check_outcome(node, change, outcome, history);
                    self.check("answers are true", told);
                }
            }
        }
        self.check("replicas are equal", replicas);
    }

    pub fn leads(&mut self, node: u64, shard: ShardId, term: u64) {
        let result = self.leaders.check(node, shard, term);
        self.stats.terms = self.leaders.terms();
        self.check("one leader per term", result);
    }

    pub fn acked(&mut self, write: &Write, outcome: &PartOutcome) {
        self.stats.acks += 1;
        let history = &self.histories[usize::from(write.shard.0)];
        let result = self.acked.check(write, outcome, history);
        self.check("acked survives", result);
    }

    /// Index of the newest ack of the shard that a client has.
    pub fn newest_ack(&self, shard: ShardId) -> Option<u64> {
        self.acked.newest(shard)
    }

    /// A read that must see the log up to `floor` has been answered.
    pub fn read(&mut self, node: u64, shard: ShardId, floor: Option<u64>, answer: &PartialAnswer) {
        self.stats.reads += 1;
        let result = reads::check(node, shard, floor, answer);
        self.check("reads see what was acked", result);
    }

    pub fn answer(&mut self, node: u64, shard: ShardId, query: &ShardQuery, answer: &PartialAnswer) {
        let history = &self.histories[usize::from(shard.0)];
        let result = answers::check(node, shard, query, answer, history);
        self.check("answers are true", result);
    }

    /// All that was ever sent has been acked: how much of it each shard's log counts, by the plainest means.
    pub fn settled(&mut self, totals: &BTreeMap<(ShardId, usize), u64>) {
        let results = self.acked.settled(totals);
        results.into_iter().for_each(|result| self.check("acked survives", result));
    }
}
