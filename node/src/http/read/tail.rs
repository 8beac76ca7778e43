//! `GET /v1/tail?filter=`: accepted events as they come, as server-sent events.
//!
//! `event: event` carries one event, `event: lagged` how many were lost because the client was slow. The stream ends when the node drains.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use tallymesh_actors::tail::{TAIL_FIELDS, Watched, Watcher};
use tallymesh_protocol::definition::FieldRef;
use tallymesh_protocol::error::{ErrorCode, Problem, nearest};
use tallymesh_protocol::limits::FILTERS_MAX;
use tallymesh_protocol::question::filter::Filter;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{TailParameters, TailProblems};
use super::super::{AppState, HttpProblem};
use crate::boot::life::Life;
use crate::limits::RETRY_AFTER_MS;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(tail))
}

/// Watch events
///
/// Accepted events as they come, as server-sent events: `event: event` with one event as JSON, `event: lagged` with `{"missed": n}` when the client was too slow.
#[utoipa::path(
    get, path = "/v1/tail", operation_id = "watch_events", tag = "query", params(TailParameters),
    responses((status = 200, description = "A stream without end.", body = String, content_type = "text/event-stream"), TailProblems),
)]
async fn tail(
    State(app): State<AppState>,
    Query(params): Query<Vec<(String, String)>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, HttpProblem> {
    let filters = filters_of(&params)?;
    let watcher = app.tail.watch().ok_or_else(|| {
        let limit = app.config.tail.subscribers_max;
        Problem::new(ErrorCode::Overloaded, format!("{limit} clients watch already")).limit(limit as u64).retry_after_ms(RETRY_AFTER_MS)
    })?;
    let stream = futures::stream::unfold((watcher, filters, app.life.clone()), |(mut watcher, filters, life)| async move {
        let event = next(&mut watcher, &filters, &life).await?;
        Some((Ok(event), (watcher, filters, life)))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(watcher: &mut Watcher, filters: &[Filter], life: &Life) -> Option<Event> {
    loop {
        let watched = tokio::select! {
            watched = watcher.next() => watched,
            () = life.drained() => return None,
        };
        match watched {
            Watched::Event(event) if event.passes(filters) => {
                // JSON on one line: no line break can end the field early.
                return Some(Event::default().event("event").data(String::from_utf8_lossy(&event.json)));
            }
            Watched::Event(_) => {}
            Watched::Missed(count) => return Some(Event::default().event("lagged").data(format!("{{\"missed\":{count}}}"))),
            Watched::Closed => return None,
        }
    }
}

fn filters_of(params: &[(String, String)]) -> Result<Vec<Filter>, Problem> {
    let bad = |field: &str, detail: String| Problem::new(ErrorCode::BadParameter, detail).field(field);
    let mut filters = Vec::new();
    for (name, text) in params {
        if name != "filter" {
            return Err(bad(name, format!("`{name}` is not a parameter of this page")).did_you_mean(nearest(name, ["filter"])));
        }
        let filter = Filter::parse(text).map_err(|e| bad("filter", e.to_string()))?;
        let is_known = match FieldRef::parse(&filter.dimension) {
            FieldRef::Event | FieldRef::Source | FieldRef::DeviceType | FieldRef::CountryCode | FieldRef::UserId | FieldRef::SessionId => {
                true
            }
            FieldRef::Value | FieldRef::SchemaVersion | FieldRef::Property(_) => false,
        };
        if !is_known {
            let detail = format!("`{}` cannot be filtered here; {} can", filter.dimension, TAIL_FIELDS.join(", "));
            return Err(bad("filter", detail).did_you_mean(nearest(&filter.dimension, TAIL_FIELDS)));
        }
        filters.push(filter);
        if filters.len() > FILTERS_MAX {
            return Err(bad("filter", format!("more than {FILTERS_MAX} filters")).limit(FILTERS_MAX as u64));
        }
    }
    Ok(filters)
}
