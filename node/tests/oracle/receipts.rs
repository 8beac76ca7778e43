//! What a receipt says is so, and it changes when that does (Q3).

use serde_json::{Value, json};
use tallymesh_storage::clock::{Clock, SystemClock};

use super::calendar::{HOUR, MINUTE};
use super::check::rfc3339;
use super::clock::TestClock;
use super::world::{settle, turned_node};
use crate::http::harness::{Answer, TestNode};

/// 2026-05-28T20:00:00Z.
const NOW: i64 = 1_779_998_400_000;
const SOURCES: usize = 64;

async fn send(node: &TestNode, events: &[Value]) {
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, events.len() as u64, 0, 0));
}

fn count(answer: &Answer) -> &Value {
    &answer.body["data"][0]["values"]["count"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_does_not_answer_fails_the_query_or_is_flagged_and_is_never_zero() {
    let mut node = TestNode::start_with(|config| config.cluster.shards = 16).await;
    // Each source is one home key, so it is in one shard whole.
    let events: Vec<Value> =
        (0..SOURCES * 3).map(|i| json!({"event": "view", "event_id": i.to_string(), "source": format!("s{}", i % SOURCES)})).collect();
    send(&node, &events).await;
    let whole = node.get("/v1/query?metric=view&range=1h&group_by=source").await;
    assert_eq!(whole.body["receipt"]["shards"], json!({"asked": 16, "answered": 16}));
    assert_eq!((&whole.body["receipt"]["complete"], whole.body["data"].as_array().map(Vec::len)), (&json!(true), Some(SOURCES)));
    node.stop().await;
    let shard = node.dir().join("data/shards/5");
    std::fs::create_dir_all(&shard).expect("directory");
    std::fs::write(shard.join("snapshot"), b"damaged").expect("damage");
    node.restart_with(|_| {}).await;

    for query in ["metric=view&range=1h", "metric=*&range=1h&group_by=source&step=1m", "metric=nothing&range=1h"] {
        let refused = node.get(&format!("/v1/query?{query}")).await;
        assert_eq!(refused.problem(), (503, "shard_unavailable"), "{refused:?}");
        let detail = refused.body["detail"].as_str().expect("text");
        assert!(detail.contains("15 of 16") && detail.contains("partial=allow"), "{detail}");
    }
    let partial = node.get("/v1/query?metric=view&range=1h&group_by=source&partial=allow").await;
    let receipt = &partial.body["receipt"];
    assert_eq!((&receipt["complete"], &receipt["shards"]), (&json!(false), &json!({"asked": 16, "answered": 15})));
    let rows = partial.body["data"].as_array().expect("rows");
    assert!(!rows.is_empty() && rows.len() < SOURCES, "{} sources lie in one shard of 16", SOURCES - rows.len());
    assert!(rows.iter().all(|row| row["values"]["count"] == 3), "what is there is whole: {rows:?}");
    let sum = node.get("/v1/query?metric=view&range=1h&partial=allow").await;
    assert_eq!(*count(&sum), rows.len() * 3);
    // Where the missing shard may have had events there is no zero.
    let missing =
        (0..SOURCES).map(|i| format!("s{i}")).find(|s| rows.iter().all(|row| row["group"]["source"] != **s)).expect("one is missing");
    let unknown = node.get(&format!("/v1/query?metric=view&range=1h&filter=source:{missing}&partial=allow")).await;
    assert_eq!(unknown.body["data"], json!([]), "{unknown:?}");
    let filled = node.get(&format!("/v1/query?metric=view&range=5m&step=1m&fill=zero&filter=source:{missing}&partial=allow")).await;
    let values: Vec<&Value> = filled.body["data"].as_array().expect("rows").iter().map(|row| &row["values"]["count"]).collect();
    assert!(values.len() >= 5 && values.iter().all(|v| v.is_null()), "{values:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_changes_a_closed_window_and_the_watermark_says_what_is_open() {
    let clock = TestClock::at(NOW);
    // One shard: those that never get anything are not told the time either, and hold the watermark at their start.
    let node = turned_node(&clock, |config| config.cluster.shards = 1).await;
    let at = |minutes: i64| NOW - HOUR + minutes * MINUTE;
    let event = |id: &str, time: i64| json!({"event": "view", "event_id": id, "timestamp": time, "user_id": id});
    let ask = async || node.get(&format!("/v1/query?metric=view&agg=count,users&from={}&to={}", at(10), at(11))).await;
    let watermark = |answer: &Answer| answer.body["receipt"]["watermark"].as_str().expect("a time").to_owned();

    send(&node, &[event("a", at(10)), event("b", at(10) + 59_999), event("c", at(30))]).await;
    let open = ask().await;
    assert_eq!((count(&open), watermark(&open)), (&json!(2), rfc3339(at(10))), "rows of minute 10 are open");
    settle(&node, &clock, 5 * MINUTE).await;
    let closed = ask().await;
    assert_eq!(count(&closed), 2);
    let closed_until = clock.now() - 2 * MINUTE;
    assert_eq!(watermark(&closed), rfc3339(closed_until - closed_until % MINUTE), "only lateness holds it back");

    send(&node, &[event("late", at(10) + 30_000)]).await;
    let reopened = ask().await;
    assert_eq!((count(&reopened), &reopened.body["data"][0]["values"]["users"]), (&json!(3), &json!(3)), "{reopened:?}");
    assert_eq!(watermark(&reopened), rfc3339(at(10)), "its window is open again");
    assert_eq!(reopened.body["receipt"]["complete"], true, "an open window makes nothing incomplete");
    settle(&node, &clock, 3 * HOUR).await;
    let folded = ask().await;
    assert_eq!(count(&folded), 3);
    assert!(watermark(&folded) > rfc3339(at(60)), "{folded:?}");
    let hour = node.get(&format!("/v1/query?metric=view&from={}&to={}", at(0), at(60))).await;
    assert_eq!((count(&hour), &hour.body["receipt"]["grain"]), (&json!(4), &json!("1h")), "folded hours have it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_stated_when_and_only_when_something_was_estimated() {
    /// Users of one window that are still kept one by one.
    const EXACT_MAX: usize = 1_024;
    let clock = TestClock::at(NOW);
    let node = turned_node(&clock, |_| {}).await;
    let users = |event: &str, count: usize| -> Vec<Value> {
        let one = |i: usize| json!({"event": event, "event_id": i.to_string(), "timestamp": NOW - 10 * MINUTE, "user_id": format!("u{i}"), "session_id": "one"});
        (0..count).map(one).collect()
    };
    send(&node, &users("few", EXACT_MAX)).await;
    send(&node, &users("many", EXACT_MAX + 1)).await;
    settle(&node, &clock, 3 * HOUR).await;
    for (event, true_count, is_exact) in [("few", EXACT_MAX, true), ("many", EXACT_MAX + 1, false)] {
        let got = node.get(&format!("/v1/query?metric={event}&agg=count,users,sessions,p50&range=1d")).await;
        let error = |label: &str| got.body["receipt"]["error"][label].as_f64();
        assert_eq!((error("users").expect("stated") == 0.0, error("sessions"), error("count")), (is_exact, Some(0.0), None), "{got:?}");
        assert_eq!(error("p50"), Some(0.01));
        let estimate = got.body["data"][0]["values"]["users"].as_f64().expect("a number");
        let tolerance = error("users").expect("stated") * true_count as f64;
        assert!((estimate - true_count as f64).abs() <= tolerance, "{estimate} of {true_count} within {tolerance}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_and_to_echo_what_was_read_and_grain_the_coarsest_of_it() {
    let clock = TestClock::at(NOW);
    let node = turned_node(&clock, |_| {}).await;
    send(&node, &[json!({"event": "view", "timestamp": NOW - 90 * MINUTE})]).await;
    let hour = NOW - 2 * HOUR;
    for (from, to, echo_from, echo_to, grain, counted) in [
        (hour + 1, hour + MINUTE + 1, hour, hour + 2 * MINUTE, "1m", 0),
        (hour + 29 * MINUTE + 1, hour + 30 * MINUTE, hour + 29 * MINUTE, hour + 30 * MINUTE, "1m", 0),
        (hour + 29 * MINUTE + 1, hour + 30 * MINUTE + 1, hour + 29 * MINUTE, hour + 31 * MINUTE, "1m", 1),
        (hour - 1, hour + HOUR, hour - MINUTE, hour + HOUR, "1h", 1),
        (NOW - 50 * HOUR, NOW - 1, NOW - 50 * HOUR, NOW, "1d", 1),
    ] {
        let got = node.get(&format!("/v1/query?metric=view&from={from}&to={to}")).await;
        let receipt = &got.body["receipt"];
        assert_eq!(
            (receipt["from"].as_str(), receipt["to"].as_str(), receipt["grain"].as_str(), count(&got)),
            (Some(rfc3339(echo_from).as_str()), Some(rfc3339(echo_to).as_str()), Some(grain), &json!(counted))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_the_age_of_what_was_read() {
    let node = TestNode::start().await;
    let clock = SystemClock::new();
    send(&node, &[json!({"event": "view"})]).await;
    let began = clock.monotonic();
    let got = node.get("/v1/query?metric=view&range=1h").await;
    let waited_ms = (clock.monotonic() - began).as_millis() as u64;
    let receipt = &got.body["receipt"];
    let (fresh, took) = (receipt["freshness_ms"].as_u64().expect("ms"), receipt["took_ms"].as_u64().expect("ms"));
    assert_eq!(count(&got), 1);
    assert!(fresh <= took && took <= waited_ms + 1, "read {fresh} ms ago, took {took} ms, waited {waited_ms} ms");
}
