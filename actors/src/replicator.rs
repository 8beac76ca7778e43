//! What a shard asks of its replicated log, whichever library keeps it.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

/// Is told an outcome; must not block.
pub type Done = Box<dyn FnOnce(Result<Committed, ReplicatorError>) + Send>;

/// One replica of one shard's log and state machine, as its owner on this node drives it. Contract:
///
/// - The order of calls to [`Replicator::submit`] is the order of the log, as long as one term lasts: a command is handed over when the method is called.
/// - An outcome means durable on a majority and applied here. An error other than [`ReplicatorError::NotLeader`] does not mean that the command is not in the
///   log: proposing it again must be harmless (the state deduplicates).
/// - After [`Replicator::read_barrier`] the local state has every command whose outcome was given before the call.
/// - [`Replicator::status`] never waits.
pub trait Replicator: Send + Sync + 'static {
    /// Calls `done` once, with the outcome, on any thread, perhaps before it returns.
    fn submit(&self, command: Bytes, done: Done);

    /// As [`Replicator::submit`], for who waits.
    fn propose(&self, command: Bytes) -> BoxFuture<'static, Result<Committed, ReplicatorError>> {
        let (sender, outcome) = oneshot::channel();
        // Who asked may be gone.
        self.submit(command, Box::new(move |result| drop(sender.send(result))));
        async move { outcome.await.unwrap_or_else(|_| Err(ReplicatorError::Stopped("its log has ended".to_owned()))) }.boxed()
    }

    /// Log index that the state has at least applied.
    fn read_barrier(&self) -> BoxFuture<'static, Result<u64, ReplicatorError>>;

    fn status(&self) -> ReplicaStatus;

    /// Asks for a snapshot and, behind it, removal of the log that it covers; does not wait for either. Nothing happens when one is being written.
    fn trigger_snapshot(&self);

    /// Waits until a snapshot covers all that is applied now; for ever if the replica ends before. It has to be asked for.
    fn snapshot_of_now(&self) -> BoxFuture<'static, ()>;

    /// Stops the replica and waits until it touches no file any more. Idempotent.
    fn shutdown(&self) -> BoxFuture<'static, ()>;
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub index: u64,
    /// One for each part of the command, in order.
    pub parts: Vec<AppliedPart>,
}

/// What applying one request's batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AppliedPart {
    pub counted: u32,
    pub duplicates: u32,
    /// Why nothing of it was counted, if it does not read as a batch.
    pub refused: Option<String>,
    /// It was refused because it was made with older definitions than the shard follows.
    #[serde(default)]
    pub stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicatorError {
    #[error("the leader is elsewhere or not known: {leader:?}")]
    NotLeader { leader: Option<u64> },
    #[error("no majority answered")]
    NoQuorum,
    /// For good: only a restart can help.
    #[error("{0}")]
    Stopped(String),
}

/// Figures of a replica, as of the last change that it reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub leader: Option<u64>,
    pub is_leader: bool,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub stopped: Option<String>,
}
