//! `GET /v1/dead-letters` and `POST /v1/dead-letters/retry`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::Rejection;
use tallymesh_protocol::time::rfc3339;
use tallymesh_storage::dead_letters::DeadLetter;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{ListParameters, RetryProblems, RetryRequest, StoredProblems};
use super::super::read::query::{check_names, once, query_pairs};
use super::super::{AppState, HttpProblem, small_body};
use crate::ingest::retry::{Retried, Selection};
use crate::limits::{DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, RETRY_IDS_MAX};

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

const PARAMETERS: [&str; 2] = ["limit", "cursor"];

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterPage)]
struct Page {
    /// Newest first.
    data: Vec<Shown>,
    /// For the next page; null after the last.
    #[schema(required)]
    cursor: Option<String>,
    total: u64,
    bytes: u64,
    /// Letters that had to make room for newer ones.
    dropped: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct Shown {
    id: String,
    #[schema(format = DateTime)]
    arrived: String,
    #[serde(flatten)]
    rejection: Rejection,
    request_id: String,
    index: u32,
    /// `raw` is cut: the letter cannot be sent again.
    truncated: bool,
    /// The event as received.
    raw: String,
}

impl From<DeadLetter> for Shown {
    fn from(dead: DeadLetter) -> Self {
        let letter = dead.letter;
        Self {
            id: dead.id.to_string(),
            arrived: rfc3339(letter.arrived_ms),
            rejection: letter.rejection,
            request_id: letter.request_id,
            index: letter.index,
            truncated: letter.truncated,
            raw: String::from_utf8_lossy(&letter.raw).into_owned(),
        }
    }
}

/// Refused events
///
/// Newest first, with the reason and the event as it came.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters", params(ListParameters),
    responses((status = 200, description = "One page.", body = Page), StoredProblems),
)]
async fn list(State(app): State<AppState>, uri: Uri) -> Result<Json<Page>, HttpProblem> {
    let pairs = query_pairs(&uri)?;
    check_names(&pairs, PARAMETERS)?;
    let limit = match once(&pairs, "limit")? {
        None => DEAD_LETTERS_PAGE_DEFAULT,
        Some(text) => text.parse().ok().filter(|n| (1..=DEAD_LETTERS_PAGE_MAX).contains(n)).ok_or_else(|| {
            Problem::new(ErrorCode::BadParameter, format!("`limit` is 1 to {DEAD_LETTERS_PAGE_MAX}"))
                .field("limit")
                .limit(DEAD_LETTERS_PAGE_MAX as u64)
        })?,
    };
    let before = match once(&pairs, "cursor")? {
        None => None,
        Some(text) => Some(
            text.parse::<u64>()
                .map_err(|_| Problem::new(ErrorCode::BadParameter, "`cursor` is not one that this page gave").field("cursor"))?,
        ),
    };
    let store = app.dead_letters.clone();
    // One more than asked for tells whether there is another page.
    let letters = tokio::task::spawn_blocking(move || store.list(before, limit + 1)).await;
    let mut letters = match letters {
        Ok(Ok(letters)) => letters,
        Ok(Err(e)) => return Err(Problem::new(ErrorCode::StorageFailed, e.to_string()).into()),
        Err(e) => return Err(Problem::new(ErrorCode::Internal, e.to_string()).into()),
    };
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let cursor = letters.last().filter(|_| has_more).map(|l| l.id.to_string());
    let stats = app.dead_letters.stats();
    Ok(Json(Page {
        data: letters.into_iter().map(Shown::from).collect(),
        cursor,
        total: stats.count,
        bytes: stats.bytes,
        dropped: stats.dropped,
    }))
}

/// An empty body or `{}` means all.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    ids: Option<Vec<LetterId>>,
}

/// As listed (text), or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum LetterId {
    Number(u64),
    Text(String),
}

impl LetterId {
    fn number(self) -> Result<u64, Problem> {
        match self {
            Self::Number(id) => Ok(id),
            Self::Text(text) => text
                .parse()
                .map_err(|_| Problem::new(ErrorCode::BadParameter, format!("`{text}` is not the id of a dead letter")).field("ids")),
        }
    }
}

/// Send refused events again
///
/// Those that are counted now leave the store. Doing it twice counts once.
#[utoipa::path(
    post, path = "/v1/dead-letters/retry", operation_id = "retry_dead_letters", tag = "dead letters", request_body(content = Option<RetryRequest>, description = "Nothing means all."),
    responses((status = 200, description = "What became of them.", body = Retried), RetryProblems),
)]
async fn retry(State(app): State<AppState>, body: Body) -> Result<Json<Retried>, HttpProblem> {
    let bytes = small_body(body).await?;
    let asked: RetryBody = if bytes.trim_ascii().is_empty() {
        RetryBody::default()
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|e| Problem::new(ErrorCode::BadJson, format!("{e}; send {{\"ids\":[...]}}, or nothing for all")))?
    };
    let selection = match asked.ids {
        None => Selection::All,
        Some(ids) if ids.len() > RETRY_IDS_MAX => {
            let detail = format!("{} ids, at most {RETRY_IDS_MAX}", ids.len());
            return Err(Problem::new(ErrorCode::BadParameter, detail).field("ids").limit(RETRY_IDS_MAX as u64).into());
        }
        Some(ids) => Selection::Ids(ids.into_iter().map(LetterId::number).collect::<Result<_, _>>()?),
    };
    Ok(Json(app.ingest.retry(selection).await?))
}
