//! Whatever is sent, the answer says what was wrong with it, and the node goes on.

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;

use super::harness::{TestNode, answer, gzip, lines, lz4, zstd};

const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

const GZIP: (&str, &str) = ("content-encoding", "gzip");
const ZSTD: (&str, &str) = ("content-encoding", "zstd");
const LZ4: (&str, &str) = ("content-encoding", "lz4");

/// Name, headers, body, then the status and code to expect.
type Case = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>, u16, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_input_has_its_status_and_code() {
    let node = TestNode::start().await;
    let skippable = |n: usize| [&0x184D_2A50u32.to_le_bytes()[..], &(n as u32).to_le_bytes(), &vec![0; n]].concat();
    let good = lines(0..1_000);
    let (gz, zst, lz) = (gzip(good.as_bytes()), zstd(good.as_bytes()), lz4(good.as_bytes()));
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let bomb = vec![b' '; 65 << 20];
    let half = lz4(&bomb[..33 << 20]);
    let events = |n: usize| format!("[{}]", vec!["{\"event\":\"a\"}"; n].join(",")).into_bytes();
    let deep = format!("[{}1{}]", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<Case> = vec![
        ("an empty body", &[JSON], vec![], 400, "empty_body"),
        ("white space", &[JSON], b" \n ".to_vec(), 400, "empty_body"),
        ("empty lines", &[NDJSON], b"\n\n".to_vec(), 400, "empty_body"),
        ("no JSON", &[JSON], b"hello".to_vec(), 400, "bad_json"),
        ("a cut array", &[JSON], b"[{\"event\":\"a\"}".to_vec(), 400, "bad_json"),
        ("lines as JSON", &[JSON], good.clone().into_bytes(), 400, "bad_json"),
        ("a wrong content type", &[("content-type", "application/xml")], b"<a/>".to_vec(), 415, "unsupported_media_type"),
        ("a form", &[("content-type", "application/x-www-form-urlencoded")], b"a=1".to_vec(), 415, "unsupported_media_type"),
        ("an unknown encoding", &[JSON, ("content-encoding", "br")], b"x".to_vec(), 415, "unsupported_encoding"),
        ("two encodings", &[JSON, GZIP, ZSTD], b"x".to_vec(), 415, "unsupported_encoding"),
        ("cut gzip", &[NDJSON, GZIP], cut(&gz), 400, "bad_encoding"),
        ("cut zstd", &[NDJSON, ZSTD], cut(&zst), 400, "bad_encoding"),
        ("cut lz4", &[NDJSON, LZ4], cut(&lz), 400, "bad_encoding"),
        ("no gzip at all", &[NDJSON, GZIP], good.clone().into_bytes(), 400, "bad_encoding"),
        ("a gzip bomb", &[NDJSON, GZIP], gzip(&bomb), 413, "body_too_large"),
        ("a zstd bomb", &[JSON, ZSTD], zstd(&bomb), 413, "body_too_large"),
        ("an lz4 bomb of two frames", &[NDJSON, LZ4], [half.clone(), half].concat(), 413, "body_too_large"),
        ("only skippable frames", &[NDJSON, ZSTD], skippable(1 << 20), 400, "empty_body"),
        ("skippable frames past the limit", &[NDJSON, ZSTD], skippable(9 << 20), 413, "body_too_large"),
        ("one event too many", &[JSON], events(10_001), 413, "too_many_events"),
        ("a body past the limit", &[NDJSON], vec![b'x'; (8 << 20) + 1], 413, "body_too_large"),
        ("an empty idempotency key", &[JSON, ("idempotency-key", " ")], events(1), 400, "bad_request"),
        ("a depth to kill a parser", &[JSON], deep.into_bytes(), 422, "too_deep"),
    ];
    for (name, headers, body, status, code) in cases {
        let request = headers.iter().fold(node.request(Method::POST, "/v1/events"), |r, (n, v)| r.header(*n, *v));
        let got = answer(request.body(body)).await;
        if status == 422 {
            // Read in full, and refused event by event.
            assert_eq!((got.status, got.body["rejected"][0]["code"].as_str()), (status, Some(code)), "{name}: {got:?}");
        } else {
            assert_eq!(got.problem(), (status, code), "{name}");
        }
    }
    assert_eq!(node.get("/health").await.body["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_in_the_answer() {
    let node = TestNode::start_with(|c| c.ingest.events_per_request_max = 2).await;
    let got = node.post_json("/v1/events", &json!([{"event": "a"}, {"event": "b"}, {"event": "c"}])).await;
    assert_eq!((got.problem().1, got.body["limit"].as_u64()), ("too_many_events", Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_past_the_limit_is_stopped_while_it_arrives() {
    let node = TestNode::start().await;
    let chunk = bytes::Bytes::from(vec![b'\n'; 64 << 10]);
    let endless = futures::stream::iter((0..100_000).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let request =
        node.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "application/x-ndjson").body(reqwest::Body::wrap_stream(endless));
    // The node answers and closes; a client that is still writing may see either.
    if let Ok(response) = request.send().await {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(node.metric("tallymesh_admission_held_bytes").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_not_there_and_methods_that_do_not_work_are_problems_too() {
    let node = TestNode::start().await;
    let got = node.get("/v1/event").await;
    assert_eq!((got.problem(), got.body["did_you_mean"].as_str()), ((404, "not_found"), Some("/v1/events")));
    let got = node.get("/v1/events").await;
    assert_eq!(got.problem(), (405, "method_not_allowed"));
    assert!(got.headers[ALLOW].to_str().expect("text").contains("POST"));
    assert_eq!(answer(node.request(Method::DELETE, "/health")).await.problem(), (405, "method_not_allowed"));
    for (path, field) in [
        ("/v1/tail?filter=nocolon", "filter"),
        ("/v1/tail?filter=plan:pro", "filter"),
        ("/v1/tail?fliter=a:b", "fliter"),
        ("/v1/dead-letters?limit=0", "limit"),
        ("/v1/dead-letters?limit=1001", "limit"),
        ("/v1/dead-letters?cursor=forged", "cursor"),
    ] {
        let got = node.get(path).await;
        assert_eq!((got.problem(), got.body["field"].as_str()), ((422, "bad_parameter"), Some(field)), "{path}");
    }
    // Refused by the framework, in plain text, before a handler sees it.
    assert_eq!(node.get("/v1/dead-letters?colour=red").await.problem(), (400, "bad_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_a_bad_body_is_refused() {
    let node = TestNode::start().await;
    for (body, code) in [("nonsense", "bad_json"), ("{\"id\":[1]}", "bad_json"), ("{\"ids\":[\"x\"]}", "bad_parameter")] {
        assert_eq!(answer(node.request(Method::POST, "/v1/dead-letters/retry").body(body)).await.problem().1, code, "{body}");
    }
    let many = json!({"ids": vec![1; 10_001]});
    assert_eq!(node.post_json("/v1/dead-letters/retry", &many).await.problem(), (422, "bad_parameter"));
    let large = node.request(Method::POST, "/v1/dead-letters/retry").header(CONTENT_ENCODING, "identity").body(vec![b' '; (1 << 20) + 1]);
    assert_eq!(answer(large).await.problem(), (413, "body_too_large"));
}
