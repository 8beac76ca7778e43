//! `POST /v1/events` and its alias `/events`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN,
    RETRY_AFTER, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::body::BodyFormat;
use tallymesh_protocol::limits::DIMENSION_BYTES_MAX;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{EventBody, IngestHeaders, IngestProblems};
use super::super::problem::method_not_allowed;
use super::super::{App, AppState, HttpProblem, RequestId, discard};
use crate::ingest::decode::Encoding;
use crate::ingest::{Ack, AckStatus, IngestRequest};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SCHEMA_VERSION: [HeaderName; 2] = [HeaderName::from_static("schema-version"), HeaderName::from_static("x-schema-version")];
pub const PATH: &str = "/v1/events";
/// As the route's layer for other origins says.
const VARIES: HeaderValue = HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id,retry-after");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Browsers may send events from other origins; everything else is same-origin, so that a web page cannot read this node's numbers.
pub fn router(origins: &[String]) -> OpenApiRouter<AppState> {
    let origin = if origins.iter().any(|o| o == "*") {
        AllowOrigin::any()
    } else {
        // Checked at boot to be header values.
        AllowOrigin::list(origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()))
    };
    let cors = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::POST])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            CONTENT_ENCODING,
            IDEMPOTENCY_KEY,
            REQUEST_ID,
            SCHEMA_VERSION[0].clone(),
            SCHEMA_VERSION[1].clone(),
        ])
        .expose_headers([REQUEST_ID, RETRY_AFTER])
        .max_age(std::time::Duration::from_secs(3_600));
    let (routes, description) =
        OpenApiRouter::with_openapi(Default::default()).routes(routes!(post_events)).routes(routes!(post_events_alias)).split_for_parts();
    // Said here already: a fallback set outside would stand before the layer, and preflight requests would end in it.
    let routes = routes.method_not_allowed_fallback(method_not_allowed).layer(cors);
    OpenApiRouter::with_openapi(description).merge(routes.into())
}

/// Whether the answer is the same without the router. Pages of other origins need more.
pub fn goes_directly(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path() == PATH && !request.headers().contains_key(ORIGIN)
}

/// What the route answers to a request that [`goes_directly`].
pub async fn directly(app: &AppState, request_id: RequestId, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = post_events(State(app.clone()), request_id, parts.headers, body).await.into_response();
    let headers = response.headers_mut();
    headers.insert(VARY, VARIES);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if app.config.http.cors_origins.iter().any(|origin| origin == "*") {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// Send events
///
/// A JSON array, one object, or one object a line. The answer comes when every event is durable and can be queried. Every error is safe to retry whole when the
/// events have ids, or the request an `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/events", operation_id = "send_events", tag = "ingest", params(IngestHeaders),
    request_body(content((EventBody = "application/json"), (String = "application/x-ndjson"), (String = "text/plain")),
        description = "Events. `application/ndjson` and `application/jsonl` are lines too; `text/plain`, and a body without a type, is read as JSON."),
    responses(
        (status = 200, description = "Counted, or counted before. Refused events are listed.", body = Ack),
        (status = 422, description = "Every event was refused; the body says why.", body = Ack),
        IngestProblems,
    ),
)]
async fn post_events(
    State(app): State<AppState>,
    request_id: RequestId,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Response, HttpProblem> {
    match take(&app, request_id, &headers, &mut body).await {
        Ok(ack) => Ok(answer(ack)),
        // Who was cut for being slow is not listened to any longer.
        Err(problem) if problem.code == ErrorCode::RequestTimeout => Err(problem.into()),
        Err(problem) => {
            // A client that is still sending would see its connection break instead of the answer. Twice the limit, so that a body just past it is read out.
            let bytes_max = app.config.ingest.encoded_bytes_max.as_usize().saturating_mul(2);
            discard(&mut body, bytes_max, app.config.http.body_rate_min_busy.0).await;
            Err(problem.into())
        }
    }
}

/// Send events
///
/// The same as `/v1/events`.
#[utoipa::path(
    post, path = "/events", operation_id = "send_events_first_system", tag = "first system", params(IngestHeaders),
    request_body(content((EventBody = "application/json"), (String = "application/x-ndjson"), (String = "text/plain")), description = "Events."),
    responses(
        (status = 200, description = "Counted, or counted before. Refused events are listed.", body = Ack),
        (status = 422, description = "Every event was refused; the body says why.", body = Ack),
        IngestProblems,
    ),
)]
async fn post_events_alias(state: State<AppState>, request_id: RequestId, headers: HeaderMap, body: Body) -> Result<Response, HttpProblem> {
    post_events(state, request_id, headers, body).await
}

async fn take(app: &App, request_id: RequestId, headers: &HeaderMap, body: &mut Body) -> Result<Ack, Problem> {
    let request = IngestRequest {
        format: format_of(headers)?,
        encoding: encoding_of(headers)?,
        content_length: headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()),
        idempotency_key: idempotency_key(headers)?,
        schema_version: schema_version(headers)?,
        request_id: request_id.0,
    };
    app.ingest.accept(request, body).await
}

fn answer(ack: Ack) -> Response {
    let status = match ack.status {
        AckStatus::Accepted => StatusCode::OK,
        AckStatus::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, Json(ack)).into_response()
}

/// Without a content type the body is taken for JSON; so is `text/plain`, which is what `navigator.sendBeacon` sends.
fn format_of(headers: &HeaderMap) -> Result<BodyFormat, Problem> {
    let text = match headers.get(CONTENT_TYPE) {
        None => return Ok(BodyFormat::Json),
        Some(value) => value.to_str().unwrap_or("?"),
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" | "text/plain" | "text/json" => Ok(BodyFormat::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(BodyFormat::NdJson),
        other => {
            let shown: String = other.chars().take(100).collect();
            Err(Problem::new(
                ErrorCode::UnsupportedMediaType,
                format!("`{shown}` is not supported; send `Content-Type: application/json` or `application/x-ndjson`"),
            )
            .field("Content-Type"))
        }
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let first = values.next().map(|v| v.to_str().unwrap_or("?"));
    if values.next().is_some() {
        return Err(
            Problem::new(ErrorCode::UnsupportedEncoding, "one encoding at most: gzip, zstd, lz4 or identity").field("Content-Encoding")
        );
    }
    Encoding::parse(first)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(
            ErrorCode::BadRequest,
            format!("an idempotency key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"),
        )
        .field("Idempotency-Key")
        .limit(IDEMPOTENCY_KEY_BYTES_MAX as u64)),
    }
}

/// The schema version of events that name none themselves.
fn schema_version(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let bad = |name: &HeaderName, detail: String| Problem::new(ErrorCode::BadRequest, detail).field(name.as_str());
    let mut found: Option<&str> = None;
    for name in &SCHEMA_VERSION {
        for value in headers.get_all(name) {
            let text = value.to_str().ok().map(str::trim).filter(|text| text.len() <= DIMENSION_BYTES_MAX);
            let text = text.ok_or_else(|| {
                bad(name, format!("a schema version is at most {DIMENSION_BYTES_MAX} printable ASCII characters here"))
                    .limit(DIMENSION_BYTES_MAX as u64)
            })?;
            if found.is_some_and(|other| other != text) {
                return Err(bad(name, "the request names two schema versions".to_owned()));
            }
            found = Some(text);
        }
    }
    Ok(found.filter(|text| !text.is_empty()).map(str::to_owned))
}
