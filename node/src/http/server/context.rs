//! Around every request: its id, its deadline for the body, its log line and metrics, and the last touch to its answer.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tower_http::catch_panic::ResponseForPanic;

use super::super::{AppState, HttpProblem};
use super::body::{DeadlineBody, Pace};
use crate::clients::Clients;
use crate::limits::REQUEST_ID_BYTES_MAX;
use crate::metrics::Metrics;
use crate::unique::UniqueNumbers;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What is read of a plain-text error of the framework, to become a problem's detail.
const PLAIN_ERROR_BYTES_MAX: usize = 4 << 10;

/// The other end of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Names a request in answers, logs and dead letters. An extractor: taken from the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The client's, if it is sane: printable ASCII of bounded length. Else a new one.
    pub fn of(request: &Request, numbers: &UniqueNumbers) -> Self {
        let sane = |id: &&str| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic());
        match request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(sane) {
            Some(id) => Self(id.to_owned()),
            None => Self(format!("{:032x}", numbers.next())),
        }
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(String::new())))
    }
}

/// The outermost layer of the router.
pub async fn frame(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request, &app.numbers);
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(id.clone());
    framed(&app, id, route.as_ref().map_or("none", |r| r.as_str()), request, |request| next.run(request)).await
}

/// What is around every request, whoever answers it.
pub async fn framed<F>(app: &AppState, id: RequestId, route: &str, request: Request, run: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let started = app.monotonic();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let version = request.version();
    let pace = Pace { limit: app.config.http.body_timeout.duration(), bytes_per_s_min: app.config.http.body_rate_min.0 };
    let request = request.map(|body| Body::new(DeadlineBody::new(body, pace)));

    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let client = app.clients.of(peer, request.headers());
    let mut response = as_problem(Clients::asking(client, run(request)).await).await;
    let problem = response.extensions_mut().remove::<HttpProblem>();
    let code = problem.as_ref().map(|p| p.0.code);
    if let Some(HttpProblem(mut problem)) = problem {
        problem.request_id = Some(id.0.clone());
        *response.body_mut() = Body::from(serde_json::to_vec(&problem).unwrap_or_default());
        response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if app.life.is_draining() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    let now = app.monotonic();
    let took = now.saturating_sub(started);
    let status = response.status();
    app.metrics.answered(route, &method, status.as_u16(), now, took);
    log(&id, &method, &path, status, code, took);
    response
}

/// Query strings are left out: keys travel in them.
fn log(id: &RequestId, method: &axum::http::Method, path: &str, status: StatusCode, code: Option<ErrorCode>, took: Duration) {
    let ms = took.as_secs_f64() * 1e3;
    let request_id = id.0.as_str();
    if matches!(code, Some(ErrorCode::Internal | ErrorCode::StorageFailed)) || status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id, %method, path, status = status.as_u16(), ?code, ms, "request failed");
    } else {
        tracing::debug!(request_id, %method, path, status = status.as_u16(), ?code, ms, "request");
    }
}

/// Turns an error that the framework made (plain text) into a problem.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_ours = response.extensions().get::<HttpProblem>().is_some()
        || response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/"));
    if !is_error || is_ours {
        return response;
    }
    let code = match status.as_u16() {
        404 => ErrorCode::NotFound,
        405 => ErrorCode::MethodNotAllowed,
        408 => ErrorCode::RequestTimeout,
        413 => ErrorCode::BodyTooLarge,
        415 => ErrorCode::UnsupportedMediaType,
        422 => ErrorCode::BadParameter,
        429 => ErrorCode::Overloaded,
        400..500 => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    };
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, PLAIN_ERROR_BYTES_MAX).await.unwrap_or_default();
    let detail = if text.is_empty() { code.title().to_owned() } else { String::from_utf8_lossy(&text).into_owned() };
    let mut made = HttpProblem::from(Problem::new(code, detail)).into_response();
    if let Some(allow) = parts.headers.get(axum::http::header::ALLOW) {
        made.headers_mut().insert(axum::http::header::ALLOW, allow.clone());
    }
    made
}

/// Runs what answers a request outside the router's layers: a panic is a problem of this one request.
pub async fn caught(metrics: &Arc<Metrics>, answering: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => Panicked(metrics.clone()).response_for_panic(panic),
    }
}

/// Answers requests whose handler panicked; the panic itself has been printed with its place.
#[derive(Clone)]
pub struct Panicked(pub Arc<Metrics>);

impl ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> Response {
        let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        tracing::error!(panic = what.as_deref().unwrap_or("unknown"), "a request ended in a panic");
        self.0.panics.add(1);
        HttpProblem::from(Problem::new(ErrorCode::Internal, "this is a bug; the request id finds it in the node's log")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    async fn broken() -> &'static str {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_of_one_request_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let router = Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(Panicked(metrics.clone())));
        for panics in 1..3 {
            let request: Request = Request::default();
            let response = router.clone().oneshot(request).await.expect("infallible");
            assert_eq!((response.status().as_u16(), metrics.panics.get()), (500, panics));
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
        let response = caught(&metrics, async { broken().await.into_response() }).await;
        assert_eq!((response.status().as_u16(), metrics.panics.get()), (500, 3), "outside the router too");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn plain_errors_of_the_framework_become_problems_and_answers_stay_as_they_are() {
        let code = |response: Response| response.extensions().get::<HttpProblem>().map(|p| p.0.code);
        let plain = (StatusCode::PAYLOAD_TOO_LARGE, "length limit exceeded").into_response();
        assert_eq!(code(as_problem(plain).await), Some(ErrorCode::BodyTooLarge));
        let own = (StatusCode::UNPROCESSABLE_ENTITY, axum::Json("{}")).into_response();
        assert_eq!(code(as_problem(own).await), None);
        assert_eq!(code(as_problem("fine".into_response()).await), None);
    }
}
