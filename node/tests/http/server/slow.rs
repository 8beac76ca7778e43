//! Clients that are slow, idle or many: others do not notice, and what they hold is bounded.

use std::time::Duration;

use tallymesh_node::config::units::{ByteSize, Period};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::harness::{TestNode, in_time, lines};

const CLAIM: &str = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 8000000\r\n\r\n";

/// Claims a large body and sends a byte now and then, until it is answered; returns the answer.
async fn dribble(address: std::net::SocketAddr, first: Vec<u8>) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(CLAIM.as_bytes()).await.expect("sent");
    stream.write_all(&first).await.expect("sent");
    let mut every = tokio::time::interval(Duration::from_millis(100));
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    let mut is_open = true;
    loop {
        tokio::select! {
            // Where nothing can be sent any more, the answer has come already, or never will.
            _ = every.tick(), if is_open => is_open = stream.write_all(b" ").await.is_ok(),
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            },
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_claims_that_dribble_in_do_not_keep_others_out() {
    let node = TestNode::start_with(|c| c.ingest.inflight_bytes_max = ByteSize::mib(16)).await;
    // Ten times the room, if claims counted.
    let slow: Vec<_> = (0..200).map(|_| tokio::spawn(dribble(node.node().address(), Vec::new()))).collect();
    node.until("tallymesh_http_connections", |open| open >= 200.0).await;
    for i in 0..20 {
        assert_eq!(node.post_ndjson(lines(i * 1_000..(i + 1) * 1_000)).await.counts(), (200, 1_000, 0, 0));
    }
    let held = node.metric("tallymesh_admission_held_bytes").await;
    assert!(held <= 200.0 * 16_384.0, "{held} bytes held for claims");
    assert_eq!(node.metric("tallymesh_admission_refused_total").await, 0.0);
    // A few bytes a second are less than any client has to send.
    for answer in slow {
        let answer = in_time("the end of a slow client", answer).await.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"request_timeout\""), "{answer}");
    }
    node.until("tallymesh_admission_held_bytes", |held| held == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_room_is_short_whoever_stalls_gives_it_back() {
    let node = TestNode::start_with(|c| {
        c.ingest.inflight_bytes_max = ByteSize::mib(16);
        // Nothing but the shortage cuts them.
        c.http.body_rate_min = ByteSize(0);
        c.ingest.admission_wait = Period::ms(20);
    })
    .await;
    // Each really sends most of its body, fast, and then stalls.
    let slow: Vec<_> = (0..4).map(|_| tokio::spawn(dribble(node.node().address(), vec![b' '; 3_700_000]))).collect();
    let mut refused = 0;
    let good = async {
        while !node.post_ndjson(lines(0..10_000)).await.is_ok() {
            refused += 1;
        }
    };
    node.until("tallymesh_admission_held_bytes", |held| held > 14_900_000.0).await;
    in_time("room for a good client", good).await;
    // As many as it takes are cut, the others go on.
    let (answer, _, others) = in_time("the end of a slow client", futures::future::select_all(slow)).await;
    let answer = answer.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"limit\":262144"), "after {refused} refusals: {answer}");
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_let_finish_while_there_is_room() {
    let node = TestNode::start_with(|c| c.http.body_rate_min = ByteSize(1)).await;
    let (feed, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let request = node.request(reqwest::Method::POST, "/v1/events").header("content-type", "application/x-ndjson").body(body);
    let answered = tokio::spawn(super::super::harness::answer(request));
    for i in 0..8 {
        feed.send(Ok(lines(i..i + 1))).await.expect("reading");
        // The pace is what is tested here: eight pieces over longer than a window of a busy node.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(feed);
    assert_eq!(answered.await.expect("no panic").counts(), (200, 8, 0, 0));
}
