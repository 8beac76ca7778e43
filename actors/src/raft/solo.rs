//! The replica of a node that has no peers. Nobody else's word concerns it: what is on its disk is committed, so that of what openraft does for an entry nothing is
//! left but to write it, wait for the sync, and apply it. An entry that waits for its sync does not keep the next one from being written, so all that comes
//! while the disk is busy shares one sync.
//!
//! The log is the one that openraft writes. openraft founds the group, and reads what is there when the process begins; then it hands over
//! ([`SoloReplica::take_over`]). A directory that is opened in a fleet one day goes on from there.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::storage::RaftLogStorage;
use openraft::{Entry, EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::StorageError;
use tallymesh_storage::wal::Wal;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::log_store::StopReason;
use super::{Command, LogStore, MeshRuntime, RaftReplica, ShardRaft, StateMachine, codec};
use crate::replicator::{Committed, Done, ReplicaStatus, Replicator, ReplicatorError};

/// After so much others have their turn on the thread, in bytes; an entry counts for so many more.
const YIELD_BYTES_MIN: usize = 64 << 10;
const YIELD_ENTRY_BYTES: usize = 1 << 10;

pub struct SoloReplica {
    inner: Arc<Inner>,
    /// Held by whoever waits for its end.
    applying: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

struct Inner {
    node: u64,
    shard: ShardId,
    /// Led for good: nobody else stands.
    term: u64,
    wal: Wal,
    /// For what goes from the log behind a snapshot.
    log: tokio::sync::Mutex<LogStore>,
    state: StateMachine,
    stop: StopReason,
    /// What is in the log and not in the state, in order. The log's queue has a limit, and callers hold permits for what they append.
    queue: Mutex<VecDeque<Waiting>>,
    /// Last entry that is in the log, on the disk, and in the state.
    last: AtomicU64,
    durable: AtomicU64,
    applied: AtomicU64,
    /// Last entry that a snapshot covers.
    saved: watch::Sender<u64>,
    saving: Mutex<Saving>,
    /// Set with the queue locked.
    is_closed: AtomicBool,
    /// There is something to apply, or an end.
    work: Notify,
}

#[derive(Default)]
struct Saving {
    task: Option<JoinHandle<()>>,
    is_running: bool,
    /// Another one was asked for meanwhile.
    again: bool,
}

/// An entry on its way to the disk. Whoever drops it says that it will not come there.
struct Writing {
    inner: Arc<Inner>,
    index: u64,
    is_told: bool,
}

impl Writing {
    fn told(mut self, result: Result<(), StorageError>) {
        self.is_told = true;
        self.inner.written(self.index, result);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_told {
            self.inner.written(self.index, Err(StorageError::Poisoned("the log's writer is gone".to_owned())));
        }
    }
}

struct Waiting {
    index: u64,
    command: Bytes,
    done: Done,
}

impl SoloReplica {
    /// Goes on where `raft` is, which leads alone, has applied all that its log has, and ends with this. `log` and `state` are what it was opened with.
    ///
    /// # Errors
    /// It is not so.
    pub async fn take_over(
        raft: &RaftReplica,
        node: u64,
        wal: Wal,
        log: &LogStore,
        state: StateMachine,
        stop: StopReason,
    ) -> Result<Self, String> {
        raft.raft().shutdown().await.map_err(|e| e.to_string())?;
        let log = log.reopened().map_err(|e| e.to_string())?;
        let led = log.resumes(node).map_err(|e| e.to_string())?;
        let applied = state.shared().read().last_log_id.map_or(0, |id| id.index);
        let Some((term, last)) = led.filter(|(_, last)| *last == applied) else {
            return Err(format!("the log was to be led alone and to end with what is applied, {applied}: {led:?}"));
        };
        let saved = state.snapshots().current_index().unwrap_or(0);
        let inner = Arc::new(Inner {
            node,
            shard: stop.shard(),
            term,
            wal,
            log: tokio::sync::Mutex::new(log),
            state,
            stop,
            queue: Mutex::default(),
            last: AtomicU64::new(last),
            durable: AtomicU64::new(last),
            applied: AtomicU64::new(last),
            saved: watch::Sender::new(saved),
            saving: Mutex::default(),
            is_closed: AtomicBool::new(false),
            work: Notify::new(),
        });
        let applying = MeshRuntime::spawn_task(inner.clone().apply());
        Ok(Self { inner, applying: Arc::new(tokio::sync::Mutex::new(Some(applying))) })
    }
}

impl Inner {
    fn ended(&self) -> ReplicatorError {
        ReplicatorError::Stopped(self.stop.get().unwrap_or_else(|| "its log has ended".to_owned()))
    }

    fn is_over(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) || self.stop.is_set()
    }

    /// Nothing is taken any more, and what waits will be told so.
    fn close(&self) {
        let _order = self.queue.lock();
        self.is_closed.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// On the log's thread, or within [`Wal::append`] where that refuses: nothing is locked here.
    fn written(&self, index: u64, result: Result<(), StorageError>) {
        match result {
            Ok(()) => drop(self.durable.fetch_max(index, Ordering::Release)),
            Err(error) => self.stop.set(&error),
        }
        self.work.notify_one();
    }

    /// Applies what is on the disk, in order, until it has to stop; then nothing is taken any more, and whoever waits is told so.
    async fn apply(self: Arc<Self>) {
        let mut since_yield = 0;
        while !self.is_over() {
            while let Some(Waiting { index, command, done }) = self.next_durable() {
                since_yield += command.len() + YIELD_ENTRY_BYTES;
                let entry = Entry::<ShardRaft> { log_id: codec::log_id(self.term, index), payload: EntryPayload::Normal(Command(command)) };
                let outcome = match std::panic::catch_unwind(AssertUnwindSafe(|| self.state.apply_one(entry))) {
                    Ok(Ok(outcome)) => {
                        self.applied.store(index, Ordering::Release);
                        Ok(Committed { index, parts: outcome.parts })
                    }
                    Ok(Err(error)) => {
                        self.stop.set(&error);
                        Err(self.ended())
                    }
                    // It has said so itself: nobody reads or saves the state any more.
                    Err(_) => Err(self.ended()),
                };
                self.tell(done, outcome);
                if self.stop.is_set() {
                    break;
                }
                if since_yield >= YIELD_BYTES_MIN {
                    since_yield = 0;
                    tokio::task::yield_now().await;
                }
            }
            if !self.is_over() {
                self.work.notified().await;
            }
        }
        let waiting = {
            let mut queue = self.queue.lock();
            self.is_closed.store(true, Ordering::Release);
            std::mem::take(&mut *queue)
        };
        waiting.into_iter().for_each(|waiting| self.tell(waiting.done, Err(self.ended())));
    }

    /// One who panics keeps nobody else from being told.
    fn tell(&self, done: Done, outcome: Result<Committed, ReplicatorError>) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            self.stop.set(&"whoever waited for an entry panicked");
        }
    }

    fn next_durable(&self) -> Option<Waiting> {
        let durable = self.durable.load(Ordering::Acquire);
        self.queue.lock().pop_front_if(|first| first.index <= durable)
    }

    /// Writes a snapshot; the log that it covers goes. What fails notes why.
    async fn save(&self) {
        if self.is_over() {
            return;
        }
        let Ok(snapshot) = self.state.clone().build_snapshot().await else { return };
        let Some(last) = snapshot.meta.last_log_id else { return };
        if !self.is_over() {
            let _ = self.log.lock().await.purge(last).await;
        }
        // Whoever waits for it may ask for the next one, so it is said last.
        self.saved.send_replace(last.index);
    }

    async fn save_until_nobody_asks(self: Arc<Self>) {
        loop {
            self.save().await;
            // Where it failed there is an end.
            self.work.notify_one();
            let mut saving = self.saving.lock();
            if !std::mem::take(&mut saving.again) || self.is_over() {
                saving.is_running = false;
                return;
            }
        }
    }
}

impl Replicator for SoloReplica {
    fn submit(&self, command: Bytes, done: Done) {
        let inner = &self.inner;
        let mut queue = inner.queue.lock();
        if inner.is_over() {
            drop(queue);
            return done(Err(inner.ended()));
        }
        let index = inner.last.load(Ordering::Relaxed) + 1;
        inner.last.store(index, Ordering::Release);
        let entry = codec::encode_own_command(inner.term, index, inner.applied.load(Ordering::Relaxed), command.clone());
        queue.push_back(Waiting { index, command, done });
        // Under the lock, which makes the order of the calls that of the log.
        let writing = Writing { inner: inner.clone(), index, is_told: false };
        inner.wal.append(inner.shard.0, vec![entry], Box::new(move |result| writing.told(result)));
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<u64, ReplicatorError>> {
        // What was answered is in the state, and nobody else answers.
        let inner = &self.inner;
        futures::future::ready(if inner.is_over() { Err(inner.ended()) } else { Ok(inner.applied.load(Ordering::Acquire)) }).boxed()
    }

    fn status(&self) -> ReplicaStatus {
        let inner = &self.inner;
        let is_over = inner.is_over();
        ReplicaStatus {
            leader: Some(inner.node),
            is_leader: !is_over,
            term: inner.term,
            last_log_index: inner.last.load(Ordering::Acquire),
            applied_index: inner.applied.load(Ordering::Acquire),
            snapshot_index: *inner.saved.borrow(),
            stopped: is_over.then(|| inner.ended().to_string()),
        }
    }

    fn trigger_snapshot(&self) {
        let mut saving = self.inner.saving.lock();
        if saving.is_running {
            saving.again = true;
        } else if !self.inner.is_over() {
            saving.is_running = true;
            saving.task = Some(MeshRuntime::spawn_task(self.inner.clone().save_until_nobody_asks()));
        }
    }

    fn snapshot_of_now(&self) -> BoxFuture<'static, ()> {
        let mut saved = self.inner.saved.subscribe();
        let applied = self.inner.applied.load(Ordering::Acquire);
        async move {
            if saved.wait_for(|saved| *saved >= applied).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let (inner, applying) = (self.inner.clone(), self.applying.clone());
        async move {
            inner.close();
            let mut applying = applying.lock().await;
            let saving = inner.saving.lock().task.take();
            for task in applying.take().into_iter().chain(saving) {
                if let Err(error) = task.await {
                    tracing::warn!(%error, "a replica did not end cleanly");
                }
            }
            inner.state.snapshots().close().await;
        }
        .boxed()
    }
}

impl Drop for SoloReplica {
    fn drop(&mut self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests;
