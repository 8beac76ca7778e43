//! Limits of one client address: what is over is refused with the time to wait, and other clients do not notice.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;
use tallymesh_node::config::units::ByteSize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::super::harness::{Answer, TestNode, answer, in_time, lines};

const QUERY: &str = "/v1/query?metric=*&range=1h";

/// As a client behind a proxy.
async fn get_as(node: &TestNode, client: &str, path: &str) -> Answer {
    answer(node.request(Method::GET, path).header("x-forwarded-for", client)).await
}

async fn post_as(node: &TestNode, client: &str, body: String) -> Answer {
    let request = node.request(Method::POST, "/v1/events").header("x-forwarded-for", client);
    answer(request.header(CONTENT_TYPE, "application/x-ndjson").body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_a_second_are_limited_for_each_client() {
    let node = TestNode::start_with(|c| {
        c.clients.query_rate = 2;
        c.clients.trusted_proxies = vec!["127.0.0.1".to_owned()];
    })
    .await;
    let refused = loop {
        let got = get_as(&node, "9.9.9.9", QUERY).await;
        if !got.is_ok() {
            break got;
        }
    };
    assert_eq!((refused.problem(), refused.body["limit"].as_u64()), ((429, "rate_limited"), Some(2)));
    assert!(get_as(&node, "8.8.8.8", QUERY).await.is_ok(), "another client");
    assert!(node.get("/health").await.is_ok(), "no query");
    let wait = refused.body["retry_after_ms"].as_u64().expect("how long");
    assert!((1..=500).contains(&wait), "{refused:?}");
    in_time("the client's turn", async { while !get_as(&node, "9.9.9.9", QUERY).await.is_ok() {} }).await;
    assert!(node.metric("tallymesh_client_limits_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_events_a_second_are_limited_for_each_client_as_unpacked() {
    let node = TestNode::start_with(|c| {
        c.clients.ingest_rate = ByteSize::kib(64);
        c.clients.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    })
    .await;
    // Over what two seconds give: let in, as a request may be larger than any rate, and paid for afterwards.
    assert_eq!(post_as(&node, "9.9.9.9", lines(0..3_000)).await.status, 200);
    let refused = post_as(&node, "9.9.9.9", lines(3_000..3_001)).await;
    assert_eq!((refused.problem(), refused.body["limit"].as_u64()), ((429, "rate_limited"), Some(64 << 10)));
    let packed = answer(
        node.request(Method::POST, "/v1/events")
            .header("x-forwarded-for", "7.7.7.7")
            .header("content-encoding", "gzip")
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(super::super::harness::gzip(lines(0..3_000).as_bytes())),
    );
    assert_eq!(packed.await.status, 200);
    assert_eq!(post_as(&node, "7.7.7.7", lines(0..1)).await.problem(), (429, "rate_limited"));
    assert_eq!(post_as(&node, "8.8.8.8", lines(3_000..3_001)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_anybody_can_send_is_not_believed() {
    let node = TestNode::start_with(|c| c.clients.query_rate = 2).await;
    let mut refused = false;
    for i in 0..20 {
        refused |= get_as(&node, &format!("9.9.9.{i}"), QUERY).await.status == 429;
    }
    assert!(refused, "a new name for each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_queries_of_one_request_count_as_several() {
    let node = TestNode::start_with(|c| c.clients.query_rate = 2).await;
    let queries = json!({"queries": vec![json!({"metric": "*", "range": "1h"}); 10]});
    let got = node.post_json("/v1/query", &queries).await;
    let results = got.body["results"].as_array().expect("results");
    let refused = results.iter().filter(|r| r["code"] == "rate_limited").count();
    assert!((5..=6).contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_only_so_many_connections_and_is_told() {
    let node = TestNode::start_with(|c| c.clients.connections_max = 3).await;
    let connect = async || TcpStream::connect(node.node().address()).await.expect("connected");
    let first = connect().await;
    let _held = (connect().await, connect().await);
    let read = async |mut stream: TcpStream| {
        let mut text = String::new();
        let _ = in_time("the refusal", stream.read_to_string(&mut text)).await;
        text
    };
    let refused = read(connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("\"code\":\"rate_limited\"") && refused.contains("\"limit\":3"), "{refused}");
    drop(first);
    in_time("a free place", async { while node.client.get(node.url("/health")).send().await.is_err() {} }).await;
}
