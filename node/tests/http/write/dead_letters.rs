//! Refused events can be looked at and sent again.

use serde_json::{Value, json};
use tallymesh_node::config::units::{ByteSize, Period};

use super::super::harness::TestNode;

fn in_two_hours(node: &TestNode) -> String {
    tallymesh_protocol::time::rfc3339(node.machine.clock.wall_ms() + 2 * 3_600_000)
}

async fn letters(node: &TestNode, query: &str) -> Value {
    let got = node.get(&format!("/v1/dead-letters{query}")).await;
    assert!(got.is_ok(), "{got:?}");
    got.body
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_listed_with_reason_and_bytes_newest_first() {
    let node = TestNode::start().await;
    node.post_ndjson("{\"event\":\"a\"}\n{\"source\":\"web\"}\nnot json <b>\n").await;
    let page = letters(&node, "").await;
    assert_eq!((&page["total"], &page["cursor"]), (&json!(2), &Value::Null));
    let [newest, oldest] = page["data"].as_array().expect("list").as_slice() else { panic!("{page}") };
    assert_eq!((&newest["code"], &newest["index"], &newest["raw"]), (&json!("bad_json"), &json!(2), &json!("not json <b>")));
    assert_eq!(
        (&oldest["code"], &oldest["field"], &oldest["raw"]),
        (&json!("missing_field"), &json!("event"), &json!("{\"source\":\"web\"}"))
    );

    let first = letters(&node, "?limit=1").await;
    let cursor = first["cursor"].as_str().expect("another page");
    assert_eq!(letters(&node, &format!("?limit=1&cursor={cursor}")).await["data"][0], *oldest);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_pass_now_are_counted_once_and_leave_the_store() {
    let mut node = TestNode::start().await;
    let time = in_two_hours(&node);
    let batch = json!([{"event": "a", "event_id": "one", "timestamp": time}, {"event": "a", "timestamp": time}, {"source": "web"}]);
    assert_eq!(node.post_json("/v1/events", &batch).await.counts(), (422, 0, 0, 3));
    let retry = async |node: &TestNode, body: Value| {
        let got = node.post_json("/v1/dead-letters/retry", &body).await;
        assert!(got.is_ok(), "{got:?}");
        ["retried", "accepted", "duplicates", "still_rejected", "not_retryable"].map(|name| got.body[name].as_u64().expect(name))
    };
    assert_eq!(retry(&node, json!({})).await, [3, 0, 0, 3, 0]);
    node.restart_with(|c| c.ingest.future_tolerance = Period::hours(3)).await;
    let newest = letters(&node, "?limit=1").await["data"][0]["id"].clone();
    assert_eq!(retry(&node, json!({"ids": [newest, "99999"]})).await, [1, 0, 0, 1, 0]);
    assert_eq!(retry(&node, json!({})).await, [3, 2, 0, 1, 0]);
    assert_eq!(retry(&node, json!({})).await, [1, 0, 0, 1, 0]);
    // The sender's own resend of what a retry has counted.
    assert_eq!(node.post_json("/v1/events", &batch[0]).await.counts(), (200, 0, 1, 0));
    assert_eq!(letters(&node, "").await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_without_ids_are_different_events_however_they_are_sent_again() {
    let mut node = TestNode::start().await;
    let time = in_two_hours(&node);
    let same = json!({"event": "a", "timestamp": time});
    assert_eq!(node.post_json("/v1/events", &json!([same, same, same])).await.counts(), (422, 0, 0, 3));
    node.restart_with(|c| c.ingest.future_tolerance = Period::hours(3)).await;
    let ids: Vec<Value> = letters(&node, "").await["data"].as_array().expect("list").iter().map(|l| l["id"].clone()).collect();
    for id in &ids {
        let got = node.post_json("/v1/dead-letters/retry", &json!({"ids": [id, id]})).await;
        // Named twice in one retry, it still counts once.
        assert_eq!((&got.body["accepted"], &got.body["duplicates"]), (&json!(1), &json!(1)), "{got:?}");
    }
    assert_eq!(letters(&node, "").await["total"], 0);
    assert_eq!(node.metric("tallymesh_shard_events_total").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_cut_says_so_and_is_not_sent_again() {
    let node = TestNode::start_with(|c| c.dead_letters.event_bytes_max = ByteSize(300)).await;
    let long = format!("{{\"source\":\"{}\"}}\n", "x".repeat(900));
    assert_eq!(node.post_ndjson(long).await.counts(), (422, 0, 0, 1));
    let letter = letters(&node, "").await["data"][0].clone();
    assert_eq!((&letter["truncated"], letter["raw"].as_str().expect("text").len()), (&json!(true), 300));
    let got = node.post_json("/v1/dead-letters/retry", &json!({})).await;
    assert_eq!((&got.body["not_retryable"], &got.body["accepted"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_store_never_costs_good_events() {
    let node = TestNode::start().await;
    node.node().app().dead_letters.close();
    let got = node.post_ndjson("{\"event\":\"a\"}\n{}\n").await;
    assert_eq!(got.counts(), (200, 1, 0, 1));
    assert_eq!(got.body["dead_letters"], "lost");
    assert_eq!(node.metric("tallymesh_dead_letters_lost_total").await, 1.0);
    assert_eq!(node.get("/v1/dead-letters").await.problem(), (503, "storage_failed"));
}
