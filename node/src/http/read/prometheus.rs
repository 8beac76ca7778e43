//! `/prometheus/api/v1/*`: enough of Prometheus' interface for Grafana's own data source and `promtool query` (Q9).
//!
//! Text -> `expression` (what is asked of the shards, and what is done with it) -> `series` (windows of the shards' cells) -> `evaluate`. All of it is pure
//! but for `answer` and `lookup`, which ask. What the words mean here: `ops/grafana/README.md`.

mod answer;
mod envelope;
mod evaluate;
mod expression;
mod lookup;
mod request;
mod series;

use std::collections::BTreeMap;

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::{Outcome, answer};
pub(in crate::http) use self::envelope::ErrorBody;
use self::envelope::{Failure, Notes, QueryData, Success, success};
use self::evaluate::{Series, Value};
use self::lookup::Metadata;
use self::request::{Form, Grid};
use super::super::openapi::{
    PrometheusInstant, PrometheusLabels, PrometheusMetadata, PrometheusProblems, PrometheusRange, PrometheusSeries,
};
use super::super::{App, AppState, small_body};

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_query, post_query))
        .routes(routes!(get_query_range, post_query_range))
        .routes(routes!(get_labels, post_labels))
        .routes(routes!(get_label_values))
        .routes(routes!(get_series, post_series))
        .routes(routes!(get_metadata))
        .routes(routes!(get_buildinfo))
}

/// What a form says in the body that may also stand in the address.
#[derive(ToSchema)]
#[schema(as = PrometheusQueryForm)]
#[expect(dead_code, reason = "the document shows it; it is read by hand")]
struct QueryForm {
    query: String,
    #[schema(nullable = false)]
    time: Option<String>,
    #[schema(nullable = false)]
    start: Option<String>,
    #[schema(nullable = false)]
    end: Option<String>,
    #[schema(nullable = false)]
    step: Option<String>,
    #[schema(nullable = false)]
    timeout: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = PrometheusLookupForm)]
#[expect(dead_code, reason = "the document shows it; it is read by hand")]
struct LookupForm {
    #[schema(rename = "match[]")]
    matches: Vec<String>,
    #[schema(nullable = false)]
    start: Option<String>,
    #[schema(nullable = false)]
    end: Option<String>,
    #[schema(nullable = false)]
    limit: Option<String>,
}

/// What a request says: in its address, and with `POST` also in its body.
struct Asked(Form);

impl FromRequest<AppState> for Asked {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let body = if head.method == Method::POST { small_body(body).await? } else { Bytes::new() };
        Ok(Self(Form::read(head.uri.query().unwrap_or_default(), &body)))
    }
}

/// PromQL at one moment
///
/// A metric is an event name or a defined metric; its samples are events. A range ends with the last full minute; `increase` and `rate` count exactly and do not
/// extrapolate; a selector alone has the events of the last 5 minutes.
#[utoipa::path(
    get, path = "/prometheus/api/v1/query", operation_id = "prometheus_query", tag = "prometheus", params(PrometheusInstant),
    responses((status = 200, description = "The result.", body = Success<QueryData>), PrometheusProblems),
)]
async fn get_query(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    instant(&app, &form).await
}

/// PromQL at one moment, asked in a form
#[utoipa::path(
    post, path = "/prometheus/api/v1/query", operation_id = "post_prometheus_query", tag = "prometheus",
    request_body(content = QueryForm, content_type = "application/x-www-form-urlencoded", description = "The parameters of the `GET`."),
    responses((status = 200, description = "The result.", body = Success<QueryData>), PrometheusProblems),
)]
async fn post_query(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    instant(&app, &form).await
}

/// PromQL over time
///
/// At `start` and every `step` after it up to `end`. A selector alone has the events of the step before each point.
#[utoipa::path(
    get, path = "/prometheus/api/v1/query_range", operation_id = "prometheus_query_range", tag = "prometheus", params(PrometheusRange),
    responses((status = 200, description = "The result, a matrix.", body = Success<QueryData>), PrometheusProblems),
)]
async fn get_query_range(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    range(&app, &form).await
}

/// PromQL over time, asked in a form
#[utoipa::path(
    post, path = "/prometheus/api/v1/query_range", operation_id = "post_prometheus_query_range", tag = "prometheus",
    request_body(content = QueryForm, content_type = "application/x-www-form-urlencoded", description = "The parameters of the `GET`."),
    responses((status = 200, description = "The result, a matrix.", body = Success<QueryData>), PrometheusProblems),
)]
async fn post_query_range(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    range(&app, &form).await
}

async fn instant(app: &App, form: &Form) -> Result<Response, Failure> {
    let expression = form.expression()?;
    let grid = form.instant(app.now_ms())?;
    let time_ms = grid.times_ms.first().copied().unwrap_or_default();
    let (outcome, notes) = answer(app, expression, grid, form.timeout_ms()?).await?;
    let data = match outcome {
        Outcome::Text(text) => QueryData::text(text, time_ms),
        Outcome::Value(Value::Scalar(values)) => QueryData::scalar(values.first().copied().unwrap_or(f64::NAN), time_ms),
        Outcome::Value(Value::Vector(series)) => QueryData::vector(series, time_ms),
    };
    Ok(success(data, notes))
}

async fn range(app: &App, form: &Form) -> Result<Response, Failure> {
    let (expression, grid) = (form.expression()?, form.range()?);
    let Grid { times_ms, .. } = grid.clone();
    let (outcome, notes) = answer(app, expression, grid, form.timeout_ms()?).await?;
    let series = match outcome {
        Outcome::Text(_) => return Err(Failure::bad_data("a string has no range; it must be a scalar or a vector")),
        Outcome::Value(Value::Scalar(values)) => {
            vec![Series { labels: BTreeMap::new(), values: values.into_iter().map(Some).collect() }]
        }
        Outcome::Value(Value::Vector(series)) => series,
    };
    Ok(success(QueryData::matrix(series, &times_ms), notes))
}

/// Names of labels
#[utoipa::path(
    get, path = "/prometheus/api/v1/labels", operation_id = "prometheus_labels", tag = "prometheus", params(PrometheusLabels),
    responses((status = 200, description = "Those that the metrics have.", body = Success<Vec<String>>), PrometheusProblems),
)]
async fn get_labels(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    labels_of(&app, &form).await
}

/// Names of labels, asked in a form
#[utoipa::path(
    post, path = "/prometheus/api/v1/labels", operation_id = "post_prometheus_labels", tag = "prometheus",
    request_body(content = LookupForm, content_type = "application/x-www-form-urlencoded", description = "The parameters of the `GET`."),
    responses((status = 200, description = "Those that the metrics have.", body = Success<Vec<String>>), PrometheusProblems),
)]
async fn post_labels(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    labels_of(&app, &form).await
}

async fn labels_of(app: &App, form: &Form) -> Result<Response, Failure> {
    Ok(success(lookup::labels(app, form).await?, Notes::default()))
}

/// Values of a label
///
/// Those that events of the time had, the last day if no time is named; of `__name__` the metrics.
#[utoipa::path(
    get, path = "/prometheus/api/v1/label/{name}/values", operation_id = "prometheus_label_values", tag = "prometheus",
    params(("name" = String, Path, description = "The label."), PrometheusLabels),
    responses((status = 200, description = "In order.", body = Success<Vec<String>>), PrometheusProblems),
)]
async fn get_label_values(State(app): State<AppState>, Path(name): Path<String>, Asked(form): Asked) -> Result<Response, Failure> {
    let mut notes = Notes::default();
    let values = lookup::label_values(&app, &name, &form, &mut notes).await?;
    Ok(success(values, notes))
}

/// Series
///
/// Labels of the series that had events in the time, the last day if no time is named.
#[utoipa::path(
    get, path = "/prometheus/api/v1/series", operation_id = "prometheus_series", tag = "prometheus", params(PrometheusSeries),
    responses((status = 200, description = "In order.", body = Success<Vec<BTreeMap<String, String>>>), PrometheusProblems),
)]
async fn get_series(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    series_of(&app, &form).await
}

/// Series, asked in a form
#[utoipa::path(
    post, path = "/prometheus/api/v1/series", operation_id = "post_prometheus_series", tag = "prometheus",
    request_body(content = LookupForm, content_type = "application/x-www-form-urlencoded", description = "The parameters of the `GET`."),
    responses((status = 200, description = "In order.", body = Success<Vec<BTreeMap<String, String>>>), PrometheusProblems),
)]
async fn post_series(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    series_of(&app, &form).await
}

async fn series_of(app: &App, form: &Form) -> Result<Response, Failure> {
    let mut notes = Notes::default();
    let series = lookup::series(app, form, &mut notes).await?;
    Ok(success(series, notes))
}

/// What the metrics count
#[utoipa::path(
    get, path = "/prometheus/api/v1/metadata", operation_id = "prometheus_metadata", tag = "prometheus", params(PrometheusMetadata),
    responses((status = 200, description = "By metric.", body = Success<BTreeMap<String, Vec<Metadata>>>), PrometheusProblems),
)]
async fn get_metadata(State(app): State<AppState>, Asked(form): Asked) -> Result<Response, Failure> {
    let metadata = lookup::metadata(&app, &form).await?;
    Ok(success(metadata, Notes::default()))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PrometheusBuildInfo)]
struct BuildInfo {
    /// Of the Prometheus whose interface this resembles: Grafana chooses by it what it asks.
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    #[serde(rename = "buildUser")]
    build_user: &'static str,
    #[serde(rename = "buildDate")]
    build_date: &'static str,
    #[serde(rename = "goVersion")]
    go_version: &'static str,
}

/// Which Prometheus this resembles
#[utoipa::path(
    get, path = "/prometheus/api/v1/status/buildinfo", operation_id = "prometheus_buildinfo", tag = "prometheus",
    responses((status = 200, description = "Its version; `revision` is the node's own.", body = Success<BuildInfo>), PrometheusProblems),
)]
async fn get_buildinfo() -> impl IntoResponse {
    let info = BuildInfo {
        version: "2.42.0",
        revision: concat!("tallymesh-", env!("CARGO_PKG_VERSION")),
        branch: "",
        build_user: "",
        build_date: "",
        go_version: "",
    };
    success(info, Notes::default())
}
