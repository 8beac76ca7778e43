//! Answers kept for who may have them a little older (`cache=on`, Q6): one evaluation for however many ask at once, a time to live with jitter, a bound
//! in bytes.
//!
//! Two kinds of questions. Of *closed* time (its windows were closed when asked): the shards' counts of late changes in the days it touches are part of
//! the key, so late data makes it another question and a kept answer is always exact. Of time that still *moves*: events that come in time do not count as
//! changes, the answer is as old as it says; once late data has changed its days, it lives [`LATE_CHANGE_AGE_MAX`] at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use tallymesh_protocol::error::Problem;
use tallymesh_protocol::question::answer::Answer;
use tallymesh_protocol::question::query::{PreparedQuery, QueryParams, TimeRange};
use tallymesh_protocol::time::{Grain, MINUTE_MS};
use tallymesh_storage::clock::Clock;

use crate::config;
use crate::metrics::Counter;
use crate::unique::UniqueNumbers;

/// An answer about time that moves is given no longer than this once late data has changed its days: not at once, because at scale some always comes, and
/// nothing would ever be found in the cache.
const LATE_CHANGE_AGE_MAX: Duration = Duration::from_secs(10);
/// A range counts as closed this long after the shards close its windows: what was on its way meanwhile has been stamped.
const CLOSED_MARGIN_MS: i64 = MINUTE_MS;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    question: String,
    /// Of closed time: the changes so far.
    late_changes: Option<u64>,
}

/// From this share of its life on, in quarters, somebody who asks finds the next answer, and the others go on with this one meanwhile.
const RENEWED_QUARTERS: u32 = 3;

struct Kept {
    answer: Answer,
    /// Somebody does.
    is_renewed: AtomicBool,
    late_changes: u64,
    /// Monotonic time before which nothing of it was read.
    began: Duration,
    lives: Duration,
    bytes: u32,
}

/// Why an answer is given but not kept.
enum NotKept {
    /// Shards are missing in it.
    Partial(Answer),
    Failed(Problem),
}

/// A question as the cache knows it.
pub struct Question {
    text: String,
    ranges: Vec<TimeRange>,
    is_closed: bool,
}

impl Question {
    /// `kind` tells apart what is made of the same parameters in different ways.
    pub fn new(kind: &str, params: &QueryParams, prepared: &PreparedQuery, lateness_ms: u64, now_ms: i64) -> Self {
        let range = prepared.current.plan.range;
        let earlier = prepared.earlier.as_ref().map(|leg| leg.plan.range);
        let lateness_ms = i64::try_from(lateness_ms).unwrap_or(i64::MAX);
        let closed_ms = Grain::Minute.floor(now_ms.saturating_sub(lateness_ms).saturating_sub(CLOSED_MARGIN_MS).max(0));
        Self {
            text: format!("{kind}\n{}", params.question()),
            ranges: std::iter::once(range).chain(earlier).collect(),
            is_closed: range.to_ms <= closed_ms,
        }
    }
}

pub struct AnswerCache {
    kept: Cache<Key, Arc<Kept>>,
    clock: Arc<dyn Clock>,
    numbers: Arc<UniqueNumbers>,
    ttl: Duration,
    jitter: Duration,
    pub stats: CacheStats,
}

#[derive(Default)]
pub struct CacheStats {
    /// Questions answered from an answer that was kept, or by an evaluation that somebody else had begun.
    pub hits: Counter,
    /// Questions that were evaluated.
    pub misses: Counter,
    /// Answers dropped because late data changed what they are about.
    pub invalidated: Counter,
}

/// Each answer lives as long as was drawn for it.
struct OwnLife;

impl Expiry<Key, Arc<Kept>> for OwnLife {
    fn expire_after_create(&self, _: &Key, kept: &Arc<Kept>, _: Instant) -> Option<Duration> {
        Some(kept.lives)
    }

    fn expire_after_update(&self, _: &Key, kept: &Arc<Kept>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.lives)
    }
}

/// Whoever renews an answer and gives up leaves it to the next.
struct Renewal(Arc<Kept>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.is_renewed.store(false, Ordering::Relaxed);
    }
}

impl AnswerCache {
    pub fn new(config: &config::Cache, clock: Arc<dyn Clock>, numbers: Arc<UniqueNumbers>) -> Self {
        let kept = Cache::builder()
            .max_capacity(config.bytes_max.0)
            .weigher(|key: &Key, kept: &Arc<Kept>| kept.bytes.saturating_add(u32::try_from(key.question.len()).unwrap_or(u32::MAX)))
            .expire_after(OwnLife)
            .build();
        Self { kept, clock, numbers, ttl: config.ttl.duration(), jitter: config.jitter.duration(), stats: CacheStats::default() }
    }

    /// Answers kept, and their bytes.
    pub async fn size(&self) -> (u64, u64) {
        // What is counted is brought up to date by housekeeping only.
        self.kept.run_pending_tasks().await;
        (self.kept.entry_count(), self.kept.weighted_size())
    }

    /// The answer that is kept, or the one that `evaluate` finds. Whoever gives up leaves the evaluation to the others that wait for it. Errors and partial
    /// answers are told to all who waited, and not kept.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub async fn answer(
        &self,
        question: Question,
        late_changes: impl Fn(&[TimeRange]) -> u64,
        evaluate: impl Future<Output = Result<Answer, Problem>>,
    ) -> Result<Answer, Problem> {
        // Before anything is read: what comes later changes more than was counted, never less.
        let changes = late_changes(&question.ranges);
        let key = Key { question: question.text, late_changes: question.is_closed.then_some(changes) };
        let is_outdated = |kept: &Kept| kept.late_changes != changes && self.age(kept) >= LATE_CHANGE_AGE_MAX;
        match self.kept.get(&key).await {
            Some(kept) if is_outdated(&kept) => {
                self.kept.invalidate(&key).await;
                self.stats.invalidated.add(1);
            }
            Some(kept) if self.is_due(&kept, changes) && !kept.is_renewed.swap(true, Ordering::Relaxed) => {
                return Ok(self.renew(key, kept, changes, evaluate).await);
            }
            Some(_) | None => {}
        }
        let init = async {
            let began = self.clock.monotonic();
            match evaluate.await {
                Ok(answer) if answer.receipt.shards.answered < answer.receipt.shards.asked => Err(NotKept::Partial(answer)),
                Ok(answer) => Ok(Arc::new(self.keep(answer, changes, began))),
                Err(problem) => Err(NotKept::Failed(problem)),
            }
        };
        match self.kept.entry(key).or_try_insert_with(init).await {
            Ok(entry) if entry.is_fresh() => {
                self.stats.misses.add(1);
                Ok(entry.into_value().answer.clone())
            }
            Ok(entry) => Ok(self.given(&entry.into_value())),
            Err(not_kept) => {
                self.stats.misses.add(1);
                match &*not_kept {
                    NotKept::Partial(answer) => Ok(answer.clone()),
                    NotKept::Failed(problem) => Err(problem.clone()),
                }
            }
        }
    }

    /// What is kept, with its age.
    fn given(&self, kept: &Kept) -> Answer {
        self.stats.hits.add(1);
        let age_ms = self.age(kept).as_millis() as u64;
        let mut answer = kept.answer.clone();
        answer.receipt.cache_age_ms = Some(age_ms);
        answer.receipt.freshness_ms = answer.receipt.freshness_ms.saturating_add(age_ms);
        answer
    }

    /// Whether it is time for the next answer.
    fn is_due(&self, kept: &Kept, changes: u64) -> bool {
        let lives = if kept.late_changes == changes { kept.lives } else { kept.lives.min(LATE_CHANGE_AGE_MAX) };
        self.age(kept) >= lives * RENEWED_QUARTERS / 4
    }

    /// Finds the next answer before anybody has to wait for it. Where that fails, what is kept will do: it may still be given.
    async fn renew(&self, key: Key, kept: Arc<Kept>, changes: u64, evaluate: impl Future<Output = Result<Answer, Problem>>) -> Answer {
        let renewal = Renewal(kept);
        let began = self.clock.monotonic();
        match evaluate.await {
            Ok(answer) if answer.receipt.shards.answered == answer.receipt.shards.asked => {
                self.stats.misses.add(1);
                let next = Arc::new(self.keep(answer, changes, began));
                self.kept.insert(key, next.clone()).await;
                next.answer.clone()
            }
            Ok(_) | Err(_) => self.given(&renewal.0),
        }
    }

    fn age(&self, kept: &Kept) -> Duration {
        self.clock.monotonic().saturating_sub(kept.began)
    }

    fn keep(&self, mut answer: Answer, late_changes: u64, began: Duration) -> Kept {
        if let Err(error) = answer.data.write_ahead() {
            tracing::warn!(%error, "an answer is kept, but not as it is written");
        }
        let took = self.clock.monotonic().saturating_sub(began);
        let lives = lifetime(self.ttl, self.jitter, self.numbers.next()).saturating_sub(took);
        Kept { bytes: bytes_of(&answer), late_changes, began, lives, answer, is_renewed: AtomicBool::new(false) }
    }
}

/// `ttl` give or take `jitter`, by a number that differs from answer to answer.
fn lifetime(ttl: Duration, jitter: Duration, number: u128) -> Duration {
    // Fibonacci hashing (Knuth, TAOCP 3, 6.4): successive numbers land far apart.
    let share = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / 2f64.powi(64);
    (ttl + jitter.mul_f64(2.0 * share)).saturating_sub(jitter)
}

/// What an answer holds in memory, roughly, in bytes: texts, and the maps and numbers around them.
fn bytes_of(answer: &Answer) -> u32 {
    const ROW: usize = 160;
    const ENTRY: usize = 64;
    let values = |values: &std::collections::BTreeMap<String, Option<f64>>| values.keys().map(|label| label.len() + ENTRY).sum::<usize>();
    let rows = answer.data.iter().map(|row| {
        let group = row.group.iter().flatten().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + ENTRY);
        let compared = row.compare.as_ref().map_or(0, |c| c.time.as_ref().map_or(0, String::len) + values(&c.values));
        ROW + row.time.as_ref().map_or(0, String::len) + values(&row.values) + group.sum::<usize>() + compared
    });
    const RECEIPT: usize = 1_024;
    u32::try_from(RECEIPT + answer.data.written_bytes() + rows.sum::<usize>()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
