//! `GET /v1/ws`: the same as `/v1/live` over a WebSocket, where queries come and go: `{"subscribe":"metric=page_view&range=1h","id":"a"}`, perhaps with
//! `"last_event_id"`, and `{"unsubscribe":"a"}`. Each message of the node has `type`: `snapshot`, `delta`, `error` or `heartbeat`, and the `id`.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tallymesh_protocol::error::{ErrorCode, Problem};

use super::watch;
use crate::clients::Clients;
use crate::http::openapi::TailProblems;
use crate::http::server::context::Peer;
use crate::http::{AppState, HttpProblem};
use crate::limits::{LIVE_ID_BYTES_MAX, LIVE_QUERIES_MAX, LIVE_SOCKET_MESSAGE_BYTES_MAX, RETRY_AFTER_MS};
use crate::live::{EventId, Kind, Message, Watcher};

/// Longest wait for the last word to a client when the node ends.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);

/// Watch answers over a WebSocket
///
/// The same as `/v1/live`, with queries that come and go. Send `{"subscribe": "metric=page_view&range=1h", "id": "a"}`, with `"last_event_id"` to go on from where an
/// earlier one was, and `{"unsubscribe": "a"}`; receive `{"type": "snapshot", "id": "a", "event_id": …, "answer": {…}}`, `{"type": "delta", "id": "a", "event_id": …,
/// "changed": […], "removed": […], "cursor": …, "receipt": {…}}`, `{"type": "error", "id": "a", "problem": {…}}`, `{"type": "heartbeat"}`. Pages of other origins
/// are refused unless `http.cors_origins` names theirs.
#[utoipa::path(
    get, path = "/v1/ws", operation_id = "watch_answers_over_websocket", tag = "query",
    responses((status = 101, description = "The socket is open."), TailProblems),
)]
pub(super) async fn get_socket(
    State(app): State<AppState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, HttpProblem> {
    check_page(&headers, &app.config.http.cors_origins)?;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let watcher = app.live.watcher()?;
    let peer = peer.map(|Extension(Peer(address))| address);
    // The connection's own place is given back when it becomes a socket.
    let place = peer.map(|address| app.clients.connect(address).ok_or_else(too_many_connections)).transpose()?;
    let client = app.clients.of(peer, &headers);
    let token = app.live.sessions().token();
    let upgrade = upgrade.max_message_size(LIVE_SOCKET_MESSAGE_BYTES_MAX).max_frame_size(LIVE_SOCKET_MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        Clients::asking(client, Session { app, watcher, socket }.run()).await;
        drop((place, token));
    }))
}

fn too_many_connections() -> Problem {
    Problem::new(ErrorCode::RateLimited, "this client has too many connections open already").retry_after_ms(RETRY_AFTER_MS)
}

/// A browser lets every page open a socket to anywhere and says only whose page it is. `*` among the origins lets pages send events; it does not let them read.
fn check_page(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.split_once("://").is_some_and(|(_, page)| host.is_some_and(|host| host.eq_ignore_ascii_case(page)));
    if is_own || origins.iter().any(|named| named != "*" && named == origin) {
        return Ok(());
    }
    let shown: String = origin.chars().take(200).collect();
    Err(Problem::new(ErrorCode::BadRequest, format!("pages of `{shown}` may not read from this node; name it in http.cors_origins"))
        .field("origin"))
}

/// What a client says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    subscribe: Option<String>,
    unsubscribe: Option<String>,
    id: Option<String>,
    last_event_id: Option<String>,
}

struct Session {
    app: AppState,
    watcher: Watcher,
    socket: WebSocket,
}

impl Session {
    async fn run(mut self) {
        let heartbeat = self.app.config.live.heartbeat.duration();
        loop {
            let text = tokio::select! {
                () = self.app.life.drained() => break,
                received = self.socket.recv() => match received {
                    Some(Ok(Frame::Text(text))) => self.hear(text.as_str()),
                    Some(Ok(Frame::Binary(_))) => Some(error(None, &bad("messages are JSON objects, as text"))),
                    // Answered by the engine.
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => None,
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                },
                message = self.watcher.next() => self.say(&message),
                () = tokio::time::sleep(heartbeat) => Some("{\"type\":\"heartbeat\"}".to_owned()),
            };
            let Some(text) = text else { continue };
            tokio::select! {
                () = self.app.life.drained() => break,
                // Nothing is read meanwhile: a client that does not read is not heard either.
                sent = self.socket.send(Frame::Text(text.into())) => if sent.is_err() {
                    return;
                },
            }
        }
        let goodbye = Frame::Close(Some(CloseFrame { code: close_code::AWAY, reason: "the node shuts down".into() }));
        // One that does not read misses it.
        let _ = tokio::time::timeout(GOODBYE_WAIT, self.socket.send(goodbye)).await;
    }

    /// Does what the client wants; what to answer at once.
    fn hear(&mut self, text: &str) -> Option<String> {
        let wish: Wish = match serde_json::from_str(text) {
            Ok(wish) => wish,
            Err(e) => return Some(error(None, &bad(&format!("the message does not parse: {e}")))),
        };
        let id = wish.id.clone().or_else(|| wish.unsubscribe.clone());
        self.follow(wish).err().map(|problem| error(id.as_deref(), &problem))
    }

    fn follow(&mut self, wish: Wish) -> Result<(), Problem> {
        match wish {
            Wish { subscribe: Some(query), unsubscribe: None, id: Some(id), last_event_id } => {
                if id.len() > LIVE_ID_BYTES_MAX {
                    return Err(bad("`id` is too long").limit(LIVE_ID_BYTES_MAX as u64));
                }
                if self.watcher.names().any(|name| name == id) {
                    return Err(bad("`id` names a query that is watched already").field("id"));
                }
                if self.watcher.names().len() == LIVE_QUERIES_MAX {
                    return Err(bad("one socket watches fewer queries").limit(LIVE_QUERIES_MAX as u64));
                }
                watch(&self.app, &mut self.watcher, id.clone(), &query)?;
                if let Some(last) = last_event_id.and_then(|last| EventId::parse(&last, 1)) {
                    self.watcher.resume_one(&id, &last);
                }
                Ok(())
            }
            Wish { subscribe: None, unsubscribe: Some(id), id: None, last_event_id: None } => {
                if self.watcher.remove(&id) {
                    Ok(())
                } else {
                    Err(bad("no query of that `id` is watched").field("unsubscribe"))
                }
            }
            _ => Err(bad("send {\"subscribe\":\"metric=page_view&range=1h\",\"id\":\"a\"} or {\"unsubscribe\":\"a\"}")),
        }
    }

    fn say(&self, message: &Message) -> Option<String> {
        #[derive(Serialize)]
        struct Head<'a> {
            r#type: &'a str,
            id: &'a str,
            event_id: Option<String>,
        }
        let kind = match message.kind {
            Kind::Snapshot | Kind::Delta => message.kind.as_str(),
            Kind::Problem => "error",
        };
        let event_id = self.watcher.event_id_of(&message.name).map(|id| id.to_string());
        let mut text = serde_json::to_string(&Head { r#type: kind, id: &message.name, event_id }).ok()?;
        // The body brings the rest of the object.
        text.pop();
        text.push(',');
        text.push_str(std::str::from_utf8(&message.body).ok()?);
        Some(text)
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(ErrorCode::BadParameter, detail)
}

fn error(id: Option<&str>, problem: &Problem) -> String {
    #[derive(Serialize)]
    struct Refusal<'a> {
        r#type: &'static str,
        id: Option<&'a str>,
        problem: &'a Problem,
    }
    // Strings and numbers always encode.
    serde_json::to_string(&Refusal { r#type: "error", id, problem }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_may_not_read_unless_they_are_named() {
        let allowed = |host: &str, origin: Option<&str>, named: &[&str]| {
            let mut headers = HeaderMap::from_iter([(HOST, host.parse().expect("a value"))]);
            headers.extend(origin.map(|origin| (ORIGIN, origin.parse().expect("a value"))));
            let named: Vec<String> = named.iter().map(|origin| (*origin).to_owned()).collect();
            check_page(&headers, &named).is_ok()
        };
        assert!(allowed("node:7070", None, &[]), "programs have no page");
        assert!(allowed("node:7070", Some("http://NODE:7070"), &[]) && allowed("node", Some("https://node"), &[]));
        assert!(allowed("node", Some("https://board.example"), &["*", "https://board.example"]));
        for (host, origin) in
            [("node", "https://evil.example"), ("node:7070", "http://node:8080"), ("node", "null"), ("node", "node"), ("", "")]
        {
            assert!(!allowed(host, Some(origin), &["*"]), "{origin}");
        }
    }
}
