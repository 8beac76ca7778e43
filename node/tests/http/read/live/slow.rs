//! A client that does not read holds up nobody, costs no more the longer it sleeps, and has the present answer once it reads again.

use serde_json::{Value, json};
use tallymesh_node::config::units::Period;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::stream::{LiveStream, cut, hear, live_path, parse};
use crate::http::harness::{TestNode, in_time};

const SOURCES: usize = 400;
const ROUNDS: usize = 24;
const QUERY: &str = "metric=*&range=1h&group_by=source&limit=1000";

/// One more event of each of many sources with long names: each round changes every row.
fn round() -> Value {
    Value::Array((0..SOURCES).map(|i| json!({"event": "a", "source": format!("{i:01000}")})).collect())
}

fn by_source(rows: &[Value]) -> Vec<(String, u64)> {
    let mut rows: Vec<(String, u64)> = rows
        .iter()
        .map(|row| (row["group"]["source"].as_str().expect("a source").to_owned(), row["values"]["count"].as_u64().expect("a count")))
        .collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_of_many_changes_at_once() {
    let node = TestNode::start_with(|c| c.live.interval = Period::ms(10)).await;
    assert!(node.post_json("/v1/events", &round()).await.is_ok());
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small window");
    let mut slow = socket.connect(node.node().address()).await.expect("connects");
    let head = format!("GET {} HTTP/1.0\r\nhost: x\r\n\r\n", live_path(&[QUERY]));
    slow.write_all(head.as_bytes()).await.expect("sent");
    let mut quick = LiveStream::open(&node, &live_path(&[QUERY]), None).await;
    let (mut deltas, mut told_bytes) = (0, 0);
    for sent in 2..=ROUNDS as u64 {
        assert!(node.post_json("/v1/events", &round()).await.is_ok());
        // The quick one is told of every round, whatever the slow one does.
        while deltas == 0 || quick.rows().len() != SOURCES || quick.rows().iter().any(|row| row["values"]["count"] != sent) {
            let event = quick.next().await.expect("goes on");
            deltas += 1;
            told_bytes += event.bytes;
        }
    }

    let (mut raw, mut text, mut rows, mut events, mut read) = (vec![0; 1 << 16], Vec::new(), Vec::new(), 0, 0);
    let truth = node.get(&format!("/v1/query?{QUERY}")).await;
    let truth = by_source(truth.body["data"].as_array().expect("rows"));
    let mut is_body = false;
    in_time("the slow reader", async {
        while rows.is_empty() || by_source(&rows) != truth {
            let n = slow.read(&mut raw).await.expect("goes on");
            assert!(n > 0, "it was not given up");
            read += n;
            text.extend_from_slice(&raw[..n]);
            if !is_body {
                let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                text.drain(..end + 4);
                is_body = true;
            }
            while let Some(event) = cut(&mut text) {
                if let Some(event) = parse(&event) {
                    events += 1;
                    hear(&mut rows, &event);
                }
            }
        }
    })
    .await;
    assert!(told_bytes > 9 << 20, "{told_bytes} bytes are more than sockets hold");
    eprintln!("{read} bytes in {events} events, of {told_bytes} in {deltas}");
    // What sockets hold is delivered; how much that is differs.
    assert!(read < told_bytes * 3 / 4 && events < deltas, "{read} bytes in {events} events, of {told_bytes} in {deltas}");
    assert!(node.metric("tallymesh_live_conflated_total").await >= 1.0);
}
