//! The fleet as a node tells it (`GET /v1/cluster`), read leniently: what a node of another version does not say is unknown, not an error.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    pub name: String,
    pub replication: u8,
    pub nodes: Vec<Node>,
    pub shards: Vec<Shard>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub name: String,
    /// The node that tells it.
    pub me: bool,
    pub http: Option<String>,
    pub version: Option<String>,
    pub ready: Option<bool>,
    pub alive: Option<bool>,
    pub since_ms: Option<u64>,
    pub draining: bool,
    pub read_only: bool,
    /// Settings that its configuration has otherwise than the cluster.
    pub deviates: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Shard {
    pub shard: u16,
    /// None while there is none.
    pub leader: Option<String>,
    pub replicas: Vec<Replica>,
    /// Where it is to be; the first is to lead.
    pub placed: Vec<String>,
    pub coming: Vec<Coming>,
    pub going: Vec<String>,
    /// None, like the figures below, while the node that tells it has heard of no replica.
    pub term: Option<u64>,
    pub commit: Option<u64>,
    pub lag: Option<u64>,
    pub events: Option<u64>,
    pub stopped: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Replica {
    pub node: String,
    /// `leader`, `follower` or `learner`.
    pub role: Option<String>,
    pub applied: Option<u64>,
    /// Entries behind the leader.
    pub lag: Option<u64>,
    pub checksum: Option<String>,
    pub stopped: Option<String>,
}

/// A replica on its way to where it is placed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Coming {
    pub node: String,
    pub done_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// What a node is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    Draining,
    /// It lives and does not say that it is ready.
    NotReady,
    ReadOnly,
    Silent,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::NotReady => "not ready",
            Self::ReadOnly => "read-only",
            Self::Silent => "silent",
        }
    }
}

/// How a shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every replica is there.
    Whole,
    /// It takes writes with fewer replicas than it should have.
    Reduced,
    /// On its way to another node.
    Moving,
    NoLeader,
    Stopped,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "ok",
            Self::Reduced => "reduced",
            Self::Moving => "moving",
            Self::NoLeader => "no leader",
            Self::Stopped => "stopped",
        }
    }
}

impl Node {
    pub fn state(&self) -> State {
        match self {
            Self { alive: Some(false), .. } => State::Silent,
            Self { draining: true, .. } => State::Draining,
            Self { read_only: true, .. } => State::ReadOnly,
            Self { ready: Some(false), .. } => State::NotReady,
            _ => State::Active,
        }
    }

    pub fn since(&self) -> Option<Duration> {
        self.since_ms.map(Duration::from_millis)
    }
}

impl Cluster {
    /// Nodes and replicas by name.
    pub fn in_order(mut self) -> Self {
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        for shard in &mut self.shards {
            shard.replicas.sort_by(|a, b| a.node.cmp(&b.node));
        }
        self
    }

    /// The node that tells it.
    pub fn seen_by(&self) -> Option<&str> {
        self.nodes.iter().find(|node| node.me).map(|node| node.name.as_str())
    }

    fn is_silent(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name && node.state() == State::Silent)
    }

    pub fn health(&self, shard: &Shard) -> Health {
        if shard.stopped.is_some() {
            return Health::Stopped;
        }
        if self.live_leader(shard).is_none() {
            return Health::NoLeader;
        }
        if !shard.coming.is_empty() || !shard.going.is_empty() {
            return Health::Moving;
        }
        let is_missing = |replica: &Replica| replica.stopped.is_some() || self.is_silent(&replica.node);
        if shard.replicas.iter().any(is_missing) { Health::Reduced } else { Health::Whole }
    }

    /// Shards by how they do.
    pub fn of_health(&self, health: Health) -> Vec<u16> {
        self.shards.iter().filter(|shard| self.health(shard) == health).map(|shard| shard.shard).collect()
    }

    /// Shards that a node leads.
    pub fn leads(&self, node: &Node) -> u64 {
        self.shards.iter().filter(|shard| self.live_leader(shard) == Some(&node.name)).count() as u64
    }

    /// Shards that it has a replica of, also one that it is about to give up.
    pub fn held(&self, node: &Node) -> u64 {
        let holds = |shard: &&Shard| shard.replicas.iter().any(|replica| replica.node == node.name) || shard.going.contains(&node.name);
        self.shards.iter().filter(holds).count() as u64
    }

    /// How far its slowest replica is behind, in log entries; unknown of a node that does not answer.
    pub fn lag(&self, node: &Node) -> Option<u64> {
        if node.state() == State::Silent {
            return None;
        }
        let replicas = self.shards.iter().flat_map(|shard| &shard.replicas).filter(|replica| replica.node == node.name);
        replicas.filter_map(|replica| replica.lag).max()
    }

    /// Where else to ask when the node that was asked goes away.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|node| node.state() != State::Silent)
            .filter_map(|node| node.http.clone())
            .filter(|http| !http.is_empty())
            .collect()
    }

    /// What happened between two views, oldest first.
    pub fn changes(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let nodes: BTreeMap<&str, State> = before.nodes.iter().map(|node| (node.name.as_str(), node.state())).collect();
        for node in &self.nodes {
            match (nodes.get(node.name.as_str()), node.state()) {
                (None, _) => changes.push(Change::Joined(node.name.clone())),
                (Some(was), is) if *was != is => changes.push(Change::Node(node.name.clone(), is)),
                _ => {}
            }
        }
        for node in before.nodes.iter().filter(|node| !self.nodes.iter().any(|now| now.name == node.name)) {
            changes.push(Change::Left(node.name.clone()));
        }
        let leaders: BTreeMap<u16, Option<&String>> = before.shards.iter().map(|shard| (shard.shard, before.live_leader(shard))).collect();
        let mut led: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        let mut orphans = Vec::new();
        for shard in &self.shards {
            match (leaders.get(&shard.shard), self.live_leader(shard)) {
                (Some(Some(_)), None) => orphans.push(shard.shard),
                (Some(was), Some(is)) if *was != Some(is) => led.entry(is.clone()).or_default().push(shard.shard),
                _ => {}
            }
        }
        if !orphans.is_empty() {
            changes.push(Change::NoLeader(orphans));
        }
        changes.extend(led.into_iter().map(|(node, shards)| Change::Leads(node, shards)));
        changes
    }

    fn live_leader<'a>(&self, shard: &'a Shard) -> Option<&'a String> {
        shard.leader.as_ref().filter(|leader| shard.stopped.is_none() && !self.is_silent(leader))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Joined(String),
    Left(String),
    Node(String, State),
    NoLeader(Vec<u16>),
    /// A node took shards over.
    Leads(String, Vec<u16>),
}

/// `0-3, 7`
pub fn ranges(shards: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for &shard in shards {
        match parts.last_mut() {
            Some((_, last)) if shard == last.saturating_add(1) => *last = shard,
            _ => parts.push((shard, shard)),
        }
    }
    let part = |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub mod tests;
