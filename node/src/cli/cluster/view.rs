//! The fleet as a node tells it (`GET /v1/cluster`), read leniently: what an older or a single node does not say is unknown, not an error.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    pub name: String,
    pub replication: u8,
    /// The node that tells it.
    pub seen_by: Option<String>,
    pub nodes: Vec<Node>,
    pub shards: Vec<Shard>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub name: String,
    /// Its number in replica groups, as it stands at shards: a number or a text.
    pub member: Value,
    pub http: Option<String>,
    pub version: Option<String>,
    /// Null where only the node itself knows.
    pub ready: Option<bool>,
    pub alive: Option<bool>,
    pub since_ms: Option<u64>,
    pub draining: bool,
    pub read_only: bool,
    pub replicas: Option<u64>,
    pub leads: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Shard {
    pub shard: u16,
    /// By number or name; null while there is none.
    pub leader: Value,
    pub replicas: Vec<Value>,
    /// More about them.
    pub members: Vec<Replica>,
    pub coming: Vec<Coming>,
    pub going: Vec<Value>,
    pub term: u64,
    pub commit: u64,
    pub applied: u64,
    pub lag: u64,
    pub events: u64,
    pub stopped: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Replica {
    pub node: Value,
    pub votes: Option<bool>,
    pub applied: Option<u64>,
    /// Entries behind what the leader has committed.
    pub lag: Option<u64>,
    pub checksum: Option<String>,
    pub stopped: Option<String>,
}

/// A replica on its way to where it is placed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Coming {
    pub node: Value,
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
    /// The name of the node that a number or a name at a shard stands for.
    pub fn who(&self, member: &Value) -> Option<String> {
        if member.is_null() {
            return None;
        }
        let known = self.nodes.iter().find(|node| node.member == *member).map(|node| node.name.clone());
        // A node of its own has a number in its only group and none to compare it with.
        let only = || (self.nodes.len() == 1 && member.is_number()).then(|| self.nodes[0].name.clone());
        known.or_else(only).or_else(|| Some(member.as_str().map_or_else(|| member.to_string(), str::to_owned)))
    }

    pub fn leader(&self, shard: &Shard) -> Option<String> {
        self.who(&shard.leader)
    }

    pub fn replicas(&self, shard: &Shard) -> Vec<String> {
        let members = shard.members.iter().map(|replica| &replica.node);
        let named: Vec<String> = if shard.members.is_empty() {
            shard.replicas.iter().filter_map(|member| self.who(member)).collect()
        } else {
            members.filter_map(|member| self.who(member)).collect()
        };
        named
    }

    fn is_silent(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name && node.state() == State::Silent)
    }

    pub fn health(&self, shard: &Shard) -> Health {
        if shard.stopped.is_some() {
            return Health::Stopped;
        }
        let Some(leader) = self.leader(shard) else { return Health::NoLeader };
        if self.is_silent(&leader) {
            return Health::NoLeader;
        }
        if !shard.coming.is_empty() || !shard.going.is_empty() {
            return Health::Moving;
        }
        let silent = self.replicas(shard).iter().any(|name| self.is_silent(name));
        let stopped = shard.members.iter().any(|replica| replica.stopped.is_some());
        if silent || stopped { Health::Reduced } else { Health::Whole }
    }

    /// Shards by how they do.
    pub fn of_health(&self, health: Health) -> Vec<u16> {
        self.shards.iter().filter(|shard| self.health(shard) == health).map(|shard| shard.shard).collect()
    }

    pub fn leads(&self, node: &Node) -> u64 {
        let count = || self.shards.iter().filter(|shard| self.leader(shard).as_ref() == Some(&node.name)).count() as u64;
        if node.state() == State::Silent { 0 } else { node.leads.unwrap_or_else(count) }
    }

    pub fn held(&self, node: &Node) -> u64 {
        let count = || self.shards.iter().filter(|shard| self.replicas(shard).contains(&node.name)).count() as u64;
        node.replicas.unwrap_or_else(count)
    }

    /// How far the slowest replica of a node is behind, in log entries; unknown of one that does not answer.
    pub fn lag(&self, node: &Node) -> Option<u64> {
        if node.state() == State::Silent {
            return None;
        }
        let of_it = |shard: &Shard| {
            let its = shard.members.iter().find(|replica| self.who(&replica.node).as_ref() == Some(&node.name));
            match its {
                Some(replica) => replica.lag,
                None if shard.members.is_empty() && self.nodes.len() == 1 => Some(shard.lag),
                None => None,
            }
        };
        self.shards.iter().filter_map(of_it).max()
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
        let leaders: BTreeMap<u16, Option<String>> = before.shards.iter().map(|shard| (shard.shard, before.live_leader(shard))).collect();
        let mut led: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        let mut orphans = Vec::new();
        for shard in &self.shards {
            match (leaders.get(&shard.shard), self.live_leader(shard)) {
                (Some(Some(_)), None) => orphans.push(shard.shard),
                (Some(was), Some(is)) if *was != Some(is.clone()) => led.entry(is).or_default().push(shard.shard),
                _ => {}
            }
        }
        if !orphans.is_empty() {
            changes.push(Change::NoLeader(orphans));
        }
        changes.extend(led.into_iter().map(|(node, shards)| Change::Leads(node, shards)));
        changes
    }

    fn live_leader(&self, shard: &Shard) -> Option<String> {
        self.leader(shard).filter(|leader| shard.stopped.is_none() && !self.is_silent(leader))
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
