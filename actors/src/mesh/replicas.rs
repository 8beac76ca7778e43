//! Replicas of a fleet as they come and go on this node, and who leads them.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Raft, ServerState};
use tallymesh_protocol::definition::{DefinitionSet, MetricDefinition};
use tallymesh_protocol::event::command::{ShardSettings, encode_configure};
use tallymesh_protocol::hash::ShardId;

use super::slots::Slot;
use super::{Mesh, boot};
use crate::fleet::meta::MetaState;
use crate::fleet::meta::group::META;
use crate::fleet::{Fleet, VOTERS_BY_TWO_MAX};
use crate::raft::{Group, RaftReplica, Remains, ShardRaft, given_up};
use crate::shard::Shard;

/// Whoever brings files into a shard's directory is waited for so long, then another time.
const TURN_TIME_MAX: Duration = Duration::from_millis(100);
/// An heir has so long to have all that the leader has.
const CATCH_UP_TIME_MAX: Duration = Duration::from_millis(400);
/// An heir that was told to stand asks for this node's vote within this time, or was refused it: then nothing has changed, and waiting would only keep writes waiting.
const VOTE_TIME_MAX: Duration = Duration::from_millis(200);
/// An heir that was told to stand has so long to lead; then the old leader goes on, if it still does.
const STAND_TIME_MAX: Duration = Duration::from_millis(700);
/// A shard has so long to take settings; then it is tried again.
const SETTINGS_TIME_MAX: Duration = Duration::from_secs(2);
/// The old leader votes for its heir once it has led for longer than this: before, its own lease forbids it.
const LEAD_TIME_MIN: Duration = Duration::from_millis(1_600);

impl Mesh {
    /// Opens the replica that is placed here. One that cannot be opened is stopped, and says so in its status.
    pub(crate) async fn open_replica(&self, shard: ShardId) {
        let Some(fleet) = &self.inner.fleet else { return };
        if self.remains(shard).is_some_and(|remains| remains.is_going())
            && let Err(error) = self.remove_left(shard).await
        {
            fleet.removals().failed();
            tracing::warn!(%shard, error, "what was left of an earlier replica is not removed yet; then the shard is opened");
            return;
        }
        self.inner.log.take_up(shard.0);
        let opened = match boot::open_in_fleet(&self.inner.options, &self.inner.log, fleet, shard).await {
            Ok((parts, replica)) => {
                let spawned = Shard::spawn(parts).await.map_err(|detail| (shard, detail));
                spawned.map(|(running, actor)| (running, actor, replica))
            }
            Err(stopped) => Err(stopped),
        };
        match opened {
            Ok((running, actor, replica)) => {
                self.inner.actors.lock().insert(shard, actor);
                self.inner.shards.set(shard, Slot::Running(running.into()));
                fleet.add_replica(shard, replica);
            }
            Err((shard, detail)) => {
                if !matches!(self.inner.shards.get(shard), Some(Slot::Stopped { .. })) {
                    tracing::error!(%shard, detail, "the replica here cannot be opened");
                }
                self.inner.log.set_aside(shard.0);
                self.inner.shards.set(shard, Slot::Stopped { shard, detail });
            }
        }
    }

    /// Ends the replica here; its files stay, and what it voted for.
    pub(crate) async fn close_replica(&self, shard: ShardId) {
        let Some(fleet) = &self.inner.fleet else { return };
        fleet.remove_replica(shard);
        let Some(Slot::Running(running)) = self.inner.shards.get(shard) else { return };
        // So that it holds no log back while it is closed.
        running.parts.replica.trigger_snapshot();
        let _ = tokio::time::timeout(CATCH_UP_TIME_MAX, running.parts.replica.snapshot_of_now()).await;
        self.inner.shards.set(shard, Slot::Elsewhere { shard });
        running.stop();
        let actor = self.inner.actors.lock().remove(&shard);
        if let Some(actor) = actor {
            let _ = actor.await;
        }
        running.parts.replica.shutdown().await;
        self.inner.log.set_aside(shard.0);
    }

    /// What there is of a replica that is placed elsewhere; none while one is here.
    pub(crate) fn remains(&self, shard: ShardId) -> Option<Remains> {
        let is_elsewhere = matches!(self.inner.shards.get(shard), Some(Slot::Elsewhere { .. }));
        // A group that was stopped for damage stays, for whoever repairs it.
        is_elsewhere.then(|| Remains::of(&self.inner.log, shard).ok()).flatten()
    }

    /// Removes what is left of a replica here; see [`given_up::remove`].
    ///
    /// # Errors
    /// What is left goes the next time.
    pub(crate) async fn remove_left(&self, shard: ShardId) -> Result<(), String> {
        let Some(fleet) = &self.inner.fleet else { return Ok(()) };
        let turn = tokio::time::timeout(TURN_TIME_MAX, fleet.files().turn(shard)).await;
        let _turn = turn.map_err(|_| "files are still on their way there".to_owned())?;
        let options = &self.inner.options;
        let dir = boot::shard_dir(options, shard);
        let has_log = Remains::of(&self.inner.log, shard).map_err(|e| e.to_string())?;
        let is_empty = !options.disk.exists(&dir) || options.disk.list(&dir).is_ok_and(|files| files.is_empty());
        if is_empty && !has_log.has_log && !has_log.is_going() {
            return Ok(());
        }
        let removed = given_up::remove(&self.inner.log, shard, options.disk.clone(), dir, self.inner.blocking).await;
        let bytes = removed.map_err(|e| e.to_string())?;
        fleet.removals().removed(bytes);
        tracing::info!(%shard, bytes, "what was left here of a replica that was given up is removed");
        Ok(())
    }

    /// Has `heir` lead a shard that this node leads. Parts that come meanwhile wait with whoever brought them.
    pub(crate) async fn hand_over(&self, shard: ShardId, heir: u64) {
        let Some(fleet) = &self.inner.fleet else { return };
        let Some(Slot::Running(running)) = self.inner.shards.get(shard) else { return };
        let Some(replica) = fleet.local(shard).filter(|replica| replica.leadership().leads) else { return };
        // It would stand in vain, and both would go without a lead for a while.
        tokio::time::sleep(LEAD_TIME_MIN.saturating_sub(fleet.led_for(shard))).await;
        running.hold(true);
        // What was let in before is in the log first: an heir whose log lacks it is refused.
        let _ = tokio::time::timeout(CATCH_UP_TIME_MAX, running.drained()).await;
        fleet.pass_lead(shard, replica.raft(), heir).await;
        running.hold(false);
    }

    /// Defines the metrics anew. Parts that are made by older ones from then on are refused as stale.
    ///
    /// # Errors
    /// Why not; for people.
    pub async fn define(&self, from_version: u64, definitions: Vec<MetricDefinition>) -> Result<(), String> {
        if let Some(fleet) = &self.inner.fleet {
            return fleet.define(from_version, definitions).await.map_err(|refused| refused.to_string());
        }
        let _turn = self.inner.defining.lock().await;
        let here = self.definitions().version();
        if here != from_version {
            return Err(format!("the definitions are at version {here}, not {from_version}: read them again"));
        }
        let version = from_version + 1;
        let compiled = DefinitionSet::compile(version, definitions.clone()).map_err(|e| e.to_string())?;
        for shard in self.inner.shards.running() {
            let settings = ShardSettings {
                definitions_version: version,
                definitions: definitions.clone(),
                ..shard.parts.state.read().state.settings().clone()
            };
            boot::propose(&shard.parts, |stamp| encode_configure(stamp, &settings)).await?;
        }
        *self.inner.definitions.write() = Arc::new(compiled);
        Ok(())
    }

    /// The definitions, once this node has heard of any that are newer than `version`; none within `wait`. A shard may have them before this node has.
    pub async fn definitions_after(&self, version: u64, wait: Duration) -> Option<Arc<DefinitionSet>> {
        let heard = async {
            match &self.inner.fleet {
                // They are this node's from when the shards have them, which is what this is held for.
                None => drop(self.inner.defining.lock().await),
                Some(fleet) => {
                    let mut state = fleet.meta()?.watch();
                    let is_newer =
                        |state: &Arc<MetaState>| state.settings.as_ref().is_some_and(|settings| settings.definitions_version > version);
                    drop(state.wait_for(is_newer).await.ok()?);
                }
            }
            Some(self.definitions()).filter(|definitions| definitions.version() > version)
        };
        tokio::time::timeout(wait, heard).await.ok().flatten()
    }

    /// Has a shard that this node leads follow what the cluster agreed on. The last index of its log, if that may be waiting there for a majority.
    pub(crate) async fn bring_settings(&self, shard: ShardId, wanted: &ShardSettings) -> Option<u64> {
        let Some(Slot::Running(running)) = self.inner.shards.get(shard) else { return None };
        let differs = match running.parts.state.try_read() {
            Some(applied) => applied.state.settings() != wanted,
            None => false,
        };
        if !differs {
            return None;
        }
        // Without a majority it would wait for one for ever, and the node's end for it.
        match tokio::time::timeout(SETTINGS_TIME_MAX, boot::propose(&running.parts, |stamp| encode_configure(stamp, wanted))).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                tracing::info!(%shard, error, "the shard's settings could not be brought up to date; it is tried again");
                None
            }
            Err(_) => {
                tracing::info!(%shard, "the shard's settings wait for a majority");
                Some(running.parts.replica.status().last_log_index)
            }
        }
    }
}

impl Fleet {
    /// Who is to lead a shard that this node leads when it goes: of those who stay, whoever has the most of its log.
    pub(crate) fn heir(&self, shard: ShardId) -> Option<u64> {
        self.heir_in(&self.local(shard)?.group())
    }

    /// The same of the metadata group; before others those who take part, as the next one to be drained would have to hand over again.
    pub(crate) fn metadata_heir(&self) -> Option<u64> {
        let group = RaftReplica::group_of(&self.meta()?.raft());
        let state = self.state();
        let active = group.voters.iter().copied().filter(|member| state.is_active(*member)).collect();
        self.heir_in(&Group { voters: active, ..group.clone() }).or_else(|| self.heir_in(&group))
    }

    fn heir_in(&self, group: &Group) -> Option<u64> {
        if !group.leads {
            return None;
        }
        let stays = |member: &u64| *member != self.me() && self.stays(*member);
        group.voters.iter().copied().filter(stays).max_by_key(|member| (group.matched.get(member).copied(), *member))
    }

    /// Has `heir` lead the metadata group, which this node leads: placements and definitions need not wait for an election. What is proposed meanwhile is
    /// decided by either of them, or asked again ([`Fleet::propose`]).
    pub(crate) async fn hand_over_metadata(&self, heir: u64) {
        let Some(meta) = self.meta() else { return };
        tokio::time::sleep(LEAD_TIME_MIN.saturating_sub(self.led_for(META))).await;
        self.pass_lead(META, &meta.raft(), heir).await;
    }

    /// Has `heir` stand for a group that this node leads, once it has all of its log.
    async fn pass_lead(&self, group: ShardId, raft: &Raft<ShardRaft>, heir: u64) {
        let mut metrics = raft.metrics();
        let term = metrics.borrow().current_term;
        let has_all = |m: &openraft::RaftMetrics<u64, crate::raft::Peer>| {
            let has = m.replication.as_ref().and_then(|matched| matched.get(&heir)).and_then(|id| *id).map_or(0, |id| id.index);
            m.state != ServerState::Leader || m.last_log_index.is_some_and(|last| has >= last)
        };
        let mut handed = false;
        if tokio::time::timeout(CATCH_UP_TIME_MAX, metrics.wait_for(has_all)).await.is_ok() {
            // Once: every further try is a higher term, and ends a lead that the one before may have begun.
            self.hands_over(group, STAND_TIME_MAX);
            let voters = RaftReplica::group_of(raft).voters;
            if voters.len() > VOTERS_BY_TWO_MAX {
                self.have_let_go(group, term, &voters, heir).await;
            }
            self.ask_to_stand(heir, group).await;
            let voted = metrics.wait_for(|m| m.current_term > term);
            if tokio::time::timeout(VOTE_TIME_MAX, voted).await.is_ok() {
                let gone = metrics.wait_for(|m| m.current_leader == Some(heir));
                handed = tokio::time::timeout(STAND_TIME_MAX, gone).await.is_ok();
            }
        }
        if !handed {
            tracing::info!(%group, heir, "the lead was not handed over; it is tried again if it is still wanted");
        }
    }
}
