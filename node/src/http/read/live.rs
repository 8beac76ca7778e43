//! `GET /v1/live?query=Q&query=Q`: the answers of several queries and what changes in them, as server-sent events; each Q is the query string of a
//! `GET /v1/query`, percent-encoded once more.
//!
//! `event: snapshot` has a whole answer, `event: delta` the rows that changed and the names (time, group) of those that went, `event: problem` why there is
//! no newer answer for now, `event: heartbeat` nothing but its id. The stream ends when the node drains; a client that comes again with `Last-Event-ID`
//! is told what changed meanwhile, if that is known.

mod socket;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::question::answer::Answer;
use tallymesh_protocol::question::query::QueryParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{LiveParameters, LiveProblems};
use super::super::{App, AppState, HttpProblem};
use super::query::{check_names, once, prepare, query_pairs, run_unasked};
use crate::boot::life::Life;
use crate::limits::{LIVE_COPIED_BYTES_MAX, LIVE_QUERIES_MAX, LIVE_RECONNECT_MS, LIVE_RECONNECT_SPREAD_MS, LIVE_ROWS_MAX};
use crate::live::{EventId, Message, Source, Watcher};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies not to collect the stream before they pass it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Parameters of a query that mean nothing for one that is watched: they do not make it another one.
const NOT_LIVE: [&str; 4] = ["timeout_ms", "token", "cache", "format"];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_live)).routes(routes!(socket::get_socket))
}

/// The hub's view of the node.
#[derive(Clone)]
struct Node(AppState);

impl Source for Node {
    fn changes(&self) -> u64 {
        self.0.mesh.changes()
    }

    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn evaluate(&self, params: &QueryParams, now_ms: i64) -> Result<Answer, Problem> {
        run_unasked(&self.0, params, now_ms).await
    }
}

/// Keeps what is watched up to date until the node drains.
pub async fn keep_live(app: AppState) {
    let (hub, life) = (app.live.clone(), app.life.clone());
    hub.clone().run(Node(app), life).await;
    let sessions = hub.sessions();
    sessions.close();
    sessions.wait().await;
}

/// Lets `watcher` watch the query that `text`, a query string, says.
///
/// # Errors
/// As `GET /v1/query`, as far as no shard has to be asked; 422 for what cannot be watched, 429 when too much is.
fn watch(app: &App, watcher: &mut Watcher, name: String, text: &str) -> Result<(), Problem> {
    let _own_place = app.clients.admit_query()?;
    let asked: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().filter(|(name, _)| name != "key").collect();
    let params = QueryParams::from_pairs(asked.iter().cloned())?;
    let refused = |field: &str, detail: &str| Problem::new(ErrorCode::BadParameter, detail).field(field);
    if params.get("cursor").is_some() {
        return Err(refused("cursor", "a live query has no pages: raise `limit`"));
    }
    if params.get("format").is_some_and(|format| format != "json") {
        return Err(refused("format", "live answers are JSON"));
    }
    if prepare(app, &params, app.now_ms())?.query.limit > LIVE_ROWS_MAX {
        return Err(refused("limit", "a live query has fewer rows").limit(LIVE_ROWS_MAX as u64));
    }
    let params = QueryParams::from_pairs(asked.into_iter().filter(|(name, _)| !NOT_LIVE.contains(&name.as_str())))?;
    app.live.watch(watcher, name, params.question(), params)
}

/// One of the stream.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what is written piece by piece")]
struct LiveEvent {
    #[schema(pattern = "^(snapshot|delta|problem|heartbeat)$")]
    event: String,
    /// Where the stream is; `Last-Event-ID` of a client that comes again.
    id: String,
    /// JSON.
    data: String,
}

/// Watch answers
///
/// The answers of several queries, and what changes in them within a second, as server-sent events. `event: snapshot` has `{"query": i, "answer": {…}}`; `event: delta`
/// has `{"query": i, "changed": […], "removed": […], "cursor": …, "receipt": {…}}`: whole rows that are new or changed, and time and group of those that went, which
/// is also what tells rows apart; their order is that of the query. `event: problem` has `{"query": i, "problem": {…}}`: there is no newer answer until the next event of that
/// query. `event: heartbeat` comes when there was nothing else for a while. A client that comes again with the last `id` is told what changed meanwhile, if the node
/// knows; else it gets a snapshot. One that reads slowly is told of several changes at once.
#[utoipa::path(
    get, path = "/v1/live", operation_id = "watch_answers", tag = "query", params(LiveParameters),
    responses((status = 200, description = "A stream without end, of such events.", body = LiveEvent, content_type = "text/event-stream"), LiveProblems),
)]
async fn get_live(State(app): State<AppState>, uri: Uri, headers: HeaderMap) -> Result<Response, HttpProblem> {
    let pairs = query_pairs(&uri)?;
    check_names(&pairs, ["query", "last_event_id"])?;
    let queries: Vec<&str> = pairs.iter().filter(|(name, _)| name == "query").map(|(_, text)| text.as_str()).collect();
    if queries.is_empty() || queries.len() > LIVE_QUERIES_MAX {
        let detail =
            format!("{} queries; one stream watches 1 to {LIVE_QUERIES_MAX}, as query=metric%3Dpage_view%26range%3D1h", queries.len());
        return Err(Problem::new(ErrorCode::BadParameter, detail).field("query").limit(LIVE_QUERIES_MAX as u64).into());
    }
    let mut watcher = app.live.watcher()?;
    for (i, text) in queries.iter().enumerate() {
        watch(&app, &mut watcher, i.to_string(), text).map_err(|problem| about_query(i, problem))?;
    }
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    if let Some(id) = last.or(once(&pairs, "last_event_id")?).and_then(|id| EventId::parse(id, LIVE_QUERIES_MAX)) {
        watcher.resume(&id);
    }
    let spread_ms = app.numbers.next() as u64 % LIVE_RECONNECT_SPREAD_MS;
    let first = format!("retry: {}\n\n", LIVE_RECONNECT_MS + spread_ms);
    let stream = EventStream {
        watcher,
        life: app.life.clone(),
        heartbeat: app.config.live.heartbeat.duration(),
        waiting: VecDeque::from([Bytes::from(first)]),
    };
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store"), (ACCEL_BUFFERING, "no")];
    Ok((headers, Body::from_stream(stream.into_stream())).into_response())
}

/// Says which of the queries it is.
fn about_query(i: usize, mut problem: Problem) -> Problem {
    problem.detail = format!("query {i}: {}", problem.detail);
    problem.field = Some(problem.field.map_or_else(|| format!("query[{i}]"), |field| format!("query[{i}].{field}")));
    problem
}

struct EventStream {
    watcher: Watcher,
    life: Life,
    heartbeat: Duration,
    /// Of one event at most, in pieces.
    waiting: VecDeque<Bytes>,
}

impl EventStream {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures::stream::unfold(self, |mut stream| async move { stream.next().await.map(|piece| (Ok(piece), stream)) })
    }

    /// Only called when the connection has room, so that nothing is said that was not news a moment ago.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.waiting.pop_front() {
            return Some(piece);
        }
        tokio::select! {
            () = self.life.drained() => None,
            message = self.watcher.next() => {
                self.say(&message);
                self.waiting.pop_front()
            }
            () = tokio::time::sleep(self.heartbeat) => {
                Some(format!("event: heartbeat\nid: {}\ndata: {{}}\n\n", self.watcher.event_id()).into())
            }
        }
    }

    fn say(&mut self, message: &Message) {
        // JSON has no line break that could end the field early.
        let head =
            format!("event: {}\nid: {}\ndata: {{\"query\":{},", message.kind.as_str(), self.watcher.event_id(), message.name).into_bytes();
        if message.body.len() <= LIVE_COPIED_BYTES_MAX {
            self.waiting.push_back([&head, &message.body[..], b"\n\n"].concat().into());
        } else {
            self.waiting.extend([head.into(), message.body.clone(), Bytes::from_static(b"\n\n")]);
        }
    }
}
