//! Metrics defined while a node runs (A3): what arrives from then on counts in them, also after a restart with the file as it was.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::harness::{TestNode, answer, gzip, in_time};

async fn count(node: &TestNode, metric: &str) -> Value {
    node.get(&format!("/v1/query?metric={metric}&range=1h")).await.body["data"][0]["values"]["count"].clone()
}

async fn send(node: &TestNode, from: u32) {
    let events: Vec<Value> = (from..from + 3).map(|n| json!({"event_id": format!("e{n}"), "event": "signup", "plan": "pro"})).collect();
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, 3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_defined_at_run_time_counts_what_comes_after_it() {
    let mut node = TestNode::start().await;
    send(&node, 0).await;
    assert_eq!(node.get("/v1/query?metric=by_plan&range=1h").await.problem(), (404, "unknown_metric"));

    let by_plan = json!({"name": "by_plan", "event": ["signup"], "dimensions": ["plan"]});
    let added = node.post_json("/v1/definitions", &by_plan).await;
    assert_eq!((added.body["version"].as_u64(), added.body["definitions"][0]["name"].as_str()), (Some(2), Some("by_plan")));
    send(&node, 3).await;
    assert_eq!((count(&node, "by_plan").await, count(&node, "signup").await), (json!(3), json!(6)));

    node.restart_with(|_| {}).await;
    send(&node, 6).await;
    assert_eq!((count(&node, "by_plan").await, count(&node, "signup").await), (json!(6), json!(9)));
    assert_eq!(node.get("/v1/definitions").await.body["version"], 2);
}

/// Events of several shards, every third without an id of its own, one of every ten refused.
fn signups(range: std::ops::Range<u32>) -> String {
    let line = |n: u32| match n {
        n if n % 10 == 9 => json!({"event_id": format!("e{n}"), "source": "web"}),
        n if n % 3 == 0 => json!({"event": "signup", "source": format!("s{}", n % 16), "plan": "pro"}),
        n => json!({"event_id": format!("e{n}"), "event": "signup", "source": format!("s{}", n % 16), "plan": "pro"}),
    };
    range.map(|n| format!("{}\n", line(n))).collect()
}

/// Sends a body of which half comes before the metric `name` is defined, and half after it; what it is answered: status, head and body.
async fn sent_around_a_definition(node: &TestNode, name: &str, body: &[u8], headers: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(node.node().address()).await.expect("connected");
    let length = body.len();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&body[..length / 2]).await.expect("sent");
    // It has begun with what was defined by then.
    node.until("tallymesh_admission_held_bytes", |held| held > 0.0).await;
    let added = node.post_json("/v1/definitions", &json!({"name": name, "event": ["signup"], "dimensions": ["plan"]})).await;
    assert!(added.is_ok(), "{added:?}");
    stream.write_all(&body[length / 2..]).await.expect("sent");
    let mut answer = String::new();
    in_time("an answer", stream.read_to_string(&mut answer)).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), serde_json::from_str(body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_was_on_its_way_when_metrics_were_defined_counts_in_them_once() {
    let node = TestNode::start().await;
    let (plain, zipped) = (signups(0..100), gzip(signups(100..200).as_bytes()));
    let (status, _, ack) = sent_around_a_definition(&node, "by_plan", plain.as_bytes(), "").await;
    assert_eq!((status, &ack["count"], &ack["duplicates"]), (200, &json!(90), &json!(0)), "{ack}");
    let refused: Vec<u64> = ack["rejected"].as_array().expect("list").iter().filter_map(|r| r["index"].as_u64()).collect();
    assert_eq!(refused, (0..10).map(|n| n * 10 + 9).collect::<Vec<_>>());
    assert_eq!((count(&node, "by_plan").await, count(&node, "signup").await), (json!(90), json!(90)));
    assert_eq!(node.metric("tallymesh_requests_made_again_total").await, 1.0);
    assert_eq!(node.get("/v1/dead-letters").await.body["total"], 10, "none is kept twice");

    let (status, _, ack) = sent_around_a_definition(&node, "by_plan_too", &zipped, "content-encoding: gzip\r\n").await;
    assert_eq!((status, &ack["count"], &ack["duplicates"]), (200, &json!(90), &json!(0)), "{ack}");
    let counts = [count(&node, "by_plan").await, count(&node, "by_plan_too").await, count(&node, "signup").await];
    assert_eq!(counts, [json!(180), json!(90), json!(180)]);
    assert_eq!(node.metric("tallymesh_requests_made_again_total").await, 2.0);
    node.until("tallymesh_admission_held_bytes", |held| held == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_request_that_was_on_its_way_then_is_to_be_sent_again_and_counts_once() {
    let node = TestNode::start().await;
    let body = signups(0..2_000);
    assert!(body.len() > 65_536, "{}", body.len());
    let key = "idempotency-key: k1\r\n";
    let (status, head, problem) = sent_around_a_definition(&node, "by_plan", body.as_bytes(), key).await;
    assert_eq!((status, &problem["code"]), (503, &json!("shard_unavailable")), "{problem}");
    assert!(head.contains("\r\nretry-after:"), "{head}");
    assert!(problem["detail"].as_str().expect("text").contains("definitions changed"), "{problem}");
    let again = answer(
        node.request(reqwest::Method::POST, "/v1/events")
            .header("content-type", "application/x-ndjson")
            .header("idempotency-key", "k1")
            .body(body),
    );
    assert_eq!(again.await.counts(), (200, 1_800, 0, 200));
    assert_eq!((count(&node, "by_plan").await, count(&node, "signup").await), (json!(1_800), json!(1_800)));
}

#[tokio::test(flavor = "multi_thread")]
async fn change_on_an_older_version_and_bad_definitions_are_refused() {
    let node = TestNode::start().await;
    let put = |body: Value| answer(node.request(reqwest::Method::PUT, "/v1/definitions").json(&body));
    let one = json!([{"name": "a", "event": ["x"], "dimensions": []}]);
    assert!(put(json!({"version": 1, "definitions": one})).await.is_ok());
    let late = put(json!({"version": 1, "definitions": []})).await;
    assert_eq!(late.problem(), (422, "bad_parameter"));
    assert!(late.body["detail"].as_str().expect("text").contains("version 2"));
    assert_eq!(put(json!({"version": 2, "definitions": [{"name": "", "event": []}]})).await.problem().0, 422);
    assert_eq!(node.post_json("/v1/definitions", &json!({"nome": "a"})).await.problem(), (400, "bad_json"));

    let remove = |name: &str| answer(node.request(reqwest::Method::DELETE, &format!("/v1/definitions/{name}")));
    assert_eq!(remove("b").await.problem(), (404, "not_found"));
    assert_eq!(remove("a").await.body, json!({"version": 3, "definitions": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_node_has_nowhere_to_move_a_shard_to() {
    let node = TestNode::start().await;
    for (path, body) in [
        ("/v1/cluster/drain", json!({"node": "node-1"})),
        ("/v1/cluster/move", json!({"shard": 0, "node": "node-1"})),
        ("/v1/cluster/rebalance", json!({})),
    ] {
        let refused = node.post_json(path, &body).await;
        assert_eq!(refused.problem(), (400, "bad_request"), "{path}");
        assert!(refused.body["detail"].as_str().expect("text").contains("single node"));
    }
}
