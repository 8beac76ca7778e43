//! Carries inputs into the engines of a shard and their effects out, on the thread of whoever brings them.

use std::sync::Arc;

use tallymesh_protocol::event::command::{encode_requests, encode_tick};
use tokio::sync::oneshot;

use super::commit::{Effect, GroupCommit, Input, Part};
use super::stamp::StampClock;
use super::turns::Turns;
use super::{Reserved, ShardParts};
use crate::mesh::{AppendError, PartOutcome};
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

pub enum Delivery {
    Append(Part<Ticket>),
    Settled { proposal: u64, result: Result<Committed, ReplicatorError> },
    Time,
    Drain(oneshot::Sender<()>),
    Stop,
}

/// The owner of a shard's group commit.
pub struct Owner {
    turns: Turns<Running, Delivery>,
}

struct Running {
    parts: ShardParts,
    engine: GroupCommit<Ticket>,
    stamps: StampClock,
    /// Term that `stamps` counts in.
    term: u64,
    drains: Vec<oneshot::Sender<()>>,
    effects: Vec<Effect<Ticket>>,
}

impl Owner {
    pub fn new(parts: ShardParts) -> Self {
        let stamps = StampClock::new(parts.state.read().state.stamp_ms());
        let term = parts.replica.status().term;
        let engine = GroupCommit::new(parts.id);
        Self { turns: Turns::new(Running { parts, engine, stamps, term, drains: Vec::new(), effects: Vec::new() }) }
    }

    /// Never waits. What it brings about (a proposal, answers) has happened when it returns, or will soon on another thread.
    pub fn bring(self: &Arc<Self>, delivery: Delivery) {
        self.turns.bring(delivery, |running, delivery| running.handle(self, delivery));
    }
}

impl Running {
    fn handle(&mut self, owner: &Arc<Owner>, delivery: Delivery) {
        let mut effects = std::mem::take(&mut self.effects);
        let now = self.parts.clock.monotonic();
        let term = self.parts.replica.status().term;
        if term != self.term {
            self.term = term;
            self.stamps.begin_term(self.parts.state.read().state.stamp_ms());
            self.engine.step(Input::NewTerm, now, &mut effects);
        }
        match delivery {
            Delivery::Append(part) => self.engine.step(Input::Append(part), now, &mut effects),
            Delivery::Settled { proposal, result } => self.engine.step(Input::Settled { proposal, result }, now, &mut effects),
            Delivery::Time => self.engine.step(Input::Time { tick_wanted: self.tick_wanted() }, now, &mut effects),
            Delivery::Drain(done) => self.drains.push(done),
            Delivery::Stop => self.engine.stop("the node is shutting down", &mut effects),
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer { ticket, result } => ticket.answer(result),
                Effect::Propose { proposal, parts } => {
                    let stamp = self.stamp();
                    let command = if parts.is_empty() { encode_tick(stamp) } else { encode_requests(stamp, &parts) };
                    let owner = owner.clone();
                    let settled = move |result| owner.bring(Delivery::Settled { proposal, result });
                    self.parts.replica.submit(command, Box::new(settled));
                }
            }
        }
        self.effects = effects;
        self.answer_drains();
    }

    fn stamp(&mut self) -> i64 {
        let wall_ms = self.parts.clock.wall_ms().saturating_add(self.parts.clock_offset.ms());
        self.stamps.stamp(wall_ms, self.parts.clock.monotonic())
    }

    fn tick_wanted(&self) -> bool {
        if !self.engine.is_idle() || !self.parts.replica.status().is_leader {
            return false;
        }
        // Never waits for the state: there is another tick soon.
        let Some(applied) = self.parts.state.try_read() else { return false };
        let now_ms = self.parts.clock.wall_ms().saturating_add(self.parts.clock_offset.ms());
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
