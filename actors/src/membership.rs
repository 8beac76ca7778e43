//! Who is there: the nodes that gossip about themselves, and which of them live.
//!
//! [`gossip`] runs `chitchat` and turns what it sees into [`Sighting`]s; [`View::step`] is the engine that makes a view of the fleet of them and says what follows for
//! connections. A verdict here ends sessions and starts dials. It never chooses a leader, and nobody votes or is a member because of gossip. Only holders of the
//! cookie take part ([`sealed`]).

pub mod gossip;
pub mod sealed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peer::{BootId, NodeId, Target};

/// A node that was not seen alive for this long is forgotten; until then it is known as dead, with its addresses.
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Nodes that are remembered. Beyond it the longest dead are forgotten first.
pub const NODES_MAX: usize = 1_024;

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its data belongs to no cluster.
    Empty,
    /// Like that, and it is one of those who found one.
    Founder,
    Member,
    /// A member that gives its shards away.
    Draining,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub node: NodeId,
    pub boot: BootId,
    pub name: String,
    /// Where peers dial it.
    pub peer: String,
    pub http: String,
    pub gossip: String,
    pub version: String,
    pub state: NodeState,
}

/// A node as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenNode {
    pub info: NodeInfo,
    pub alive: bool,
    /// When that began, on this process's monotonic clock.
    pub since: Duration,
}

/// What is seen at a moment: all that live, as far as gossip knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    pub alive: Vec<NodeInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Whom to be connected to, all of them.
    Dial(Vec<Target>),
    /// This run of the node is silent or over: end its session.
    DropSession {
        node: NodeId,
        boot: BootId,
    },
    Alive(NodeId),
    Dead(NodeId),
    /// Two living nodes bear one name.
    SameName {
        name: String,
        nodes: [NodeId; 2],
    },
    /// Two living processes have one id: a data directory was copied. The one that was known counts; if none was, the later one.
    SameNode {
        node: NodeId,
        at: [String; 2],
    },
}

/// The fleet as this node sees it. Pure: the same sightings at the same times give the same view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    me: NodeId,
    pub nodes: BTreeMap<NodeId, SeenNode>,
    /// Reported, as long as they last.
    same_names: BTreeSet<[NodeId; 2]>,
    same_nodes: BTreeSet<NodeId>,
}

impl View {
    pub fn new(me: NodeId) -> Self {
        Self { me, nodes: BTreeMap::new(), same_names: BTreeSet::new(), same_nodes: BTreeSet::new() }
    }

    pub fn alive(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.alive).map(|node| &node.info)
    }

    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.alive)
    }

    pub fn step(&mut self, sighting: &Sighting, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let seen = self.newest(sighting, &mut effects);
        let before: BTreeSet<Target> = self.targets().into_iter().collect();
        for (node, known) in &mut self.nodes {
            if known.alive && !seen.contains_key(node) {
                (known.alive, known.since) = (false, now);
                effects.push(Effect::DropSession { node: *node, boot: known.info.boot });
                effects.push(Effect::Dead(*node));
            }
        }
        for (node, info) in seen {
            let known = self.nodes.get_mut(&node);
            match known {
                None => {
                    self.nodes.insert(node, SeenNode { info, alive: true, since: now });
                    effects.push(Effect::Alive(node));
                }
                // Gossip may still hold a former run alive when a later one is known to be over.
                Some(known) if info.boot < known.info.boot => {}
                Some(known) => {
                    if known.alive && known.info.boot != info.boot {
                        effects.push(Effect::DropSession { node, boot: known.info.boot });
                    }
                    if !known.alive || known.info.boot != info.boot {
                        (known.alive, known.since) = (true, now);
                        effects.push(Effect::Alive(node));
                    }
                    known.info = info;
                }
            }
        }
        self.forget(now);
        self.report_same_names(&mut effects);
        let targets = self.targets();
        if before != targets.iter().cloned().collect() {
            effects.push(Effect::Dial(targets));
        }
        effects
    }

    /// The latest run of each node.
    fn newest(&mut self, sighting: &Sighting, effects: &mut Vec<Effect>) -> BTreeMap<NodeId, NodeInfo> {
        let mut newest: BTreeMap<NodeId, NodeInfo> = BTreeMap::new();
        let mut doubled = BTreeMap::new();
        for info in &sighting.alive {
            match newest.get(&info.node) {
                Some(other) => {
                    // A run that was restarted in its place is no copy.
                    if other.peer != info.peer {
                        doubled.insert(info.node, [other.peer.clone(), info.peer.clone()]);
                    }
                    // Of two places the one that is known counts, as long as it lives.
                    let known = self.nodes.get(&info.node).filter(|node| node.alive && other.peer != info.peer);
                    let counts = known.map_or(other.boot < info.boot, |known| known.info.boot == info.boot);
                    if counts {
                        newest.insert(info.node, info.clone());
                    }
                }
                None => drop(newest.insert(info.node, info.clone())),
            }
        }
        self.same_nodes.retain(|node| doubled.contains_key(node));
        for (node, at) in doubled {
            if self.same_nodes.insert(node) {
                effects.push(Effect::SameNode { node, at });
            }
        }
        newest
    }

    fn report_same_names(&mut self, effects: &mut Vec<Effect>) {
        let mut by_name: BTreeMap<&str, NodeId> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for info in self.nodes.values().filter(|node| node.alive).map(|node| &node.info) {
            if let Some(other) = by_name.insert(&info.name, info.node) {
                found.insert([other, info.node], info.name.clone());
            }
        }
        self.same_names.retain(|pair| found.contains_key(pair));
        for (nodes, name) in found {
            if self.same_names.insert(nodes) {
                effects.push(Effect::SameName { name, nodes });
            }
        }
    }

    fn forget(&mut self, now: Duration) {
        self.nodes.retain(|_, node| node.alive || now < node.since + FORGET_AFTER);
        while self.nodes.len() > NODES_MAX {
            let longest_dead = self.nodes.iter().filter(|(_, node)| !node.alive).min_by_key(|(_, node)| node.since).map(|(id, _)| *id);
            let Some(node) = longest_dead else { return };
            self.nodes.remove(&node);
        }
    }

    fn targets(&self) -> Vec<Target> {
        let others = self.alive().filter(|info| info.node != self.me);
        others.map(|info| Target { node: Some(info.node), address: info.peer.clone() }).collect()
    }
}

#[cfg(test)]
mod tests;
