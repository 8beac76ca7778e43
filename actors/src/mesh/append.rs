//! Appends: room first, then each part to its shard's leader, here or on another node, through an election if need be, until it is durable or its time is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tallymesh_protocol::event::command::FORMAT_NUMBERED;
use tallymesh_protocol::hash::ShardId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::slots::Slot;
use super::{AppendError, Mesh, PartOutcome};
use crate::fleet::{Fleet, Route};
use crate::shard::{Reserved, Shard};

/// Between attempts while a shard has no leader that takes the part; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// A full queue elsewhere is waited for so long; then it is the client's to come again.
const OVERLOAD_PATIENCE: Duration = Duration::from_millis(500);

type Outcome = Result<PartOutcome, AppendError>;
type Room = (Arc<Shard>, Reserved);

/// A batch for a shard, with the number of the request that it is of: 0 when it is sent once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentPart {
    pub shard: ShardId,
    pub request: u64,
    pub batch: Bytes,
}

impl AppendError {
    /// Whether the same part may be taken a moment later, perhaps by another node. Sending it again is harmless: what is in the log already counts once.
    fn may_pass(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Unreachable { .. } => true,
            Self::Overloaded { .. }
            | Self::LogFull { .. }
            | Self::Timeout { .. }
            | Self::Stopped { .. }
            | Self::Stale { .. }
            | Self::Refused { .. } => false,
        }
    }

    fn is_overload(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::LogFull { .. })
    }
}

/// Tells a request from all others, over all attempts to append what is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestNumber(u64);

fn number(request: u64, parts: Vec<(ShardId, Bytes)>) -> Vec<SentPart> {
    parts.into_iter().map(|(shard, batch)| SentPart { shard, request, batch }).collect()
}

/// Numbers of requests that no other node and no other run draws, as far as chance goes; a shard looks at more than the number.
pub(super) struct RequestNumbers {
    key: u64,
    next: AtomicU64,
}

impl RequestNumbers {
    pub(super) fn new() -> Self {
        Self { key: StdRng::from_os_rng().random(), next: AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        // A bijection of the counter (the finaliser of SplitMix64), so that a run gives no number twice.
        let mut z = self.key.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}

impl Mesh {
    /// Appends each part (an encoded [`tallymesh_protocol::event::batch::ShardBatch`]) to its shard; answers when all are durable and applied, or have failed.
    /// Results are in the order of `parts`. Nothing is sent unless every shard that is led here and works has room for its part.
    pub async fn append(&self, parts: Vec<(ShardId, Bytes)>, timeout: Duration) -> Vec<Outcome> {
        self.append_as(self.request_number(), parts, timeout).await
    }

    /// For [`Mesh::append_as`].
    pub fn request_number(&self) -> RequestNumber {
        // An answer may be lost and its question asked again, which only entries of a newer format tell from a second question.
        let is_told_apart = self.inner.fleet.as_ref().is_some_and(|fleet| fleet.state().format() >= FORMAT_NUMBERED);
        RequestNumber(if is_told_apart { self.inner.requests.next() } else { 0 })
    }

    /// As [`Mesh::append`], of a request that may have to append again what became stale on its way: a part with the same events is told then what an earlier
    /// attempt did, should one have got through after all.
    pub async fn append_as(&self, request: RequestNumber, parts: Vec<(ShardId, Bytes)>, timeout: Duration) -> Vec<Outcome> {
        let parts = number(request.0, parts);
        match &self.inner.fleet {
            None => self.append_here(parts, timeout).await,
            Some(fleet) => self.append_anywhere(fleet, parts, timeout).await,
        }
    }

    /// As [`Mesh::append`], where this node leads.
    pub(crate) async fn append_here(&self, parts: Vec<SentPart>, timeout: Duration) -> Vec<Outcome> {
        match self.reserve_all(&parts) {
            Ok(rooms) => self.send_here(parts, rooms, timeout).await,
            Err(error) => parts.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Room for all, or none for any; a shard that does not work is no reason to refuse the others.
    fn reserve_all(&self, parts: &[SentPart]) -> Result<Vec<Result<Room, AppendError>>, AppendError> {
        let mut rooms = Vec::with_capacity(parts.len());
        for part in parts {
            match self.reserve(part.shard, part.batch.len()) {
                Err(error) if error.is_overload() => return Err(error),
                other => rooms.push(other),
            }
        }
        Ok(rooms)
    }

    async fn send_here(&self, parts: Vec<SentPart>, rooms: Vec<Result<Room, AppendError>>, timeout: Duration) -> Vec<Outcome> {
        let arrived = self.inner.clock.monotonic();
        let deadline = Instant::now() + timeout;
        let mut sent = Vec::with_capacity(parts.len());
        for (part, reserved) in parts.into_iter().zip(rooms) {
            sent.push(reserved.map(|(shard, room)| {
                let answer = shard.append(room, part.request, part.batch, arrived, arrived + timeout);
                (shard, answer)
            }));
        }
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(match sent {
                Ok((shard, answer)) => self.outcome(&shard, answer, arrived, deadline).await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    fn reserve(&self, shard: ShardId, bytes: usize) -> Result<Room, AppendError> {
        let stopped = |detail: &str| AppendError::Stopped { shard, detail: detail.to_owned() };
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(stopped("the node is shutting down"));
        }
        match self.inner.shards.get(shard) {
            None => Err(AppendError::Refused { shard, detail: format!("there are {} shards", self.inner.shards.len()) }),
            Some(Slot::Stopped { detail, .. }) => Err(stopped(&detail)),
            Some(Slot::Elsewhere { .. }) => Err(AppendError::NotLeader { shard, leader: None }),
            Some(Slot::Running(running)) => {
                if self.inner.fleet.is_some() && !running.takes_writes() {
                    return Err(AppendError::NotLeader { shard, leader: None });
                }
                let log = self.inner.door.enter(bytes)?;
                running.reserve(bytes, log).map(|room| (running, room))
            }
        }
    }

    async fn outcome(&self, shard: &Shard, answer: oneshot::Receiver<Outcome>, arrived: Duration, deadline: Instant) -> Outcome {
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(shard.ended()),
            Err(_) => {
                let waited = self.inner.clock.monotonic().saturating_sub(arrived);
                Err(AppendError::Timeout { shard: shard.parts.id, waited_ms: waited.as_millis() as u64 })
            }
        }
    }

    /// In rounds: what is left goes to where its shard is led now.
    async fn append_anywhere(&self, fleet: &Fleet, parts: Vec<SentPart>, timeout: Duration) -> Vec<Outcome> {
        let (began, deadline) = (Instant::now(), Instant::now() + timeout);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; parts.len()];
        let mut waiting: Vec<usize> = (0..parts.len()).collect();
        let mut pause = PAUSE_MIN;
        let mut is_first = true;
        loop {
            let (mut here, mut there) = (Vec::new(), BTreeMap::<u64, Vec<usize>>::new());
            for at in waiting.drain(..) {
                let shard = parts[at].shard;
                match fleet.route(shard) {
                    Route::Here => here.push(at),
                    Route::There(member) => there.entry(member).or_default().push(at),
                    Route::Nowhere => outcomes[at] = Some(Err(AppendError::NotLeader { shard, leader: None })),
                }
            }
            let pick = |of: &[usize]| of.iter().map(|at| parts[*at].clone()).collect::<Vec<_>>();
            let left = deadline.saturating_duration_since(Instant::now());
            let mine = pick(&here);
            let rooms = match self.reserve_all(&mine) {
                Ok(rooms) => rooms,
                // Nothing was sent yet.
                Err(error) if is_first => return parts.iter().map(|_| Err(error.clone())).collect(),
                Err(error) => mine.iter().map(|_| Err(error.clone())).collect(),
            };
            is_first = false;
            let theirs = there.iter().map(|(member, of)| self.append_there(fleet, *member, pick(of), deadline));
            let (mine, theirs) = tokio::join!(self.send_here(mine, rooms, left), join_all(theirs));
            for (at, outcome) in
                here.into_iter().zip(mine).chain(there.into_values().zip(theirs).flat_map(|(of, got)| of.into_iter().zip(got)))
            {
                outcomes[at] = Some(outcome);
            }
            let overload_passes = began.elapsed() < OVERLOAD_PATIENCE;
            let again = |outcome: &Option<Outcome>| match outcome {
                Some(Err(error)) => error.may_pass() || (error.is_overload() && overload_passes),
                Some(Ok(_)) => false,
                None => true,
            };
            waiting.extend(outcomes.iter().enumerate().filter(|(_, outcome)| again(outcome)).map(|(at, _)| at));
            if waiting.is_empty() || Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let lost = |at: usize| Err(AppendError::NotLeader { shard: parts[at].shard, leader: None });
        outcomes.into_iter().enumerate().map(|(at, outcome)| outcome.unwrap_or_else(|| lost(at))).collect()
    }
}
