//! Refused events, kept so that somebody can see what was wrong and send them again (I4). Bounded by bytes and by count: the oldest go first.
//!
//! One thread writes; everything queued goes into one transaction with one sync. The store is beside the write path of good events, never in it:
//! a failure here is reported and counted, and the next write opens the file anew.

mod record;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

pub use record::{DeadLetter, NewLetter};
use store::Store;

use crate::StorageError;

/// Writes that may wait for the thread; their bytes are bounded by the caller's permits.
const QUEUE_REQUESTS_MAX: usize = 1_024;
/// Letters of one transaction, so that a waiting request is not held up for long.
const GROUP_LETTERS_MAX: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterLimits {
    /// Of the records, without the store's own overhead.
    pub bytes_max: u64,
    pub count_max: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterStats {
    pub count: u64,
    pub bytes: u64,
    /// Letters that had to make room, since the store was made.
    pub dropped: u64,
    /// Writes that failed, since this process started.
    pub failures: u64,
}

/// Called once, from the writing thread, when the outcome is known.
pub type Done<T> = Box<dyn FnOnce(Result<T, StorageError>) + Send>;

enum Request {
    Add(Vec<NewLetter>, Done<()>),
    Remove(Vec<u64>, Done<u64>),
}

/// Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct DeadLetters {
    shared: Arc<Shared>,
    queue: Arc<Mutex<Option<SyncSender<Request>>>>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Shared {
    path: PathBuf,
    limits: DeadLetterLimits,
    /// `None` after a failure, until a write has opened it again.
    store: RwLock<Option<Store>>,
    count: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl DeadLetters {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// The disk's, or a file that is not a store: it names the file.
    pub fn open(dir: &Path, limits: DeadLetterLimits) -> Result<Self, StorageError> {
        std::fs::create_dir_all(dir).map_err(|e| StorageError::io("creating", dir, e))?;
        let path = dir.join("dead-letters.redb");
        let shared = Arc::new(Shared {
            store: RwLock::new(None),
            path,
            limits,
            count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        shared.reopen()?;
        let (queue, requests) = sync_channel(QUEUE_REQUESTS_MAX);
        let writing = shared.clone();
        let writer = std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || writing.run(&requests))
            .map_err(|e| StorageError::io("starting the thread of", &shared.path, e))?;
        Ok(Self { shared, queue: Arc::new(Mutex::new(Some(queue))), writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Adds letters; `done` is called when they are on disk. A full queue or a closed store answers at once.
    pub fn add(&self, letters: Vec<NewLetter>, done: Done<()>) {
        self.send(Request::Add(letters, done));
    }

    /// Removes letters; unknown ids are no error. Answers how many there were.
    pub fn remove(&self, ids: Vec<u64>, done: Done<u64>) {
        self.send(Request::Remove(ids, done));
    }

    /// Newest first, those with an id below `before` when it is given.
    ///
    /// # Errors
    /// The disk's.
    pub fn list(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        self.shared.read(|store| store.list(before, limit))
    }

    /// The letters with these ids that are there, in the order of `ids`.
    ///
    /// # Errors
    /// The disk's.
    pub fn get(&self, ids: &[u64]) -> Result<Vec<DeadLetter>, StorageError> {
        self.shared.read(|store| store.get(ids))
    }

    pub fn stats(&self) -> DeadLetterStats {
        let s = &self.shared;
        DeadLetterStats {
            count: s.count.load(Ordering::Relaxed),
            bytes: s.bytes.load(Ordering::Relaxed),
            dropped: s.dropped.load(Ordering::Relaxed),
            failures: s.failures.load(Ordering::Relaxed),
        }
    }

    /// Finishes what is queued and closes the file. Blocks until then; idempotent.
    pub fn close(&self) {
        drop(self.queue.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the thread has been printed, and there is nothing to save here.
            let _ = writer.join();
        }
        *self.shared.store.write() = None;
    }

    fn send(&self, request: Request) {
        let queue = self.queue.lock();
        let (request, why) = match queue.as_ref() {
            None => (request, "it is closed".to_owned()),
            Some(queue) => match queue.try_send(request) {
                Ok(()) => return,
                Err(TrySendError::Full(request)) => (request, format!("{QUEUE_REQUESTS_MAX} writes wait already")),
                Err(TrySendError::Disconnected(request)) => (request, "its thread has ended".to_owned()),
            },
        };
        drop(queue);
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        request.fail(&format!("dead-letter store: {why}"));
    }
}

impl Request {
    fn fail(self, why: &str) {
        match self {
            Self::Add(_, done) => done(Err(StorageError::Invalid(why.to_owned()))),
            Self::Remove(_, done) => done(Err(StorageError::Invalid(why.to_owned()))),
        }
    }

    fn letters(&self) -> usize {
        match self {
            Self::Add(letters, _) => letters.len(),
            Self::Remove(ids, _) => ids.len(),
        }
    }
}

impl Shared {
    fn reopen(&self) -> Result<(), StorageError> {
        let mut slot = self.store.write();
        // The old handle holds the file's lock.
        *slot = None;
        let store = Store::open(&self.path)?;
        self.publish(store.totals());
        *slot = Some(store);
        Ok(())
    }

    fn publish(&self, totals: store::Totals) {
        self.count.store(totals.count, Ordering::Relaxed);
        self.bytes.store(totals.bytes, Ordering::Relaxed);
        self.dropped.store(totals.dropped, Ordering::Relaxed);
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T, StorageError>) -> Result<T, StorageError> {
        match self.store.read().as_ref() {
            Some(store) => read(store),
            None => Err(StorageError::Invalid(format!("{} is not open after an earlier failure", self.path.display()))),
        }
    }

    fn run(&self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut letters = first.letters();
            let mut group = vec![first];
            while letters < GROUP_LETTERS_MAX
                && let Ok(next) = requests.try_recv()
            {
                letters += next.letters();
                group.push(next);
            }
            self.write(group);
        }
    }

    fn write(&self, group: Vec<Request>) {
        let result = (|| {
            if self.store.read().is_none() {
                self.reopen()?;
            }
            self.read(|store| store.write(&group, self.limits))
        })();
        match result {
            Ok(written) => {
                self.publish(written.totals);
                for (request, removed) in group.into_iter().zip(written.removed) {
                    match request {
                        Request::Add(_, done) => done(Ok(())),
                        Request::Remove(_, done) => done(Ok(removed)),
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "dead letters were not kept");
                self.failures.fetch_add(1, Ordering::Relaxed);
                // After an I/O error the database refuses all else: the next write starts from what is on disk.
                *self.store.write() = None;
                let why = error.to_string();
                for request in group {
                    request.fail(&why);
                }
            }
        }
    }
}
