//! What operators see of a fleet, and what they may ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tallymesh_protocol::hash::ShardId;

use super::Fleet;
use super::files::Arriving;
use super::messages::{Ask, NodeStatus};
use super::meta::{MemberState, MetaCommand, MetaState};
use super::placement::plan::{self, Census, Step};
use super::start::deviations;
use super::watch::failovers::Failover;
use crate::mesh::{Mesh, ShardStatus};

/// A decision of the metadata group is waited for so long.
const DECIDE_TIME_MAX: Duration = Duration::from_secs(5);
/// Steps that a dry run shows at most.
const STEPS_SHOWN_MAX: usize = 4_096;

/// A node as this one sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNode {
    pub member: u64,
    pub id: String,
    pub name: String,
    pub peer: String,
    /// Where it serves HTTP, if it was ever seen.
    pub http: Option<String>,
    pub version: Option<String>,
    pub state: MemberState,
    pub alive: bool,
    /// Since when, as far as this node has seen.
    pub since: Option<Duration>,
    pub is_me: bool,
    /// Replicas placed on it.
    pub replicas: usize,
    /// Shards that it leads.
    pub leads: usize,
    /// Settings that its configuration has otherwise than the cluster, whose count; unknown while the node does not say.
    pub deviates: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterReplica {
    pub member: u64,
    /// It votes; else it only follows.
    pub votes: bool,
    /// Unknown while the node does not answer.
    pub status: Option<ShardStatus>,
    /// Of the state at `status.applied_index`.
    pub checksum: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterShard {
    pub shard: u16,
    pub leader: Option<u64>,
    /// Where it is to be; the first is to lead.
    pub placed: Vec<u64>,
    pub replicas: Vec<ClusterReplica>,
    /// Replicas on their way to where they are placed, and how far their snapshots are, if this node is it.
    pub coming: Vec<(u64, Option<Arriving>)>,
    pub going: Vec<u64>,
    pub last_failover: Option<Failover>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterView {
    pub cluster_id: String,
    pub replication: u8,
    pub nodes: Vec<ClusterNode>,
    pub shards: Vec<ClusterShard>,
    pub metadata_leader: Option<u64>,
}

/// Why nothing is moved; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MoveRefused(pub String);

impl Fleet {
    /// The whole fleet: every node is asked; one that does not answer is shown as such.
    pub async fn cluster_view(&self, mesh: &Mesh) -> ClusterView {
        let state = self.state();
        let others: Vec<u64> = self.connected().into_iter().filter(|member| *member != self.me()).collect();
        let asked = others.iter().map(|member| async move { (*member, self.ask_for::<NodeStatus>(*member, Ask::Status).await) });
        let (mine, theirs) = tokio::join!(mesh.reports(), join_all(asked));
        let known: BTreeMap<u64, NodeStatus> =
            theirs.into_iter().filter_map(|(member, status)| Some((member, status?))).chain([(self.me(), mine)]).collect();
        let shards: Vec<ClusterShard> = (0..state.placement.len() as u16).map(|shard| self.shard_view(&state, shard, &known)).collect();
        let nodes = state.present().map(|(number, _)| self.node_view(&state, number, &shards, known.get(&number))).collect();
        ClusterView {
            cluster_id: state.cluster_id.clone(),
            replication: state.replication,
            nodes,
            shards,
            metadata_leader: self.meta().and_then(|meta| meta.leader()),
        }
    }

    /// What the configuration of this node has otherwise than the cluster agreed on.
    pub(crate) fn deviations(&self) -> Vec<String> {
        let state = self.state();
        let agreed = state.settings.as_ref();
        agreed.map(|agreed| deviations(&self.inner.settings, agreed)).unwrap_or_default().into_iter().map(str::to_owned).collect()
    }

    fn node_view(&self, state: &MetaState, number: u64, shards: &[ClusterShard], said: Option<&NodeStatus>) -> ClusterNode {
        let member = &state.members[&number];
        let view = self.inner.view.borrow();
        let seen = view.nodes.get(&member.node);
        let is_me = number == self.me();
        ClusterNode {
            member: number,
            id: member.node.to_string(),
            name: member.name.clone(),
            peer: member.address.clone(),
            http: seen.map(|seen| seen.info.http.clone()),
            version: seen.map(|seen| seen.info.version.clone()),
            state: member.state,
            alive: is_me || self.connected().contains(&number),
            since: seen.map(|seen| self.now().saturating_sub(seen.since)),
            is_me,
            replicas: state.shards_of(number).count(),
            leads: shards.iter().filter(|shard| shard.leader == Some(number)).count(),
            deviates: said.and_then(|said| said.deviates.clone()),
        }
    }

    fn shard_view(&self, state: &MetaState, shard: u16, known: &BTreeMap<u64, NodeStatus>) -> ClusterShard {
        let reports: BTreeMap<u64, _> = known
            .iter()
            .filter_map(|(member, status)| Some((*member, status.shards.iter().find(|report| report.status.shard == shard)?)))
            .collect();
        // Whoever believes to lead in the latest term does.
        let leader = reports
            .iter()
            .filter(|(member, report)| report.status.leader == Some(**member) && report.status.stopped.is_none())
            .max_by_key(|(_, report)| report.status.term)
            .map(|(member, _)| *member);
        let group = self.replica(ShardId(shard)).map(|replica| replica.group());
        // Who is connected and only slow to say how it is still leads, as far as the replica here knows.
        let is_slow = |member: &u64| !known.contains_key(member) && self.connected().contains(member);
        let leader = leader.or_else(|| group.as_ref().and_then(|group| group.leader).filter(is_slow));
        let heard = self.inner.leaders.of(shard, self.now());
        let (voters, learners): (BTreeSet<u64>, BTreeSet<u64>) = match (group, heard) {
            (Some(group), _) => (group.voters, group.learners),
            (None, Some(heard)) => (heard.lead.voters.into_iter().collect(), heard.lead.learners.into_iter().collect()),
            (None, None) => (BTreeSet::new(), BTreeSet::new()),
        };
        let placed = state.placement.get(usize::from(shard)).map(|placement| placement.replicas.clone()).unwrap_or_default();
        let replica = |member: &u64| ClusterReplica {
            member: *member,
            votes: voters.contains(member),
            status: reports.get(member).map(|report| report.status.clone()),
            checksum: reports.get(member).and_then(|report| report.checksum),
        };
        let arriving = self.inner.files.arriving().get(&ShardId(shard)).copied();
        let coming = placed.iter().filter(|member| !voters.contains(member) && !voters.is_empty());
        ClusterShard {
            shard,
            leader,
            replicas: voters.union(&learners).map(replica).collect(),
            coming: coming.map(|member| (*member, arriving.filter(|_| *member == self.me()))).collect(),
            going: voters.iter().copied().filter(|member| !placed.contains(member)).collect(),
            placed,
            last_failover: self.inner.failovers.read().last(ShardId(shard)),
        }
    }

    /// Names of the members that this node has no connection to.
    pub fn unreached(&self) -> Vec<String> {
        let connected = self.connected();
        let state = self.state();
        state.present().filter(|(number, _)| !connected.contains(number)).map(|(_, member)| member.name.clone()).collect()
    }

    /// The member that bears this name.
    ///
    /// # Errors
    /// There is none.
    pub fn member_named(&self, name: &str) -> Result<u64, MoveRefused> {
        let state = self.state();
        let found = state.present().find(|(_, member)| member.name == name || member.node.to_string() == name).map(|(number, _)| number);
        found.ok_or_else(|| {
            let names: Vec<&str> = state.present().map(|(_, member)| member.name.as_str()).collect();
            MoveRefused(format!("there is no node {name}: there are {}", names.join(", ")))
        })
    }

    pub fn name_of(&self, member: u64) -> String {
        self.state().members.get(&member).map_or_else(|| format!("{member:016x}"), |member| member.name.clone())
    }

    fn census(&self) -> Census {
        let here: BTreeSet<u64> = self.alive().union(&self.connected()).copied().collect();
        Census { alive: here, lost: BTreeSet::new() }
    }

    /// What would be moved to bring the fleet into balance.
    pub fn plan(&self) -> Vec<Step> {
        plan::all(MetaState::clone(&self.state()), &self.census(), STEPS_SHOWN_MAX)
    }

    /// What draining a node would move.
    pub fn plan_drain(&self, member: u64) -> Vec<Step> {
        let mut state = MetaState::clone(&self.state());
        match state.apply(MetaCommand::SetState { member, state: MemberState::Draining }) {
            Ok(()) => plan::all(state, &self.census(), STEPS_SHOWN_MAX),
            Err(_) => Vec::new(),
        }
    }

    /// Has a node give its shards away, or take part again.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_draining(&self, member: u64, draining: bool) -> Result<(), MoveRefused> {
        let state = if draining { MemberState::Draining } else { MemberState::Active };
        self.propose(MetaCommand::SetState { member, state }, DECIDE_TIME_MAX).await.map_err(MoveRefused)
    }

    /// Has a shard led by this node, which gets a replica if it has none: in place of the leader's.
    ///
    /// # Errors
    /// Why not.
    pub async fn move_shard(&self, shard: u16, to: u64) -> Result<Step, MoveRefused> {
        let step = self.plan_move(shard, to)?;
        self.propose(step.command(), DECIDE_TIME_MAX).await.map_err(MoveRefused)?;
        Ok(step)
    }

    /// # Errors
    /// Why not.
    pub fn plan_move(&self, shard: u16, to: u64) -> Result<Step, MoveRefused> {
        let state = self.state();
        let Some(placement) = state.placement.get(usize::from(shard)) else {
            return Err(MoveRefused(format!("there is no shard {shard}: there are {}", state.placement.len())));
        };
        if !state.is_active(to) {
            return Err(MoveRefused(format!("node {} is drained: it takes no shards", self.name_of(to))));
        }
        if !self.census().alive.contains(&to) {
            return Err(MoveRefused(format!("node {} does not live", self.name_of(to))));
        }
        let mut replicas = placement.replicas.clone();
        match replicas.iter().position(|member| *member == to) {
            Some(at) => replicas.swap(0, at),
            None => replicas[0] = to,
        }
        Ok(Step {
            shard,
            from_generation: placement.generation,
            from: placement.replicas.clone(),
            to: replicas,
            reason: plan::Reason::Balance,
        })
    }

    /// Defines the metrics anew; shards follow within a moment.
    ///
    /// # Errors
    /// Why not.
    pub async fn define(
        &self,
        from_version: u64,
        definitions: Vec<tallymesh_protocol::definition::MetricDefinition>,
    ) -> Result<(), MoveRefused> {
        self.propose(MetaCommand::Define { from_version, definitions }, DECIDE_TIME_MAX).await.map_err(MoveRefused)
    }
}
