//! The same over a WebSocket: every message and refusal that the interface describes.

use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tallymesh_node::config::units::Period;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::stream::{Event, hear};
use super::{HOUR, count, send};
use crate::http::harness::{Answer, TestNode, answer, in_time};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(node: &TestNode, origin: Option<&str>) -> Result<Self, Error> {
        let mut request = node.url("/v1/ws").replace("http", "ws").into_client_request().expect("an address");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a value"));
        }
        Ok(Self(connect_async(request).await?.0))
    }

    /// Over a connection that holds little of what is not read yet.
    async fn open_narrow(node: &TestNode) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small window");
        let stream = socket.connect(node.node().address()).await.expect("connects");
        let address = node.url("/v1/ws").replace("http", "ws");
        Self(client_async(address, MaybeTlsStream::Plain(stream)).await.expect("opens").0)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("sent");
    }

    /// How the node ends it; `None` when the connection just breaks off.
    async fn last(&mut self) -> Option<CloseFrame> {
        loop {
            match in_time("the end of the socket", self.0.next()).await? {
                Ok(Message::Close(frame)) => return frame,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The error that it is answered with.
    async fn refusal(&mut self, message: Value) -> Value {
        self.say(message.clone()).await;
        let answer = self.next().await.expect("an answer");
        assert_eq!(answer["type"], "error", "{message}: {answer}");
        answer
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

/// The answer to who may not open one, read whole.
async fn refusal_to_open(node: &TestNode, origin: Option<&str>) -> Answer {
    let mut request = node.request(Method::GET, "/v1/ws");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
    ] {
        request = request.header(name, value);
    }
    answer(request.header("origin", origin.unwrap_or(&node.url("")))).await
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
    let foreign = refusal_to_open(&node, Some("http://evil.example")).await;
    assert_eq!((foreign.problem(), &foreign.body["field"]), ((400, "bad_request"), &json!("origin")));
    let mut socket = Socket::open(&node, Some(&node.url(""))).await.expect("its own page");
    assert_eq!(refusal_to_open(&node, None).await.problem(), (429, "overloaded"));
    let heartbeat = in_time("a heartbeat", socket.0.next()).await.expect("goes on").expect("a message");
    assert_eq!(heartbeat.to_text().expect("text"), "{\"type\":\"heartbeat\"}");
    // It is waited for until it has heard of the end.
    let (last, ()) = tokio::join!(socket.last(), async { in_time("the end of the node", node.stop()).await });
    let last = last.expect("a goodbye");
    assert_eq!((last.code, last.reason.as_str()), (CloseCode::Away, "the node shuts down"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_under_its_id() {
    let node = TestNode::start().await;
    send(&node, 0, 1).await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    for (query, field) in [
        ("metric=page_view", "range"),
        ("metric=page_view&range=1h&stpe=1m", "stpe"),
        ("metric=page_view&range=1h&format=csv", "format"),
        ("metric=page_view&range=1h&limit=50000", "limit"),
        ("metric=page_view&range=1h&cursor=x", "cursor"),
        ("metric=page_view&range=1h&group_by=nonsense", "group_by"),
    ] {
        let answer = socket.refusal(json!({"subscribe": query, "id": "q"})).await;
        let problem = &answer["problem"];
        assert_eq!((&answer["id"], problem["field"].as_str(), &problem["status"]), (&json!("q"), Some(field), &json!(422)), "{answer}");
        assert!(problem["detail"].is_string() && problem["title"].is_string(), "{answer}");
    }
    socket.say(json!({"subscribe": HOUR, "id": "q"})).await;
    assert_eq!(socket.next().await.expect("what was refused left the name free")["type"], "snapshot");
    let again = socket.refusal(json!({"subscribe": HOUR, "id": "q"})).await;
    assert_eq!((&again["id"], &again["problem"]["field"]), (&json!("q"), &json!("id")), "watched already");
    for (message, id) in [
        (json!({"subscribe": HOUR, "unsubscribe": "q", "id": "r"}), json!("r")),
        (json!({"unsubscribe": "q", "id": "r"}), json!("r")),
        (json!({"unsubscribe": "q", "last_event_id": "x"}), json!("q")),
        (json!({}), Value::Null),
        (json!({"subscribe": 1, "id": "q"}), Value::Null),
    ] {
        let answer = socket.refusal(message.clone()).await;
        assert_eq!((&answer["id"], &answer["problem"]["code"]), (&id, &json!("bad_parameter")), "{message}");
    }
    for garbage in [Message::text("{"), Message::binary(vec![1, 2])] {
        socket.0.send(garbage).await.expect("sent");
        let answer = socket.next().await.expect("an answer");
        assert_eq!((&answer["type"], &answer["id"], &answer["problem"]["status"]), (&json!("error"), &Value::Null, &json!(422)));
    }
    socket.0.send(Message::Ping(vec![7].into())).await.expect("sent");
    let pong = in_time("a pong", async {
        loop {
            if let Message::Pong(data) = socket.0.next().await.expect("goes on").expect("a message") {
                break data;
            }
        }
    });
    assert_eq!(pong.await[..], [7]);
    // After all of that it still tells what changes.
    send(&node, 1, 2).await;
    assert_eq!(socket.next().await.expect("a delta")["type"], "delta");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_an_answer_is_an_error_until_it_has_one() {
    let node = TestNode::start().await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    socket.say(json!({"subscribe": HOUR, "id": "a"})).await;
    let missing = socket.next().await.expect("an error");
    assert_eq!((&missing["type"], &missing["id"], &missing["problem"]["status"]), (&json!("error"), &json!("a"), &json!(404)));
    assert_eq!(missing["problem"]["code"], "unknown_metric");
    send(&node, 0, 2).await;
    let found = socket.next().await.expect("a snapshot");
    assert_eq!((&found["type"], count(&found["answer"]["data"][0])), (&json!("snapshot"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_goes_is_removed_and_who_comes_again_is_told_what_changed() {
    let node = TestNode::start().await;
    let first_of = "metric=a&range=1h&group_by=source&order=-value&limit=1";
    let sent = async |source: &str, n: usize| {
        let events: Vec<Value> = (0..n).map(|_| json!({"event": "a", "source": source})).collect();
        assert!(node.post_json("/v1/events", &Value::Array(events)).await.is_ok());
    };
    sent("x", 1).await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    socket.say(json!({"subscribe": first_of, "id": "q"})).await;
    let snapshot = socket.next().await.expect("a snapshot");
    assert!(snapshot["answer"]["cursor"].is_null() && snapshot["answer"]["receipt"]["complete"] == true, "{snapshot}");
    sent("y", 2).await;
    let delta = socket.next().await.expect("a delta");
    assert_eq!((&delta["type"], &delta["removed"][0]["group"]), (&json!("delta"), &json!({"source": "x"})), "{delta}");
    assert!(delta["changed"][0]["group"] == json!({"source": "y"}) && delta["cursor"].is_string(), "{delta}");

    // Another socket that was there before `y`; the first one keeps the query alive.
    let mut other = Socket::open(&node, None).await.expect("opens");
    other.say(json!({"subscribe": first_of, "id": "z", "last_event_id": snapshot["event_id"]})).await;
    let meanwhile = other.next().await.expect("what it missed");
    assert_eq!((&meanwhile["type"], &meanwhile["id"]), (&json!("delta"), &json!("z")));
    assert_eq!((&meanwhile["changed"], &meanwhile["removed"]), (&delta["changed"], &delta["removed"]));
    for (id, unknown) in [("forged", json!("not an id")), ("of another query", delta["event_id"].clone())] {
        let query = if id == "forged" { first_of } else { "metric=a&range=1h" };
        other.say(json!({"subscribe": query, "id": id, "last_event_id": unknown})).await;
        let whole = other.next().await.expect("all of it");
        assert_eq!((&whole["type"], &whole["id"]), (&json!("snapshot"), &json!(id)), "{whole}");
    }
    // What is watched no more is not told of.
    socket.say(json!({"unsubscribe": "q"})).await;
    socket.say(json!({"subscribe": "metric=*&range=1h", "id": "all"})).await;
    assert_eq!(socket.next().await.expect("a snapshot")["id"], "all");
    sent("y", 1).await;
    assert_eq!(socket.next().await.expect("a delta")["id"], "all");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_sockets_are_limited_together_and_for_each_client() {
    let node = TestNode::start_with(|c| c.live.queries_max = 1).await;
    let mut socket = Socket::open(&node, None).await.expect("opens");
    socket.say(json!({"subscribe": "metric=*&range=1h", "id": "a"})).await;
    assert_eq!(socket.next().await.expect("an answer")["type"], "snapshot");
    let full = socket.refusal(json!({"subscribe": "metric=*&range=2h", "id": "b"})).await;
    let problem = &full["problem"];
    assert_eq!((&full["id"], &problem["code"], &problem["limit"]), (&json!("b"), &json!("overloaded"), &json!(1)));
    assert!(problem["retry_after_ms"].is_u64(), "{full}");

    // The rate may not be that of a client on the same machine: none is trusted, so it is one behind a proxy.
    let node = TestNode::start_with(|c| {
        c.clients.query_rate = 2;
        c.clients.trusted_proxies = vec!["127.0.0.1".to_owned()];
    })
    .await;
    let mut request = node.url("/v1/ws").replace("http", "ws").into_client_request().expect("an address");
    request.headers_mut().insert("x-forwarded-for", "9.9.9.9".parse().expect("a value"));
    let mut socket = Socket(connect_async(request).await.expect("opens").0);
    let refused = loop {
        socket.say(json!({"subscribe": "metric=*&range=1h", "id": "a"})).await;
        let answer = socket.next().await.expect("an answer");
        socket.say(json!({"unsubscribe": "a"})).await;
        if answer["type"] == "error" {
            break answer;
        }
    };
    assert_eq!((&refused["problem"]["code"], &refused["problem"]["status"]), (&json!("rate_limited"), &json!(429)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_one_client_are_limited_and_what_is_no_socket_is_told() {
    let node = TestNode::start_with(|c| c.clients.connections_max = 3).await;
    let open = async || Socket::open(&node, None).await;
    let sockets = (open().await.expect("opens"), open().await.expect("opens"));
    // The connection that asks is the third, and the socket that it would become the fourth.
    assert_eq!(refusal_to_open(&node, None).await.problem(), (429, "rate_limited"));
    drop(sockets);
    in_time("a free place", async { while open().await.is_err() {} }).await;
    let node = TestNode::start().await;
    let plain = node.get("/v1/ws").await;
    assert_eq!(plain.status, 400, "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_read_slowly_is_told_of_many_changes_at_once() {
    const SOURCES: usize = 400;
    const ROUNDS: u64 = 24;
    const QUERY: &str = "metric=*&range=1h&group_by=source&limit=1000";
    let node = TestNode::start_with(|c| c.live.interval = Period::ms(10)).await;
    let round = Value::Array((0..SOURCES).map(|i| json!({"event": "a", "source": format!("{i:01000}")})).collect());
    assert!(node.post_json("/v1/events", &round).await.is_ok());
    let (mut slow, mut quick) = (Socket::open_narrow(&node).await, Socket::open(&node, None).await.expect("opens"));
    for socket in [&mut slow, &mut quick] {
        socket.say(json!({"subscribe": QUERY, "id": "q"})).await;
    }
    let told = |rows: &mut Vec<Value>, message: Value| {
        let kind = message["type"].as_str().expect("a kind").to_owned();
        hear(rows, &Event { kind, id: String::new(), data: message, bytes: 0 });
    };
    let holds = |rows: &[Value], n: u64| rows.len() == SOURCES && rows.iter().all(|row| count(row) == n);
    let (mut rows, mut quick_messages) = (Vec::new(), 0);
    for sent in 2..=ROUNDS {
        assert!(node.post_json("/v1/events", &round).await.is_ok());
        while !holds(&rows, sent) {
            told(&mut rows, quick.next().await.expect("goes on"));
            quick_messages += 1;
        }
    }
    let (mut rows, mut slow_messages) = (Vec::new(), 0);
    while !holds(&rows, ROUNDS) {
        told(&mut rows, slow.next().await.expect("it was not given up"));
        slow_messages += 1;
    }
    assert!(slow_messages < quick_messages, "{slow_messages} of {quick_messages}");
    assert!(node.metric("tallymesh_live_conflated_total").await >= 1.0);
}
