//! Group commit: what waits while an entry is on its way to disk becomes the next entry, so the cost of a sync is shared the more the higher the load.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::{ENTRY_BYTES_MAX, ENTRY_PARTS_MAX};
use tallymesh_storage::planted::{self, Bug};

use crate::mesh::{AppendError, PartOutcome};
use crate::replicator::{Committed, ReplicatorError};

/// Entries proposed and not yet applied. Two, so that one is applied while the next is synced; more would only make entries smaller.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 2;
/// Parts are merged up to this size; applying an entry holds the shard's write lock, and this keeps it to some tens of milliseconds. A single part may
/// be larger.
pub const MERGED_ENTRY_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(MERGED_ENTRY_BYTES_MAX <= ENTRY_BYTES_MAX);

/// One request's batch for this shard. `ticket` is whatever the owner needs to answer it.
#[derive(Debug)]
pub struct Part<T> {
    /// See [`tallymesh_protocol::event::command::PartView`].
    pub request: u64,
    pub bytes: Bytes,
    /// Monotonic time of arrival.
    pub arrived: Duration,
    /// Monotonic time after which nobody waits for the answer.
    pub deadline: Duration,
    pub ticket: T,
}

#[derive(Debug)]
pub enum Input<T> {
    Append(Part<T>),
    /// An entry came back from the log.
    Settled {
        proposal: u64,
        result: Result<Committed, ReplicatorError>,
    },
    /// The log has another term. What was proposed in an earlier one may be in it or not, and its outcome may never come: a snapshot that replaces the log takes
    /// nobody's word along.
    NewTerm,
    /// Time went by; `tick_wanted` says whether the state would change by being told so.
    Time {
        tick_wanted: bool,
    },
}

#[derive(Debug)]
pub enum Effect<T> {
    /// Join the parts and propose them, in the order of these effects. No parts: a tick.
    Propose {
        proposal: u64,
        /// With the numbers of their requests.
        parts: Vec<(u64, Bytes)>,
    },
    Answer {
        ticket: T,
        result: Result<PartOutcome, AppendError>,
    },
}

struct InFlight<T> {
    proposal: u64,
    parts: Vec<Waiting<T>>,
}

struct Waiting<T> {
    ticket: T,
    arrived: Duration,
}

/// Pure; see [`GroupCommit::step`].
pub struct GroupCommit<T> {
    shard: ShardId,
    queue: VecDeque<Part<T>>,
    in_flight: VecDeque<InFlight<T>>,
    next_proposal: u64,
    stopped: Option<String>,
}

impl<T> GroupCommit<T> {
    pub fn new(shard: ShardId) -> Self {
        Self { shard, queue: VecDeque::new(), in_flight: VecDeque::new(), next_proposal: 0, stopped: None }
    }

    /// Nothing waits and nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Takes one input and appends what is to be done to `effects`.
    pub fn step(&mut self, input: Input<T>, now: Duration, effects: &mut Vec<Effect<T>>) {
        match input {
            Input::Append(part) => match &self.stopped {
                Some(detail) => effects.push(refusal(self.shard, part.ticket, detail)),
                None => self.queue.push_back(part),
            },
            Input::Settled { proposal, result } => self.settle(proposal, result, now, effects),
            Input::NewTerm => {
                let shard = self.shard;
                for Waiting { ticket, .. } in self.in_flight.drain(..).flat_map(|f| f.parts) {
                    effects.push(Effect::Answer { ticket, result: Err(AppendError::NotLeader { shard, leader: None }) });
                }
            }
            Input::Time { tick_wanted } => {
                self.expire(now, effects);
                if tick_wanted && self.is_idle() && self.stopped.is_none() {
                    self.propose(Vec::new(), effects);
                }
            }
        }
        self.fill(now, effects);
    }

    /// Answers everything that waits; later parts are refused at once.
    pub fn stop(&mut self, detail: &str, effects: &mut Vec<Effect<T>>) {
        let detail = self.stopped.get_or_insert_with(|| detail.to_owned());
        let on_the_way = self.in_flight.drain(..).flat_map(|f| f.parts).map(|w| w.ticket);
        for ticket in on_the_way.chain(self.queue.drain(..).map(|p| p.ticket)) {
            effects.push(refusal(self.shard, ticket, detail));
        }
    }

    fn settle(&mut self, proposal: u64, result: Result<Committed, ReplicatorError>, now: Duration, effects: &mut Vec<Effect<T>>) {
        let Some(position) = self.in_flight.iter().position(|f| f.proposal == proposal) else { return };
        let Some(settled) = self.in_flight.remove(position) else { return };
        let shard = self.shard;
        match result {
            Ok(Committed { index, mut parts }) => {
                if planted::has(Bug::OutcomesMixedUp) {
                    parts.reverse();
                }
                let mut applied = parts.into_iter();
                for waiting in settled.parts {
                    let result = match applied.next() {
                        Some(part) => match part.refused {
                            None => Ok(PartOutcome { counted: part.counted, duplicates: part.duplicates, index }),
                            Some(_) if part.stale => Err(AppendError::Stale { shard }),
                            Some(detail) => Err(AppendError::Refused { shard, detail }),
                        },
                        None => {
                            Err(AppendError::Refused { shard, detail: "the entry was applied without an outcome for this part".to_owned() })
                        }
                    };
                    effects.push(Effect::Answer { ticket: waiting.ticket, result });
                }
            }
            Err(ReplicatorError::NotLeader { .. }) if planted::has(Bug::DeposedLeaderAcks) => {
                for waiting in settled.parts {
                    effects
                        .push(Effect::Answer { ticket: waiting.ticket, result: Ok(PartOutcome { counted: 0, duplicates: 0, index: 0 }) });
                }
            }
            // Whether it is in the log is open, and a retry is harmless: whoever sent it finds out who leads now.
            Err(ReplicatorError::NotLeader { leader }) => {
                for Waiting { ticket, .. } in settled.parts {
                    effects.push(Effect::Answer { ticket, result: Err(AppendError::NotLeader { shard, leader }) });
                }
            }
            Err(ReplicatorError::NoQuorum) => {
                for Waiting { ticket, arrived } in settled.parts {
                    effects.push(Effect::Answer { ticket, result: Err(timeout(shard, arrived, now)) });
                }
            }
            Err(ReplicatorError::Stopped(detail)) => {
                for waiting in settled.parts {
                    effects.push(refusal(shard, waiting.ticket, &detail));
                }
                self.stop(&detail, effects);
            }
        }
    }

    /// Drops what nobody waits for any more; it was never proposed, so it is certainly not in the log.
    fn expire(&mut self, now: Duration, effects: &mut Vec<Effect<T>>) {
        if self.queue.iter().all(|p| p.deadline > now) {
            return;
        }
        for part in std::mem::take(&mut self.queue) {
            if part.deadline > now {
                self.queue.push_back(part);
            } else {
                effects.push(Effect::Answer { ticket: part.ticket, result: Err(timeout(self.shard, part.arrived, now)) });
            }
        }
    }

    /// Makes entries of what waits, as long as another may be on its way.
    fn fill(&mut self, now: Duration, effects: &mut Vec<Effect<T>>) {
        while self.in_flight.len() < ENTRIES_IN_FLIGHT_MAX && !self.queue.is_empty() {
            let mut parts: Vec<Part<T>> = Vec::with_capacity(self.queue.len().min(ENTRY_PARTS_MAX));
            let mut bytes = 0usize;
            while let Some(part) = self.queue.pop_front() {
                if part.deadline <= now {
                    effects.push(Effect::Answer { ticket: part.ticket, result: Err(timeout(self.shard, part.arrived, now)) });
                    continue;
                }
                let full = parts.len() == ENTRY_PARTS_MAX || (!parts.is_empty() && bytes + part.bytes.len() > MERGED_ENTRY_BYTES_MAX);
                if full {
                    self.queue.push_front(part);
                    break;
                }
                bytes += part.bytes.len();
                parts.push(part);
            }
            if !parts.is_empty() {
                self.propose(parts, effects);
            }
        }
    }

    fn propose(&mut self, parts: Vec<Part<T>>, effects: &mut Vec<Effect<T>>) {
        let proposal = self.next_proposal;
        self.next_proposal += 1;
        let mut bytes = Vec::with_capacity(parts.len());
        let mut waiting = Vec::with_capacity(parts.len());
        for part in parts {
            bytes.push((part.request, part.bytes));
            waiting.push(Waiting { ticket: part.ticket, arrived: part.arrived });
        }
        self.in_flight.push_back(InFlight { proposal, parts: waiting });
        effects.push(Effect::Propose { proposal, parts: bytes });
    }
}

fn timeout(shard: ShardId, arrived: Duration, now: Duration) -> AppendError {
    AppendError::Timeout { shard, waited_ms: now.saturating_sub(arrived).as_millis() as u64 }
}

fn refusal<T>(shard: ShardId, ticket: T, detail: &str) -> Effect<T> {
    Effect::Answer { ticket, result: Err(AppendError::Stopped { shard, detail: detail.to_owned() }) }
}

#[cfg(test)]
mod tests;
