use std::collections::BTreeMap;

use serde_json::Value;
use tallymesh_protocol::question::answer::{Receipt, Row, ShardsAnswered};
use tokio::time::Instant;

use super::*;
use crate::limits::LIVE_TOPIC_GRACE;
use crate::live::{EventId, Kind, Message};

const INTERVAL: Duration = Duration::from_millis(250);

/// A node whose only number is told by the test.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    began: Instant,
    number: AtomicU64,
    is_partial: AtomicU64,
    evaluated: Mutex<Vec<(String, Duration)>>,
    failure: Mutex<Option<Problem>>,
}

impl Source for Fake {
    fn changes(&self) -> u64 {
        self.0.number.load(Ordering::Relaxed) + 1_000 * self.0.is_partial.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> i64 {
        self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.0.began.elapsed()
    }

    async fn evaluate(&self, params: &QueryParams, _: i64) -> Result<Answer, Problem> {
        self.0.evaluated.lock().push((params.get("metric").unwrap_or_default().to_owned(), self.monotonic()));
        if let Some(problem) = self.0.failure.lock().clone() {
            return Err(problem);
        }
        let answered = 4 - self.0.is_partial.load(Ordering::Relaxed) as u32;
        let count = self.0.number.load(Ordering::Relaxed) as f64;
        Ok(Answer {
            data: vec![Row { time: None, group: None, values: BTreeMap::from([("count".to_owned(), Some(count))]), compare: None }].into(),
            cursor: None,
            receipt: Receipt {
                complete: answered == 4,
                from: String::new(),
                to: String::new(),
                shards: ShardsAnswered { asked: 4, answered },
                watermark: None,
                freshness_ms: 0,
                error: BTreeMap::new(),
                sampled: 1.0,
                other_share: 0.0,
                sources: Vec::new(),
                grain: "1m".to_owned(),
                cache_age_ms: None,
                took_ms: 0,
            },
        })
    }
}

impl Fake {
    fn write(&self) -> u64 {
        self.0.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn evaluations(&self) -> usize {
        self.0.evaluated.lock().len()
    }
}

fn start(change: impl FnOnce(&mut LiveLimits)) -> (Arc<LiveHub>, Fake, Life) {
    let mut limits = LiveLimits { interval: INTERVAL, watchers_max: 1_000, topics_max: 10, memory_bytes_max: 1 << 20 };
    change(&mut limits);
    let inner = Inner {
        began: Instant::now(),
        number: AtomicU64::new(0),
        is_partial: AtomicU64::new(0),
        evaluated: Mutex::default(),
        failure: Mutex::default(),
    };
    let (hub, source, life) = (Arc::new(LiveHub::new(limits, 7)), Fake(Arc::new(inner)), Life::default());
    tokio::spawn(hub.clone().run(source.clone(), life.clone()));
    (hub, source, life)
}

fn watch(hub: &Arc<LiveHub>, metric: &str) -> Watcher {
    let mut watcher = hub.watcher().expect("a place");
    let params = QueryParams::from_pairs([("metric", metric)]).expect("known names");
    hub.watch(&mut watcher, "q".to_owned(), params.question(), params).expect("room");
    watcher
}

fn heard(message: &Message) -> (Kind, Value) {
    let body: Value = serde_json::from_slice(&[b"{", &message.body[..]].concat()).expect("an object without its first brace");
    let count = body.pointer("/answer/data/0/values/count").or(body.pointer("/changed/0/values/count"));
    (message.kind, count.cloned().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_cost_one_evaluation_for_each_change() {
    let (hub, source, _life) = start(|_| {});
    let mut watchers: Vec<Watcher> = (0..1_000).map(|_| watch(&hub, "a")).collect();
    for watcher in &mut watchers {
        assert_eq!(heard(&watcher.next().await), (Kind::Snapshot, 0.into()));
    }
    for change in 2..6 {
        let written = source.write();
        for watcher in &mut watchers {
            assert_eq!(heard(&watcher.next().await), (Kind::Delta, written.into()));
        }
        assert_eq!(source.evaluations(), change);
    }
    assert_eq!((hub.topics(), hub.watchers(), hub.figures.deltas.get(), hub.figures.conflated.get()), (1, 1_000, 4_000, 0));
}

#[tokio::test(start_paused = true)]
async fn evaluations_keep_their_distance_and_stop_when_nothing_changes() {
    let (hub, source, _life) = start(|_| {});
    let mut watcher = watch(&hub, "a");
    watcher.next().await;
    let until = source.monotonic() + 4 * INTERVAL;
    while source.monotonic() < until {
        source.write();
        tokio::time::sleep(INTERVAL / 50).await;
    }
    let times: Vec<Duration> = source.0.evaluated.lock().iter().map(|(_, at)| *at).collect();
    assert!(times.windows(2).skip(1).all(|pair| pair[1] - pair[0] >= INTERVAL - INTERVAL / 50), "{times:?}");
    assert!((4..=6).contains(&times.len()), "{times:?}");
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(heard(&watcher.next().await).0, Kind::Delta);
    assert_eq!(hub.figures.conflated.get(), 1, "it slept through all of them but the last");
    let quiet = source.evaluations();
    assert!(tokio::time::timeout(Duration::from_secs(3_600), watcher.next()).await.is_err());
    assert!(source.evaluations() - quiet <= 61, "once a minute, as time may have moved the range");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_once_and_then_what_changed_meanwhile() {
    let (hub, source, _life) = start(|_| {});
    let mut watcher = watch(&hub, "a");
    watcher.next().await;
    *source.0.failure.lock() = Some(Problem::new(ErrorCode::ShardUnavailable, "shard 3 is gone"));
    source.write();
    assert_eq!(watcher.next().await.kind, Kind::Problem);
    assert!(tokio::time::timeout(Duration::from_secs(5), watcher.next()).await.is_err(), "not again and again");
    let late = watch(&hub, "a").next().await;
    assert_eq!(late.kind, Kind::Problem, "no old answer for a newcomer");
    *source.0.failure.lock() = None;
    assert_eq!(heard(&watcher.next().await), (Kind::Delta, 1.into()));
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_says_so_and_so_does_the_whole_one_after_it() {
    let (hub, source, _life) = start(|_| {});
    let mut watcher = watch(&hub, "a");
    watcher.next().await;
    for (missing, complete) in [(1, false), (0, true)] {
        source.0.is_partial.store(missing, Ordering::Relaxed);
        let message = watcher.next().await;
        let body: Value = serde_json::from_slice(&[b"{", &message.body[..]].concat()).expect("JSON");
        assert_eq!((&body["receipt"]["complete"], &body["receipt"]["shards"]["answered"]), (&complete.into(), &(4 - missing).into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_is_kept_for_who_comes_again_and_then_forgotten() {
    let (hub, source, _life) = start(|_| {});
    let mut watcher = watch(&hub, "a");
    watcher.next().await;
    let id = watcher.event_id();
    drop(watcher);
    source.write();
    tokio::time::sleep(LIVE_TOPIC_GRACE / 2).await;
    let mut again = watch(&hub, "a");
    again.resume(&id);
    assert_eq!(heard(&again.next().await), (Kind::Delta, 1.into()));
    let id = again.event_id();
    drop(again);
    tokio::time::sleep(2 * LIVE_TOPIC_GRACE).await;
    assert_eq!((hub.topics(), hub.watchers(), hub.bytes()), (0, 0, 0));
    let before = source.evaluations();
    tokio::time::sleep(2 * LIVE_TOPIC_GRACE).await;
    assert_eq!(source.evaluations(), before, "nobody watches");
    let mut too_late = watch(&hub, "a");
    too_late.resume(&id);
    assert_eq!(heard(&too_late.next().await).0, Kind::Snapshot);
    let mut foreign = watch(&hub, "a");
    foreign.resume(&EventId { process: 8, ..too_late.event_id() });
    assert_eq!(heard(&foreign.next().await).0, Kind::Snapshot);
}

#[tokio::test(start_paused = true)]
async fn watchers_queries_and_memory_are_bounded() {
    let (hub, _source, _life) = start(|limits| (limits.watchers_max, limits.topics_max, limits.memory_bytes_max) = (2, 1, 10));
    let mut watcher = watch(&hub, "a");
    let message = watcher.next().await;
    let body: Value = serde_json::from_slice(&[b"{", &message.body[..]].concat()).expect("JSON");
    assert_eq!((message.kind, &body["problem"]["code"], &body["problem"]["limit"]), (Kind::Problem, &"overloaded".into(), &10.into()));
    let other = QueryParams::from_pairs([("metric", "b")]).expect("known names");
    let refused = hub.watch(&mut watcher, "r".to_owned(), other.question(), other).expect_err("one query");
    assert_eq!((refused.status, refused.limit), (429, Some(1)));
    let _second = hub.watcher().expect("a place");
    assert_eq!(hub.watcher().err().map(|problem| problem.status), Some(429));
}
