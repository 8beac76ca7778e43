//! Metrics defined while a node runs (A3): what arrives from then on counts in them, also after a restart with the file as it was.

use serde_json::{Value, json};

use super::super::harness::{TestNode, answer};

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
