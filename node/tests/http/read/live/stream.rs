//! What a browser does with a live stream.

use reqwest::Response;
use serde_json::Value;

use crate::http::harness::{TestNode, in_time};

#[derive(Clone, Debug)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: Value,
    pub bytes: usize,
}

pub struct LiveStream {
    response: Response,
    text: Vec<u8>,
    /// Of the first query.
    rows: Vec<Value>,
    pub retry_ms: Option<u64>,
}

/// The address of a stream; each query is encoded once more.
pub fn live_path(queries: &[&str]) -> String {
    let queries = queries.iter().map(|query| format!("query={}", query.replace('%', "%25").replace('&', "%26").replace('+', "%2B")));
    format!("/v1/live?{}", queries.collect::<Vec<_>>().join("&"))
}

pub fn rows(data: &Value) -> Vec<Value> {
    data.as_array().expect("rows").clone()
}

/// Takes an event as the interface says: rows are named by time and group.
pub fn hear(rows: &mut Vec<Value>, event: &Event) {
    let is_named = |row: &Value, name: &Value| row.get("time") == name.get("time") && row.get("group") == name.get("group");
    match event.kind.as_str() {
        "snapshot" => rows.clone_from(event.data["answer"]["data"].as_array().expect("rows")),
        "delta" => {
            let [changed, removed] = ["changed", "removed"].map(|part| event.data[part].as_array().expect("a list"));
            rows.retain(|row| !changed.iter().chain(removed).any(|name| is_named(row, name)));
            rows.extend(changed.iter().cloned());
        }
        _ => {}
    }
}

/// Cuts the first whole event off; `None` while there is none.
pub fn cut(text: &mut Vec<u8>) -> Option<String> {
    let end = text.windows(2).position(|pair| pair == b"\n\n")?;
    let event = String::from_utf8(text.drain(..end + 2).collect()).expect("UTF-8");
    Some(event)
}

pub fn parse(event: &str) -> Option<Event> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = serde_json::from_str(field("data")?).unwrap_or_else(|e| panic!("{e} in {event}"));
    Some(Event { kind: field("event")?.to_owned(), id: field("id")?.to_owned(), data, bytes: event.len() })
}

impl LiveStream {
    pub async fn open(node: &TestNode, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = node.client.get(node.url(path));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.expect("answered");
        let kind = response.headers()["content-type"].to_str().expect("ASCII").to_owned();
        assert_eq!((response.status().as_u16(), kind.as_str()), (200, "text/event-stream"), "{path}");
        Self { response, text: Vec::new(), rows: Vec::new(), retry_ms: None }
    }

    /// `None` at the end of the stream.
    pub async fn next_of_any_kind(&mut self) -> Option<Event> {
        loop {
            while let Some(text) = cut(&mut self.text) {
                match parse(&text) {
                    Some(event) => return Some(event),
                    None => self.retry_ms = text.trim().strip_prefix("retry: ").and_then(|ms| ms.parse().ok()),
                }
            }
            let chunk = in_time("the stream", self.response.chunk()).await.expect("a whole stream")?;
            self.text.extend_from_slice(&chunk);
        }
    }

    /// But for heartbeats.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.next_of_any_kind().await?;
            if event.kind != "heartbeat" {
                if event.data["query"] == 0 {
                    hear(&mut self.rows, &event);
                }
                return Some(event);
            }
        }
    }

    /// Of the first query, as a client has them now.
    pub fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// Until the rows of the first query, as a client would have them, are as they should be.
    pub async fn until(&mut self, holds: impl Fn(&[Value]) -> bool) {
        while !holds(&self.rows) {
            assert!(self.next().await.is_some(), "the stream ended with {:?}", self.rows);
        }
    }
}
