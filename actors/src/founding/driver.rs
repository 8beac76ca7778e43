//! Founding between real nodes: carries the engine's messages as calls to peers, and makes durable what has to be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::event::command::FORMAT;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::StorageError;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::Disk;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Config, Durable, Effect, Founder, Founding, Input, Membership, Message, ROUND_TIME_MAX, To, Waiting, store};
use crate::peer::{Hello, Lane, NodeId, Peers, Refusal, RefusalCode, Request, Rpc, RpcKind};
use crate::raft::Blocking;

const TICK: Duration = Duration::from_millis(50);
/// One question to another node.
const CALL_TIME_MAX: Duration = Duration::from_secs(1);
const VERSION: u8 = 1;

/// Who lets nodes in, on a node that is a member: the metadata group, by [`super::join::decide`].
pub trait Gate: Send + Sync + 'static {
    /// # Errors
    /// Why not, for the asker's operator.
    fn let_in(&self, asker: Founder) -> BoxFuture<'static, Result<(), String>>;
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u8,
    value: T,
}

fn to_bytes<T: Serialize>(value: T) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(&Versioned { version: VERSION, value });
    json.map(Bytes::from).map_err(|e| Refusal::new(RefusalCode::Failed, e.to_string()))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let read: Versioned<T> = serde_json::from_slice(bytes).map_err(|e| Refusal::new(RefusalCode::Invalid, e.to_string()))?;
    if read.version != VERSION {
        return Err(Refusal::new(RefusalCode::Invalid, format!("version {} of founding; this build speaks {VERSION}", read.version)));
    }
    Ok(read.value)
}

/// What is told to those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub membership: Option<Membership>,
    /// Why there is no membership yet.
    pub waiting: Option<Waiting>,
}

/// Answers other nodes for as long as this one runs; brings this one into a cluster.
pub struct FoundingService {
    engine: tokio::sync::Mutex<(Founding, StdRng)>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    blocking: Blocking,
    standing: watch::Sender<Standing>,
}

impl FoundingService {
    /// # Errors
    /// The disk's.
    pub fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        clock: Arc<dyn Clock>,
        blocking: Blocking,
    ) -> Result<Arc<Self>, StorageError> {
        let durable = store::read(&*disk, &dir)?;
        let standing = watch::Sender::new(Standing { membership: durable.membership.clone(), waiting: None });
        let engine = tokio::sync::Mutex::new((Founding::new(config, durable), StdRng::from_os_rng()));
        Ok(Arc::new(Self { engine, disk, dir, clock, blocking, standing }))
    }

    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Answers a question of kind [`RpcKind::Founding`] or [`RpcKind::Join`].
    ///
    /// # Errors
    /// What does not read, a disk that does not take what has to be durable, or why the asker is not let in.
    pub async fn handle(&self, request: Request, gate: Option<Arc<dyn Gate>>) -> Result<Bytes, Refusal> {
        if request.kind == RpcKind::Join {
            let asker: Founder = from_bytes(&request.body)?;
            let refuse = |reason: String| Refusal::new(RefusalCode::NotMember, reason);
            let member = self.standing.borrow().membership.clone().zip(gate);
            let Some((membership, gate)) = member else { return Err(refuse("this node belongs to no cluster yet".to_owned())) };
            if asker.node != request.from {
                return Err(refuse("a node can only ask for itself".to_owned()));
            }
            gate.let_in(asker).await.map_err(refuse)?;
            return to_bytes(membership.cluster_id());
        }
        let message: Message = from_bytes(&request.body)?;
        let effects = self.step(Input::Message { from: request.from, message }).await?;
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Send { to: To::Node(node), message: message @ (Message::Report(_) | Message::Accepted(_)) } if node == request.from => {
                Some(message)
            }
            _ => None,
        });
        match answer {
            Some(message) => to_bytes(message),
            None => Err(Refusal::new(RefusalCode::Invalid, "an answer where a question was expected")),
        }
    }

    /// Asks and proposes until this node is a member. Dropping the future stops that; nothing is lost.
    ///
    /// # Errors
    /// A disk that does not take what has to be durable.
    pub async fn run(self: Arc<Self>, peers: Peers) -> Result<Membership, Refusal> {
        let mut tick = tokio::time::interval(TICK);
        let mut calls: JoinSet<Option<Input>> = JoinSet::new();
        loop {
            if let Some(membership) = self.standing.borrow().membership.clone() {
                return Ok(membership);
            }
            let input = tokio::select! {
                biased;
                Some(done) = calls.join_next(), if !calls.is_empty() => match done {
                    Ok(Some(input)) => input,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::error!(%error, "a question to a founder failed");
                        continue;
                    }
                },
                _ = tick.tick() => Input::Tick,
            };
            let mut effects = Vec::new();
            if input == Input::Tick {
                for input in met(&peers) {
                    effects.extend(self.step(input).await?);
                }
            }
            effects.extend(self.step(input).await?);
            for effect in effects {
                match effect {
                    Effect::Send { to, message } => ask(&mut calls, &peers, &to, message)?,
                    Effect::Join { via, request } => join(&mut calls, &peers, via, request)?,
                    Effect::Persist(_) | Effect::Member(_) | Effect::Waiting(_) => {}
                }
            }
        }
    }

    /// A step, and what of its effects concerns this node alone; when it returns that is done and durable.
    async fn step(&self, input: Input) -> Result<Vec<Effect>, Refusal> {
        let mut engine = self.engine.lock().await;
        let (founding, random) = &mut *engine;
        let before = founding.durable.clone();
        let effects = founding.step(input, self.clock.monotonic(), || format!("{:032x}", random.random::<u128>()));
        for effect in &effects {
            match effect {
                Effect::Persist(durable) => {
                    if let Err(error) = self.persist(durable.clone()).await {
                        // As if it had not happened: nothing was said to anybody.
                        founding.durable = before;
                        founding.round = None;
                        tracing::error!(%error, "founding cannot be made durable");
                        return Err(Refusal::new(RefusalCode::Failed, error.to_string()));
                    }
                }
                Effect::Member(membership) => {
                    tracing::info!(cluster = membership.cluster_id(), "this node belongs to a cluster");
                    self.standing.send_replace(Standing { membership: Some(membership.clone()), waiting: None });
                }
                Effect::Waiting(waiting) => {
                    tracing::info!(%waiting, "no cluster yet");
                    self.standing.send_modify(|standing| standing.waiting = Some(waiting.clone()));
                }
                Effect::Send { .. } | Effect::Join { .. } => {}
            }
        }
        Ok(effects)
    }

    async fn persist(&self, durable: Durable) -> Result<(), StorageError> {
        let (disk, dir) = (self.disk.clone(), self.dir.clone());
        let written = self.blocking.run(move || store::write(&*disk, &dir, &durable)).await;
        written.unwrap_or_else(|e| Err(StorageError::Invalid(e)))
    }
}

/// Whoever is connected and belongs to a cluster.
fn met(peers: &Peers) -> Vec<Input> {
    let table = peers.watch();
    let table = table.borrow();
    let member = |hello: &Hello| {
        let member = Founder { node: hello.node, name: hello.name.clone(), address: hello.address.clone(), reads: 0 };
        hello.cluster_id.clone().map(|cluster_id| Input::Met { member, cluster_id })
    };
    table.connected.values().filter_map(member).collect()
}

fn ask(calls: &mut JoinSet<Option<Input>>, peers: &Peers, to: &To, message: Message) -> Result<(), Refusal> {
    let node = match to {
        To::Node(node) => Some(*node),
        // Where this node dialled it, or, if it came by itself, where it says that it is.
        To::Address(address) => {
            let table = peers.watch();
            let table = table.borrow();
            let came = || table.connected.values().find(|hello| hello.address == *address).map(|hello| hello.node);
            table.at.get(address).copied().or_else(came)
        }
    };
    let Some(node) = node.filter(|node| *node != peers.me().node) else { return Ok(()) };
    let rpc = Rpc { kind: RpcKind::Founding, shard: ShardId(0), lane: Lane::Normal, body: to_bytes(message)? };
    let answer = peers.call(node, rpc, Instant::now() + CALL_TIME_MAX);
    calls.spawn(async move {
        let message: Message = from_bytes(&answer.await.ok()?).ok()?;
        Some(Input::Message { from: node, message })
    });
    Ok(())
}

fn join(calls: &mut JoinSet<Option<Input>>, peers: &Peers, via: NodeId, request: u64) -> Result<(), Refusal> {
    let me = peers.me();
    let asker = Founder { node: me.node, name: me.name, address: me.address, reads: FORMAT };
    let rpc = Rpc { kind: RpcKind::Join, shard: ShardId(0), lane: Lane::Normal, body: to_bytes(asker)? };
    let answer = peers.call(via, rpc, Instant::now() + ROUND_TIME_MAX);
    calls.spawn(async move {
        let answered = answer.await.map_err(|e| e.to_string());
        let read = answered.and_then(|bytes| from_bytes::<String>(&bytes).map_err(|e| e.to_string()));
        Some(match read {
            Ok(cluster_id) => Input::LetIn { request, cluster_id },
            Err(reason) => Input::TurnedAway { request, reason },
        })
    });
    Ok(())
}

#[cfg(test)]
mod tests;
