//! What browsers and proxies need around a request.

use reqwest::Method;
use serde_json::json;

use super::super::harness::{TestNode, answer};

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_send_events_but_not_read_numbers() {
    let node = TestNode::start().await;
    let preflight = |path: &str| {
        node.request(Method::OPTIONS, path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,content-encoding,idempotency-key")
    };
    let allowed = answer(preflight("/v1/events")).await;
    assert!(allowed.is_ok());
    assert_eq!(allowed.headers["access-control-allow-origin"], "*");
    assert!(allowed.headers["access-control-allow-headers"].to_str().expect("text").contains("idempotency-key"));
    let sent = answer(node.request(Method::POST, "/v1/events").header("origin", "https://shop.example").json(&json!({"event": "a"}))).await;
    assert_eq!(sent.headers["access-control-allow-origin"], "*");
    for path in ["/v1/dead-letters", "/v1/tail?filter=x", "/health"] {
        let got = answer(node.request(Method::GET, path).header("origin", "https://shop.example")).await;
        assert!(!got.headers.contains_key("access-control-allow-origin"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_named_origins_are_answered_when_some_are_named() {
    let node = TestNode::start_with(|c| c.http.cors_origins = vec!["https://shop.example".to_owned()]).await;
    for (origin, allowed) in [("https://shop.example", true), ("https://other.example", false)] {
        let got = answer(node.request(Method::POST, "/v1/events").header("origin", origin).json(&json!({"event": "a"}))).await;
        assert_eq!(got.headers.contains_key("access-control-allow-origin"), allowed, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_kept_and_others_are_replaced() {
    let node = TestNode::start().await;
    let id_of = async |sent: &[u8]| {
        let got = answer(node.request(Method::GET, "/nowhere").header("x-request-id", sent)).await;
        got.problem();
        got.headers["x-request-id"].to_str().expect("text").to_owned()
    };
    assert_eq!(id_of(b"trace-7/a").await, "trace-7/a");
    let long = [b'x'; 200];
    let mut made = Vec::new();
    for bad in [&b""[..], b"two words", b"\xff\xfe", &long] {
        made.push(id_of(bad).await);
    }
    assert!(made.iter().all(|id| id.len() == 32), "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4);
}
