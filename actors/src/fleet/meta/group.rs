//! This node's replica of the metadata group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::network::RaftNetworkFactory;
use openraft::{ChangeMembers, Raft, ServerState, SnapshotPolicy};
use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::disk::Disk;
use tallymesh_storage::wal::Wal;
use tokio::sync::watch;

use super::machine::{MetaMachine, encode};
use super::{MetaCommand, MetaState};
use crate::raft::{Blocking, DurableIndex, LogStore, Peer, ShardRaft, StopReason, config};
use crate::replicator::ReplicatorError;

/// The group's number among those that share the node's log; no shard has it.
pub const META: ShardId = ShardId(u16::MAX - 1);
/// Nodes that vote in the group; the others only follow it.
pub const META_VOTERS_MAX: usize = 5;
/// Entries after which the state is saved, so that the group never holds the log back.
const SAVE_EVERY_ENTRIES: u64 = 16;

const _: () = assert!(tallymesh_protocol::limits::SHARDS_MAX < META.0 as usize);

/// Cheap to clone; all clones are the same replica.
#[derive(Clone)]
pub struct MetaGroup {
    me: u64,
    /// Another one after it has ended by itself.
    raft: Arc<RwLock<Raft<ShardRaft>>>,
    machine: MetaMachine,
    wal: Wal,
    durable: DurableIndex,
    stop: StopReason,
}

/// Where its files are, and the log.
pub struct MetaStorage {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub wal: Wal,
    pub blocking: Blocking,
}

impl MetaGroup {
    /// # Errors
    /// A log or a file that does not read back.
    pub async fn open(me: u64, storage: MetaStorage, network: impl RaftNetworkFactory<ShardRaft>) -> Result<Self, String> {
        let MetaStorage { disk, dir, wal, blocking } = storage;
        let stop = StopReason::new(META);
        let (durable, durable_index) = DurableIndex::new(None);
        let machine = MetaMachine::open(disk, dir, blocking, stop.clone(), durable).map_err(|e| e.to_string())?;
        let raft = start(me, &wal, &durable_index, &machine, &stop, network).await?;
        Ok(Self { me, raft: Arc::new(RwLock::new(raft)), machine, wal, durable: durable_index, stop })
    }

    pub fn raft(&self) -> Raft<ShardRaft> {
        self.raft.read().clone()
    }

    /// Why openraft ended it, where nothing is wrong with its disk or its state: it can go on as another one.
    pub fn ended_by_itself(&self) -> Option<String> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow();
        let error = metrics.running_state.as_ref().err()?;
        self.stop.get().is_none().then(|| error.to_string())
    }

    /// Goes on after [`Self::ended_by_itself`], on the same log and state.
    ///
    /// # Errors
    /// A log that does not read back.
    pub async fn begin_again(&self, network: impl RaftNetworkFactory<ShardRaft>) -> Result<(), String> {
        // All that it still does has to be over first.
        self.shutdown().await;
        let raft = start(self.me, &self.wal, &self.durable, &self.machine, &self.stop, network).await?;
        *self.raft.write() = raft;
        Ok(())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.machine.watch()
    }

    pub fn state(&self) -> Arc<MetaState> {
        self.machine.watch().borrow().clone()
    }

    pub fn leader(&self) -> Option<u64> {
        self.raft().metrics().borrow().current_leader
    }

    pub fn leads(&self) -> bool {
        self.raft().metrics().borrow().state == ServerState::Leader
    }

    pub fn stopped(&self) -> Option<String> {
        self.stop.get()
    }

    /// Makes the group, if it is new; founders all do, with the same members.
    ///
    /// # Errors
    /// It stopped.
    pub async fn found(&self, members: BTreeMap<u64, Peer>) -> Result<(), String> {
        let voters: BTreeMap<u64, Peer> = members.into_iter().take(META_VOTERS_MAX).collect();
        if !voters.contains_key(&self.me) {
            return Ok(());
        }
        match self.raft().initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(self.stop.get().unwrap_or_else(|| error.to_string())),
        }
    }

    /// Proposes where this node leads; the inner result is what the state made of it.
    ///
    /// # Errors
    /// It does not lead, or does not get through; whether the command is in the log is open then.
    pub async fn propose(&self, command: MetaCommand, wait: Duration) -> Result<Result<(), String>, ReplicatorError> {
        let command = match encode(command) {
            Ok(command) => command,
            Err(reason) => return Ok(Err(reason)),
        };
        let written = tokio::time::timeout(wait, self.raft().client_write(command)).await.map_err(|_| ReplicatorError::NoQuorum)?;
        match written {
            Ok(written) => Ok(written.data.parts.into_iter().next().and_then(|part| part.refused).map_or(Ok(()), Err)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(ReplicatorError::NotLeader { leader: to.leader_id }),
            Err(error) => Err(ReplicatorError::Stopped(self.stop.get().unwrap_or_else(|| error.to_string()))),
        }
    }

    /// On the leader: one step nearer to a group of those who are present, with the first few of them that live as voters. Whether there was one to take.
    pub async fn tend(&self, alive: &BTreeSet<u64>) -> bool {
        let (voters, learners) = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow();
            if metrics.state != ServerState::Leader || metrics.membership_config.membership().get_joint_config().len() > 1 {
                return false;
            }
            let membership = metrics.membership_config.membership();
            (membership.voter_ids().collect::<BTreeSet<u64>>(), membership.learner_ids().collect::<BTreeSet<u64>>())
        };
        let state = self.state();
        let present: BTreeMap<u64, Peer> = state.present().map(|(number, m)| (number, Peer { address: m.address.clone() })).collect();
        if let Some((number, peer)) = present.iter().find(|(number, _)| !voters.contains(number) && !learners.contains(number)) {
            return self.change(ChangeMembers::AddNodes(BTreeMap::from([(*number, peer.clone())])), true).await;
        }
        // A gone voter's place goes to one that lives and follows already.
        if let Some(gone) = voters.iter().find(|voter| !present.contains_key(voter)) {
            let mut wanted: BTreeSet<u64> = voters.iter().copied().filter(|voter| voter != gone).collect();
            wanted.extend(learners.iter().find(|learner| present.contains_key(learner) && alive.contains(learner)));
            return !wanted.is_empty() && self.change(ChangeMembers::ReplaceAllVoters(wanted), false).await;
        }
        if voters.len() < META_VOTERS_MAX
            && let Some(next) = learners.iter().find(|learner| present.contains_key(learner) && alive.contains(learner))
        {
            return self.change(ChangeMembers::AddVoterIds(BTreeSet::from([*next])), true).await;
        }
        if let Some(gone) = learners.iter().find(|learner| !present.contains_key(learner)) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([*gone])), true).await;
        }
        false
    }

    async fn change(&self, change: ChangeMembers<u64, Peer>, retain: bool) -> bool {
        const CHANGE_TIME_MAX: Duration = Duration::from_secs(5);
        match tokio::time::timeout(CHANGE_TIME_MAX, self.raft().change_membership(change, retain)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the metadata group could not be changed; it is tried again");
                false
            }
            Err(_) => false,
        }
    }

    /// What is not saved yet is, so that the group holds no log back.
    pub fn save(&self) {
        let metrics = self.raft().metrics();
        let behind = {
            let metrics = metrics.borrow();
            metrics.last_applied > metrics.snapshot
        };
        if behind {
            let _ = futures::FutureExt::now_or_never(self.raft().trigger().snapshot());
        }
    }

    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "the metadata group did not end cleanly");
        }
    }
}

async fn start(
    me: u64,
    wal: &Wal,
    durable: &DurableIndex,
    machine: &MetaMachine,
    stop: &StopReason,
    network: impl RaftNetworkFactory<ShardRaft>,
) -> Result<Raft<ShardRaft>, String> {
    let log = LogStore::open(wal.clone(), META, durable.clone(), stop.clone()).map_err(|e| e.to_string())?;
    let config = openraft::Config { snapshot_policy: SnapshotPolicy::LogsSinceLast(SAVE_EVERY_ENTRIES), ..config("metadata", 0) };
    let config = config.validate().map_err(|e| e.to_string())?;
    let raft = Raft::new(me, Arc::new(config), network, log, machine.clone()).await;
    let raft = raft.map_err(|e| stop.get().unwrap_or_else(|| e.to_string()))?;
    // As of every group of a fleet.
    raft.runtime_config().elect(false);
    Ok(raft)
}
