//! What drives the node's log: its own thread, or in a simulation a task.

use std::sync::Arc;

use tallymesh_storage::StorageError;
use tallymesh_storage::wal::{Wal, WalThread, WalWriter};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::raft::{Blocking, MeshRuntime};

pub struct LogRunner {
    pub wal: Wal,
    runner: Runner,
}

enum Runner {
    Thread(WalThread),
    Task { task: JoinHandle<()>, end: watch::Sender<bool> },
}

impl LogRunner {
    /// # Errors
    /// No thread to be had.
    pub fn start(wal: Wal, writer: WalWriter, blocking: Blocking) -> Result<Self, StorageError> {
        let runner = match blocking {
            Blocking::Threads => Runner::Thread(WalThread::spawn(writer)?),
            Blocking::Inline => {
                let work = Arc::new(Notify::new());
                let queued = work.clone();
                wal.on_work(Box::new(move || queued.notify_one()));
                let (end, ended) = watch::channel(false);
                Runner::Task { task: MeshRuntime::spawn_task(drive(writer, work, ended)), end }
            }
        };
        Ok(Self { wal, runner })
    }

    /// Finishes what waits, marks the log as synced and ends.
    pub async fn close(self, blocking: Blocking) {
        let ended = match self.runner {
            Runner::Thread(mut thread) => blocking.run(move || thread.close()).await,
            Runner::Task { task, end } => {
                end.send_replace(true);
                task.await.map_err(|e| e.to_string())
            }
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the log was not closed cleanly");
        }
    }
}

async fn drive(mut writer: WalWriter, work: Arc<Notify>, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = work.notified() => {
                while writer.step() > 0 {}
            }
            // An error means that the mesh is gone.
            _ = ended.wait_for(|ended| *ended) => return writer.mark(),
        }
    }
}
