//! `cache=on`: what is shared, how it says its age, and what makes an answer new.

use serde_json::{Value, json};

use super::super::harness::{Answer, TestNode};

const DAY_MS: i64 = 86_400_000;

async fn count(node: &TestNode, time_ms: i64, events: usize, ids: &str) {
    let events: Vec<Value> = (0..events)
        .map(|i| json!({"event": "page_view", "event_id": format!("{ids}{i}"), "timestamp": time_ms, "user_id": format!("u{i}")}))
        .collect();
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, events.len() as u64, 0, 0));
}

fn counted(answer: &Answer) -> (Option<u64>, bool) {
    assert!(answer.is_ok(), "{answer:?}");
    (answer.body["data"][0]["values"]["count"].as_u64(), !answer.body["receipt"]["cache_age_ms"].is_null())
}

fn now_ms(node: &TestNode) -> i64 {
    node.node().app().now_ms()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_that_asks_again_and_again_is_answered_from_the_cache() {
    let node = TestNode::start().await;
    count(&node, now_ms(&node), 5, "a").await;
    let ask = "/v1/query?metric=page_view&range=24h&cache=on";
    assert_eq!(counted(&node.get(ask).await), (Some(5), false));
    count(&node, now_ms(&node), 5, "b").await;
    for _ in 0..99 {
        assert_eq!(counted(&node.get(ask).await), (Some(5), true), "as old as it says");
    }
    assert_eq!(counted(&node.get("/v1/query?metric=page_view&range=24h").await), (Some(10), false), "who did not opt in sees every write");
    let (hits, misses) = (node.metric("tallymesh_query_cache_hits_total").await, node.metric("tallymesh_query_cache_misses_total").await);
    assert!(hits / (hits + misses) > 0.9, "{hits} of {}", hits + misses);
    assert_eq!(node.metric("tallymesh_query_cache_entries").await, 1.0);
    assert!(node.metric("tallymesh_query_seconds_count").await >= 101.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_receipt_says_what_was_asked_when() {
    let node = TestNode::start().await;
    count(&node, now_ms(&node), 1, "a").await;
    let ask = "/v1/query?metric=page_view&range=1h&cache=on";
    let first = node.get(ask).await.body;
    let again = node.get(ask).await.body;
    assert_eq!(first["receipt"]["cache_age_ms"], Value::Null);
    assert_eq!((&first["receipt"]["from"], &first["receipt"]["to"]), (&again["receipt"]["from"], &again["receipt"]["to"]));
    let (age, freshness) = (again["receipt"]["cache_age_ms"].as_u64(), again["receipt"]["freshness_ms"].as_u64());
    assert!(freshness >= age && age.is_some(), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_data_changes_a_closed_range_at_once() {
    let node = TestNode::start().await;
    let noon = now_ms(&node) / DAY_MS * DAY_MS - 2 * DAY_MS + DAY_MS / 2;
    count(&node, noon, 3, "a").await;
    let ask = format!("/v1/query?metric=page_view&from={}&to={}&cache=on", noon - 3_600_000, noon + 3_600_000);
    assert_eq!(counted(&node.get(&ask).await), (Some(3), false));
    assert_eq!(counted(&node.get(&ask).await), (Some(3), true));
    count(&node, now_ms(&node), 50, "now").await;
    count(&node, noon - 5 * DAY_MS, 50, "other day").await;
    assert_eq!(counted(&node.get(&ask).await), (Some(3), true), "other days are no business of it");
    for i in 1..=20 {
        count(&node, noon, 1, &format!("late{i}-")).await;
        assert_eq!(counted(&node.get(&ask).await), (Some(3 + i), false));
        assert_eq!(counted(&node.get(&ask).await), (Some(3 + i), true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_questions_at_once_are_evaluated_once() {
    let node = TestNode::start().await;
    count(&node, now_ms(&node), 100, "a").await;
    let asked = (0..64).map(|_| node.get("/v1/query?metric=page_view&range=7d&step=1m&agg=users,p95&cache=on"));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(Answer::is_ok));
    assert_eq!(node.metric("tallymesh_queries_evaluated_total").await, 1.0);
    assert_eq!(node.metric("tallymesh_query_cache_hits_total").await, 63.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_a_changed_parameter_or_no_opt_in_asks_anew() {
    let node = TestNode::start().await;
    let ack = node.post_json("/v1/events", &json!({"event": "page_view"})).await;
    let token = ack.body["token"].as_str().expect("a token");
    for path in [
        "/v1/query?metric=page_view&range=1h&cache=on",
        "/v1/query?metric=page_view&range=2h&cache=on",
        "/v1/query?metric=page_view&range=1h&cache=on&tz=Asia/Kathmandu",
        "/v1/query?metric=page_view&range=1h&cache=on&limit=7",
        "/v1/query?metric=page_view&range=1h&cache=off",
        &format!("/v1/query?metric=page_view&range=1h&cache=on&token={token}"),
    ] {
        assert_eq!(counted(&node.get(path).await), (Some(1), false), "{path}");
    }
    // Neither the order nor the way of asking makes a difference, nor what only this asker cares for.
    assert_eq!(counted(&node.get("/v1/query?cache=on&range=1h&metric=page_view&timeout_ms=5000").await), (Some(1), true));
    let posted = node.post_json("/v1/query", &json!({"queries": [{"metric": "page_view", "range": "1h", "cache": "on"}]})).await;
    assert!(posted.body["results"][0]["receipt"]["cache_age_ms"].is_u64(), "{posted:?}");
    let csv = node.text("/v1/query?metric=page_view&range=1h&cache=on&format=csv").await;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert_eq!(node.metric("tallymesh_query_cache_hits_total").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_made_and_first_system_questions_may_be_cached_too() {
    let node = TestNode::start().await;
    let event = |name: &str, i: usize| json!({"event": name, "event_id": format!("{name}{i}")});
    node.post_json("/v1/events", &json!([event("error_occurred", 1), event("page_view", 1)])).await;
    let ask = async || {
        let answer = node.get("/v1/named/error_rate?range=5m&cache=on").await;
        let errors: f64 = answer.body["data"].as_array().expect("rows").iter().filter_map(|r| r["values"]["errors"].as_f64()).sum();
        let all: f64 = answer.body["data"].as_array().expect("rows").iter().filter_map(|r| r["values"]["events"].as_f64()).sum();
        (errors, all, answer.body["receipt"]["cache_age_ms"].is_u64())
    };
    assert_eq!(ask().await, (1.0, 2.0, false));
    node.post_json("/v1/events", &json!([event("error_occurred", 2)])).await;
    assert_eq!(ask().await, (1.0, 2.0, true), "both parts are of one moment");
    for path in ["/metrics?name=page_view&range=1h&cache=on", "/api/metrics/daily?cache=on", "/v1/named/active_users?cache=on"] {
        let evaluated = async || node.metric("tallymesh_queries_evaluated_total").await;
        let first = node.get(path).await;
        let before = evaluated().await;
        let again = node.get(path).await;
        assert_eq!((again.status, &again.body["data"]), (200, &first.body["data"]), "{path}");
        assert_eq!(evaluated().await, before, "{path}");
    }
}
