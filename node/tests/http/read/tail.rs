//! Those who watch see what is accepted.

use reqwest::Response;
use serde_json::{Value, json};

use super::super::harness::{TestNode, in_time};

/// Reads until `count` events are there; `None` at the end of the stream.
async fn events(stream: &mut Response, count: usize) -> Option<Vec<Value>> {
    let mut text = String::new();
    loop {
        let seen: Vec<Value> = text
            .split("\n\n")
            .filter(|frame| frame.starts_with("event: event\n"))
            .filter_map(|frame| serde_json::from_str(frame.lines().find_map(|l| l.strip_prefix("data: "))?).ok())
            .collect();
        if seen.len() >= count {
            return Some(seen);
        }
        let chunk = in_time("the stream", stream.chunk()).await.ok()??;
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
}

async fn watch(node: &TestNode, filter: &str) -> Response {
    let response = node.client.get(node.url(&format!("/v1/tail{filter}"))).send().await.expect("answered");
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().ok()), (200, Some("text/event-stream")));
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_events_are_seen_and_filters_hold() {
    let node = TestNode::start().await;
    let mut all = watch(&node, "").await;
    let mut mobile = watch(&node, "?filter=device_type:mobile&filter=!event:noise").await;
    node.post_json(
        "/v1/events",
        &json!([{"event": "a", "device": "mobile", "properties": {"x": "line\nbreak"}}, {"event": "noise", "device": "mobile"}, {"event": "b"}, {"bad": 1}]),
    )
    .await;
    node.post_json("/v1/events", &json!([{"event": "c", "device": "mobile"}])).await;
    let names = |seen: Vec<Value>| seen.iter().map(|e| e["event"].as_str().expect("name").to_owned()).collect::<Vec<_>>();
    let seen = events(&mut all, 4).await.expect("events");
    assert_eq!(seen[0]["properties"]["x"], "line\nbreak");
    assert_eq!(names(seen), ["a", "noise", "b", "c"]);
    assert_eq!(names(events(&mut mobile, 2).await.expect("events")), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_bounded_and_go_when_the_node_goes() {
    let mut node = TestNode::start_with(|c| c.tail.subscribers_max = 1).await;
    let mut watcher = watch(&node, "").await;
    assert_eq!(node.get("/v1/tail").await.problem(), (429, "overloaded"));
    in_time("the end of the node", node.stop()).await;
    assert_eq!(events(&mut watcher, 1).await, None);
}
