//! What comes in is counted once, in whatever form it comes.

use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use super::super::harness::{TestNode, answer, gzip, lines, lz4, zstd};

#[tokio::test(flavor = "multi_thread")]
async fn arrays_objects_and_lines_are_taken_on_both_paths() {
    let node = TestNode::start().await;
    let event = |id: &str| json!({"event": "page_view", "event_id": id, "user_id": 7, "value": 1.5});
    assert_eq!(node.post_json("/v1/events", &json!([event("a"), event("b")])).await.counts(), (200, 2, 0, 0));
    assert_eq!(node.post_json("/events", &event("c")).await.counts(), (200, 1, 0, 0));
    assert_eq!(node.post_ndjson(lines(0..5)).await.counts(), (200, 5, 0, 0));
    assert_eq!(node.post_json("/v1/events", &json!([])).await.counts(), (200, 0, 0, 0));
    let beacon = node.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "text/plain;charset=UTF-8").body(event("d").to_string());
    assert_eq!(answer(beacon).await.counts(), (200, 1, 0, 0));
    assert_eq!(node.metric("tallymesh_events_total").await, 9.0);
    assert_eq!(node.metric("tallymesh_shard_events_total").await, 9.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_counts_the_same_and_resends_count_once() {
    let node = TestNode::start().await;
    let (first, second) = (lines(0..6_000), lines(6_000..10_000));
    let bodies: [(&str, Vec<u8>); 4] = [
        ("gzip", [gzip(first.as_bytes()), gzip(second.as_bytes())].concat()),
        ("zstd", [zstd(first.as_bytes()), zstd(second.as_bytes())].concat()),
        ("lz4", [lz4(first.as_bytes()), lz4(second.as_bytes())].concat()),
        ("identity", [first.as_bytes(), second.as_bytes()].concat()),
    ];
    for (i, (encoding, body)) in bodies.into_iter().enumerate() {
        let request =
            node.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "application/x-ndjson").header(CONTENT_ENCODING, encoding);
        let (status, count, duplicates, rejected) = answer(request.body(body)).await.counts();
        let expected = if i == 0 { (10_000, 0) } else { (0, 10_000) };
        assert_eq!((status, count, duplicates, rejected), (200, expected.0, expected.1, 0), "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_named_and_the_good_ones_counted() {
    let node = TestNode::start().await;
    let got = node
        .post_json("/v1/events", &json!([{"event": "a"}, {"source": "web"}, 42, {"event": "b", "value": "12.5"}, {"event": "c", "timestamp": "2999-01-01T00:00:00Z"}]))
        .await;
    assert_eq!(got.counts(), (200, 1, 0, 4));
    assert_eq!((&got.body["status"], &got.body["generated_ids"]), (&json!("accepted"), &json!(1)));
    let rejected: Vec<(u64, &str)> = got.body["rejected"]
        .as_array()
        .expect("list")
        .iter()
        .map(|r| (r["index"].as_u64().expect("index"), r["code"].as_str().expect("code")))
        .collect();
    assert_eq!(rejected, [(1, "missing_field"), (2, "not_an_object"), (3, "wrong_type"), (4, "future")]);
    assert_eq!(got.body["rejected"][0]["field"], "event");

    let all_bad = node.post_ndjson("{\"event\":\n{}\n").await;
    assert_eq!(all_bad.counts(), (422, 0, 0, 2));
    assert_eq!(all_bad.body["status"], "rejected");
    assert_eq!(node.metric("tallymesh_rejected_total").await, 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_a_resend_without_ids_count_once() {
    let node = TestNode::start().await;
    let send = async |key: Option<&str>| {
        let request =
            node.request(Method::POST, "/v1/events").json(&json!([{"event": "a"}, {"event": "a"}, {"event": "b", "event_id": "own"}]));
        let got = answer(key.into_iter().fold(request, |r, key| r.header("idempotency-key", key))).await;
        (got.counts(), got.body["generated_ids"].as_u64())
    };
    assert_eq!(send(Some("one")).await, ((200, 3, 0, 0), Some(2)));
    assert_eq!(send(Some("one")).await, ((200, 0, 3, 0), Some(2)));
    assert_eq!(send(Some("other")).await, ((200, 2, 1, 0), Some(2)));
    assert_eq!(send(None).await, ((200, 2, 1, 0), Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_is_there_after_a_restart_and_counts_once() {
    let mut node = TestNode::start().await;
    assert_eq!(node.post_ndjson(lines(0..500)).await.counts(), (200, 500, 0, 0));
    node.restart_with(|_| {}).await;
    assert_eq!(node.post_ndjson(lines(0..600)).await.counts(), (200, 100, 500, 0));
    assert_eq!(node.metric("tallymesh_shard_events_total").await, 600.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_lose_and_double_nothing() {
    let node = TestNode::start().await;
    let mut sent = tokio::task::JoinSet::new();
    for client in 0..20u32 {
        let (http, url) = (node.client.clone(), node.url("/v1/events"));
        sent.spawn(async move {
            let mut counts = (0, 0);
            for round in 0..5 {
                // Neighbours overlap by half, so every event is sent twice, by two clients at about the same time.
                let start = (client * 5 + round) * 50;
                let request = http.post(&url).header(CONTENT_TYPE, "application/x-ndjson").body(lines(start..start + 100));
                let (status, count, duplicates, _) = answer(request).await.counts();
                assert_eq!(status, 200);
                counts = (counts.0 + count, counts.1 + duplicates);
            }
            counts
        });
    }
    let totals = sent.join_all().await.into_iter().fold((0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1));
    assert_eq!(totals, (100 * 50 + 50, 100 * 50 - 50));
    assert_eq!(node.metric("tallymesh_events_total").await, 5_050.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_tiny_chunks_over_http2_is_one_body() {
    let node = TestNode::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("client");
    let text = lines(0..200);
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = text.as_bytes().chunks(13).map(|c| Ok(c.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let response =
        client.post(node.url("/v1/events")).header(CONTENT_TYPE, "application/x-ndjson").body(body).send().await.expect("answered");
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["count"], 200);
}
