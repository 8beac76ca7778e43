use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::question::answer::{Receipt, Rows, ShardsAnswered};
use tokio::sync::Notify;

use super::*;
use crate::config::units::{ByteSize, Period};

/// A clock that stands still until it is turned.
#[derive(Default)]
struct HandClock(AtomicI64);

impl HandClock {
    fn turn(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.wall_ms() as u64)
    }
}

struct Bench {
    cache: AnswerCache,
    clock: Arc<HandClock>,
    evaluated: AtomicUsize,
    late_changes: AtomicU64,
}

fn bench(change: impl FnOnce(&mut config::Cache)) -> Arc<Bench> {
    let mut config = config::Cache::default();
    change(&mut config);
    let clock = Arc::new(HandClock::default());
    let numbers = Arc::new(UniqueNumbers::new().expect("randomness"));
    let cache = AnswerCache::new(&config, clock.clone(), numbers);
    Arc::new(Bench { cache, clock, evaluated: AtomicUsize::new(0), late_changes: AtomicU64::new(0) })
}

fn answer(number: usize, answered: u32) -> Answer {
    let receipt = Receipt {
        complete: true,
        from: number.to_string(),
        to: String::new(),
        shards: ShardsAnswered { asked: 4, answered },
        watermark: None,
        freshness_ms: 3,
        error: Default::default(),
        sampled: 1.0,
        other_share: 0.0,
        sources: Vec::new(),
        grain: "1m".to_owned(),
        cache_age_ms: None,
        took_ms: 0,
    };
    Answer { data: Rows::default(), cursor: None, receipt }
}

fn question(text: &str, is_closed: bool) -> Question {
    Question { text: text.to_owned(), ranges: vec![TimeRange { from_ms: 0, to_ms: 1 }], is_closed }
}

impl Bench {
    /// Which evaluation was answered, and how old it is.
    async fn ask(&self, question: Question) -> (usize, Option<u64>) {
        let evaluate = async { Ok(answer(self.evaluated.fetch_add(1, Ordering::Relaxed) + 1, 4)) };
        let got = self.cache.answer(question, |_| self.late_changes.load(Ordering::Relaxed), evaluate).await.expect("answered");
        (got.receipt.from.parse().expect("a number"), got.receipt.cache_age_ms)
    }

    fn hits(&self) -> (u64, u64) {
        (self.cache.stats.hits.get(), self.cache.stats.misses.get())
    }
}

#[tokio::test]
async fn equal_questions_share_an_answer_that_says_how_old_it_is() {
    let bench = bench(|_| {});
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    bench.clock.turn(7);
    assert_eq!(bench.ask(question("a", false)).await, (1, Some(7_000)));
    assert_eq!(bench.ask(question("b", false)).await, (2, None));
    assert_eq!(bench.hits(), (1, 2));
}

#[tokio::test]
async fn late_data_makes_a_question_about_closed_time_a_new_one_at_once() {
    let bench = bench(|_| {});
    assert_eq!(bench.ask(question("a", true)).await, (1, None));
    assert_eq!(bench.ask(question("a", true)).await, (1, Some(0)));
    bench.late_changes.fetch_add(1, Ordering::Relaxed);
    assert_eq!(bench.ask(question("a", true)).await, (2, None));
    assert_eq!(bench.ask(question("a", true)).await, (2, Some(0)));
}

#[tokio::test]
async fn late_data_shortens_the_life_of_an_answer_about_time_that_moves() {
    let bench = bench(|_| {});
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    bench.late_changes.fetch_add(1, Ordering::Relaxed);
    bench.clock.turn(7);
    assert_eq!(bench.ask(question("a", false)).await, (1, Some(7_000)));
    bench.clock.turn(3);
    assert_eq!(bench.ask(question("a", false)).await, (2, None));
    bench.clock.turn(20);
    assert_eq!(bench.ask(question("a", false)).await, (2, Some(20_000)), "nothing changed since");
    assert_eq!(bench.cache.stats.invalidated.get(), 1);
}

#[tokio::test]
async fn a_range_that_closed_meanwhile_is_another_question() {
    let bench = bench(|_| {});
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    assert_eq!(bench.ask(question("a", true)).await, (2, None));
}

/// An evaluation that says when it has begun and ends when it is told to.
async fn held(bench: Arc<Bench>, begun: Arc<Notify>, go: Arc<Notify>, result: Result<Answer, Problem>) -> Result<Answer, Problem> {
    let evaluate = async {
        bench.evaluated.fetch_add(1, Ordering::Relaxed);
        begun.notify_one();
        go.notified().await;
        result
    };
    bench.cache.answer(question("a", false), |_| 0, evaluate).await
}

#[tokio::test]
async fn however_many_wait_there_is_one_evaluation() {
    let bench = bench(|_| {});
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let asking: Vec<_> = (0..50).map(|_| tokio::spawn(held(bench.clone(), begun.clone(), go.clone(), Ok(answer(1, 4))))).collect();
    begun.notified().await;
    go.notify_one();
    for asked in asking {
        assert_eq!(asked.await.expect("no panic").expect("answered").receipt.from, "1");
    }
    assert_eq!((bench.evaluated.load(Ordering::Relaxed), bench.hits()), (1, (49, 1)));
}

#[tokio::test]
async fn one_who_asks_late_in_an_answers_life_finds_the_next_and_the_others_do_not_wait() {
    let bench = bench(|c| c.jitter = Period::ZERO);
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    bench.clock.turn(44);
    assert_eq!(bench.ask(question("a", false)).await, (1, Some(44_000)));
    bench.clock.turn(1);
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let renewing = tokio::spawn(held(bench.clone(), begun.clone(), go.clone(), Ok(answer(2, 4))));
    begun.notified().await;
    assert_eq!(bench.ask(question("a", false)).await, (1, Some(45_000)), "nobody waits");
    go.notify_one();
    assert_eq!(renewing.await.expect("no panic").expect("answered").receipt.cache_age_ms, None);
    assert_eq!(bench.ask(question("a", false)).await, (2, Some(0)));
    assert_eq!(bench.hits(), (3, 2));
}

#[tokio::test]
async fn a_renewal_that_fails_or_is_given_up_takes_nothing_away() {
    let bench = bench(|c| c.jitter = Period::ZERO);
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    bench.clock.turn(45);
    let failing = async { Err(Problem::new(ErrorCode::QueryTimeout, "late")) };
    let got = bench.cache.answer(question("a", false), |_| 0, failing).await.expect("there is one");
    assert_eq!((got.receipt.from.as_str(), got.receipt.cache_age_ms), ("1", Some(45_000)));
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let given_up = tokio::spawn(held(bench.clone(), begun.clone(), go, Ok(answer(9, 4))));
    begun.notified().await;
    given_up.abort();
    assert!(given_up.await.expect_err("aborted").is_cancelled());
    assert_eq!(bench.ask(question("a", false)).await, (3, None), "the next one does it");
}

#[tokio::test]
async fn whoever_gives_up_leaves_the_evaluation_to_those_who_wait() {
    let bench = bench(|_| {});
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = tokio::spawn(held(bench.clone(), begun.clone(), go.clone(), Ok(answer(1, 4))));
    begun.notified().await;
    let second = tokio::spawn(held(bench.clone(), begun.clone(), go.clone(), Ok(answer(2, 4))));
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    begun.notified().await;
    go.notify_one();
    assert_eq!(second.await.expect("no panic").expect("answered").receipt.from, "2");
}

#[tokio::test]
async fn errors_and_partial_answers_are_told_and_not_kept() {
    let bench = bench(|_| {});
    let ask = async |result: Result<Answer, Problem>| bench.cache.answer(question("a", false), |_| 0, async { result }).await;
    let failed = ask(Err(Problem::new(ErrorCode::QueryTimeout, "late"))).await.expect_err("told");
    assert_eq!(failed.code, ErrorCode::QueryTimeout);
    assert_eq!(ask(Ok(answer(1, 3))).await.expect("told").receipt.from, "1");
    assert_eq!(ask(Ok(answer(2, 4))).await.expect("told").receipt.from, "2");
    assert_eq!(ask(Ok(answer(3, 4))).await.expect("kept").receipt.from, "2");
}

#[tokio::test]
async fn memory_is_bounded() {
    let bench = bench(|c| c.bytes_max = ByteSize::kib(16));
    for i in 0..1_000 {
        bench.ask(question(&format!("question {i}"), false)).await;
    }
    let (entries, bytes) = bench.cache.size().await;
    assert!((1..=16).contains(&entries) && bytes <= 16 << 10, "{entries} {bytes}");
}

#[tokio::test]
async fn answers_end_after_their_time_to_live() {
    let bench = bench(|c| (c.ttl, c.jitter) = (Period::ms(20), Period::ZERO));
    assert_eq!(bench.ask(question("a", false)).await, (1, None));
    let again = async { while bench.ask(question("a", false)).await.0 == 1 {} };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("it ended");
}

#[test]
fn lifetimes_are_spread_over_the_whole_jitter() {
    let (ttl, jitter) = (Duration::from_secs(60), Duration::from_secs(10));
    let lives: Vec<Duration> = (0..1_000).map(|i| lifetime(ttl, jitter, i)).collect();
    assert!(lives.iter().all(|l| (ttl - jitter..=ttl + jitter).contains(l)));
    for second in 50..70 {
        let n = lives.iter().filter(|l| l.as_secs() == second).count();
        assert!((30..70).contains(&n), "{n} end in second {second}");
    }
}
