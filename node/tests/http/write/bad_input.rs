//! Whatever is sent, the answer says what was wrong with it, and the node goes on.

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::harness::{TestNode, answer, gzip, in_time, lines, lz4, zstd};

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
        ("/v1/dead-letters?limit=1&limit=2", "limit"),
        ("/v1/dead-letters?colour=red", "colour"),
    ] {
        let got = node.get(path).await;
        assert_eq!((got.problem(), got.body["field"].as_str()), ((422, "bad_parameter"), Some(field)), "{path}");
    }
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

/// Sends bytes as they are and reads the answer to its end: status line and problem.
async fn raw(node: &TestNode, bytes: &[u8]) -> (String, serde_json::Value) {
    let mut stream = tokio::net::TcpStream::connect(node.node().address()).await.expect("connected");
    let mut text = Vec::new();
    // The node may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = in_time("an answer", stream.read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(
        head.contains("content-type: application/problem+json") && head.contains(problem["request_id"].as_str().expect("an id")),
        "{text}"
    );
    (head.lines().next().expect("a line").to_owned(), problem)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_request_is_refused_with_a_problem_too() {
    let node = TestNode::start().await;
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    for (name, bytes, status, code) in [
        ("a long address", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)), "HTTP/1.1 414 URI Too Long", "uri_too_long"),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
            "HTTP/1.1 431 Request Header Fields Too Large",
            "head_too_large",
        ),
        (
            "a long header",
            format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(300_000)),
            "HTTP/1.1 431 Request Header Fields Too Large",
            "head_too_large",
        ),
        ("no HTTP", "hello there, how are you?\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request", "bad_request"),
        ("a control character", "GET / HTTP/1.1\r\nhost: \u{1}\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request", "bad_request"),
        (
            "two lengths",
            "POST /v1/events HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            "HTTP/1.1 400 Bad Request",
            "bad_request",
        ),
    ] {
        let (line, problem) = raw(&node, bytes.as_bytes()).await;
        assert_eq!((line.as_str(), problem["code"].as_str()), (status, Some(code)), "{name}: {problem}");
    }
    assert!(node.get("/health").await.is_ok());
}

/// Name, one event as it is sent, then the code it is refused with, or none.
type EventCase = (&'static str, Vec<u8>, Option<&'static str>);

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_event_has_its_code_and_its_neighbours_are_counted() {
    let node = TestNode::start().await;
    let text = |text: &str| text.as_bytes().to_vec();
    let with = |fields: &str| format!("{{\"event\":\"case\",{fields}}}").into_bytes();
    let keys = |n: usize| format!("{{\"event\":\"case\"{}}}", (0..n).map(|i| format!(",\"k{i}\":{i}")).collect::<String>()).into_bytes();
    let now = node.node().app().now_ms();
    let cases: Vec<EventCase> = vec![
        ("a number as a name", text("{\"event\":7}"), Some("wrong_type")),
        ("no name", text("{\"value\":1}"), Some("missing_field")),
        ("an empty name", text("{\"event\":\"\"}"), Some("bad_name")),
        ("a name of 10 kB", format!("{{\"event\":\"{}\"}}", "n".repeat(10_000)).into_bytes(), Some("bad_name")),
        ("a control character", text("{\"event\":\"a\\u0000b\"}"), Some("bad_name")),
        ("two names", text("{\"event\":\"a\",\"event_name\":\"b\"}"), Some("bad_name")),
        ("an event of 1 MiB", with(&format!("\"x\":\"{}\"", "x".repeat(1 << 20))), Some("too_large")),
        ("a million keys", keys(1_000_000), Some("too_large")),
        ("as many keys as fit", keys(15_000), None),
        ("duplicate keys", with("\"value\":1,\"value\":2"), None),
        ("duplicate keys of properties", with("\"properties\":{\"a\":1,\"a\":2}"), None),
        ("a lone surrogate", text("{\"event\":\"\\ud800\"}"), Some("bad_json")),
        ("a lone surrogate in a property", with("\"x\":\"\\udc00\""), Some("bad_json")),
        ("invalid UTF-8", b"{\"event\":\"\xff\"}".to_vec(), Some("bad_json")),
        ("a number out of range", with("\"value\":1e999"), Some("bad_value")),
        ("NaN", with("\"value\":NaN"), Some("bad_json")),
        ("infinity", with("\"value\":-Infinity"), Some("bad_json")),
        ("a number as text", with("\"value\":\"1\""), Some("wrong_type")),
        ("1970", with("\"timestamp\":\"1970-01-01T00:00:00Z\""), Some("expired")),
        ("1970 as a number", with("\"timestamp\":0"), Some("expired")),
        ("9999", with("\"timestamp\":\"9999-12-31T23:59:59Z\""), Some("future")),
        ("beyond every calendar", with("\"timestamp\":1e30"), Some("bad_timestamp")),
        ("a time as text of digits", with(&format!("\"timestamp\":\"{now}\"")), Some("bad_timestamp")),
        ("no such day", with("\"timestamp\":\"2026-02-30T00:00:00Z\""), Some("bad_timestamp")),
        ("a time without an offset", with("\"timestamp\":\"2026-02-03T00:00:00\""), Some("bad_timestamp")),
        ("a leap second", with("\"timestamp\":\"2025-12-31T23:59:60Z\""), None),
        ("an offset of 5:45", with("\"timestamp\":\"2026-02-03T00:00:00+05:45\""), None),
        ("a numeric user", with("\"user_id\":7"), None),
        ("a broken user", with("\"user_id\":7.5"), Some("wrong_type")),
        ("a user of many", with("\"user_id\":[1]"), Some("wrong_type")),
        ("a depth to kill a parser", with(&format!("\"x\":{}1{}", "[".repeat(100_000), "]".repeat(100_000))), Some("too_deep")),
    ];
    let mut counted = 0;
    for (case, (name, event, code)) in cases.into_iter().enumerate() {
        let good = |which: &str| format!("{{\"event\":\"good\",\"event_id\":\"{case}{which}\"}}\n").into_bytes();
        let body = [good("a"), event, b"\n".to_vec(), good("b")].concat();
        let request = node.request(Method::POST, "/v1/events").header(NDJSON.0, NDJSON.1).header(GZIP.0, GZIP.1);
        let got = answer(request.body(gzip(&body))).await;
        let rejected = got.body["rejected"].as_array().unwrap_or_else(|| panic!("{name}: {got:?}")).first();
        assert_eq!(rejected.and_then(|r| r["code"].as_str()), code, "{name}: {got:?}");
        assert!(rejected.is_none_or(|r| r["index"] == 1 && r["detail"].is_string()), "{name}: {got:?}");
        assert_eq!((got.status, got.body["count"].as_u64()), (200, Some(if code.is_some() { 2 } else { 3 })), "{name}: {got:?}");
        counted += 2;
    }
    let good = node.get("/v1/query?metric=good&range=1h").await;
    assert_eq!(good.body["data"][0]["values"]["count"].as_u64(), Some(counted));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_question_has_its_code() {
    let node = TestNode::start().await;
    node.post_ndjson(lines(0..10)).await;
    for (query, status, code, help) in [
        ("metric=pageview&range=1h", 404, "unknown_metric", ("did_you_mean", "page_view")),
        ("metric=page_view&range=1h&group_by=countri", 422, "unknown_dimension", ("did_you_mean", "country")),
        ("metric=page_view&range=1h&filter=devise:tv", 422, "unknown_dimension", ("did_you_mean", "device")),
        ("metric=page_view&range=400d&step=1m", 422, "too_many_points", ("suggested_step", "15m")),
        ("metric=page_view&from=2026-02-01&to=2026-01-01", 422, "bad_range", ("field", "from")),
        ("metric=page_view&range=1h&limit=0", 422, "bad_parameter", ("field", "limit")),
        ("metric=page_view&range=1h&cursor=Zm9yZ2Vk", 422, "bad_parameter", ("field", "cursor")),
        ("metric=page_view&range=1h&tz=Kathmandu", 422, "bad_time_zone", ("did_you_mean", "Asia/Kathmandu")),
        ("metric=page_view&range=1h&cache=yes", 422, "bad_parameter", ("field", "cache")),
        ("metric=page_view&range=1h&agg=median", 422, "bad_parameter", ("did_you_mean", "p50")),
    ] {
        let got = node.get(&format!("/v1/query?{query}")).await;
        assert_eq!((got.problem(), got.body[help.0].as_str()), ((status, code), Some(help.1)), "{query}");
    }
}
