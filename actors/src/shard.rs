//! The owner of one shard on this node: it merges what waits into entries, stamps and proposes them. The handle hides how: requests and outcomes are handled
//! on the thread that brings them, an actor carries the life cycle.

mod actor;
pub mod commit;
mod owner;
pub mod stamp;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::shard::{LateChanges, MetricInfo, ShardState, ShardStats};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::fleet::clocks::MedianOffset;
use crate::mesh::LogShare;
use crate::mesh::{AppendError, PartOutcome};
use crate::raft::{SharedState, Snapshots, StopReason};
use crate::replicator::Replicator;
use actor::{Message, ShardActor};
use commit::Part;
use owner::{Delivery, Owner, Ticket};

/// What a shard's owner works with.
#[derive(Clone)]
pub struct ShardParts {
    pub id: ShardId,
    pub replica: Arc<dyn Replicator>,
    pub state: SharedState,
    pub snapshots: Arc<Snapshots>,
    pub stop: StopReason,
    pub clock: Arc<dyn Clock>,
    /// From this node's wall clock to the median of its peers'.
    pub clock_offset: MedianOffset,
    /// Batches that wait or are on their way, in bytes.
    pub queue_bytes_max: usize,
}

/// Cheap to clone; all clones are the same shard.
#[derive(Clone)]
pub struct Shard {
    pub parts: ShardParts,
    owner: Arc<Owner>,
    actor: ActorRef<Message>,
    room: Arc<Semaphore>,
    /// As they were when the state was last not busy.
    stats: Arc<Mutex<ShardStats>>,
    metrics: Arc<Mutex<Vec<MetricInfo>>>,
    over_budget: Arc<Mutex<Vec<MetricInfo>>>,
    late: Arc<LateChanges>,
    /// No new parts: the lead is being handed over.
    held: Arc<AtomicBool>,
    /// It follows settings of the cluster's; before that it would count by none.
    is_configured: Arc<AtomicBool>,
}

/// Room in a shard's queue and in the log, taken before anything is sent.
pub struct Reserved {
    _queue: OwnedSemaphorePermit,
    _log: LogShare,
}

impl Shard {
    /// Starts the actor. Whoever holds the returned handle waits for it after [`Shard::stop`].
    ///
    /// # Errors
    /// The runtime's, when it is going down.
    pub async fn spawn(parts: ShardParts) -> Result<(Self, JoinHandle<()>), String> {
        let room = Arc::new(Semaphore::new(parts.queue_bytes_max.min(Semaphore::MAX_PERMITS)));
        // Without a name: names are global to the process, and a process may hold several nodes.
        let owner = Arc::new(Owner::new(parts.clone()));
        let (actor, handle) = Actor::spawn(None, ShardActor, owner.clone()).await.map_err(|e| e.to_string())?;
        let (stats, late) = {
            let applied = parts.state.read();
            (Arc::new(Mutex::new(applied.state.stats())), applied.state.late_changes())
        };
        let (metrics, over_budget) = Default::default();
        let (held, is_configured) = Default::default();
        Ok((Self { parts, owner, actor, room, stats, metrics, over_budget, late, held, is_configured }, handle))
    }

    pub fn queued_bytes(&self) -> usize {
        self.parts.queue_bytes_max.saturating_sub(self.room.available_permits())
    }

    /// Figures of the state. Never waits: while an entry is being applied they are those of the last call.
    pub fn stats(&self) -> ShardStats {
        self.look(&self.stats, ShardState::stats)
    }

    /// Every metric here; as fresh as [`Self::stats`].
    pub fn metrics(&self) -> Vec<MetricInfo> {
        self.look(&self.metrics, ShardState::metrics)
    }

    /// The metrics that have rows beyond their cardinality budget; as fresh as [`Self::stats`].
    pub fn metrics_over_budget(&self) -> Vec<MetricInfo> {
        self.look(&self.over_budget, ShardState::metrics_over_budget)
    }

    fn look<T: Clone>(&self, last: &Mutex<T>, look: impl FnOnce(&ShardState) -> T) -> T {
        let mut last = last.lock();
        if let Some(applied) = self.parts.state.try_read() {
            *last = look(&applied.state);
        }
        last.clone()
    }

    /// Changes of windows that were closed already. Never waits for the state.
    pub fn late_changes(&self) -> &LateChanges {
        &self.late
    }

    /// Stops taking new parts, or goes on.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    /// Whether a part may be appended here now: this replica leads, and knows by what settings to count.
    pub fn takes_writes(&self) -> bool {
        if self.held.load(Ordering::Acquire) || !self.parts.replica.status().is_leader {
            return false;
        }
        if self.is_configured.load(Ordering::Relaxed) {
            return true;
        }
        let configured = self.parts.state.read().state.settings().definitions_version > 0;
        self.is_configured.store(configured, Ordering::Relaxed);
        configured
    }

    /// Takes room for a batch. One that is larger than the whole queue is let into an empty one.
    ///
    /// # Errors
    /// [`AppendError::Overloaded`] at once: waiting is the sender's affair.
    pub fn reserve(&self, bytes: usize, log: LogShare) -> Result<Reserved, AppendError> {
        let limit_bytes = self.parts.queue_bytes_max;
        let permits = u32::try_from(bytes.clamp(1, limit_bytes.max(1))).unwrap_or(u32::MAX);
        match self.room.clone().try_acquire_many_owned(permits) {
            Ok(queue) => Ok(Reserved { _queue: queue, _log: log }),
            Err(_) => Err(AppendError::Overloaded { shard: self.parts.id, limit_bytes }),
        }
    }

    /// Sends a batch, which is the same attempt or another of the request of that number (0: the only one); the room is given back with the answer. A dropped receiver does not take it back.
    pub fn append(
        &self,
        room: Reserved,
        request: u64,
        bytes: Bytes,
        arrived: Duration,
        deadline: Duration,
    ) -> oneshot::Receiver<Result<PartOutcome, AppendError>> {
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket { reply, room };
        // What an owner that ended does not take is dropped with its reply; the receiver sees that.
        self.owner.bring(Delivery::Append(Part { request, bytes, arrived, deadline, ticket }));
        answer
    }

    /// What an answer that never came means.
    pub fn ended(&self) -> AppendError {
        self.parts.stop.set(&"its actor ended");
        AppendError::Stopped { shard: self.parts.id, detail: self.parts.stop.get().unwrap_or_default() }
    }

    /// Lets the shard drop what is overdue and, if its state wants to know, tell the log the time.
    pub fn time(&self) {
        let _ = self.actor.cast(Message::Time);
    }

    /// Waits until nothing waits and nothing is on its way.
    pub async fn drained(&self) {
        let (done, drained) = oneshot::channel();
        if self.actor.cast(Message::Drain(done)).is_ok() {
            // An actor that ended has nothing left.
            let _ = drained.await;
        }
    }

    pub fn stop(&self) {
        self.actor.stop(None);
    }
}
