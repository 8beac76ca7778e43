//! What Prometheus' clients expect around answers and errors.

use std::collections::BTreeMap;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use tallymesh_protocol::error::{ErrorCode, Problem};
use utoipa::ToSchema;

use super::evaluate::Series;
use crate::limits::RETRY_AFTER_MS;

/// An error in Prometheus' terms: its status, its type and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: u16,
    pub kind: &'static str,
    pub detail: String,
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// The request or its expression cannot be understood.
    pub fn bad_data(detail: impl Into<String>) -> Self {
        Self { status: 400, kind: "bad_data", detail: detail.into(), retry_after_ms: None }
    }

    /// It was understood, and cannot be computed.
    pub fn execution(detail: impl Into<String>) -> Self {
        Self { status: 422, kind: "execution", detail: detail.into(), retry_after_ms: None }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let guess = problem.did_you_mean.map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
        let (status, kind) = match problem.code {
            ErrorCode::RequestTimeout | ErrorCode::QueryTimeout => (503, "timeout"),
            ErrorCode::BodyTooLarge => (413, "bad_data"),
            ErrorCode::NotFound | ErrorCode::UnknownMetric => (404, "not_found"),
            code if code.is_retryable() => (503, "unavailable"),
            _ => match problem.status {
                422 => (422, "execution"),
                400..500 => (400, "bad_data"),
                _ => (500, "internal"),
            },
        };
        let retry_after_ms = (status == 503).then(|| problem.retry_after_ms.unwrap_or(RETRY_AFTER_MS));
        Self { status, kind, detail: format!("{}: {}{guess}", problem.title, problem.detail), retry_after_ms }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody { status: ErrorStatus::Error, error_type: self.kind, error: self.detail };
        let mut response = json(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body);
        if let Some(ms) = self.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        response
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ErrorStatus {
    Error,
}

/// An error as Prometheus' clients read it.
#[derive(Serialize, ToSchema)]
#[schema(as = PrometheusError)]
pub(in crate::http) struct ErrorBody {
    status: ErrorStatus,
    #[serde(rename = "errorType")]
    #[schema(example = "bad_data")]
    error_type: &'static str,
    error: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SuccessStatus {
    Success,
}

/// What belongs to an answer beside its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The answer is not all that the question may have meant.
    pub warnings: Vec<String>,
    /// How the question was read.
    pub infos: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Success<T> {
    status: SuccessStatus,
    data: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    infos: Vec<String>,
}

pub(super) fn success(data: impl Serialize, mut notes: Notes) -> Response {
    notes.warnings.dedup();
    notes.infos.dedup();
    json(StatusCode::OK, &Success { status: SuccessStatus::Success, data, warnings: notes.warnings, infos: notes.infos })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ResultType {
    Matrix,
    Vector,
    Scalar,
    String,
}

/// The result of an expression.
#[derive(Serialize, ToSchema)]
#[schema(as = PrometheusResult)]
pub(super) struct QueryData {
    #[serde(rename = "resultType")]
    result_type: ResultType,
    /// By the type: series with `values`, series with a `value`, or a `[time, value]` of its own.
    #[schema(value_type = Vec<serde_json::Value>)]
    result: Shape,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shape {
    Matrix(Vec<MatrixSeries>),
    Vector(Vec<VectorSeries>),
    Sample(Sample<Number>),
    Text(Sample<String>),
}

#[derive(Serialize)]
struct MatrixSeries {
    metric: BTreeMap<String, String>,
    values: Vec<Sample<Number>>,
}

#[derive(Serialize)]
struct VectorSeries {
    metric: BTreeMap<String, String>,
    value: Sample<Number>,
}

impl QueryData {
    /// A range query's answer; steps without a value are left out.
    pub fn matrix(series: Vec<Series>, times_ms: &[i64]) -> Self {
        let one = |series: Series| {
            let samples = times_ms.iter().zip(series.values).filter_map(|(t, v)| Some(Sample(*t, Number(v?))));
            MatrixSeries { metric: series.labels, values: samples.collect() }
        };
        let rows = series.into_iter().map(one).filter(|s| !s.values.is_empty()).collect();
        Self { result_type: ResultType::Matrix, result: Shape::Matrix(rows) }
    }

    /// What is there at one moment.
    pub fn vector(series: Vec<Series>, time_ms: i64) -> Self {
        let one = |series: Series| {
            let value = series.values.first().copied().flatten()?;
            Some(VectorSeries { metric: series.labels, value: Sample(time_ms, Number(value)) })
        };
        Self { result_type: ResultType::Vector, result: Shape::Vector(series.into_iter().filter_map(one).collect()) }
    }

    pub fn scalar(value: f64, time_ms: i64) -> Self {
        Self { result_type: ResultType::Scalar, result: Shape::Sample(Sample(time_ms, Number(value))) }
    }

    pub fn text(text: String, time_ms: i64) -> Self {
        Self { result_type: ResultType::String, result: Shape::Text(Sample(time_ms, text)) }
    }
}

/// `[1767268800, "12.5"]`
struct Sample<T>(i64, T);

impl<T: Serialize> Serialize for Sample<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_seq(Some(2))?;
        if self.0 % 1_000 == 0 {
            pair.serialize_element(&(self.0 / 1_000))?;
        } else {
            pair.serialize_element(&(self.0 as f64 / 1e3))?;
        }
        pair.serialize_element(&self.1)?;
        pair.end()
    }
}

/// As Prometheus writes numbers: text, so that what JSON has no number for has its place.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            v if v.is_nan() => serializer.serialize_str("NaN"),
            v if v.is_infinite() => serializer.serialize_str(if v > 0.0 { "+Inf" } else { "-Inf" }),
            v => serializer.collect_str(&v),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_does() {
        let written = |t, v| serde_json::to_string(&Sample(t, Number(v))).expect("JSON");
        assert_eq!(written(1_767_268_800_000, 12.0), r#"[1767268800,"12"]"#);
        assert_eq!(written(1_767_268_800_250, 0.1), r#"[1767268800.25,"0.1"]"#);
        assert_eq!(written(-1_000, f64::NAN), r#"[-1,"NaN"]"#);
        assert_eq!(written(0, f64::NEG_INFINITY), r#"[0,"-Inf"]"#);
        assert_eq!(written(0, f64::INFINITY), r#"[0,"+Inf"]"#);
    }

    #[test]
    fn problems_keep_their_meaning() {
        for (code, status, kind) in [
            (ErrorCode::QueryTimeout, 503, "timeout"),
            (ErrorCode::Overloaded, 503, "unavailable"),
            (ErrorCode::ShardUnavailable, 503, "unavailable"),
            (ErrorCode::UnknownDimension, 422, "execution"),
            (ErrorCode::BadRequest, 400, "bad_data"),
            (ErrorCode::Internal, 500, "internal"),
        ] {
            let failure = Failure::from(Problem::new(code, "why"));
            assert_eq!((failure.status, failure.kind, failure.retry_after_ms.is_some()), (status, kind, status == 503), "{code:?}");
        }
    }
}
