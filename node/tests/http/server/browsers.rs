//! What browsers and proxies need around a request.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::super::harness::{Answer, TestNode, answer};

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

/// Requests without an origin go past the router.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_browser_gets_the_same_answers() {
    let node = TestNode::start().await;
    let bodies: [(&str, &str, u16); 5] = [
        ("application/json", r#"{"event": "a", "event_id": "1"}"#, 200),
        ("application/x-ndjson", "{\"event\": \"a\"}\n{\"event\": 7}\n", 200),
        ("application/json", r#"[{"event": 7}]"#, 422),
        ("application/json", "{", 400),
        ("application/xml", "<event/>", 415),
    ];
    for (content_type, body, status) in bodies {
        let sent = |origin: Option<&str>| {
            let request = node.request(Method::POST, "/v1/events").header("content-type", content_type).header("x-request-id", "trace-7");
            let request = if let Some(origin) = origin { request.header("origin", origin) } else { request };
            answer(request.body(body))
        };
        let (direct, routed) = (sent(None).await, sent(Some("https://shop.example")).await);
        assert_eq!((direct.status, routed.status), (status, status), "{body}");
        let timeless = |answer: &Answer| {
            let headers = answer.headers.iter().filter(|(name, _)| *name != "date" && *name != "content-length");
            headers.map(|(name, value)| (name.to_string(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(timeless(&direct), timeless(&routed), "{body}");
        let names = |answer: &Answer| answer.body.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&direct), names(&routed), "{body}");
        if status >= 415 || status == 400 {
            assert_eq!(direct.body, routed.body);
        }
    }
    let metrics = node.text("/metrics").await;
    for (status, count) in [(200, 4), (422, 2), (400, 2), (415, 2)] {
        let line = format!("tallymesh_http_requests_total{{route=\"/v1/events\",method=\"POST\",status=\"{status}\"}} {count}");
        assert!(metrics.contains(&line), "no `{line}` in {metrics}");
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
