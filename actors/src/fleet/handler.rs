//! Answers what other nodes ask this one.

use std::collections::BTreeSet;
use std::sync::{OnceLock, Weak};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::ShardId;
use tokio::time::Instant;

use super::messages::{self, Ask, Beat, Lead, Proposed};
use super::meta::MetaCommand;
use super::{ASK_TIME_MAX, Fleet, HANDED_TIME_MAX, Inner, VOTERS_BY_TWO_MAX};
use crate::founding::Founder;
use crate::founding::driver::Gate;
use crate::mesh::{AppendError, Mesh, ShardAnswer};
use crate::peer::{Handler, Refusal, RefusalCode, Request, RpcKind};
use crate::raft::RaftReplica;
use crate::replicator::{Replicator, ReplicatorError};

/// What the peers are started with: the node behind it comes a moment later.
#[derive(Default)]
pub struct Door(pub OnceLock<Weak<Inner>>);

impl Handler for Door {
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Some(inner) = self.0.get().and_then(Weak::upgrade) else {
            return futures::future::ready(Err(Refusal::new(RefusalCode::Overloaded, "this node is starting, or ends"))).boxed();
        };
        let fleet = Fleet { inner };
        async move { fleet.handle(request).await }.boxed()
    }
}

/// Lets nodes in by what the metadata group says.
struct MetaGate(Fleet);

impl Gate for MetaGate {
    fn let_in(&self, asker: Founder) -> BoxFuture<'static, Result<(), String>> {
        let fleet = self.0.clone();
        async move {
            // Dead is who is neither heard of nor connected.
            let (alive, connected) = (fleet.alive(), fleet.connected());
            let state = fleet.state();
            let is_dead = |number: &u64| !alive.contains(number) && !connected.contains(number);
            let dead = state.present().filter(|(number, _)| is_dead(number)).map(|(_, member)| member.node).collect();
            fleet.propose(MetaCommand::LetIn { asker, dead }, ASK_TIME_MAX).await
        }
        .boxed()
    }
}

fn failed(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Failed, detail.to_string())
}

impl Fleet {
    async fn handle(self, request: Request) -> Result<Bytes, Refusal> {
        match request.kind {
            RpcKind::Vote | RpcKind::AppendEntries | RpcKind::InstallSnapshot => self.inner.server.handle(request).await,
            RpcKind::Founding | RpcKind::Join => {
                let gate = self.meta().map(|_| std::sync::Arc::new(MetaGate(self.clone())) as std::sync::Arc<dyn Gate>);
                self.inner.founding.handle(request, gate).await
            }
            RpcKind::Ingest => {
                let parts = messages::decode_parts(&request.body)?;
                let mut outcomes = self.mesh()?.append_here(parts, left(request.deadline)).await;
                if self.is_leaving() {
                    // Its end is no reason to fail: others lead, or soon will.
                    for outcome in &mut outcomes {
                        if let Err(AppendError::Stopped { shard, .. }) = outcome {
                            *outcome = Err(AppendError::NotLeader { shard: *shard, leader: None });
                        }
                    }
                }
                messages::encode_outcomes(&outcomes)
            }
            RpcKind::Query | RpcKind::FollowerQuery => {
                let (shards, query) = messages::decode_query(&request.body)?;
                let query = tallymesh_protocol::question::wire::decode_query(&query)
                    .map_err(|e| Refusal::new(RefusalCode::Invalid, e.to_string()))?;
                let as_follower = request.kind == RpcKind::FollowerQuery;
                let answers = self.mesh()?.query_here(&shards, query.into(), left(request.deadline), as_follower).await.answers;
                let encode = |answers: &[(ShardId, ShardAnswer)]| tallymesh_protocol::question::wire::encode_answers(answers);
                encode(&answers).or_else(|error| {
                    // What does not fit into a message does not fit into an answer either.
                    let detail = format!("the answer is too large to be sent between nodes ({error}): ask for a shorter range, a coarser step or fewer groups");
                    let problem = Problem::new(ErrorCode::TooManyCells, detail);
                    encode(&answers.iter().map(|(shard, _)| (*shard, Err(problem.clone()))).collect::<Vec<_>>())
                }).map_err(failed)
            }
            RpcKind::ReadIndex => {
                let replica = self.replica(request.shard).ok_or_else(|| failed("there is no such replica here"))?;
                match tokio::time::timeout_at(request.deadline, replica.read_barrier()).await {
                    Ok(Ok(index)) => messages::to_bytes(index),
                    Ok(Err(error)) => Err(failed(error)),
                    Err(_) => Err(failed("not in time")),
                }
            }
            RpcKind::Metadata => self.answer(messages::from_bytes(&request.body)?, request.from.member(), request.deadline).await,
        }
    }

    fn mesh(&self) -> Result<Mesh, Refusal> {
        let inner = self.inner.mesh.get().and_then(Weak::upgrade);
        inner.map(Mesh::from_inner).ok_or_else(|| Refusal::new(RefusalCode::Overloaded, "this node is starting, or ends"))
    }

    async fn answer(&self, ask: Ask, from: u64, deadline: Instant) -> Result<Bytes, Refusal> {
        match ask {
            Ask::Beat => messages::to_bytes(self.beat()),
            Ask::Propose(command) => {
                let Some(meta) = self.meta() else { return Err(failed("this node belongs to no cluster yet")) };
                messages::to_bytes(match meta.propose(command, left(deadline)).await {
                    Ok(Ok(())) => Proposed::Done,
                    Ok(Err(reason)) => Proposed::Refused(reason),
                    Err(ReplicatorError::NotLeader { leader }) => Proposed::NotLeader(leader),
                    Err(error) => Proposed::Failed(error.to_string()),
                })
            }
            Ask::Lost { shard } => messages::to_bytes(self.has_lost(ShardId(shard)).await),
            Ask::Stand { shard } => {
                let shard = ShardId(shard);
                let raft = self.raft_of(shard).ok_or_else(|| failed("there is no such replica here"))?;
                if RaftReplica::group_of(&raft).voters.len() > VOTERS_BY_TWO_MAX {
                    // Once: those who have let go of the leader would agree that it is lost, and have it stand again while their votes are on their way.
                    self.hands_over(shard, HANDED_TIME_MAX);
                }
                if self.replica(shard).is_none_or(|replica| replica.may_stand()) {
                    // A group that has ended elects nobody.
                    let _ = raft.trigger().elect().await;
                }
                messages::to_bytes(())
            }
            Ask::LetGo { shard, term, heir } => {
                let shard = ShardId(shard);
                let raft = self.raft_of(shard).ok_or_else(|| failed("there is no such replica here"))?;
                let group = RaftReplica::group_of(&raft);
                // Nobody else may ask it, and late it would depose the next leader.
                let may_ask = group.leader == Some(from) && !group.leads && group.term == term && group.voters.contains(&heir);
                if !may_ask || heir == self.me() || Instant::now() >= deadline {
                    return messages::to_bytes(false);
                }
                self.hands_over(shard, HANDED_TIME_MAX);
                messages::to_bytes(RaftReplica::let_go_of(&raft, term, heir).await)
            }
            Ask::Status => messages::to_bytes(self.mesh()?.reports().await),
            Ask::EventNames { shards } => messages::to_bytes(self.mesh()?.event_names_here(&shards).await),
            Ask::MetricUses { shards } => messages::to_bytes(self.mesh()?.metric_uses_here(&shards).await),
        }
    }

    fn beat(&self) -> Beat {
        let lead = |(shard, replica): (ShardId, std::sync::Arc<crate::raft::RaftReplica>)| {
            let group = replica.group();
            let list = |members: BTreeSet<u64>| members.into_iter().collect();
            group.leads.then(|| Lead {
                shard: shard.0,
                term: group.term,
                voters: list(group.voters),
                learners: list(group.learners),
                settled: group.is_settled && !group.is_joint,
            })
        };
        let definitions_version = self.state().settings.as_ref().map_or(0, |settings| settings.definitions_version);
        Beat {
            leads: self.replicas().into_iter().filter_map(lead).collect(),
            wall_ms: self.inner.clock.wall_ms(),
            leads_metadata: self.meta().is_some_and(|meta| meta.leads()),
            // Who is off gets no leads either.
            leaving: self.is_leaving() || self.clock_offset().is_far_off(),
            definitions_version,
        }
    }
}

fn left(deadline: Instant) -> std::time::Duration {
    deadline.saturating_duration_since(Instant::now())
}
