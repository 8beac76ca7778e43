//! The same over a WebSocket.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tallymesh_node::config::units::Period;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{HOUR, send};
use crate::http::harness::{TestNode, in_time};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(node: &TestNode, origin: Option<&str>) -> Result<Self, Error> {
        let mut request = node.url("/v1/ws").replace("http", "ws").into_client_request().expect("an address");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a value"));
        }
        Ok(Self(connect_async(request).await?.0))
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("sent");
    }

    /// Heartbeats are left out; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match in_time("the socket", self.0.next()).await? {
                Ok(Message::Text(text)) => {
                    let value: Value = serde_json::from_str(&text).expect("JSON");
                    if value["type"] != "heartbeat" {
                        return Some(value);
                    }
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_come_and_go_on_one_socket() {
    let node = TestNode::start().await;
    send(&node, 0, 2).await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    socket.say(json!({"subscribe": HOUR, "id": "a\"b"})).await;
    let first = socket.next().await.expect("a snapshot");
    assert_eq!(
        (&first["type"], &first["id"], &first["answer"]["data"][0]["values"]["count"]),
        (&json!("snapshot"), &json!("a\"b"), &json!(2))
    );
    send(&node, 2, 3).await;
    let delta = socket.next().await.expect("a delta");
    assert_eq!((&delta["type"], &delta["changed"][0]["values"]["count"], &delta["removed"]), (&json!("delta"), &json!(3), &json!([])));
    assert_eq!(delta["receipt"]["complete"], true);
    socket.say(json!({"unsubscribe": "a\"b"})).await;
    socket.say(json!({"unsubscribe": "a\"b"})).await;
    assert_eq!(socket.next().await.expect("it is gone")["problem"]["field"], "unsubscribe");
    socket.say(json!({"subscribe": HOUR, "id": "c", "last_event_id": delta["event_id"]})).await;
    let again = socket.next().await.expect("where it stands");
    assert_eq!((&again["type"], &again["id"], &again["changed"]), (&json!("delta"), &json!("c"), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_answered_and_the_socket_goes_on() {
    let node = TestNode::start().await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    for (message, code) in [
        (json!({"subscribe": "metric=page_view&range=never", "id": "a"}), "bad_range"),
        (json!({"subscribe": HOUR}), "bad_parameter"),
        (json!({"subscribe": HOUR, "id": "x".repeat(200)}), "bad_parameter"),
        (json!({"hello": 1}), "bad_parameter"),
        (json!([1]), "bad_parameter"),
    ] {
        socket.say(message.clone()).await;
        let answer = socket.next().await.expect("an answer");
        assert_eq!((&answer["type"], answer["problem"]["code"].as_str()), (&json!("error"), Some(code)), "{message}");
    }
    for i in 0..32 {
        socket.say(json!({"subscribe": "metric=*&range=1h", "id": i.to_string()})).await;
        assert_eq!(socket.next().await.expect("an answer")["type"], "snapshot", "{i}");
    }
    socket.say(json!({"subscribe": HOUR, "id": "one more"})).await;
    assert_eq!(socket.next().await.expect("refused")["problem"]["limit"], 32);
    socket.0.send(Message::text("x".repeat(100_000))).await.expect("sent");
    assert_eq!(socket.next().await, None, "a message that is too long ends it");
    node.until("tallymesh_live_subscribers", |watching| watching == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_bounded_and_end_with_the_node() {
    let mut node = TestNode::start_with(|c| (c.live.subscribers_max, c.live.heartbeat) = (1, Period::ms(100))).await;
    let refused = |opened: Result<Socket, Error>| match opened {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!(refused(Socket::open(&node, Some("http://evil.example")).await), 400);
    let mut socket = Socket::open(&node, Some(&node.url(""))).await.expect("its own page");
    assert_eq!(refused(Socket::open(&node, None).await), 429);
    let heartbeat = in_time("a heartbeat", socket.0.next()).await.expect("goes on").expect("a message");
    assert_eq!(heartbeat.to_text().expect("text"), "{\"type\":\"heartbeat\"}");
    in_time("the end of the node", node.stop()).await;
    assert_eq!(socket.next().await, None);
}
