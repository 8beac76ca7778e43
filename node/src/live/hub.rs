//! All topics of a node, and the one task that keeps them up to date.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::question::answer::Answer;
use tallymesh_protocol::question::query::QueryParams;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use super::topic::{Moment, Topic};
use super::watcher::Watcher;
use crate::boot::life::Life;
use crate::limits::{LIVE_EVALUATIONS_MAX, LIVE_INLINE_ROWS_MAX, RETRY_AFTER_MS};
use crate::metrics::Counter;

/// Where answers come from.
pub trait Source: Clone + Send + Sync + 'static {
    /// A number that is another one after anything was written, or could not be read any more; read before an evaluation, it is never too new for it.
    fn changes(&self) -> u64;
    /// UTC milliseconds.
    fn now_ms(&self) -> i64;
    fn monotonic(&self) -> Duration;
    fn evaluate(&self, params: &QueryParams, now_ms: i64) -> impl Future<Output = Result<Answer, Problem>> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLimits {
    /// Least time between two evaluations of a query.
    pub interval: Duration,
    /// Streams and sockets.
    pub watchers_max: usize,
    /// Distinct queries.
    pub topics_max: usize,
    /// The answers of all topics.
    pub memory_bytes_max: usize,
}

/// What the hub counts.
#[derive(Default)]
pub struct HubFigures {
    pub evaluations: Counter,
    pub snapshots: Counter,
    pub deltas: Counter,
    /// Deltas that told of several changes at once, because who they were for had not read in time.
    pub conflated: Counter,
}

pub struct LiveHub {
    limits: LiveLimits,
    process: u64,
    numbers: AtomicU64,
    places: Arc<Semaphore>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    /// A topic is new.
    wake: Notify,
    evaluating: Semaphore,
    sessions: TaskTracker,
    pub figures: HubFigures,
}

/// A topic that is being evaluated; one whose evaluation broke off may be evaluated again.
struct Evaluating {
    topic: Arc<Topic>,
    is_over: bool,
}

impl Drop for Evaluating {
    fn drop(&mut self) {
        if !self.is_over {
            self.topic.give_up();
        }
    }
}

impl LiveHub {
    /// `process` is a number that no other run of the node has.
    pub fn new(limits: LiveLimits, process: u64) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.watchers_max.min(Semaphore::MAX_PERMITS))),
            limits,
            process,
            // 0 is nobody's version.
            numbers: AtomicU64::new(1),
            topics: Mutex::default(),
            wake: Notify::new(),
            evaluating: Semaphore::new(LIVE_EVALUATIONS_MAX),
            sessions: TaskTracker::new(),
            figures: HubFigures::default(),
        }
    }

    pub fn process(&self) -> u64 {
        self.process
    }

    /// Of those who watch over connections that the HTTP server has let go; waited for at the end.
    pub fn sessions(&self) -> &TaskTracker {
        &self.sessions
    }

    pub fn watchers(&self) -> usize {
        self.limits.watchers_max.min(Semaphore::MAX_PERMITS) - self.places.available_permits()
    }

    pub fn topics(&self) -> usize {
        self.topics.lock().len()
    }

    /// What the answers of all topics hold, in bytes.
    pub fn bytes(&self) -> usize {
        let topics: Vec<Arc<Topic>> = self.topics.lock().values().cloned().collect();
        topics.iter().map(|topic| topic.bytes()).sum()
    }

    /// A place for a stream or socket.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub fn watcher(self: &Arc<Self>) -> Result<Watcher, Problem> {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Ok(Watcher::new(self.clone(), place)),
            Err(_) => Err(full(format!("{} clients watch already", self.limits.watchers_max), self.limits.watchers_max)),
        }
    }

    /// Lets a watcher watch a query too, under a name of its own. Queries are the same if their `question` is.
    ///
    /// # Errors
    /// 429 when there are too many distinct queries.
    pub fn watch(&self, watcher: &mut Watcher, name: String, question: String, params: QueryParams) -> Result<(), Problem> {
        let mut topics = self.topics.lock();
        let topic = match topics.get(&question) {
            Some(topic) => topic.clone(),
            None if topics.len() >= self.limits.topics_max => {
                let limit = self.limits.topics_max;
                return Err(full(format!("{limit} different queries are watched already"), limit));
            }
            None => {
                let topic = Arc::new(Topic::new(question.clone(), params));
                topics.insert(question, topic.clone());
                topic
            }
        };
        // Under the lock: the topic cannot go before it is watched.
        watcher.add(name, self.number(), topic);
        drop(topics);
        self.wake.notify_one();
        Ok(())
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Evaluates what is due until the node drains.
    pub async fn run<S: Source>(self: Arc<Self>, source: S, life: Life) {
        let mut ticks = tokio::time::interval(self.limits.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = JoinSet::new();
        loop {
            let is_idle = self.topics.lock().is_empty();
            let due = tokio::select! {
                () = life.drained() => break,
                _ = ticks.tick(), if !is_idle => self.due(&source, Topic::begin),
                // Only what nobody has an answer to: everything else keeps to the interval.
                () = self.wake.notified() => self.due(&source, |topic, moment, now| topic.is_new() && topic.begin(moment, now)),
            };
            // What they came to has been published; panics have been printed.
            while running.try_join_next().is_some() {}
            for topic in due {
                running.spawn(self.clone().evaluate(source.clone(), Evaluating { topic, is_over: false }));
            }
        }
        running.shutdown().await;
    }

    fn due<S: Source>(&self, source: &S, begin: impl Fn(&Topic, Moment, Duration) -> bool) -> Vec<Arc<Topic>> {
        let (moment, now) = (Moment::new(source.changes(), source.now_ms()), source.monotonic());
        let mut topics = self.topics.lock();
        topics.retain(|_, topic| !topic.is_over(now));
        topics.values().filter(|topic| begin(topic, moment, now)).cloned().collect()
    }

    async fn evaluate<S: Source>(self: Arc<Self>, source: S, mut evaluating: Evaluating) {
        // Never closed.
        let _place = self.evaluating.acquire().await;
        let now_ms = source.now_ms();
        let moment = Moment::new(source.changes(), now_ms);
        self.figures.evaluations.add(1);
        let outcome = source.evaluate(&evaluating.topic.params, now_ms).await;
        let is_large = outcome.as_ref().is_ok_and(|answer| answer.data.len() > LIVE_INLINE_ROWS_MAX);
        let now = source.monotonic();
        let hub = self.clone();
        let publish = move || {
            evaluating.is_over = true;
            let topic = &evaluating.topic;
            let others = hub.bytes().saturating_sub(topic.bytes());
            topic.publish(outcome, hub.number(), moment, now, hub.limits.memory_bytes_max.saturating_sub(others));
        };
        if is_large {
            // Its only way to fail is a panic, which has been printed.
            let _ = tokio::task::spawn_blocking(publish).await;
        } else {
            publish();
        }
    }
}

fn full(detail: String, limit: usize) -> Problem {
    Problem::new(ErrorCode::Overloaded, detail).limit(limit as u64).retry_after_ms(RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests;
