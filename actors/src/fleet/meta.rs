//! What a fleet has to agree on besides its data: who belongs to it, where each shard is, how metrics are defined. One Raft group over the nodes keeps it
//! ([`machine`]); every node has a copy. Pure: the same commands in the same order make the same state.

pub mod group;
pub mod machine;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallymesh_protocol::definition::{DefinitionSet, MetricDefinition};
use tallymesh_protocol::event::command::ShardSettings;

use crate::founding::Founder;
use crate::founding::join::{KnownMember, Verdict, decide};
use crate::peer::NodeId;

/// What a member is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    Active,
    /// It gives its shards away.
    Draining,
    /// Its place was taken by another node, or it was removed: it does not come back under this id.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub name: String,
    /// Where peers dial it.
    pub address: String,
    pub state: MemberState,
    /// The newest format of log entries that its build reads; 0 as long as it has not said so.
    #[serde(default)]
    pub reads: u16,
}

/// Where the replicas of a shard are to be. Who is in its group now may lag behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Numbers of members; the first is to lead when it can.
    pub replicas: Vec<u64>,
    /// 0 as it was founded; one more with every change.
    pub generation: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaState {
    /// Empty until the cluster is founded.
    pub cluster_id: String,
    pub replication: u8,
    pub settings: Option<ShardSettings>,
    /// By number in replica groups.
    pub members: BTreeMap<u64, Member>,
    /// By shard.
    pub placement: Vec<Placement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaCommand {
    /// The first one. Later ones change nothing.
    Found {
        cluster_id: String,
        shards: u16,
        replication: u8,
        settings: ShardSettings,
        members: Vec<Founder>,
    },
    /// A node asks to be let in; `dead` are members that are known not to live.
    LetIn {
        asker: Founder,
        dead: Vec<NodeId>,
    },
    /// A member's present name and address, and what its build reads.
    Describe {
        member: Founder,
    },
    SetState {
        member: u64,
        state: MemberState,
    },
    /// Refused unless the placement is still the one that it was planned on.
    Place {
        shard: u16,
        from_generation: u64,
        replicas: Vec<u64>,
    },
    /// Refused unless this is still the version that is followed.
    Define {
        from_version: u64,
        definitions: Vec<MetricDefinition>,
    },
}

impl MetaState {
    pub fn is_founded(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// Those who take part.
    pub fn present(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.members.iter().filter(|(_, member)| member.state != MemberState::Gone).map(|(number, member)| (*number, member))
    }

    pub fn is_active(&self, member: u64) -> bool {
        self.members.get(&member).is_some_and(|member| member.state == MemberState::Active)
    }

    /// The newest format of log entries that every member reads. While a fleet is upgraded node by node it is the old one; 0 before all have said.
    pub fn format(&self) -> u16 {
        self.present().map(|(_, member)| member.reads).min().unwrap_or(0)
    }

    /// Shards that have a replica on this member.
    pub fn shards_of(&self, member: u64) -> impl Iterator<Item = u16> {
        let placed = self.placement.iter().enumerate();
        placed.filter(move |(_, placement)| placement.replicas.contains(&member)).map(|(shard, _)| shard as u16)
    }

    /// # Errors
    /// Why the command changes nothing; for people.
    pub fn apply(&mut self, command: MetaCommand) -> Result<(), String> {
        match command {
            MetaCommand::Found { cluster_id, shards, replication, settings, members } => {
                if self.is_founded() {
                    return Ok(());
                }
                self.members = members.into_iter().map(|founder| (founder.node.member(), Member::from(founder))).collect();
                let numbers: Vec<u64> = self.members.keys().copied().collect();
                let placed =
                    (0..shards).map(|shard| Placement { replicas: founding_replicas(&numbers, replication, shard), generation: 0 });
                self.placement = placed.collect();
                self.cluster_id = cluster_id;
                self.replication = replication;
                self.settings = Some(settings);
                Ok(())
            }
            MetaCommand::LetIn { asker, dead } => self.let_in(asker, &dead),
            MetaCommand::Describe { member } => {
                let number = member.node.member();
                let bearer =
                    self.present().find(|(other, known)| *other != number && known.name == member.name).map(|(_, known)| known.node);
                if let Some(bearer) = bearer {
                    return Err(format!("node {bearer} bears the name {} already: choose another --node", member.name));
                }
                match self.members.get_mut(&number) {
                    Some(known) if known.node == member.node && known.state != MemberState::Gone => {
                        (known.name, known.address, known.reads) = (member.name, member.address, member.reads);
                        Ok(())
                    }
                    _ => Err(format!("node {} is no member (any more): start it with an empty directory", member.node)),
                }
            }
            MetaCommand::SetState { member, state } => match self.members.get_mut(&member) {
                Some(known) if known.state == MemberState::Gone => Err(format!("node {} is gone for good", known.name)),
                Some(known) => {
                    known.state = state;
                    Ok(())
                }
                None => Err("there is no such node".to_owned()),
            },
            MetaCommand::Place { shard, from_generation, replicas } => self.place(shard, from_generation, replicas),
            MetaCommand::Define { from_version, definitions } => self.define(from_version, definitions),
        }
    }

    fn let_in(&mut self, asker: Founder, dead: &[NodeId]) -> Result<(), String> {
        let known = |member: &Member| KnownMember { node: member.node, name: member.name.clone(), alive: !dead.contains(&member.node) };
        if self.members.get(&asker.node.member()).is_some_and(|member| member.state == MemberState::Gone) {
            return Err(format!("node {} was replaced: start it with an empty directory", asker.node));
        }
        let written = self.format();
        if asker.reads < written {
            let reads = asker.reads;
            return Err(format!(
                "the cluster writes log format {written}, which the build of this node (up to {reads}) does not read: upgrade it first"
            ));
        }
        let members: Vec<KnownMember> = self.present().map(|(_, member)| known(member)).collect();
        let number = asker.node.member();
        match decide(&members, asker.node, &asker.name) {
            Verdict::Refuse(reason) => return Err(reason),
            Verdict::IsMember | Verdict::Add => {}
            Verdict::Replace(old) => {
                let old = old.member();
                if let Some(member) = self.members.get_mut(&old) {
                    member.state = MemberState::Gone;
                }
                for placement in self.placement.iter_mut().filter(|placement| placement.replicas.contains(&old)) {
                    placement.replicas.iter_mut().filter(|replica| **replica == old).for_each(|replica| *replica = number);
                    placement.generation += 1;
                }
            }
        }
        let state = self.members.get(&number).map_or(MemberState::Active, |member| member.state);
        self.members.insert(number, Member { state, ..Member::from(asker) });
        Ok(())
    }

    fn place(&mut self, shard: u16, from_generation: u64, replicas: Vec<u64>) -> Result<(), String> {
        let mut distinct = replicas.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if replicas.is_empty() || distinct.len() != replicas.len() {
            return Err(format!("shard {shard} needs at least one replica, each on another node"));
        }
        if let Some(stranger) = replicas.iter().find(|member| self.members.get(member).is_none_or(|m| m.state == MemberState::Gone)) {
            return Err(format!("{stranger} is no member"));
        }
        let Some(placement) = self.placement.get_mut(usize::from(shard)) else { return Err(format!("there is no shard {shard}")) };
        if placement.generation != from_generation {
            return Err(format!("the placement of shard {shard} has changed meanwhile: look again"));
        }
        *placement = Placement { replicas, generation: from_generation + 1 };
        Ok(())
    }

    fn define(&mut self, from_version: u64, definitions: Vec<MetricDefinition>) -> Result<(), String> {
        let Some(settings) = &mut self.settings else { return Err("there is no cluster yet".to_owned()) };
        if settings.definitions_version != from_version {
            return Err(format!("the definitions are at version {}, not {from_version}: read them again", settings.definitions_version));
        }
        let version = from_version + 1;
        DefinitionSet::compile(version, definitions.clone()).map_err(|e| e.to_string())?;
        (settings.definitions_version, settings.definitions) = (version, definitions);
        Ok(())
    }
}

impl From<Founder> for Member {
    fn from(founder: Founder) -> Self {
        Self { node: founder.node, name: founder.name, address: founder.address, state: MemberState::Active, reads: founder.reads }
    }
}

/// Neighbours in a ring, so that every member leads as many shards as any other, give or take one, and the shards of a lost one fall to all.
fn founding_replicas(members: &[u64], replication: u8, shard: u16) -> Vec<u64> {
    let count = members.len();
    let copies = usize::from(replication).min(count);
    let shard = usize::from(shard);
    // The second copy is another neighbour in every round: a lost leader's shards go to different nodes.
    let stride = if count > 2 { 1 + shard / count % (count - 1) } else { 1 };
    let mut replicas: Vec<u64> = Vec::with_capacity(copies);
    let mut at = shard % count.max(1);
    while replicas.len() < copies {
        let member = members[at % count];
        if replicas.contains(&member) {
            at += 1;
        } else {
            replicas.push(member);
            at += stride;
        }
    }
    replicas
}

#[cfg(test)]
mod tests;
