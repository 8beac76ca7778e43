//! Carries messages into the engines and their effects out.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tallymesh_protocol::command::{encode_batches, encode_tick};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::commit::{Effect, GroupCommit, Input, Part};
use super::stamp::StampClock;
use super::{Reserved, ShardParts};
use crate::mesh::{AppendError, PartOutcome};
use crate::raft::MeshRuntime;
use crate::replicator::{Committed, ReplicatorError};

/// A state that nothing is due in is told the time this rarely: retention and the dedup horizon move by the day, and each tick is an entry.
const IDLE_TICK_MS: i64 = 10 * 60 * 1_000;

/// Whom to answer, and the room that the answer gives back.
pub struct Ticket {
    pub reply: oneshot::Sender<Result<PartOutcome, AppendError>>,
    pub room: Reserved,
}

impl Ticket {
    fn answer(self, result: Result<PartOutcome, AppendError>) {
        // First the room: whoever has the answer may come again at once.
        drop(self.room);
        // Whoever asked may be gone.
        let _ = self.reply.send(result);
    }
}

pub enum Message {
    Append(Part<Ticket>),
    Settled { proposal: u64, result: Result<Committed, ReplicatorError> },
    Time,
    Drain(oneshot::Sender<()>),
}

pub struct ShardActor;

pub struct Running {
    parts: ShardParts,
    engine: GroupCommit<Ticket>,
    stamps: StampClock,
    /// Term that `stamps` counts in.
    term: u64,
    /// One for each entry on its way.
    waits: Vec<JoinHandle<()>>,
    drains: Vec<oneshot::Sender<()>>,
    effects: Vec<Effect<Ticket>>,
}

impl Actor for ShardActor {
    type Msg = Message;
    type State = Running;
    type Arguments = ShardParts;

    async fn pre_start(&self, _myself: ActorRef<Message>, parts: ShardParts) -> Result<Running, ActorProcessingErr> {
        let stamps = StampClock::new(parts.state.read().state.stamp_ms());
        let term = parts.replica.status().term;
        let engine = GroupCommit::new(parts.id);
        Ok(Running { parts, engine, stamps, term, waits: Vec::new(), drains: Vec::new(), effects: Vec::new() })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, running: &mut Running) -> Result<(), ActorProcessingErr> {
        let input = match message {
            Message::Append(part) => Input::Append(part),
            Message::Settled { proposal, result } => Input::Settled { proposal, result },
            Message::Time => Input::Time { tick_wanted: running.tick_wanted() },
            Message::Drain(done) => {
                running.drains.push(done);
                running.answer_drains();
                return Ok(());
            }
        };
        let now = running.parts.clock.monotonic();
        running.engine.step(input, now, &mut running.effects);
        running.carry_out(&myself);
        running.answer_drains();
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Message>, running: &mut Running) -> Result<(), ActorProcessingErr> {
        let mut effects = Vec::new();
        running.engine.stop("the node is shutting down", &mut effects);
        for effect in effects {
            if let Effect::Answer { ticket, result } = effect {
                ticket.answer(result);
            }
        }
        running.waits.drain(..).for_each(|wait| wait.abort());
        Ok(())
    }
}

impl Running {
    fn carry_out(&mut self, myself: &ActorRef<Message>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer { ticket, result } => ticket.answer(result),
                Effect::Propose { proposal, parts } => {
                    let stamp = self.stamp();
                    let command = if parts.is_empty() { encode_tick(stamp) } else { encode_batches(stamp, &parts) };
                    let outcome = self.parts.replica.propose(command);
                    let myself = myself.clone();
                    self.waits.retain(|wait| !wait.is_finished());
                    self.waits.push(MeshRuntime::spawn_task(async move {
                        let result = outcome.await;
                        let _ = myself.cast(Message::Settled { proposal, result });
                    }));
                }
            }
        }
        self.effects = effects;
    }

    fn stamp(&mut self) -> i64 {
        let term = self.parts.replica.status().term;
        if term != self.term {
            self.term = term;
            self.stamps.begin_term(self.parts.state.read().state.stamp_ms());
        }
        self.stamps.stamp(self.parts.clock.wall_ms(), self.parts.clock.monotonic())
    }

    fn tick_wanted(&self) -> bool {
        if !self.engine.is_idle() || !self.parts.replica.status().is_leader {
            return false;
        }
        // Never waits for the state: there is another tick soon.
        let Some(applied) = self.parts.state.try_read() else { return false };
        let now_ms = self.parts.clock.wall_ms();
        let is_due = applied.state.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        let is_old = now_ms.saturating_sub(applied.state.stamp_ms()) >= IDLE_TICK_MS;
        is_due || (is_old && applied.state.counters().events > 0)
    }

    fn answer_drains(&mut self) {
        if self.engine.is_idle() {
            for done in self.drains.drain(..) {
                let _ = done.send(());
            }
        }
    }
}
