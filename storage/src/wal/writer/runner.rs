//! The production runner: one thread that drives the writer.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::WalWriter;
use super::super::shared::{Shared, Work};
use crate::StorageError;

/// The writer waits so long at most for callers that were just told, and are likely to come again: a sync costs a hundred times what one more request in it
/// costs, and so do the wakes behind it.
const GATHER_TIME_MAX: Duration = Duration::from_micros(800);

/// Owns the thread `wal`. Closing (or dropping) it refuses new requests, finishes those that wait, marks the log as synced and ends the thread.
pub struct WalThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WalThread {
    /// # Errors
    /// No thread to be had.
    pub fn spawn(writer: WalWriter) -> Result<Self, StorageError> {
        let shared = writer.shared.clone();
        let thread = std::thread::Builder::new().name("wal".to_owned()).spawn(move || run(writer));
        let thread = thread.map_err(|e| StorageError::io("start the writer of", "the log", e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Idempotent. Waits for the thread: for the requests that wait and one more sync.
    pub fn close(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Drop for WalThread {
    fn drop(&mut self) {
        self.close();
    }
}

/// Poisons the log if its writer is gone before its end, so that no caller waits for ever.
struct PoisonOnUnwind(Arc<Shared>);

impl Drop for PoisonOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the log's thread panicked";
            for request in self.0.poison(reason) {
                (request.done)(Err(StorageError::Poisoned(reason.to_owned())));
            }
        }
    }
}

fn run(mut writer: WalWriter) {
    let _guard = PoisonOnUnwind(writer.shared.clone());
    loop {
        match writer.wait() {
            Work::Queued => {
                writer.gather(GATHER_TIME_MAX);
                writer.step();
            }
            Work::Idle => writer.mark(),
            Work::Closed => return writer.close(),
        }
    }
}
