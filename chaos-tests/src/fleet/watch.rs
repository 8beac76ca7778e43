//! Looks at all nodes all the time: which are ready, and who leads which shard. Two leaders of one term are a finding; every change is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::node::Life;
use super::node::http::Asked;
use super::{Findings, Fleet};

const READY_EVERY: Duration = Duration::from_millis(200);
const LEADERS_EVERY: Duration = Duration::from_millis(500);
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// A shard was seen with this leader in this term for the first time, at this moment of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Duration,
    pub shard: u64,
    pub term: u64,
    pub leader: String,
}

#[derive(Default)]
struct Seen {
    /// Leader by shard and term, over the whole run.
    terms: BTreeMap<(u64, u64), String>,
    /// The latest term of each shard and its leader.
    latest: BTreeMap<u64, (u64, String)>,
    changes: Vec<Change>,
}

pub struct Watch {
    pub shards: u16,
    fleet: Arc<Fleet>,
    ready: Vec<AtomicBool>,
    /// Since it was started last.
    been_ready: Vec<AtomicBool>,
    down: Vec<AtomicBool>,
    seen: Mutex<Seen>,
    findings: Findings,
    began: Instant,
}

impl Watch {
    /// `began` is the moment that changes are told from.
    pub fn new(fleet: Arc<Fleet>, findings: Findings, began: Instant) -> Self {
        let flags = |on| fleet.nodes.iter().map(|_| AtomicBool::new(on)).collect();
        let (ready, been_ready, down, shards) = (flags(true), flags(true), flags(false), fleet.options.shards);
        Self { shards, ready, been_ready, down, seen: Mutex::default(), findings, began, fleet }
    }

    /// Looks until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for node in 0..self.fleet.nodes.len() {
            tasks.spawn(self.clone().look_whether_ready(node));
        }
        tasks.spawn(self.clone().look_who_leads());
        stop.cancelled().await;
    }

    async fn look_whether_ready(self: Arc<Self>, node: usize) {
        let mut ticks = tokio::time::interval(READY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let process = &self.fleet.nodes[node];
            let is_down = process.life().await == Life::Down;
            self.down[node].store(is_down, Ordering::Relaxed);
            let is_ready = !is_down && matches!(tokio::time::timeout(LOOK_TIME_MAX, self.fleet.http.ready(process)).await, Ok(Ok(())));
            self.ready[node].store(is_ready, Ordering::Relaxed);
            if is_ready || is_down {
                self.been_ready[node].store(is_ready, Ordering::Relaxed);
            }
        }
    }

    /// One node after the other: each asks all others for it.
    async fn look_who_leads(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LEADERS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for node in (0..self.fleet.nodes.len()).cycle() {
            if self.is_down(node) {
                // Another one is asked at once, but for the case that all are down.
                tokio::task::yield_now().await;
                if (0..self.fleet.nodes.len()).any(|other| !self.is_down(other)) {
                    continue;
                }
            }
            ticks.tick().await;
            let process = &self.fleet.nodes[node];
            if let Asked::Answered(cluster) = self.fleet.http.ask(process, "/v1/cluster", &[], LOOK_TIME_MAX).await {
                self.findings.check(self.see(&cluster).with_context(|| format!("/v1/cluster of {}", process.name)));
            }
        }
    }

    fn see(&self, cluster: &Value) -> Result<()> {
        let mut seen = self.seen.lock();
        for (shard, term, leader) in leaders(cluster)? {
            // Who has no copy of the shard, and has not heard from one that has since it started, may know who leads and not since when.
            let (Some(leader), Some(term)) = (leader, term) else { continue };
            match seen.terms.get(&(shard, term)) {
                Some(other) if *other != leader => {
                    anyhow::bail!("shard {shard} has two leaders in term {term}: {other} and {leader}");
                }
                Some(_) => continue,
                None => {}
            }
            seen.terms.insert((shard, term), leader.clone());
            if seen.latest.get(&shard).is_none_or(|(latest, _)| *latest < term) {
                seen.latest.insert(shard, (term, leader.clone()));
                seen.changes.push(Change { at: self.began.elapsed(), shard, term, leader });
            }
        }
        Ok(())
    }

    /// Whether the node was ready a moment ago.
    pub fn is_ready(&self, node: usize) -> bool {
        self.ready[node].load(Ordering::Relaxed)
    }

    pub fn is_down(&self, node: usize) -> bool {
        self.down[node].load(Ordering::Relaxed)
    }

    /// Whether a client that asks `/ready` first would send there. A node that cannot reach some leader is sent to all the same: it may be the only one there is.
    /// One that is starting is not, as behind any load balancer, where another one has been ready.
    pub fn takes_requests(&self, node: usize) -> bool {
        self.is_ready(node) || self.last_resorts().contains(&node)
    }

    /// The preferred node if it is ready, else another one that is; a last resort if none is.
    pub fn ready_node(&self, preferred: usize, random: &mut impl Rng) -> usize {
        let (preferred, ready) = (preferred % self.fleet.nodes.len(), read(&self.ready));
        if ready[preferred] {
            return preferred;
        }
        let choice = if ready.contains(&true) { those(&ready) } else { last_resorts(&ready, &read(&self.been_ready)) };
        choice[random.random_range(0..choice.len())]
    }

    /// Where to send when no node is ready: those that have been since they were started, or any. None while one is ready.
    fn last_resorts(&self) -> Vec<usize> {
        last_resorts(&read(&self.ready), &read(&self.been_ready))
    }

    /// The latest leader that was seen of a shard.
    pub fn leader(&self, shard: u64) -> Option<usize> {
        let seen = self.seen.lock();
        self.fleet.number(&seen.latest.get(&shard)?.1)
    }

    /// Shards that a node leads, as far as was seen.
    pub fn led_by(&self, node: usize) -> Vec<u64> {
        let name = &self.fleet.nodes[node].name;
        self.seen.lock().latest.iter().filter(|(_, (_, leader))| leader == name).map(|(shard, _)| *shard).collect()
    }

    /// Every change of a leader that was seen.
    pub fn changes(&self) -> Vec<Change> {
        self.seen.lock().changes.clone()
    }
}

fn read(flags: &[AtomicBool]) -> Vec<bool> {
    flags.iter().map(|flag| flag.load(Ordering::Relaxed)).collect()
}

fn those(flags: &[bool]) -> Vec<usize> {
    flags.iter().enumerate().filter(|(_, on)| **on).map(|(node, _)| node).collect()
}

fn last_resorts(ready: &[bool], been_ready: &[bool]) -> Vec<usize> {
    match (ready.contains(&true), been_ready.contains(&true)) {
        (true, _) => Vec::new(),
        (false, true) => those(been_ready),
        (false, false) => (0..ready.len()).collect(),
    }
}

/// A shard, and its term and leader where they are known.
pub type Led = (u64, Option<u64>, Option<String>);

/// [`Led`] of every shard of a `/v1/cluster` answer. What it does not say, or says as anything else than a number or null, is an error.
pub fn leaders(cluster: &Value) -> Result<Vec<Led>> {
    let shards = cluster["shards"].as_array().context("shards")?;
    let read = |shard: &Value| {
        let number = |name: &str| shard[name].as_u64().with_context(|| format!("{name} of a shard: {shard}"));
        let term = match shard.get("term") {
            Some(Value::Null) => None,
            _ => Some(number("term")?),
        };
        let leader = match &shard["leader"] {
            Value::Null => None,
            Value::String(name) => Some(name.clone()),
            // A single node says which of its members it is.
            other => Some(other.to_string()),
        };
        Ok((number("shard")?, term, leader))
    };
    shards.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn term_of_a_shard_may_be_unknown_but_has_to_be_told() {
        let read = |shard: Value| leaders(&serde_json::json!({ "shards": [shard] })).ok();
        assert_eq!(read(serde_json::json!({ "shard": 3, "term": 0, "leader": null })), Some(vec![(3, Some(0), None)]));
        let led = read(serde_json::json!({ "shard": 3, "term": null, "leader": "n1" }));
        assert_eq!(led, Some(vec![(3, None, Some("n1".to_owned()))]));
        assert_eq!(read(serde_json::json!({ "shard": 3, "leader": "n1" })), None, "not told at all");
        assert_eq!(read(serde_json::json!({ "shard": 3, "term": "x", "leader": "n1" })), None);
    }

    #[test]
    fn nodes_that_are_starting_are_the_last_that_are_sent_to() {
        assert_eq!(last_resorts(&[false, true, false], &[true, true, false]), Vec::<usize>::new(), "one is ready");
        assert_eq!(last_resorts(&[false; 3], &[true, true, false]), [0, 1], "the third one has just been started");
        assert_eq!(last_resorts(&[false; 3], &[false; 3]), [0, 1, 2], "all have");
    }
}
