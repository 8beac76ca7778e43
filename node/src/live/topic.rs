//! One distinct query: when it has to be evaluated, what came of it last, and who wants to hear.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::question::answer::Answer;
use tallymesh_protocol::question::query::QueryParams;
use tallymesh_protocol::time::MINUTE_MS;
use tokio::sync::Notify;

use super::known::Known;
use crate::limits::{LIVE_RETRY_PAUSE, LIVE_SPACING_MAX, LIVE_SPACING_PER_WATCHER, LIVE_TOPIC_GRACE};

/// What an evaluation has seen: it need not be repeated while these stay the same. A step or a relative range moves with full minutes, the finest grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub changes: u64,
    pub minute: i64,
}

impl Moment {
    pub fn new(changes: u64, now_ms: i64) -> Self {
        Self { changes, minute: now_ms.div_euclid(MINUTE_MS) }
    }
}

/// When to evaluate; a pure state.
#[derive(Debug, Default)]
pub struct Schedule {
    seen: Option<Moment>,
    /// When the last one was begun.
    begun: Option<Duration>,
    is_running: bool,
    retry_at: Option<Duration>,
    unwatched_since: Option<Duration>,
}

impl Schedule {
    /// Whether to evaluate now; `now` is monotonic. It counts as running from then on. What many watch is evaluated less often: each news costs a write to every one
    /// of them.
    pub fn begin(&mut self, moment: Moment, now: Duration, watchers: usize) -> bool {
        let spacing = LIVE_SPACING_PER_WATCHER.saturating_mul(u32::try_from(watchers).unwrap_or(u32::MAX)).min(LIVE_SPACING_MAX);
        let is_time = self.begun.is_none_or(|begun| now >= begun + spacing) && self.retry_at.is_none_or(|at| at <= now);
        let is_due = !self.is_running && self.seen != Some(moment) && is_time;
        if is_due {
            (self.is_running, self.begun) = (true, Some(now));
        }
        is_due
    }

    /// `moment` is that before anything was read.
    pub fn end(&mut self, moment: Moment, may_help_to_retry: bool, now: Duration) {
        self.is_running = false;
        self.seen = (!may_help_to_retry).then_some(moment);
        self.retry_at = may_help_to_retry.then_some(now + LIVE_RETRY_PAUSE);
    }

    pub fn give_up(&mut self) {
        self.is_running = false;
    }

    fn is_new(&self) -> bool {
        self.seen.is_none() && self.retry_at.is_none() && !self.is_running
    }

    /// Whether nobody has watched for so long that the topic may go.
    fn is_over(&mut self, is_watched: bool, now: Duration) -> bool {
        if is_watched {
            self.unwatched_since = None;
            return false;
        }
        let since = *self.unwatched_since.get_or_insert(now);
        !self.is_running && now.saturating_sub(since) >= LIVE_TOPIC_GRACE
    }
}

/// Why there is no newer answer, under a number of its own.
struct Failure {
    number: u64,
    problem: Problem,
    body: Bytes,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    known: Option<Known>,
    failure: Option<Failure>,
    watchers: HashMap<u64, Arc<Notify>>,
}

pub struct Topic {
    /// Equal for equal queries.
    pub question: String,
    pub params: QueryParams,
    state: Mutex<State>,
}

/// What a watcher has been told of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The version that it has; 0 is none.
    pub version: u64,
    /// The failure that it knows of; 0 is none.
    pub failure: u64,
    /// Whether it has heard anything: one that comes again is told where it stands, even if nothing changed.
    pub greeted: bool,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Snapshot(Bytes),
    Delta { body: Bytes, was_missed: bool },
    Problem(Bytes),
}

impl Topic {
    pub fn new(question: String, params: QueryParams) -> Self {
        Self { question, params, state: Mutex::default() }
    }

    pub fn join(&self, watcher: u64, notify: Arc<Notify>) {
        self.state.lock().watchers.insert(watcher, notify);
    }

    pub fn leave(&self, watcher: u64) {
        self.state.lock().watchers.remove(&watcher);
    }

    pub fn is_new(&self) -> bool {
        self.state.lock().schedule.is_new()
    }

    pub fn begin(&self, moment: Moment, now: Duration) -> bool {
        let mut state = self.state.lock();
        let watchers = state.watchers.len();
        state.schedule.begin(moment, now, watchers)
    }

    pub fn give_up(&self) {
        self.state.lock().schedule.give_up();
    }

    pub fn is_over(&self, now: Duration) -> bool {
        let mut state = self.state.lock();
        let is_watched = !state.watchers.is_empty();
        state.schedule.is_over(is_watched, now)
    }

    /// What the answer holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.state.lock().known.as_ref().map_or(0, Known::bytes)
    }

    /// Takes what an evaluation found and wakes who watches, if it is news. `room` is what the answer may hold at most, in bytes; `number` is larger than
    /// any before.
    pub fn publish(&self, outcome: Result<Answer, Problem>, number: u64, moment: Moment, now: Duration, room: usize) {
        let mut state = self.state.lock();
        let may_help_to_retry = outcome.as_ref().is_err_and(|problem| problem.code.is_retryable());
        state.schedule.end(moment, may_help_to_retry, now);
        let is_news = match outcome.and_then(|answer| state.learn(answer, number, room)) {
            Ok(is_news) => state.failure.take().is_some() || is_news,
            Err(problem) => state.fail(problem, number),
        };
        if is_news {
            state.watchers.values().for_each(|notify| notify.notify_one());
        }
    }

    /// What to tell a watcher that was told `told`, which is brought up to date.
    pub fn news(&self, told: &mut Told) -> Option<News> {
        self.state.lock().news(told)
    }
}

impl State {
    fn learn(&mut self, answer: Answer, number: u64, room: usize) -> Result<bool, Problem> {
        let encoded = match &mut self.known {
            Some(known) => known.take(answer, number),
            slot => Known::new(answer, number).map(|known| *slot = Some(known)).map(|()| true),
        };
        let is_news = encoded.map_err(|e| Problem::new(ErrorCode::Internal, format!("the answer does not encode: {e}")))?;
        if self.known.as_ref().is_some_and(|known| known.bytes() > room) {
            self.known = None;
            let detail = "the answers that this node keeps live take all the memory they may; ask for fewer rows";
            return Err(Problem::new(ErrorCode::Overloaded, detail).limit(room as u64));
        }
        Ok(is_news)
    }

    /// Whether it is another problem than the last one.
    fn fail(&mut self, problem: Problem, number: u64) -> bool {
        if self.failure.as_ref().is_some_and(|last| last.problem.code == problem.code) {
            return false;
        }
        let json = serde_json::to_string(&problem).unwrap_or_else(|_| "null".to_owned());
        self.failure = Some(Failure { number, problem, body: format!("\"problem\":{json}}}").into() });
        true
    }

    fn news(&mut self, told: &mut Told) -> Option<News> {
        if let Some(failure) = &self.failure {
            if told.failure == failure.number {
                return None;
            }
            told.failure = failure.number;
            return Some(News::Problem(failure.body.clone()));
        }
        let known = self.known.as_mut()?;
        let is_current = told.greeted && told.failure == 0 && told.version == known.version();
        if is_current {
            return None;
        }
        let was_missed = told.greeted && known.was_missed(told.version);
        let news = match known.since(told.version) {
            Some(body) => News::Delta { body, was_missed },
            None => News::Snapshot(known.snapshot()),
        };
        *told = Told { version: known.version(), failure: 0, greeted: true };
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_query_is_evaluated_when_something_changed_or_a_minute_began_and_never_twice_at_once() {
        let mut schedule = Schedule::default();
        let moment = |changes, now_ms| Moment::new(changes, now_ms);
        assert!(schedule.is_new() && schedule.begin(moment(1, 59_999), SECOND, 0));
        assert!(!schedule.begin(moment(2, 59_999), SECOND, 0), "it runs");
        schedule.end(moment(1, 59_999), false, SECOND);
        assert!(!schedule.begin(moment(1, 59_000), SECOND, 0), "nothing is new");
        assert!(schedule.begin(moment(1, 60_000), SECOND, 0), "a minute began");
        schedule.end(moment(1, 60_000), false, SECOND);
        assert!(schedule.begin(moment(2, 60_000), SECOND, 0), "something was written");
    }

    #[test]
    fn what_may_go_by_itself_is_tried_again_after_a_pause() {
        let mut schedule = Schedule::default();
        let moment = Moment::new(1, 0);
        assert!(schedule.begin(moment, SECOND, 1));
        schedule.end(moment, true, SECOND);
        assert!(!schedule.begin(moment, SECOND + LIVE_RETRY_PAUSE / 2, 1));
        assert!(schedule.begin(moment, SECOND + LIVE_RETRY_PAUSE, 1));
    }

    #[test]
    fn what_many_watch_is_evaluated_less_often_but_never_later_than_the_longest_spacing() {
        for (watchers, spacing) in
            [(0, Duration::ZERO), (1, LIVE_SPACING_PER_WATCHER), (100, LIVE_SPACING_PER_WATCHER * 100), (1_000_000, LIVE_SPACING_MAX)]
        {
            let mut schedule = Schedule::default();
            let moment = |changes| Moment::new(changes, 0);
            assert!(schedule.begin(moment(1), SECOND, watchers), "the first one waits for nothing");
            schedule.end(moment(1), false, SECOND);
            if !spacing.is_zero() {
                assert!(!schedule.begin(moment(2), SECOND + spacing - Duration::from_nanos(1), watchers), "{watchers}");
            }
            assert!(schedule.begin(moment(2), SECOND + spacing, watchers), "{watchers}");
        }
        assert!(LIVE_SPACING_MAX < SECOND, "within a second of the event");
    }

    #[test]
    fn a_query_that_nobody_watches_goes_after_a_while() {
        let mut schedule = Schedule::default();
        assert!(!schedule.is_over(true, SECOND) && !schedule.is_over(false, 2 * SECOND));
        assert!(!schedule.is_over(false, LIVE_TOPIC_GRACE + SECOND));
        assert!(!schedule.is_over(true, LIVE_TOPIC_GRACE + 2 * SECOND), "somebody came again");
        assert!(!schedule.is_over(false, LIVE_TOPIC_GRACE + 3 * SECOND));
        assert!(schedule.is_over(false, 2 * LIVE_TOPIC_GRACE + 3 * SECOND));
    }
}
