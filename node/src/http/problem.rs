//! Errors as `application/problem+json` (RFC 9457). A handler returns `Result<_, HttpProblem>`; the request id is filled in on the way out.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tallymesh_protocol::error::{ErrorCode, Problem};

pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem on its way to a client.
#[derive(Clone, Debug)]
pub struct HttpProblem(pub Box<Problem>);

impl From<Problem> for HttpProblem {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(ms) = self.0.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// For routes that exist, but not with this method.
pub async fn method_not_allowed() -> HttpProblem {
    Problem::new(ErrorCode::MethodNotAllowed, "the `Allow` header lists what works here").into()
}
