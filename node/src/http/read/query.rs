//! `/v1/query` and `/v1/metrics`: requests into [`QueryParams`], answers into JSON, CSV or Arrow.

mod arrow;
mod cache;
mod catalogue;
mod gate;
mod run;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;
use tallymesh_protocol::error::{ErrorCode, Problem, nearest};
use tallymesh_protocol::limits::QUERIES_MAX;
use tallymesh_protocol::question::answer::{Answer, Receipt};
use tallymesh_protocol::question::query::{QueryParams, ResponseFormat};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{ArrowStream, QueryAnswer, QueryBody, QueryBodyProblems, QueryParameters, QueryProblems};
use super::super::{AppState, HttpProblem, small_body};

pub use cache::AnswerCache;
pub use gate::Gate;
pub(super) use run::{ask_prepared, prepare, retention_of, run, run_at, run_unasked, together};

/// Queries of one request that run at once, so that one dashboard does not take every place.
const QUERIES_AT_ONCE: usize = 4;
/// Where an answer that is no JSON object carries its receipt and cursor.
const RECEIPT: HeaderName = HeaderName::from_static("tallymesh-receipt");
pub const CURSOR: HeaderName = HeaderName::from_static("tallymesh-cursor");

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_query, post_query)).routes(routes!(catalogue::get_metrics))
}

/// Ask one question
///
/// The answer covers every acked write, and its receipt says what it covers.
#[utoipa::path(
    get, path = "/v1/query", operation_id = "query", tag = "query", params(QueryParameters),
    responses(
        (status = 200, description = "Rows by time, then group, unless `order` says otherwise; without `step` and `group_by` one row.",
            content((Answer = "application/json"), (String = "text/csv"), (ArrowStream = "application/vnd.apache.arrow.stream"))),
        QueryProblems,
    ),
)]
async fn get_query(State(app): State<AppState>, uri: Uri) -> Result<Response, HttpProblem> {
    respond(app, QueryParams::from_pairs(query_pairs(&uri)?)?).await
}

/// Decoded names and values of the query string, without `key`: that one authenticates and is no part of what is asked.
///
/// # Errors
/// 400 when it does not decode.
pub(in crate::http) fn query_pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|e| Problem::new(ErrorCode::BadRequest, format!("the query string does not decode: {}", e.body_text())))?;
    pairs.retain(|(name, _)| name != "key");
    Ok(pairs)
}

/// Refuses names that an address does not have.
///
/// # Errors
/// 422 with the nearest that it has.
pub(in crate::http) fn check_names<const N: usize>(pairs: &[(String, String)], known: [&str; N]) -> Result<(), Problem> {
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            let detail = format!("there is no parameter `{name}` here; there are {}", known.join(", "));
            Err(Problem::new(ErrorCode::BadParameter, detail).field(name.as_str()).did_you_mean(nearest(name, known)))
        }
    }
}

/// The value of a parameter that may be there once.
///
/// # Errors
/// 422 when it is there twice.
pub(in crate::http) fn once<'a>(pairs: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = pairs.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Problem::new(ErrorCode::BadParameter, format!("`{name}` is there twice")).field(name)),
    }
}

/// Ask one question or several
///
/// The same names as in the query string; lists may be arrays. Several queries stand or fall each for itself, and are answered as JSON.
#[utoipa::path(
    post, path = "/v1/query", operation_id = "post_query", tag = "query", request_body(content = QueryBody, description = "One query, or a list of them under `queries`."),
    responses(
        (status = 200, description = "The answer, or one result for each query.",
            content((QueryAnswer = "application/json"), (String = "text/csv"), (ArrowStream = "application/vnd.apache.arrow.stream"))),
        QueryBodyProblems,
    ),
)]
async fn post_query(State(app): State<AppState>, body: Body) -> Result<Response, HttpProblem> {
    let body = small_body(body).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(ErrorCode::EmptyBody, "send one query as a JSON object, or {\"queries\":[...]}").into());
    }
    let query: Value = serde_json::from_slice(&body).map_err(|e| Problem::new(ErrorCode::BadJson, e.to_string()))?;
    match query.get("queries") {
        None => respond(app, QueryParams::from_json(&query)?).await,
        Some(queries) => several(app, &query, queries).await,
    }
}

async fn respond(app: AppState, params: QueryParams) -> Result<Response, HttpProblem> {
    let (prepared, answer) = run(&app, &params).await?;
    Ok(match prepared.query.format {
        ResponseFormat::Json => json(&answer),
        ResponseFormat::Csv => {
            let mut response =
                ([(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"))], prepared.to_csv(&answer)).into_response();
            put_into_headers(&mut response, &answer.receipt, answer.cursor);
            response
        }
        ResponseFormat::Arrow => {
            let body = arrow::stream(&prepared, &answer).map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))?;
            let mut response = ([(CONTENT_TYPE, HeaderValue::from_static(arrow::MEDIA_TYPE))], body).into_response();
            put_into_headers(&mut response, &answer.receipt, answer.cursor);
            response
        }
    })
}

/// For answers whose body has no place for them.
pub(super) fn put_into_headers(response: &mut Response, receipt: &Receipt, cursor: Option<String>) {
    let receipt = serde_json::to_string(receipt).ok();
    for (name, value) in [(RECEIPT, receipt), (CURSOR, cursor)] {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}

/// One result of several: each stands or falls alone.
#[derive(Serialize)]
#[serde(untagged)]
enum QueryResult {
    Answer(Box<Answer>),
    Problem(Box<Problem>),
}

#[derive(Serialize)]
struct Results {
    results: Vec<QueryResult>,
}

async fn several(app: AppState, body: &Value, queries: &Value) -> Result<Response, HttpProblem> {
    let bad = |detail: String| Problem::new(ErrorCode::BadParameter, detail).field("queries").limit(QUERIES_MAX as u64);
    let Some(queries) = queries.as_array() else {
        return Err(bad("`queries` must be a list of query objects".to_owned()).into());
    };
    if let Some(other) = body.as_object().and_then(|o| o.keys().find(|k| *k != "queries")) {
        return Err(bad(format!("`{other}` stands beside `queries`; put it into each query")).into());
    }
    if queries.is_empty() || queries.len() > QUERIES_MAX {
        return Err(bad(format!("{} queries; one request has 1 to {QUERIES_MAX}", queries.len())).into());
    }
    let one = |query: &Value| {
        let (app, params) = (app.clone(), QueryParams::from_json(query));
        async move {
            match run_json(&app, params).await {
                Ok(answer) => QueryResult::Answer(Box::new(answer)),
                Err(problem) => QueryResult::Problem(Box::new(problem)),
            }
        }
    };
    let running: Vec<_> = queries.iter().map(one).collect();
    let results = futures::stream::iter(running).buffered(QUERIES_AT_ONCE).collect().await;
    Ok(json(&Results { results }))
}

async fn run_json(app: &AppState, params: Result<QueryParams, Problem>) -> Result<Answer, Problem> {
    let params = params?;
    if params.get("format").is_some_and(|f| f != "json") {
        return Err(Problem::new(ErrorCode::BadParameter, "several queries are answered as JSON only").field("format"));
    }
    run(app, &params).await.map(|(_, answer)| answer)
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        Err(e) => HttpProblem::from(Problem::new(ErrorCode::Internal, e.to_string())).into_response(),
    }
}

#[cfg(test)]
mod tests;
