//! What is full says so, and recovers by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tallymesh_node::boot::Machine;
use tallymesh_node::config::units::{ByteSize, Period};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::harness::{TestNode, TightDisk, in_time, lines};

async fn connect(node: &TestNode, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.node().address()).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = in_time("the end of a connection", stream.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

const UNFINISHED: &str = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 8000000\r\n\r\n{";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_flight_are_bounded_and_room_comes_back() {
    let node = TestNode::start_with(|c| {
        c.ingest.inflight_bytes_max = ByteSize::mib(16);
        c.ingest.admission_wait = Period::ms(20);
    })
    .await;
    // Sent in full but for the end: what has arrived is held, not what was claimed.
    let most = format!("{UNFINISHED}{}", " ".repeat(7_999_000));
    let held = [connect(&node, &most).await, connect(&node, &most).await];
    node.until("tallymesh_admission_held_bytes", |held| held >= 15_990_000.0).await;
    let refused = node.post_ndjson(lines(0..20_000)).await;
    assert_eq!(refused.problem(), (429, "overloaded"));
    assert_eq!(refused.headers["retry-after"], "1");
    drop(held);
    node.until("tallymesh_admission_held_bytes", |v| v == 0.0).await;
    assert_eq!(node.post_ndjson(lines(0..9_000)).await.counts(), (200, 9_000, 0, 0));
    assert_eq!(node.metric("tallymesh_admission_refused_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let node = TestNode::start_with(|c| c.http.body_timeout = Period::ms(150)).await;
    let answer = read_to_end(connect(&node, UNFINISHED).await).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"request_timeout\""), "{answer}");
    assert_eq!(node.metric("tallymesh_admission_held_bytes").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_half_of_it_are_closed() {
    let node = TestNode::start_with(|c| c.http.header_timeout = Period::ms(150)).await;
    for said in ["", "PRI * HT", "GET /health HTTP/1.1\r\nhost:"] {
        let answer = read_to_end(connect(&node, said).await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{said:?}: {answer}");
    }
    node.until("tallymesh_http_connections", |open| open <= 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_limit_wait_for_a_place() {
    let node = TestNode::start_with(|c| c.http.connections_max = 1).await;
    let request = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let idle = connect(&node, "").await;
    let mut waiting = connect(&node, request).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), waiting.read_u8()).await;
    assert!(early.is_err(), "answered beside the limit");
    drop(idle);
    assert!(read_to_end(waiting).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_writes_answers_questions_and_recovers() {
    let free_bytes = Arc::new(AtomicU64::new(1 << 39));
    let machine = Machine { disk: Arc::new(TightDisk { free_bytes: free_bytes.clone() }), ..Machine::this_one() };
    let node = TestNode::start_on(machine, |c| c.disk.check_interval = Period::ms(10)).await;
    assert_eq!(node.post_ndjson(lines(0..10)).await.counts(), (200, 10, 0, 0));
    free_bytes.store(1_000, Ordering::Relaxed);
    let refused = node.post_ndjson(lines(10..20)).await;
    assert_eq!(refused.problem(), (507, "disk_full"));
    let health = node.get("/health").await;
    assert_eq!((health.status, health.body["status"].as_str()), (200, Some("degraded")));
    assert_eq!(node.get("/ready").await.problem(), (507, "disk_full"), "it cannot take writes");
    assert_eq!(node.metric("tallymesh_ready").await, 0.0);
    assert!(node.get("/v1/query?metric=page_view&range=1h").await.is_ok());
    assert_eq!(node.metric("tallymesh_disk_read_only").await, 1.0);
    free_bytes.store(1 << 39, Ordering::Relaxed);
    // Nobody has to write for it to notice.
    node.until("tallymesh_disk_read_only", |v| v == 0.0).await;
    assert_eq!(node.post_ndjson(lines(10..20)).await.counts(), (200, 10, 0, 0));
}
